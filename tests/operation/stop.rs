//! Stopping: in order, against resistance, by force, and when the supervisor is no more.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Deadline, Ended, Host, PATIENCE, Setup, fixture, processes};
use rustix::process::Signal;

fn service(script: &str) -> Setup {
    service_in(Setup::new(), script)
}

fn service_in(setup: Setup, script: &str) -> Setup {
    setup.pid_file().module(fixture("recorder_a").script(script)).module(fixture("recorder_b")).listen("recorder_a:serve", 2).control()
}

fn destroyed(ended: &Ended) -> Vec<String> {
    ended.records.event("destroy_f").iter().map(|record| record.module().to_owned()).collect()
}

#[track_caller]
fn assert_undone(ended: &Ended) {
    assert!(!ended.folder().join("pid").exists(), "the pid file is left");
    assert!(!ended.folder().join("control").exists(), "the control socket is left");
}

#[test]
fn each_stop_signal_stops_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        for arguments in [&[][..], &["--no-fork"]] {
            let script = "init_f: register 2; proc_main: fork 7 entry, fork_return 8 returning; returned: hang; destroy_f: children";
            let host = arguments.iter().fold(service(script), |setup, argument| setup.argument(argument)).start();
            host.wait_for_records("both processes", 2, |record| matches!(record.event.as_str(), "process" | "returned"));
            host.signal(signal);
            let ended = host.ends(0, PATIENCE);
            assert_eq!(destroyed(&ended), ["recorder_b", "recorder_a"]);
            assert_eq!(ended.records.outcomes("recorder_a", "children"), [0], "the children are gone before");
            assert_undone(&ended);
        }
    }
}

#[test]
fn two_signals_at_one_moment_are_one_wish() {
    let host = service("destroy_f: await_time 50").start();
    // Tools that signal every process of a name reach main too, and maybe first.
    processes::signal_process(host.main_pid(), Signal::TERM);
    host.wait_for_record("destroy_f", |record| record.event == "destroy_f");
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        host.signal(signal);
    }
    let ended = host.ends(0, PATIENCE);
    assert_eq!(destroyed(&ended), ["recorder_b", "recorder_a"]);
}

/// A host with a process that does not listen to SIGTERM.
fn stubborn(setup: Setup) -> Host {
    let host = setup.start();
    host.wait_for_record("the stubborn process", |record| record.event == "process");
    host
}

#[test]
fn who_does_not_stop_in_time_is_killed_and_named() {
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
    assert_eq!(destroyed(&ended), ["recorder_b", "recorder_a"]);
    assert_undone(&ended);
}

#[test]
fn a_worker_that_hangs_in_a_handler_is_killed_and_blamed() {
    let host = service("").host("stop_timeout", "\"300ms\"").expect_log("a process did not stop in time and is killed").start();
    host.client().send(b"hang_hard");
    host.wait_for_record("the order", |record| record.event == "handler");
    host.signal(Signal::TERM);
    let ended = host.ends(0, PATIENCE);
    ended.log.assert(&["is killed", "name=\"worker ", "last=\"in a datagram handler of module \\\"recorder_a\\\"\""]);
    assert_eq!(destroyed(&ended), ["recorder_b", "recorder_a"]);
}

#[test]
fn a_second_wish_to_stop_is_force() {
    let host = stubborn(
        service("init_f: register 1; proc_main: fork 7 stubborn; child_init[7]: ignore_term; process: hang")
            .host("stop_timeout", "\"60s\"")
            .expect_log("stopped by force, as asked")
            .allow_log("modhost:"),
    );
    let supervisor = processes::Process::open(host.pid()).unwrap();
    host.signal(Signal::TERM);
    host.wait_for_log("stopping signal=SIGTERM");
    // Longer than the moment in which two are one.
    assert!(!supervisor.ends(Deadline::after(Duration::from_millis(1500))), "it does not wait for the stubborn process");
    host.signal(Signal::TERM);
    let ended = host.ends(1, PATIENCE);
    assert_eq!(destroyed(&ended), [""; 0]);
    assert_undone(&ended);
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
    assert_eq!(destroyed(&ended), ["recorder_b", "recorder_a"]);
    assert_undone(&ended);
}

#[test]
fn a_destroy_f_that_fails_or_crashes_does_not_hide_it() {
    for (way, code) in [("panic in the end", 0), ("segv", 1)] {
        let host = service(&format!("destroy_f: {way}"))
            .allow_log("panicked: in the end")
            .allow_log("in destroy_f of module \"recorder_a\"")
            .allow_log("modhost:")
            .start();
        host.signal(Signal::TERM);
        let ended = host.ends(code, PATIENCE);
        assert_undone(&ended);
        assert!(ended.log.contains(if code == 0 { "panicked" } else { "SIGSEGV" }), "{}", ended.log);
    }
}

#[test]
fn a_stop_while_starting_undoes_what_was_done() {
    // It waits until the wish to stop is known, and a moment for main to be told.
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
        assert_eq!(destroyed(&ended), initialised, "{script}");
        assert_undone(&ended);
    }
}

#[test]
fn a_stop_while_a_call_in_main_hangs_ends_too() {
    let host = service("init_f: hang_hard")
        .host("stop_timeout", "\"200ms\"")
        .expect_log("the stop did not finish in time, main was killed")
        .allow_log("modhost:")
        .launch();
    host.wait_for_record("init_f", |record| record.event == "init_f");
    host.signal(Signal::TERM);
    let ended = host.ends(1, PATIENCE);
    assert!(ended.log.contains("in init_f of module \"recorder_a\""), "{}", ended.log);
    assert_undone(&ended);
}

#[test]
fn main_that_is_asked_itself_stops_all() {
    let host = service("").start();
    processes::signal_process(host.main_pid(), Signal::TERM);
    let ended = host.ends(0, PATIENCE);
    assert_eq!(destroyed(&ended), ["recorder_b", "recorder_a"]);
    assert_undone(&ended);
}

#[test]
fn what_a_worker_has_in_hand_is_answered() {
    let host = service("").start();
    let client = host.client();
    client.send(b"await_time 300");
    host.wait_for_record("the order", |record| record.event == "handler");
    host.signal(Signal::TERM);
    assert_eq!(client.receive(), b"0");
    host.ends(0, PATIENCE);
}

#[test]
fn ctrl_c_reaches_the_supervisor_alone() {
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
fn nothing_outlives_a_killed_supervisor() {
    // Processes that ignore SIGTERM, that a module forked past the host, and one that stands still.
    let script = "init_f: register 3; proc_main: fork 7 stubborn, fork_return 8 returning, fork 9 standing; process[7]: hang_hard; \
                  returned: hang_hard";
    let host = service(script).start();
    host.wait_for_records("the processes", 3, |record| matches!(record.event.as_str(), "process" | "returned"));
    let standing = host.records().that(|record| record.event == "process" && record.rank() == 9)[0].pid();
    processes::Process::open(standing).unwrap().stop(Deadline::after(PATIENCE));
    host.client().send(b"hang_hard");
    host.wait_for_record("the order", |record| record.event == "handler");
    host.ends_with_its_supervisor();
}

#[test]
fn nothing_outlives_a_main_without_fork() {
    let host = service("init_f: register 1; proc_main: fork 7 stubborn; process: hang_hard").argument("--no-fork").start();
    host.wait_for_record("the process", |record| record.event == "process");
    host.ends_with_its_supervisor();
}

/// A child of a fork past the host belongs to nobody, and yet ends with the service.
#[test]
fn nothing_that_modules_forked_past_the_host_is_left() {
    let script = "init_f: fork_raw_stubborn; proc_main: fork_raw_stubborn; child_init: fork_raw_stubborn; timer_tick: fork_raw_stubborn";
    let setup = || service(&format!("{script}; init_f: timer fast tick 0 0"));
    let forks = |host: &Host| {
        host.wait_for_records("the forks", 2 + 5 + 1, |record| record.event == "did" && record.text("action") == "fork_raw_stubborn");
    };
    let host = setup().start();
    forks(&host);
    assert_eq!(host.client().ask_text("fork_raw_stubborn").parse::<i32>().map(|pid| pid > 0), Ok(true));
    host.stop();

    // Also when the process that forked has died, and when main has.
    let host = setup().allow_log("a process died and is replaced").expect_log("starting a new main").start();
    forks(&host);
    let main = host.main_pid();
    host.kill(host.records().child_inits(1)[0].pid());
    host.kill(main);
    host.wait_for_log_lines("ready in ", 2);
    // A killed supervisor is no part of this: the kernel ends what the host has forked, and these have nobody to end them.
    host.stop();
}

#[test]
fn a_main_that_stands_still_is_ended() {
    let host = service("").host("stop_timeout", "\"100ms\"").expect_log("main was killed").allow_log("modhost:").start();
    processes::Process::open(host.main_pid()).unwrap().stop(Deadline::after(PATIENCE));
    host.signal(Signal::TERM);
    let ended = host.ends(1, PATIENCE);
    assert_undone(&ended);
}

#[test]
fn without_fork_a_destroy_f_that_hangs_is_ended_too() {
    let host = Setup::new()
        .module(fixture("recorder_a").script("destroy_f: hang_hard"))
        .argument("--no-fork")
        .host("stop_timeout", "\"1s\"")
        .start();
    host.signal(Signal::TERM);
    host.ends(128 + 14, PATIENCE);
}
