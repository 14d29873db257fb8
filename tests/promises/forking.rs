//! L17 to L20, L30 and L31: processes that modules fork.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use harness::{Record, Records, Setup, fixture};

use crate::init_f::refused_in_later_phases;
use crate::{E_INVALID, E_LIMIT};

#[test]
fn l17_fork_process_only_in_proc_main() {
    refused_in_later_phases("fork 1 x, fork_return 1 x, fork -128 x", 7, "fork_process", "init_child_f(PROC_MAIN)", "proc_main");
}

#[test]
fn l18_fork_process_return_values() {
    let script = "init_f: register 2; proc_main: fork 7 entry, fork_return 8 returning, fork 7 more, fork_return 8 more; returned: hang";
    let host = Setup::new()
        .module(fixture("recorder_a").script(script))
        .expect_log("asked for one process more than it registered (\"more\")")
        .start();
    host.wait_for_module_processes(2);
    let children = host.children();
    let records = host.stop().records;
    let pid = |event: &str| i64::from(records.event(event)[0].pid());
    // In main: the pid, or a negative code. The child recorded `returned`, which it does only when
    // it gets 0.
    assert_eq!(records.outcomes("recorder_a", "fork"), [pid("process"), E_LIMIT]);
    assert_eq!(records.outcomes("recorder_a", "fork_return"), [pid("returned"), E_LIMIT]);
    for event in ["process", "returned"] {
        assert!(children.contains(&records.event(event)[0].pid()), "{event}");
    }
}

/// These and no other events were recorded in the process.
#[track_caller]
fn assert_only(records: &Records, pid: i32, events: &[(&str, &str)]) {
    let observed: Vec<(&str, &str)> =
        records.that(|record| record.pid() == pid).iter().map(|record| (record.event.as_str(), record.module())).collect();
    assert_eq!(observed, events, "process {pid}\n{records}");
}

#[test]
fn l19_child_never_continues_mains_path() {
    let script = "init_f: register 3; proc_main: fork_return 11 well, fork_return 12 badly, fork_return 13 worse; returned[12]: fail on purpose; \
                  returned[13]: panic on purpose";
    let host = Setup::new()
        .pid_file()
        .control()
        .module(fixture("recorder_a").script(script))
        .module(fixture("recorder_b"))
        .listen("recorder_a:serve", 1)
        .expect_log("name=\"badly\" how=\"exited with status 1\"")
        .expect_log("name=\"worse\" how=\"exited with status 70\"")
        .allow_log("panicked: on purpose")
        .start();
    host.wait_for_log("name=\"well\" how=\"exited with status 0\"");
    host.wait_for_log("name=\"badly\"");
    host.wait_for_log("name=\"worse\"");
    // Their end has undone nothing of the host.
    assert!(host.path("pid").exists() && host.path("control").exists());
    assert_eq!(host.client().ask_text("max_procs"), "8");
    let records = host.stop().records;
    let returned = records.event("returned");
    assert_eq!(returned.len(), 3);
    for record in returned {
        // Every module's init_child_f(rank) before fork_process returns, and no call after the
        // module's function.
        let expected = [("init_child_f", "recorder_a"), ("init_child_f", "recorder_b"), ("returned", "recorder_a")];
        assert_only(&records, record.pid(), &expected);
        assert_eq!(records.that(|call| call.pid() == record.pid() && call.rank() == record.rank()).len(), 3);
    }
    assert_eq!(records.event("destroy_f").len(), 2, "in main only");
}

/// Also when a module calls fork(2) directly, in any phase.
#[test]
fn l19_raw_forks_end_in_the_trampoline() {
    let phases = ["init_f", "proc_init", "proc_main", "child_init", "post_child_init", "handler", "timer_tick", "process", "destroy_f"];
    for (way, status) in [("leave", 0), ("fail on purpose", 1), ("panic on purpose", 70), ("exit 5", 5), ("register 1", 0)] {
        let mut script = format!("init_f: register 1, timer fast tick 0 0; proc_main: fork 7 extra; raw: {way}");
        for phase in phases {
            // A process with an entry function ends as that function does, in the module's own
            // code.
            script += &format!("; {phase}: fork_raw");
        }
        let host = Setup::new()
            .pid_file()
            .module(fixture("recorder_b").script(&script))
            .module(fixture("recorder_a"))
            .listen("recorder_b:serve", 1)
            .allow_log("panicked: on purpose")
            .allow_log("called register_procs in")
            .start();
        let client = host.client();
        assert_eq!(client.ask_text("max_procs"), "5");
        // Both timers fork in child_init too.
        host.wait_for_records("the timer's fork", 3, |record| {
            record.event == "did" && record.text("action") == "fork_raw" && record.rank() == -1
        });
        host.wait_for_records("the process's fork", 2, |record| {
            record.event == "did" && record.text("action") == "fork_raw" && record.rank() == 7
        });
        // One answer only: the child that the handler forked sends none.
        assert_eq!(client.receive_before(harness::Deadline::after(std::time::Duration::from_millis(50))), None);
        assert!(host.path("pid").exists(), "{way}");
        let ended = host.stop();
        let records = ended.records;
        let outcomes = records.outcomes("recorder_b", "fork_raw");
        // child_init runs in the worker, two timers and the process.
        assert_eq!(outcomes.len(), 4 + phases.len() - 1, "{way}: {records}");
        // destroy_f has no result: a failure there is not one, a panic is.
        let (last, others) = outcomes.split_last().unwrap();
        assert!(others.iter().all(|outcome| *outcome == status), "{way}: {outcomes:?}");
        assert!(*last == status || way.starts_with("fail") || way.starts_with("panic"), "{way}: {outcomes:?}");
        if way.starts_with("panic") {
            let outcome = ended.log.lines.iter().find(|line| line.text.contains("panicked: on purpose")).expect("allowed above");
            assert_eq!(outcome.process, "forked by a module");
        }
        for raw in records.event("raw") {
            let after: Vec<&Record> = records.that(|record| record.pid() == raw.pid() && record.event != "raw" && record.event != "did");
            assert!(after.is_empty(), "{way}: {after:?}");
            assert_eq!(raw.process_no(), -1, "the host did not fork it");
        }
    }
}

#[test]
fn l20_forks_are_counted_per_module() {
    let refused = "module \"recorder_a\" asked for one process more than it registered (\"two\")";
    // Another module has unused registrations, and comes before or after.
    for (first, second) in [("recorder_a", "recorder_b"), ("recorder_b", "recorder_a")] {
        let script = |module: &str| match module {
            "recorder_a" => "init_f: register 1; proc_main: fork 7 one, fork 7 two, fork_return 7 two; child_init[7]: max_procs",
            _ => "init_f: register 3; proc_main: fork 9 other",
        };
        let host = Setup::new()
            .module(fixture(first).script(script(first)))
            .module(fixture(second).script(script(second)))
            .module(fixture("recorder_c").script("proc_main: fork 7 none"))
            .listen("recorder_a:serve", 1)
            .expect_log(refused)
            .expect_log("registered=1 forked=1")
            .expect_log("module \"recorder_c\" asked for one process more than it registered (\"none\")")
            .expect_log("registered=0 forked=0")
            .start();
        host.wait_for_records("two processes", 2, |record| record.event == "process");
        assert_eq!(host.client().ask_text("max_procs"), "8", "the host continues");
        let records = host.stop().records;
        let outcomes = records.outcomes("recorder_a", "fork");
        assert!(outcomes[0] > 0 && outcomes[1] == E_LIMIT, "{outcomes:?}");
        assert_eq!(records.outcomes("recorder_a", "fork_return"), [E_LIMIT]);
        assert!(records.outcomes("recorder_b", "fork")[0] > 0, "another module's registrations are unaffected");
        assert_eq!(records.outcomes("recorder_c", "fork"), [E_LIMIT]);
    }
}

#[test]
fn l30_ranks_for_fork_process() {
    let script = "init_f: register 3; proc_main: fork 0 main, fork -127 init, fork -126 post, fork_return 0 main, fork 1 worker, fork -1 timer, fork 77 own";
    let host = Setup::new()
        .module(fixture("recorder_a").script(script))
        .listen("recorder_a:serve", 1)
        .expect_log("module \"recorder_a\" called fork_process with rank 0 in init_child_f(PROC_MAIN)")
        .expect_log("fork_process with rank -127")
        .expect_log("fork_process with rank -126")
        .start();
    host.wait_for_records("three processes", 3, |record| record.event == "process");
    let records = host.stop().records;
    let outcomes = records.outcomes("recorder_a", "fork");
    assert_eq!(outcomes[..3], [E_INVALID; 3]);
    assert!(outcomes[3..].iter().all(|outcome| *outcome > 0), "the refused calls were counted: {outcomes:?}");
    assert_eq!(records.outcomes("recorder_a", "fork_return"), [E_INVALID]);
    let mut ranks: Vec<i32> = records.event("process").iter().map(|record| record.rank()).collect();
    ranks.sort_unstable();
    assert_eq!(ranks, [-1, 1, 77]);
    assert_eq!(records.child_inits(1).len(), 2, "a worker and the module's process");
}

/// Flags: a link to the TCP main process is useless without TCP listeners and harmless. Unknown
/// flags are refused.
#[test]
fn l30_flags_and_names_for_fork_process() {
    let script = "init_f: register 3; proc_main: fork 7 linked 1, fork 7 unknown 2, fork 7 both 3, fork 7, \
                  fork 7 a_name_that_is_longer_than_thirty-one_bytes, fork -128 bare 1";
    let host =
        Setup::new().module(fixture("recorder_a").script(script)).expect_log("unknown flags").expect_log("a process needs a name").start();
    host.wait_for_records("three processes", 3, |record| record.event == "process");
    let titles: Vec<String> = host.children().into_iter().map(harness::processes::title).collect();
    assert!(titles.contains(&"modhost: a_name_that_is_longer_than_thir".to_owned()), "{titles:?}");
    let outcomes = host.stop().records.outcomes("recorder_a", "fork");
    assert!(outcomes[0] > 0 && outcomes[4] > 0 && outcomes[5] > 0, "{outcomes:?}");
    assert_eq!(outcomes[1..4], [E_INVALID; 3]);
}

#[test]
fn l31_customary_c_module() {
    let start = |name: &str| Setup::new().module(fixture(name)).module(fixture("recorder_a")).listen("recorder_a:serve", 1);

    // Children that loop until they are stopped.
    let host = start("customary_loops").start();
    host.wait_for_log("customary: first runs process_no=4");
    host.wait_for_log("customary: second runs process_no=5");
    assert_eq!(host.children().len(), 5);
    assert_eq!(host.client().ask_text("max_procs"), "6");
    let ended = host.stop();
    assert_eq!(ended.log.count("customary: mod_child rank=1"), 2, "the worker and the first child");
    assert_eq!(ended.log.count("customary: mod_child rank=5"), 1);
    assert_eq!(ended.log.count("customary: both forked"), 1, "in main only");
    assert_eq!(ended.records.child_inits(1).len(), 2);
    assert_eq!(ended.records.child_inits(5).len(), 1);

    // Children that return: each ends, and nothing else changes.
    let host = start("customary_returns").start();
    for name in ["first", "second"] {
        host.wait_for_log(&format!(
            "a module's process has finished process_no={} name=\"{name}\" how=\"exited with status 0\"",
            if name == "first" { 4 } else { 5 }
        ));
    }
    assert_eq!(host.children().len(), 3);
    assert_eq!(host.client().ask_text("max_procs"), "6");
    let ended = host.stop();
    assert_eq!(ended.log.count("customary: both forked"), 1);
    assert_eq!(ended.records.event("destroy_f").len(), 1);
}

/// The forked process has a copy of the batch, like all memory of the process.
#[test]
fn a_process_forked_by_a_handler_reads_its_datagrams() {
    let host = Setup::new().module(fixture("forks_to_answer")).listen("forks_to_answer:serve", 1).start();
    for text in ["one", "another that is longer"] {
        assert_eq!(host.client().ask_text(text), text);
    }
    host.stop();
}

#[test]
fn fork_handlers_of_a_module_run() {
    let host = Setup::new().module(fixture("atfork")).module(fixture("recorder_a")).listen("recorder_a:serve", 2).start();
    let ended = host.stop();
    // The first worker, the second, and main after it has forked two timers.
    for line in ["rank 1 before=1 parent=0 child=1", "rank 2 before=2 parent=1 child=1", "rank 0 before=4 parent=4 child=0"] {
        assert_eq!(ended.log.count(&format!("atfork: {line}")), 1, "{line}: {}", ended.log);
    }
}

#[test]
fn l29_a_process_with_a_link_sends_on_connections_of_others() {
    let host = Setup::new().module(fixture("streams")).host("workers", "2").listen_tcp("streams:lines");
    // On a busy machine the bytes may arrive while the answer is too late.
    let host = host.allow_log("no answer from a connection's worker").start();
    let mut stream = BufReader::new(TcpStream::connect(&host.addresses(0)[0]).unwrap());
    stream.get_ref().set_read_timeout(Some(harness::PATIENCE)).unwrap();
    let mut ask = |line: &str| {
        stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    };
    let id: u64 = ask("id").parse().unwrap();
    // The process with a link sends; the one without gets an error.
    assert_eq!(ask(&format!("linked {id}")), "sent");
    assert_eq!(ask(&format!("bare {id}\nsay next")), "next", "nothing was sent");
    host.wait_for_log("asked to send outcome=Err(NoLink)");
    // The id of a closed connection names no connection.
    drop(stream);
    host.wait_for_log("closed reason=normal");
    let mut next = BufReader::new(TcpStream::connect(&host.addresses(0)[0]).unwrap());
    next.get_mut().write_all(format!("linked {id}\n").as_bytes()).unwrap();
    host.wait_for_log("asked to send outcome=Err(Gone)");
    host.stop();
}
