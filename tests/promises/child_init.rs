//! L09 to L16 and L22 to L25: when, where and how often `init_child_f` is called.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use harness::setup::module;
use harness::{PATIENCE, Record, Records, Setup, fixture, processes};

use crate::{PROC_INIT, PROC_MAIN, PROC_NOCHLDINIT, PROC_POSTCHILDINIT, PROC_RPC, PROC_TCP_MAIN, PROC_TIMER};

/// A host with every kind of process and two modules. Each module forks one process in each form.
fn everything(first: &str, second: &str) -> Setup {
    let own =
        "init_f: register 2, timer fast tick 0 0, timer slow tock 0 0; proc_main: fork 7 entry, fork_return 8 returning; returned: hang";
    Setup::new()
        .module(fixture("recorder_a").script(&format!("{own}; {first}")))
        .module(fixture("recorder_b").script(&format!("{own}; {second}")))
        .listen("recorder_a:serve", 2)
        .listen("recorder_b:serve", 1)
        .control()
}

/// The number of its processes: main, three workers, two timers, control, four of modules.
const EVERYTHING: usize = 11;

/// Waits until the modules' processes and timers have run.
fn wait_for_everything(host: &harness::Host) {
    host.wait_for_module_processes(4);
    host.wait_for_records("the timers", 4, |record| record.event == "timer");
}

fn by_process(records: &Records) -> BTreeMap<i32, Vec<&Record>> {
    let mut processes: BTreeMap<i32, Vec<&Record>> = BTreeMap::new();
    for record in records.iter() {
        processes.entry(record.pid()).or_default().push(record);
    }
    processes
}

#[test]
fn l09_child_init_once_before_work() {
    let host = everything("", "").start();
    for listener in 0..2 {
        // Enough clients that each worker gets a datagram.
        let clients: Vec<_> = (0..20).map(|_| harness::Client::of(host.address(listener))).collect();
        clients.iter().for_each(|client| client.send(b"info"));
        clients.iter().for_each(|client| drop(client.receive()));
    }
    wait_for_everything(&host);
    let main = host.main_pid();
    let records = host.stop().records;
    let processes = by_process(&records);
    assert_eq!(processes.len(), EVERYTHING, "{records}");
    for (pid, calls) in processes.iter().filter(|(pid, _)| **pid != main) {
        // First one call for each module, in load order. Then work, and no second call.
        let first: Vec<(&str, &str)> = calls[..2].iter().map(|record| (record.event.as_str(), record.module())).collect();
        assert_eq!(first, [("init_child_f", "recorder_a"), ("init_child_f", "recorder_b")], "process {pid}");
        assert!(calls[2..].iter().all(|record| record.event != "init_child_f"), "process {pid}");
        assert!(calls.iter().all(|record| record.number("ppid") == i64::from(main)), "process {pid}");
        assert!(calls.iter().all(|record| record.number("host_rank") == i64::from(calls[0].rank())), "process {pid}");
        assert!(calls.iter().all(|record| record.number("host_pid") == i64::from(*pid)), "process {pid}");
    }
    for event in ["handler", "timer", "process", "returned"] {
        assert!(!records.event(event).is_empty(), "no {event} was observed");
    }
}

#[test]
fn a_module_without_child_init_is_called_in_main_only() {
    let host = Setup::new()
        .module(fixture("quiet"))
        .module(fixture("recorder_a"))
        .listen("recorder_a:serve", 2)
        .expect_log("was killed by SIGKILL")
        .start();
    let worker = |record: &Record| record.event == "init_child_f" && record.rank() > 0;
    host.kill(host.records().that(worker)[0].pid());
    host.wait_for_records("the successor", 3, worker);
    let ended = host.stop();
    // Called in main, before and after the forks; not in workers, timers or a worker's replacement.
    assert_eq!(ended.log.count("quiet: called with rank "), 2, "{}", ended.log);
    for rank in [PROC_INIT, PROC_MAIN] {
        assert_eq!(ended.log.count(&format!("quiet: called with rank {rank}")), 1);
    }
    // The other module is called as usual.
    assert_eq!(ended.records.that(worker).len(), 3);

    // Not called when main takes rank 1, nor in a process that another module forks.
    let script = "init_f: register 1; proc_main: fork 7 entry";
    let host = Setup::new().argument("--no-fork").module(fixture("quiet")).module(fixture("recorder_a").script(script)).start();
    host.wait_for_record("the process", |record| record.event == "process");
    let ended = host.stop();
    assert_eq!(ended.log.count("quiet: called with rank "), 2, "{}", ended.log);
    assert_eq!(ended.records.that(worker).len(), 2);
}

#[test]
fn l10_calls_in_main() {
    let host = everything("", "").start();
    wait_for_everything(&host);
    let main = host.main_pid();
    let records = host.stop().records;
    let calls = records.child_inits_in(main);
    let expected = [
        ("recorder_a", PROC_INIT),
        ("recorder_b", PROC_INIT),
        ("recorder_a", PROC_MAIN),
        ("recorder_b", PROC_MAIN),
        // recorder_a does not set the flag.
        ("recorder_b", PROC_POSTCHILDINIT),
    ];
    assert_eq!(calls, expected.map(|(module, rank)| (module.to_owned(), rank)));
    // Main is the only process with these calls.
    for rank in [PROC_INIT, PROC_MAIN, PROC_POSTCHILDINIT] {
        assert!(records.child_inits(rank).iter().all(|record| record.pid() == main));
    }
}

#[test]
fn l10_postchildinit_comes_after_the_slowest_child() {
    // One process of a module is slow.
    let host = everything("child_init[7]: await_time 300", "child_init[8]: await_time 300").start();
    let records = host.stop().records;
    let last = records.iter().rposition(|record| record.event == "did" && record.text("action") == "await_time").unwrap();
    assert!(records.position(|record| record.is_child_init(PROC_POSTCHILDINIT)) > last, "{records}");
}

#[test]
fn l11_no_call_with_nochldinit() {
    let script = "init_f: register 2; proc_main: fork -128 bare, fork_return -128 returning; returned: hang";
    let host = Setup::new().module(fixture("recorder_a").script(script)).module(fixture("recorder_b")).start();
    host.wait_for_module_processes(2);
    let records = host.stop().records;
    for record in records.that(|record| matches!(record.event.as_str(), "process" | "returned")) {
        assert_eq!(record.number("host_rank"), i64::from(PROC_NOCHLDINIT));
        let calls = records.that(|call| call.pid() == record.pid() && call.event == "init_child_f");
        assert!(calls.is_empty(), "{records}");
    }
    assert!(records.child_inits(PROC_NOCHLDINIT).is_empty());
}

#[test]
fn l12_child_init_after_every_init_f() {
    // The last init_f is slow.
    let host = Setup::new()
        .module(fixture("recorder_a"))
        .module(fixture("recorder_b"))
        .module(fixture("recorder_c").script("init_f: await_time 100"))
        .listen("recorder_a:serve", 2)
        .start();
    let records = host.stop().records;
    assert_eq!(records.event("init_f").len(), 3);
    let last = records.position(|record| record.event == "did" && record.text("action") == "await_time");
    assert!(records.position(|record| record.event == "init_child_f") > last, "{records}");
}

#[test]
fn l13_proc_init_before_any_fork() {
    let look = "init_f: children; proc_init: await_time 50, children";
    let host = everything(look, look).start();
    let records = host.stop().records;
    for module in ["recorder_a", "recorder_b"] {
        assert_eq!(records.outcomes(module, "children"), [0, 0], "children of main in init_f and in PROC_INIT");
    }
    let first: Vec<i32> = records.event("init_child_f").iter().take(2).map(|record| record.rank()).collect();
    assert_eq!(first, [PROC_INIT; 2]);
    let last_init = records.iter().rposition(|record| record.event == "did" && record.text("action") == "children").unwrap();
    let first_other = records.position(|record| record.event == "init_child_f" && record.rank() != PROC_INIT);
    assert!(first_other > last_init, "{records}");
}

#[test]
fn l14_process_count_is_exact() {
    let ask = "proc_init: max_procs; proc_main: max_procs; child_init: max_procs; post_child_init: max_procs; timer_tick: max_procs";
    let with = |setup: Setup, first: &str, second: &str| {
        setup
            .module(fixture("recorder_a").script(&format!("{ask}; {first}")))
            .module(fixture("recorder_b").script(&format!("{ask}; {second}")))
    };
    let cases = [
        ("main and timers", 3, with(Setup::new(), "", "")),
        ("workers of two listeners", 7, with(Setup::new(), "", "").listen("recorder_a:serve", 1).listen("recorder_b:serve", 3)),
        ("control", 4, with(Setup::new(), "", "").control()),
        (
            "two modules that register",
            6,
            with(Setup::new(), "init_f: register 2; proc_main: fork 7 x, fork 7 y", "init_f: register 1; proc_main: fork 7 z"),
        ),
        ("registered and not used", 8, with(Setup::new(), "init_f: register 2, register 3; proc_main: fork 7 x", "")),
        ("without workers of its own: the default", 5, with(Setup::new(), "", "").listen_at("127.0.0.1:0", "recorder_a", None)),
        ("a listener that a module asked for", 6, with(Setup::new(), "init_f: listen 127.0.0.1:0 3", "")),
        (
            "TCP workers, as many as the host has, and the TCP main process",
            7,
            with(Setup::new().module(module("echo")).host("workers", "3"), "", "").listen_tcp("echo:bytes").listen_tcp("echo:bytes"),
        ),
        (
            "no TCP processes without forking",
            3,
            with(Setup::new().module(module("echo")).argument("--no-fork"), "", "").listen_tcp("echo:bytes"),
        ),
        ("no-fork mode", 4, with(Setup::new().argument("--no-fork"), "init_f: register 1", "").listen("recorder_a:serve", 3).control()),
    ];
    for (what, count, setup) in cases {
        let host = setup.start();
        let records = host.stop().records;
        let answers: Vec<i64> = ["recorder_a", "recorder_b"].iter().flat_map(|module| records.outcomes(module, "max_procs")).collect();
        assert!(answers.len() >= 2 * 2 + 1 + 2 * 2, "{what}: {records}");
        assert!(answers.iter().all(|answer| *answer == count), "{what}: {answers:?}");
    }
}

#[test]
fn l14_process_count_is_the_number_of_processes_and_stays() {
    let host = everything("", "").expect_log("a process died and is replaced").start();
    wait_for_everything(&host);
    assert_eq!(host.children().len() + 1, EVERYTHING);
    assert_eq!(host.client().ask_text("max_procs"), EVERYTHING.to_string());
    for record in host.records().child_inits(1).into_iter().take(1) {
        host.kill(record.pid());
    }
    host.wait_for_records("the replacement", 2, |record| record.module() == "recorder_a" && record.is_child_init(1));
    for _ in 0..10 {
        assert_eq!(host.client().ask_text("max_procs"), EVERYTHING.to_string());
    }
    host.stop();
}

#[test]
fn l15_proc_init_is_inherited() {
    let host = everything("init_f: set 1; proc_init: set 2", "").allow_log("a process died and is replaced").start();
    wait_for_everything(&host);
    let worker = host.records().child_inits(1)[0].pid();
    host.kill(worker);
    host.wait_for_records("the replacement", 2, |record| record.module() == "recorder_a" && record.is_child_init(1));
    let main = host.main_pid();
    let records = host.stop().records;
    let children = records.that(|record| record.pid() != main && record.module() == "recorder_a");
    assert!(children.len() >= EVERYTHING - 1);
    for record in children {
        assert_eq!(record.number("variable"), 2, "{record}");
    }
}

#[test]
fn l16_proc_main_between_workers_and_tcp() {
    let host = everything("proc_main: children", "").start();
    let records = host.stop().records;
    // Three workers, two timers, control; then the first module's two, which it forked just before
    // it counted.
    assert_eq!(records.outcomes("recorder_a", "children"), [6 + 2]);
    // The same with a stream listener: the TCP workers and the TCP main process are forked after
    // the last module has returned.
    let host = everything("proc_main: children", "proc_main: children").module(module("echo")).listen_tcp("echo:bytes").start();
    let children = host.children().len() as i64;
    let records = host.stop().records;
    assert_eq!(records.outcomes("recorder_a", "children"), [6 + 2]);
    let seen_last = records.outcomes("recorder_b", "children")[0];
    let tcp = records.that(|record| record.module() == "recorder_a" && record.is_child_init(PROC_TCP_MAIN));
    assert_eq!(tcp.len(), 1, "{records}");
    assert!(children >= seen_last + 2, "{children} children, {seen_last} before the TCP processes");
    let called = records.position(|record| record.module() == "recorder_b" && record.is_child_init(PROC_MAIN));
    let first_tcp = records.position(|record| record.is_child_init(PROC_TCP_MAIN));
    assert!(first_tcp > called, "{records}");
}

#[test]
fn l22_failing_child_init_ends_the_child() {
    // During a start it fails the start, for every kind of process and every kind of failure.
    let ways =
        [("fail no route", "no route"), ("panic lost", "panicked"), ("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("exit 3", "status 3")];
    let kinds = [("[1]", "worker 1"), ("#4", "timer"), ("[-2]", "control"), ("[7]", "entry"), ("[8]", "returning")];
    // Each kind of failure in one kind of process.
    for ((way, how), (place, name)) in ways.into_iter().zip(kinds) {
        let ended = everything("", &format!("child_init{place}: {way}"))
            .pid_file()
            .allow_log("recorder_b")
            .expect_log("in its initialisation")
            .allow_log("a process ended badly while stopping")
            .allow_log("modhost:")
            .fails(1);
        ended.log.assert(&["modhost: process ", name, "in its initialisation"]);
        ended.log.assert(&["in init_child_f(rank) of module \"recorder_b\""]);
        assert!(ended.log.contains(how), "{way}: {}", ended.log);
        ended.assert_files_removed();
        assert!(ended.records.child_inits(PROC_POSTCHILDINIT).is_empty());
        let destroyed: Vec<&str> = ended.records.event("destroy_f").iter().map(|record| record.module()).collect();
        assert_eq!(destroyed, ["recorder_b", "recorder_a"]);
    }
}

#[test]
fn l22_failing_replacement_is_tried_again() {
    let host = everything("child_init[1]@1: fail not yet", "child_init[1]@2: panic not yet")
        .expect_log("failed in init_child_f(1): not yet")
        .expect_log("panicked")
        .expect_log("a process keeps dying, its replacement waits")
        .allow_log("a process died and is replaced")
        .start();
    let worker = host.records().child_inits(1)[0].pid();
    host.kill(worker);
    let third = host.wait_for_record("the third replacement", |record| {
        record.module() == "recorder_b" && record.is_child_init(1) && record.number("restarts") == 3
    });
    assert_eq!(third.process_no(), host.records().child_inits(1)[0].process_no());
    let first = harness::Client::of(host.address(0));
    assert_eq!(first.ask_text("max_procs"), EVERYTHING.to_string());
    host.stop();
}

#[test]
fn l23_sign_of_ranks() {
    let host = everything("", "").start();
    wait_for_everything(&host);
    for pid in host.children() {
        let title = processes::title(pid);
        let rank = host.records().that(|record| record.pid() == pid && record.event == "init_child_f")[0].rank();
        let expected: &[i32] = match title.trim_start_matches("modhost: ").split(' ').next().unwrap() {
            "worker" => &[1, 2, 3],
            "timer" | "slow" => &[PROC_TIMER],
            "control" => &[PROC_RPC],
            "entry" => &[7],
            "returning" => &[8],
            other => panic!("an unknown kind of process: {other}"),
        };
        assert!(expected.contains(&rank), "{title}: {rank}");
    }
    let records = host.stop().records;
    let workers: BTreeSet<i32> = records
        .that(|record| record.event == "init_child_f" && (1..=3).contains(&record.rank()))
        .iter()
        .map(|record| record.rank())
        .collect();
    assert_eq!(workers.into_iter().collect::<Vec<_>>(), [1, 2, 3], "workers count through all listeners");
}

#[test]
fn l24_ranks_repeat_process_numbers_do_not() {
    let script = "init_f: register 2; proc_main: fork 1 one, fork 1 two";
    let host = Setup::new().module(fixture("recorder_a").script(script)).listen("recorder_a:serve", 2).control().start();
    host.wait_for_records("both processes", 2, |record| record.event == "process");
    let records = host.stop().records;
    let numbers = |rank: i32| -> Vec<i32> { records.child_inits(rank).iter().map(|record| record.process_no()).collect() };
    assert_eq!(numbers(PROC_TIMER).len(), 2, "both timers");
    assert_eq!(numbers(1).len(), 3, "a worker and two processes of the module");
    let mut all: Vec<i32> = [1, 2, PROC_TIMER, PROC_RPC, PROC_INIT].iter().flat_map(|rank| numbers(*rank)).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7], "each number once, without a gap");
}

#[test]
fn l25_child_inits_run_in_parallel() {
    // Each waits until all are there, which ends only if all run at the same time.
    let children = EVERYTHING - 1;
    let host = everything(&format!("init_f: shm 8; child_init: add, await {children}"), "").start();
    let records = host.stop().records;
    assert_eq!(records.outcomes("recorder_a", "await").len(), children);
}

#[test]
fn l25_a_child_init_that_hangs_fails_the_start() {
    for (place, name) in [("[2]", "worker 2"), ("[-2]", "control"), ("[7]", "entry")] {
        let started = Instant::now();
        let ended = everything("", &format!("child_init{place}: hang"))
            .host("start_timeout", "\"3s\"")
            .pid_file()
            .expect_log("a process did not finish its initialisation in time")
            .allow_log("modhost:")
            .launch()
            .ends(1, PATIENCE);
        let took = started.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&took), "{took:?}");
        ended.log.assert(&["process ", name, "was in init_child_f(rank) of module \"recorder_b\" after 3 s"]);
        assert!(ended.log.contains("hint: raise host.start_timeout"));
        // The others ran to their end.
        let inits =
            ended.records.that(|record| record.event == "init_child_f" && record.module() == "recorder_b" && record.process_no() > 0);
        assert_eq!(inits.len(), EVERYTHING - 1);
        assert_eq!(ended.records.event("destroy_f").len(), 2);
    }
}

#[test]
fn l25_a_call_in_main_that_hangs_fails_the_start() {
    // The children need some time before main gets to the last call.
    for (script, phase, timeout) in [
        ("init_f: hang", "init_f", "300ms"),
        ("proc_init: hang", "init_child_f(PROC_INIT)", "300ms"),
        ("proc_main: hang_hard", "init_child_f(PROC_MAIN)", "300ms"),
        ("post_child_init: hang", "init_child_f(PROC_POSTCHILDINIT)", "3s"),
    ] {
        let ended = Setup::new()
            .module(fixture("recorder_a"))
            .module(fixture("recorder_b").script(script))
            .host("start_timeout", &format!("\"{timeout}\""))
            .pid_file()
            .control()
            .expect_log("did not finish in time")
            .allow_log("modhost:")
            .fails(1);
        assert!(ended.log.contains(&format!("in {phase} of module \"recorder_b\"")), "{script}: {}", ended.log);
        ended.assert_files_removed();
    }
}
