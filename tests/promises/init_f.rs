//! L01 to L08: what `init_f` can rely on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use harness::{Client, Host, Setup, fixture, is_root, processes};

use crate::{E_INVALID, E_PHASE, PROC_INIT};

#[test]
fn l01_init_f_runs_after_daemonising() {
    let setup = Setup::new();
    let record = setup.folder().join("record").display().to_string();
    // The file with the constructor is listed last, and is loaded before the first init_f all the
    // same.
    let setup = setup.environment("RECORD", &record).module(fixture("recorder_a")).module(fixture("constructor"));
    let (host, started) = setup.daemon();
    assert_eq!((started.code, started.errors.as_str()), (0, ""), "{}", host.report());

    let supervisor: i32 = fs::read_to_string(host.path("pid")).unwrap().trim().parse().unwrap();
    let records = host.records();
    let init = records.event("init_f")[0];
    assert_eq!(init.number("ppid"), i64::from(supervisor));
    assert_eq!(init.number("sid"), i64::from(supervisor), "the session is the daemon's");
    assert_eq!(init.pid(), host.main_pid());
    assert!(records.position(|record| record.event == "loaded") < records.position(|record| record.event == "init_f"));

    let main = init.pid();
    let ended = host.stop();
    for record in ended.records.that(|record| record.text("process_no") == "0") {
        assert_eq!(record.pid(), main, "main's pid changes: {record}");
        assert_eq!(record.number("ppid"), i64::from(supervisor));
    }
    assert_eq!(ended.records.event("destroy_f").len(), 1);
}

#[test]
fn l01_nothing_is_called_when_the_configuration_is_wrong() {
    let ended =
        Setup::new().module(fixture("recorder_a")).host("no_such_key", "1").expect_log("no_such_key").allow_log("modhost:").fails(2);
    assert!(ended.records.0.is_empty(), "{}", ended.records);
}

#[test]
fn l02_init_f_once_in_load_order() {
    // Module c requires b, which is listed after it.
    let modules = [fixture("recorder_c"), fixture("recorder_a"), fixture("recorder_b")];
    let setup = modules.into_iter().fold(Setup::new(), Setup::module);
    let host = setup.expect_log("starting a new main").start();
    let order = |host: &Host| -> Vec<String> { host.records().event("init_f").iter().map(|record| record.module().to_owned()).collect() };
    let expected = ["recorder_b", "recorder_c", "recorder_a"];
    assert_eq!(order(&host), expected);

    // Once in each main, in the same order.
    let first = host.main_pid();
    host.kill(first);
    host.wait_for_log_lines("ready in ", 2);
    assert_eq!(order(&host), [expected, expected].concat());
    let second = host.main_pid();
    assert_ne!(first, second);
    let records = host.records();
    let pids: Vec<i32> = records.event("init_f").iter().map(|record| record.pid()).collect();
    assert_eq!(pids, [[first; 3], [second; 3]].concat());
}

/// A free port below 1024, for UDP and TCP.
fn privileged_port() -> u16 {
    let free =
        |port: &u16| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok() && std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Different for test programs that run at the same time.
    let start = 600 + (std::process::id() as u16 % 400);
    (start..1024).chain(600..start).find(free).expect("a free port below 1024")
}

/// Numbers that a command prints.
fn numbers_of(command: &[&str]) -> Vec<u32> {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("a command of every system");
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

#[test]
fn l03_privileges_end_after_init_f() {
    if !is_root() {
        return;
    }
    let port = privileged_port();
    let setup = Setup::new();
    let secret = setup.folder().join("secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.display();
    let script = format!(
        "init_f: register 1, bind 127.0.0.1:{port}, read {secret}; proc_init: become_root, bind 127.0.0.1:{port}, read {secret}; \
         proc_main: fork 9 extra, become_root; child_init: become_root, read {secret}; process: become_root"
    );
    let host = setup
        .host("user", "\"nobody\"")
        .control()
        .module(fixture("recorder_a").script(&script))
        .listen_at(&format!("127.0.0.1:{port}"), "recorder_a:serve", Some(1))
        .expect_log("starting a new main")
        .start();
    let nobody = numbers_of(&["id", "-u", "nobody"])[0];
    let group = numbers_of(&["id", "-g", "nobody"])[0];
    let mut groups = numbers_of(&["id", "-G", "nobody"]);
    groups.sort_unstable();

    let check = |host: &Host| {
        let main = host.main_pid();
        for pid in host.children().into_iter().chain([main]) {
            let (uids, gids, mut supplementary) = processes::identity(pid);
            supplementary.sort_unstable();
            assert_eq!(uids, [nobody; 4], "{}", processes::title(pid));
            assert_eq!(gids, [group; 4], "{}", processes::title(pid));
            assert_eq!(supplementary, groups, "{}", processes::title(pid));
            let status = processes::status(pid);
            for capabilities in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(status[capabilities].trim_matches('0'), "", "{capabilities} of {}", processes::title(pid));
            }
        }
        assert_eq!(processes::identity(host.pid()).0, [0; 4], "the supervisor keeps the starting identity");
    };
    check(&host);

    let records = host.records();
    assert_eq!(records.event("init_f")[0].number("uid"), 0);
    assert!(records.child_inits(PROC_INIT).iter().all(|record| record.number("uid") == i64::from(nobody)));
    let outcome = |action| records.outcomes("recorder_a", action);
    assert_eq!(outcome("bind"), [0, 13], "port {port} in init_f, and after it");
    assert_eq!(outcome("read")[..2], [1, 0], "the file of root in init_f, and after it");
    assert!(outcome("read")[1..].iter().all(|read| *read == 0));
    assert!(outcome("become_root").iter().all(|outcome| *outcome == -1), "{records}");
    assert_eq!(Client::of(format!("127.0.0.1:{port}").parse().unwrap()).ask_text("become_root"), "-1");

    // The next main starts with the starting identity and drops it again.
    host.kill(host.main_pid());
    host.wait_for_log_lines("ready in ", 2);
    check(&host);
    assert_eq!(host.records().event("init_f")[1].number("uid"), 0);
    host.stop();
}

#[test]
fn l03_users_and_groups_without_names_have_no_other_groups() {
    if !is_root() {
        return;
    }
    let host = Setup::new().host("user", "\"54321\"").host("group", "\"54322\"").module(fixture("recorder_a")).start();
    for pid in host.children().into_iter().chain([host.main_pid()]) {
        assert_eq!(processes::identity(pid), (vec![54321; 4], vec![54322; 4], vec![]), "{}", processes::title(pid));
    }
    // The change of user clears the parent-death signal; it was set again.
    host.kill_supervisor();
}

#[test]
fn l03_an_ordinary_user_starts_it_too() {
    // Only root can change the user. For others the setting has no effect.
    let setup = Setup::new().host("user", "\"daemon\"").module(fixture("recorder_a")).listen("recorder_a:serve", 1);
    let setup = setup.expect_log("host.user and host.group are ignored: only root can become somebody else");
    let root = processes::identity(std::process::id() as i32).0[1] == 0;
    let host = if root { setup.start_as(54_321) } else { setup.start() };
    let (uids, ..) = processes::identity(host.pid());
    assert_ne!(uids, [0; 4]);
    for pid in host.processes() {
        assert_eq!(processes::identity(pid).0, uids);
    }
    assert_eq!(host.client().ask_text("become_root"), "-1");
    host.stop();
}

/// The supervisor stays root. It takes few kinds of messages from main and trusts none.
#[test]
fn l03_the_supervisor_survives_what_main_sends() {
    let setup = Setup::new().pid_file();
    let host = setup
        .module(fixture("talks_to_supervisor"))
        .module(fixture("recorder_a"))
        .listen("recorder_a:serve", 1)
        .allow_log("a message between processes has the wrong size")
        .expect_log("main sent an unknown message")
        .expect_log("main asked for a listener after its start, and gets none")
        .start();
    let sockets = |pid: i32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        descriptors.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|at| at.starts_with("socket:"))).count()
    };
    let before = sockets(host.pid());
    for request in ["Listen", "ListenForControl", "ListenForModule"] {
        host.wait_for_log(&format!("main asked for a listener after its start, and gets none request=\"{request}"));
    }
    assert_eq!(sockets(host.pid()), before, "a socket was bound for a main that may no longer ask");
    assert_eq!(host.client().ask_text("max_procs"), "4");
    let ended = host.stop();
    assert_eq!(ended.records.event("destroy_f").len(), 1);
    assert!(!ended.folder().join("pid").exists());
}

#[test]
fn l04_no_fork_in_init_f() {
    let host = Setup::new()
        .module(fixture("recorder_a").script("init_f: register 2, fork 1 x, fork_return 1 x, children; proc_main: fork 1 x"))
        .expect_log("module \"recorder_a\" called fork_process in init_f")
        .expect_log("fork_process works in init_child_f(PROC_MAIN)")
        .start();
    let records = host.records();
    assert_eq!(records.outcomes("recorder_a", "fork")[0], E_PHASE);
    assert_eq!(records.outcomes("recorder_a", "fork_return"), [E_PHASE]);
    assert_eq!(records.outcomes("recorder_a", "children"), [0]);
    assert!(records.outcomes("recorder_a", "fork")[1] > 0, "the refused calls were counted");
    host.stop();
}

/// Every phase but `init_f`: the name in scripts and the name in the log.
pub const LATER_PHASES: [(&str, &str); 8] = [
    ("proc_init", "init_child_f(PROC_INIT)"),
    ("proc_main", "init_child_f(PROC_MAIN)"),
    ("child_init", "init_child_f(rank)"),
    ("post_child_init", "init_child_f(PROC_POSTCHILDINIT)"),
    ("timer_tick", "a timer function"),
    ("process", "its own process"),
    ("handler", "a datagram handler"),
    ("destroy_f", "destroy_f"),
];

/// Runs the actions in each of those phases but the skipped one. Each must return the same error,
/// with a line in the log that names module, phase and the right place.
pub fn refused_in_later_phases(actions: &str, count: usize, call: &str, right_place: &str, skipped: &str) {
    let phases: Vec<_> = LATER_PHASES.into_iter().filter(|(phase, _)| *phase != skipped).collect();
    let mut script = "init_f: register 1, timer slow tick 0 0; proc_main: fork 7 extra".to_owned();
    for (phase, _) in &phases {
        script += &format!("; {phase}: {actions}");
    }
    let lines: Vec<String> = phases.iter().map(|(_, phase)| format!("module \"recorder_b\" called {call} in {phase}")).collect();
    let setup = Setup::new().module(fixture("recorder_b").script(&script)).listen("recorder_b:serve", 1);
    let setup = lines.iter().fold(setup, |setup, line| setup.expect_log(line));
    let host = setup.expect_log(&format!("{call} works in {right_place}")).start();
    assert_eq!(host.client().ask_text("max_procs"), "5");
    for line in lines.iter().filter(|line| !line.ends_with("destroy_f")) {
        host.wait_for_log(line);
    }
    let ended = host.stop();
    for action in actions.split(", ") {
        let word = action.split(' ').next().unwrap();
        let answers = ended.records.that(|record| record.event == "did" && record.text("action") == word);
        let refusals = answers.iter().filter(|record| record.number("result") == E_PHASE).count();
        // At least once in each phase; init_child_f(rank) runs in five processes.
        assert!(refusals >= count, "{word}: {refusals} refusals\n{}", ended.records);
    }
}

#[test]
fn l05_register_procs_only_in_init_f() {
    refused_in_later_phases("register 1", 8, "register_procs", "init_f", "none");
}

#[test]
fn l05_register_procs_wants_at_least_one() {
    let host = Setup::new()
        .module(fixture("recorder_a").script("init_f: register 0, register -1, register 2, register 1; proc_init: max_procs"))
        .expect_log("module \"recorder_a\" called register_procs(0) in init_f")
        .expect_log("module \"recorder_a\" called register_procs(-1) in init_f")
        .start();
    let records = host.stop().records;
    assert_eq!(records.outcomes("recorder_a", "register"), [E_INVALID, E_INVALID, 0, 0]);
    assert_eq!(records.outcomes("recorder_a", "max_procs"), [6], "main, two timers, three registered");
}

#[test]
fn l06_variables_are_inherited() {
    let script = "init_f: register 3, set 42; proc_main: fork 7 entry, fork_return 8 returning, fork -128 bare; returned: hang";
    let host = Setup::new().module(fixture("recorder_a").script(script)).listen("recorder_a:serve", 2).control().start();
    host.client().ask("info".as_bytes());
    host.wait_for_module_processes(3);
    let records = host.stop().records;
    let pids: std::collections::BTreeSet<i32> = records.iter().map(|record| record.pid()).collect();
    assert_eq!(pids.len(), 9, "main, two workers, two timers, control, three of the module:\n{records}");
    let init = records.position(|record| record.event == "did" && record.text("action") == "set");
    for record in &records.0[init..] {
        assert_eq!(record.number("variable"), 42, "{record}");
    }
}

#[test]
fn l07_shared_memory_at_one_address() {
    let script = "init_f: register 2, shm 64; child_init: add; process: add; proc_main: fork 7 entry, fork -128 bare";
    let host = Setup::new().module(fixture("recorder_a").script(script)).listen("recorder_a:serve", 2).control().start();
    // Two workers, two timers and control add once; the process with an entry function adds twice,
    // the bare one once.
    host.wait_for_records("eight additions", 8, |record| record.event == "did" && record.text("action") == "add");
    assert_eq!(host.client().ask_text("value"), "8");
    let records = host.stop().records;
    let mut sums = records.outcomes("recorder_a", "add");
    sums.sort_unstable();
    assert_eq!(sums, [1, 2, 3, 4, 5, 6, 7, 8], "no addition is lost");
    let allocated = records.position(|record| record.event == "did" && record.text("action") == "shm");
    let addresses: std::collections::BTreeSet<&str> = records.0[allocated..].iter().map(|record| record.text("shared")).collect();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    assert!(!addresses.contains("0x0"));
}

#[test]
fn l08_no_process_count_in_init_f() {
    let host = Setup::new()
        .module(fixture("recorder_a").script("init_f: max_procs; proc_init: max_procs"))
        .expect_log("module \"recorder_a\" called get_max_procs in init_f")
        .start();
    assert_eq!(host.stop().records.outcomes("recorder_a", "max_procs"), [E_PHASE, 3]);
}
