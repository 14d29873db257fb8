//! Stopping: in order, with processes that do not stop, by force, and after the supervisor has
//! died.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Deadline, Host, PATIENCE, Setup, fixture, processes};
use rustix::process::Signal;

fn service(script: &str) -> Setup {
    service_in(Setup::new(), script)
}

fn service_in(setup: Setup, script: &str) -> Setup {
    setup.pid_file().module(fixture("recorder_a").script(script)).module(fixture("recorder_b")).listen("recorder_a:serve", 2).control()
}

#[test]
fn each_stop_signal_stops_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        for arguments in [&[][..], &["--no-fork"]] {
            let script = "init_f: register 2; proc_main: fork 7 entry, fork_return 8 returning; returned: hang; destroy_f: children";
            let host = arguments.iter().fold(service(script), |setup, argument| setup.argument(argument)).start();
            host.wait_for_module_processes(2);
            host.signal(signal);
            let ended = host.ends(0, PATIENCE);
            assert_eq!(ended.destroyed(), ["recorder_b", "recorder_a"]);
            assert_eq!(ended.records.outcomes("recorder_a", "children"), [0], "the children have ended before");
            ended.assert_files_removed();
        }
    }
}

#[test]
fn two_stop_signals_at_once_are_one_request() {
    let host = service("destroy_f: await_time 50").start();
    // Tools that signal every process of one name signal main too, perhaps first.
    processes::signal_process(host.main_pid(), Signal::TERM);
    host.wait_for_record("destroy_f", |record| record.event == "destroy_f");
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        host.signal(signal);
    }
    let ended = host.ends(0, PATIENCE);
    assert_eq!(ended.destroyed(), ["recorder_b", "recorder_a"]);
}

/// A host with a process that ignores SIGTERM.
fn stubborn(setup: Setup) -> Host {
    let host = setup.start();
    host.wait_for_record("the stubborn process", |record| record.event == "process");
    host
}

#[test]
fn a_process_that_does_not_stop_in_time_is_killed_and_named() {
    let host = stubborn(
        service("init_f: register 1; proc_main: fork 7 stubborn; child_init[7]: ignore_term; process: hang")
            .host("stop_timeout", "\"2s\"")
            .expect_log("a process did not stop in time and is killed process_no=6 name=\"stubborn\""),
    );
    let asked = Instant::now();
    host.signal(Signal::TERM);
    let ended = host.ends(0, PATIENCE);
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    ended.log.assert(&["stubborn", "last=\"in its own process of module \\\"recorder_a\\\"\""]);
    assert_eq!(ended.destroyed(), ["recorder_b", "recorder_a"]);
    ended.assert_files_removed();
}

#[test]
fn a_worker_that_hangs_in_a_handler_is_killed_and_blamed() {
    let host = service("").host("stop_timeout", "\"300ms\"").expect_log("a process did not stop in time and is killed").start();
    host.client().send(b"hang_hard");
    host.wait_for_record("the order", |record| record.event == "handler");
    host.signal(Signal::TERM);
    let ended = host.ends(0, PATIENCE);
    ended.log.assert(&["is killed", "name=\"worker ", "last=\"in a datagram handler of module \\\"recorder_a\\\"\""]);
    assert_eq!(ended.destroyed(), ["recorder_b", "recorder_a"]);
}

#[test]
fn a_second_stop_request_stops_by_force() {
    let host = stubborn(
        service("init_f: register 1; proc_main: fork 7 stubborn; child_init[7]: ignore_term; process: hang")
            .host("stop_timeout", "\"60s\"")
            .expect_log("stopped by force, as asked")
            .allow_log("modhost:"),
    );
    let supervisor = processes::Process::open(host.pid()).unwrap();
    host.signal(Signal::TERM);
    host.wait_for_log("stopping signal=SIGTERM");
    // Longer than the time in which two signals count as one.
    assert!(!supervisor.ends(Deadline::after(Duration::from_millis(1500))), "it does not wait for the stubborn process");
    host.signal(Signal::TERM);
    let ended = host.ends(1, PATIENCE);
    assert_eq!(ended.destroyed(), [""; 0]);
    ended.assert_files_removed();
}

#[test]
fn a_destroy_f_that_hangs_is_ended() {
    let host = service("destroy_f: hang_hard")
        .host("stop_timeout", "\"1s\"")
        .expect_log("the stop did not finish in time, main was killed")
        .allow_log("modhost:")
        .start();
    host.signal(Signal::TERM);
    let ended = host.ends(1, PATIENCE);
    assert!(ended.log.contains("in destroy_f of module \"recorder_a\""), "{}", ended.log);
    assert_eq!(ended.destroyed(), ["recorder_b", "recorder_a"]);
    ended.assert_files_removed();
}

#[test]
fn a_failing_or_crashing_destroy_f_is_reported() {
    for (way, code) in [("panic in the end", 0), ("segv", 1)] {
        let host = service(&format!("destroy_f: {way}"))
            .allow_log("panicked: in the end")
            .allow_log("in destroy_f of module \"recorder_a\"")
            .allow_log("modhost:")
            .start();
        host.signal(Signal::TERM);
        let ended = host.ends(code, PATIENCE);
        ended.assert_files_removed();
        assert!(ended.log.contains(if code == 0 { "panicked" } else { "SIGSEGV" }), "{}", ended.log);
    }
}

#[test]
fn a_stop_during_the_start_undoes_it() {
    // Init waits until the stop request is known, and a little longer, so that main is told.
    let waits = "await_file gate, await_time 300";
    for (script, initialised) in [
        (format!("init_f: {waits}"), &["recorder_a"][..]),
        (format!("proc_init: {waits}"), &["recorder_b", "recorder_a"]),
        (format!("proc_main: {waits}"), &["recorder_b", "recorder_a"]),
        (format!("child_init[1]: {waits}"), &["recorder_b", "recorder_a"]),
        ("child_init[-2]: hang".to_owned(), &["recorder_b", "recorder_a"]),
    ] {
        let setup = Setup::new();
        let gate = setup.folder().join("gate");
        let script = script.replace("gate", &gate.display().to_string());
        let host = service_in(setup, &script).launch();
        let awaited = script.split(':').next().unwrap();
        let is_there = |record: &harness::Record| match awaited {
            "init_f" => record.event == "init_f",
            "proc_init" => record.is_child_init(-127),
            "proc_main" => record.is_child_init(0),
            "child_init[1]" => record.is_child_init(1),
            _ => record.is_child_init(-2),
        };
        host.wait_for_record(awaited, is_there);
        host.signal(Signal::TERM);
        host.wait_for_log("stopping signal=SIGTERM");
        fs::write(&gate, "").unwrap();
        let ended = host.ends(0, PATIENCE);
        assert!(!ended.log.contains("ready in "), "{script}: {}", ended.log);
        assert_eq!(ended.destroyed(), initialised, "{script}");
        ended.assert_files_removed();
    }
}

#[test]
fn a_stop_while_a_call_in_main_hangs_ends_in_time() {
    let host = service("init_f: hang_hard")
        .host("stop_timeout", "\"200ms\"")
        .expect_log("the stop did not finish in time, main was killed")
        .allow_log("modhost:")
        .launch();
    host.wait_for_record("init_f", |record| record.event == "init_f");
    host.signal(Signal::TERM);
    let ended = host.ends(1, PATIENCE);
    assert!(ended.log.contains("in init_f of module \"recorder_a\""), "{}", ended.log);
    ended.assert_files_removed();
}

#[test]
fn a_stop_signal_to_main_stops_the_host() {
    let host = service("").start();
    processes::signal_process(host.main_pid(), Signal::TERM);
    let ended = host.ends(0, PATIENCE);
    assert_eq!(ended.destroyed(), ["recorder_b", "recorder_a"]);
    ended.assert_files_removed();
}

#[test]
fn a_stopping_worker_answers_received_datagrams() {
    let host = service("").start();
    let client = host.client();
    client.send(b"await_time 300");
    host.wait_for_record("the order", |record| record.event == "handler");
    host.signal(Signal::TERM);
    assert_eq!(client.receive(), b"0");
    host.ends(0, PATIENCE);
}

#[test]
fn ctrl_c_reaches_only_the_supervisor() {
    let host = service("").start();
    let main = host.main_pid();
    assert_ne!(processes::stat(host.pid()).group, main);
    for pid in host.children().into_iter().chain([main]) {
        assert_eq!(processes::stat(pid).group, main, "{}", processes::title(pid));
    }
    host.stop();
}

#[test]
fn many_workers_stop_at_once() {
    let host = Setup::new().module(fixture("recorder_a")).listen("recorder_a:echo", 100).start();
    let asked = Instant::now();
    host.stop();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn no_process_outlives_a_killed_supervisor() {
    // Processes that ignore SIGTERM, one forked by a module without the host, and one that is
    // stopped.
    let script = "init_f: register 3; proc_main: fork 7 stubborn, fork_return 8 returning, fork 9 standing; process[7]: hang_hard; \
                  returned: hang_hard";
    let host = service(script).start();
    host.wait_for_module_processes(3);
    let standing = host.records().that(|record| record.event == "process" && record.rank() == 9)[0].pid();
    processes::Process::open(standing).unwrap().stop(Deadline::after(PATIENCE));
    host.client().send(b"hang_hard");
    host.wait_for_record("the order", |record| record.event == "handler");
    host.kill_supervisor();
}

#[test]
fn no_process_outlives_a_killed_main_without_fork() {
    let host = service("init_f: register 1; proc_main: fork 7 stubborn; process: hang_hard").argument("--no-fork").start();
    host.wait_for_record("the process", |record| record.event == "process");
    host.kill_supervisor();
}

/// A process that a module forked with fork(2) is not in the host's table, and ends with the
/// service all the same.
#[test]
fn processes_forked_by_modules_with_fork_are_ended() {
    let script = "init_f: fork_raw_stubborn; proc_main: fork_raw_stubborn; child_init: fork_raw_stubborn; timer_tick: fork_raw_stubborn";
    let setup = || service(&format!("{script}; init_f: timer fast tick 0 0"));
    let forks = |host: &Host| {
        host.wait_for_records("the forks", 2 + 5 + 1, |record| record.event == "did" && record.text("action") == "fork_raw_stubborn");
    };
    let host = setup().start();
    forks(&host);
    assert_eq!(host.client().ask_text("fork_raw_stubborn").parse::<i32>().map(|pid| pid > 0), Ok(true));
    host.stop();

    // Also when the process that forked it has died, and when main has died.
    let host = setup().allow_log("a process died and is replaced").expect_log("starting a new main").start();
    forks(&host);
    let main = host.main_pid();
    host.kill(host.records().child_inits(1)[0].pid());
    host.kill(main);
    host.wait_for_log_lines("ready in ", 2);
    // A killed supervisor is not tested here. The kernel then ends the processes that the host
    // forked, and no process is left to end these.
    host.stop();
}

#[test]
fn a_stopped_main_is_ended() {
    let host = service("").host("stop_timeout", "\"100ms\"").expect_log("main was killed").allow_log("modhost:").start();
    processes::Process::open(host.main_pid()).unwrap().stop(Deadline::after(PATIENCE));
    host.signal(Signal::TERM);
    let ended = host.ends(1, PATIENCE);
    ended.assert_files_removed();
}

#[test]
fn without_fork_a_hanging_destroy_f_is_ended() {
    let host = Setup::new()
        .module(fixture("recorder_a").script("destroy_f: hang_hard"))
        .argument("--no-fork")
        .host("stop_timeout", "\"1s\"")
        .start();
    host.signal(Signal::TERM);
    host.ends(128 + 14, PATIENCE);
}
