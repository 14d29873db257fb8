//! L26, L27, L32, L33 and L34: no-fork mode, state that belongs to one process, and replacements.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};

use harness::processes::Process;
use harness::setup::module;
use harness::{Client, Deadline, Host, PATIENCE, Record, Setup, fixture, processes};

use crate::{PROC_INIT, PROC_MAIN, PROC_POSTCHILDINIT, PROC_TIMER};

fn no_fork(script: &str) -> Setup {
    Setup::new().argument("--no-fork").module(fixture("recorder_a").script(script)).module(fixture("recorder_b"))
}

#[test]
fn l26_three_processes_without_fork() {
    // Workers and control are configured and not forked.
    let host = no_fork("").listen("recorder_a:serve", 4).listen("recorder_b:serve", 4).control().start();
    assert_eq!(host.children_of(host.pid()).len(), 2);
    assert_eq!(host.client().ask_text("max_procs"), "3");
    let ended = host.stop();
    assert_eq!(ended.records.child_inits(PROC_TIMER).len(), 2 * 2);
    assert!(!ended.folder().join("control").exists());

    let script = "init_f: register 3; proc_main: fork 7 one, fork_return 8 two; returned: hang";
    let host = no_fork(script).listen("recorder_a:serve", 4).start();
    host.wait_for_module_processes(2);
    assert_eq!(host.children_of(host.pid()).len(), 2 + 2);
    assert_eq!(host.client().ask_text("max_procs"), "6", "including the registered process that was not forked");
    host.stop();
}

#[test]
fn l27_without_fork_one_loop_serves_datagrams_and_connections() {
    let host = no_fork("").module(module("echo")).listen("recorder_a:serve", 1).listen_tcp("echo:bytes").start();
    let datagrams = Client::of(host.address(0));
    let mut connection = std::net::TcpStream::connect(&host.addresses(1)[0]).unwrap();
    connection.set_read_timeout(Some(harness::PATIENCE)).unwrap();
    for _ in 0..3 {
        assert_eq!(datagrams.ask_text("max_procs"), "3");
        connection.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    assert_eq!(host.children_of(host.pid()).len(), 2, "only main could have answered");
    host.stop();
}

#[test]
fn l27_ranks_of_main_without_fork() {
    let host = no_fork("").listen("recorder_a:serve", 1).listen("recorder_b:serve", 1).start();
    let main = host.pid();
    for listener in 0..2 {
        let client = Client::of(host.address(listener));
        for _ in 0..3 {
            let who = Record::parse(&format!("info {}", client.ask_text("info")));
            assert_eq!((who.pid(), who.process_no(), who.rank()), (main, 0, 1));
        }
    }
    let records = host.stop().records;
    let calls = records.child_inits_in(main);
    let expected = [
        ("recorder_a", PROC_INIT),
        ("recorder_b", PROC_INIT),
        ("recorder_a", PROC_MAIN),
        ("recorder_b", PROC_MAIN),
        ("recorder_a", 1),
        ("recorder_b", 1),
        ("recorder_b", PROC_POSTCHILDINIT),
    ];
    assert_eq!(calls, expected.map(|(module, rank)| (module.to_owned(), rank)));
    assert_eq!(records.child_inits(1).len(), 2, "no other process has rank 1");
}

#[test]
fn l27_without_fork_main_supervises_too() {
    let host = no_fork("").listen("recorder_a:serve", 1).expect_log("a process died and is replaced").start();
    let timer = host.records().child_inits(PROC_TIMER)[0].clone();
    host.kill(timer.pid());
    let again = host.wait_for_record("the replacement", |record| record.is_child_init(PROC_TIMER) && record.number("restarts") == 1);
    assert_eq!(again.process_no(), timer.process_no());
    assert_eq!(host.client().ask_text("max_procs"), "3", "main continues to serve");
    host.stop();
}

#[test]
fn l32_random_numbers_differ() {
    // The host's random bytes and the SDK's generator, in each process and in its replacement; also
    // those that main drew before any fork.
    let script = "rng: rng; init_f: register 1, random; proc_init: random; proc_main: fork 7 extra; child_init: random";
    let host = Setup::new()
        .module(fixture("recorder_a").script(script))
        .listen("recorder_a:serve", 3)
        .expect_log("a process died and is replaced")
        .start();
    let before: Vec<i32> = host.children();
    for pid in &before {
        host.kill(*pid);
    }
    host.wait_for_records("the replacements", 2 * before.len(), |record| record.text("host").len() == 32 && record.process_no() > 0);
    let records = host.stop().records;
    for (event, key, count) in [("random", "host", 2 + 2 * 6), ("rng", "sdk", 2 * 6)] {
        let drawn = records.event(event);
        let different: BTreeSet<&str> = drawn.iter().map(|record| record.text(key)).collect();
        assert_eq!((drawn.len(), different.len()), (count, count), "{event}: {records}");
        assert!(different.iter().all(|text| text.trim_matches('0').len() > 4), "{different:?}");
    }
}

#[test]
fn l33_descriptors_stay_in_their_process() {
    let script = "init_f: register 2; proc_main: fork 7 entry, fork_return 8 returning; returned: hang; child_init: open";
    let host = Setup::new()
        .module(fixture("recorder_a").script(script))
        .listen("recorder_a:serve", 2)
        .control()
        .expect_log("a process died and is replaced")
        .start();
    let check = |host: &Host, count: usize| {
        let opened = host.wait_for_records("the sockets", count, |record| record.event == "did" && record.text("action") == "open");
        let sockets: BTreeMap<String, i32> =
            opened.iter().map(|record| (format!("socket:[{}]", record.number("result")), record.pid())).collect();
        for pid in host.processes() {
            let held: Vec<String> = processes::descriptors(pid).values().map(|path| path.display().to_string()).collect();
            for (socket, owner) in &sockets {
                assert_eq!(held.contains(socket), *owner == pid, "{socket} of {owner} in {pid} {}", processes::title(pid));
            }
        }
    };
    check(&host, 7);
    let worker = host.records().child_inits(1)[0].pid();
    host.kill(worker);
    check(&host, 8);
    host.stop();
}

#[test]
fn l34_replacement_in_the_same_slot() {
    let script = "init_f: register 1, shm 8, set 1; proc_main: fork 7 entry, set 2; post_child_init: set 3; child_init: add";
    let host = Setup::new()
        .module(fixture("recorder_b").script(script))
        .listen("recorder_b:serve", 2)
        .control()
        .expect_log("a process died and is replaced")
        .start();
    let main = host.main_pid();
    let children = 6;
    let first = host.wait_for_records("every process", children, |record| record.event == "init_child_f" && record.process_no() > 0);
    // One after the other, each twice, so that replacements are replaced too.
    let mut killed = 0;
    for life in 1..=2 {
        for old in &first {
            let now = host.records();
            let current = now.that(|record| record.event == "init_child_f" && record.process_no() == old.process_no());
            host.kill(current.last().unwrap().pid());
            killed += 1;
            let new = host.wait_for_record("the replacement", |record| {
                record.event == "init_child_f" && record.process_no() == old.process_no() && record.number("restarts") == life
            });
            assert_eq!((new.rank(), new.number("ppid")), (old.rank(), i64::from(main)));
            // It has added its share and reported that it serves. If it died earlier, the next
            // start would wait.
            Process::open(new.pid()).unwrap().wait_until_asleep(Deadline::after(PATIENCE));
            // Main's variables as they are now, not as they were at the first fork. Shared memory
            // as it was left.
            assert_eq!(new.number("variable"), 3);
            assert_eq!(new.number("shared_value"), (children + killed - 1) as i64);
            assert_eq!(new.text("shared"), old.text("shared"));
        }
    }
    assert!(first.iter().any(|record| record.number("variable") == 1), "the first processes were forked before the module changed it");
    host.wait_for_records("the last addition", children + killed, |record| record.event == "did" && record.text("action") == "add");
    assert_eq!(host.client().ask_text("value"), (children + killed).to_string());
    host.stop();
}

/// The shared mappings of a process, by inode.
fn shared_objects(pid: i32) -> BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let shared = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|fields| fields[1] == "rw-s");
    shared.map(|fields| fields[4].to_owned()).collect()
}

#[test]
fn l34_a_new_main_starts_empty_and_listeners_are_kept() {
    let setup = Setup::new();
    let gate = setup.folder().join("gate");
    fs::write(&gate, "").unwrap();
    let script = format!("init_f: shm 8, await_file {}; child_init: add", gate.display());
    let host = setup
        .pid_file()
        .module(fixture("recorder_a").script(&script))
        .listen("recorder_a:serve", 2)
        .expect_log("was killed by SIGKILL outside any module")
        .expect_log("starting a new main")
        .start();
    let (client, address, first) = (host.client(), host.address(0), host.main_pid());
    assert_eq!(client.ask_text("value"), "4");
    let supervisors = shared_objects(host.pid());
    let firsts = &shared_objects(first) - &supervisors;
    assert!(!supervisors.is_empty() && !firsts.is_empty());

    // The new main waits in init_f. No process answers, and no datagram is lost.
    fs::remove_file(&gate).unwrap();
    host.kill(first);
    host.wait_for_records("the new main", 2, |record| record.event == "init_f");
    for _ in 0..3 {
        client.send(b"value");
    }
    assert_eq!(host.children().len(), 0);
    fs::write(&gate, "").unwrap();
    for _ in 0..3 {
        let value = String::from_utf8(client.receive()).unwrap();
        assert!(("1"..="4").contains(&value.as_str()), "shared memory starts empty: {value}");
    }
    host.wait_for_log_lines("ready in ", 2);
    assert_eq!(host.address(1), address, "the listener is the same");
    assert_eq!(client.ask_text("value"), "4");
    assert_ne!(host.main_pid(), first);
    // The first main's memory is freed: no process maps it.
    assert_eq!(shared_objects(host.pid()), supervisors);
    for pid in host.processes() {
        assert!(shared_objects(pid).is_disjoint(&firsts));
    }
    let records = host.stop().records;
    let inits: Vec<&Record> = records.event("init_f");
    assert_eq!(inits.len(), 2);
    assert_eq!(inits[0].number("ppid"), inits[1].number("ppid"));
    assert_eq!(records.event("destroy_f").len(), 1, "a killed main cannot call it");
    assert!(records.iter().all(|record| record.number("restarts") == 0), "restart counts begin at 0 in a new main");
}
