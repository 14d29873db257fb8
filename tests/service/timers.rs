//! Timer functions: when they are called, in which process, and the effect of misbehaviour.

use std::time::Duration;

use harness::{Host, Record, Setup, fixture, processes};

/// The calls of a timer, once there are this many.
fn calls(host: &Host, name: &str, count: usize) -> Vec<Record> {
    let is_call = |record: &Record| record.event == "timer" && record.text("name") == name;
    host.wait_for_records(&format!("{count} calls of {name}"), count, is_call)
}

/// On a busy machine a call may take longer than a short period.
fn service(script: &str) -> Setup {
    Setup::new().module(fixture("recorder_a").script(script)).allow_log("a timer function is slower than its period")
}

/// How late each call was, in milliseconds, against a schedule that starts at the first call.
fn lateness_ms(calls: &[Record], period: Duration) -> Vec<f64> {
    let start = calls[0].number("t_ns");
    let mut periods = 0;
    let late = calls[1..].iter().map(|call| {
        periods += call.number("expirations");
        (call.number("t_ns") - start - periods * period.as_nanos() as i64) as f64 / 1e6
    });
    late.collect()
}

#[test]
fn periodic_functions_in_both_processes_do_not_drift() {
    let host = service("init_f: timer fast tick 0 5, timer slow tock 10 5").start();
    for (name, title) in [("tick", "modhost: timer"), ("tock", "modhost: slow timer")] {
        let calls = calls(&host, name, 200);
        assert!(calls.iter().all(|call| call.pid() == calls[0].pid() && call.rank() == -1));
        assert_eq!(processes::title(calls[0].pid()), title);
        let late = lateness_ms(&calls, Duration::from_millis(5));
        // A busy machine delays single calls. Drift would delay every later call: waiting a full
        // period after each call loses a tenth of a millisecond each time.
        let best = |late: &[f64]| late.iter().copied().fold(f64::INFINITY, f64::min);
        let (early, end) = (best(&late[..50]), best(&late[late.len() - 50..]));
        assert!((end - early).abs() < 4.0, "{name}: {early} ms late at first, {end} ms in the end");
    }
    host.stop();
}

#[test]
fn one_shot_functions_are_called_once_per_process() {
    let script =
        "init_f: timer fast once 1 0, timer fast tick 0 10, timer slow later 1 0, timer slow tock 0 10; proc_init: timer fast too 1 0";
    let host = service(script).expect_log("a process died and is replaced").start();
    for (once, periodic) in [("once", "tick"), ("later", "tock"), ("too", "tick")] {
        calls(&host, periodic, 10);
        assert_eq!(calls(&host, once, 1).len(), 1);
    }
    let before = calls(&host, "once", 1)[0].clone();
    host.kill(before.pid());
    let after = calls(&host, "once", 2);
    assert_ne!(after[1].pid(), before.pid());
    assert_eq!(after[1].process_no(), before.process_no());
    let ticks = calls(&host, "tick", 1).len();
    calls(&host, "tick", ticks + 10);
    assert_eq!(calls(&host, "once", 1).len(), 2);
    assert_eq!(calls(&host, "later", 1).len(), 1, "the other timer process is unaffected");
    host.stop();
}

#[test]
fn a_slow_function_is_named_and_missed_periods_are_counted() {
    let script = "init_f: timer slow heavy 0 20, timer fast tick 0 20; timer_heavy: await_time 70";
    let host = service(script).expect_log("a timer function is slower than its period module=\"recorder_a\" timer=\"heavy\"").start();
    let heavy = calls(&host, "heavy", 6);
    assert!((1..50).contains(&heavy[0].number("expirations")), "{}", heavy[0]);
    for call in &heavy[1..] {
        assert!((2..50).contains(&call.number("expirations")), "{call}");
    }
    // On schedule and never early: every deadline that a call counts has passed. The schedule
    // begins when the process does, right after its initialisation.
    let records = host.records();
    let began_ns = records.that(|record| record.event == "init_child_f" && record.pid() == heavy[0].pid())[0].number("t_ns");
    let mut periods = -1;
    for call in &heavy {
        periods += call.number("expirations");
        let late_ns = call.number("t_ns") - began_ns - periods * 20_000_000;
        assert!(late_ns >= 0, "{} ns early: {call}", -late_ns);
    }
    // The other process continues meanwhile.
    let (first, last) = (heavy[0].number("t_ns"), heavy[5].number("t_ns"));
    let ticks = calls(&host, "tick", 10);
    assert!(ticks.iter().filter(|tick| (first..last).contains(&tick.number("t_ns"))).count() >= 5);
    let log = host.stop().log;
    // Logged the first time, then at growing intervals.
    assert!(log.count("slower than its period") <= 1 + heavy.len() / 2, "{log}");
}

#[test]
fn failing_functions_are_called_again_and_panics_end_the_process() {
    let script = "init_f: timer fast tick 0 10; timer_tick@0: fail out of paper; timer_tick@1: panic out of ink";
    let host = service(script)
        .listen("recorder_a:serve", 1)
        .expect_log("a timer function failed module=\"recorder_a\" timer=\"tick\" code=-1 error=\"out of paper\"")
        .expect_log("a timer function panicked module=\"recorder_a\" timer=\"tick\"")
        .expect_log("a process died and is replaced")
        .allow_log("panicked: out of ink")
        .start();
    let failing = calls(&host, "tick", 3);
    assert!(failing.iter().all(|call| call.pid() == failing[0].pid()), "a failure is logged and the process continues");
    host.kill(failing[0].pid());
    let after = host.wait_for_record("the life after the panic", |record| record.event == "timer" && record.number("restarts") == 2);
    assert_eq!(after.process_no(), failing[0].process_no());
    // Main forks the replacement first and logs afterwards.
    host.wait_for_log("exited with status 70");
    host.log().assert(&["how=\"exited with status 70\"", "in a timer function of module \\\"recorder_a\\\""]);
    host.stop();
}

#[test]
fn timers_of_two_modules_with_and_without_fork() {
    let setup = || service("init_f: timer fast tick 0 10").module(fixture("recorder_b").script("init_f: timer fast tock 0 10"));
    for setup in [setup(), setup().argument("--no-fork")] {
        let host = setup.start();
        let (one, other) = (calls(&host, "tick", 5), calls(&host, "tock", 5));
        assert_eq!(one[0].pid(), other[0].pid(), "one process for the functions of all");
        host.stop();
    }
}

#[test]
fn registering_a_timer_after_the_fork_is_refused() {
    let setup = Setup::new().module(fixture("recorder_a").script("proc_main: timer fast late 0 10")).listen("recorder_a:serve", 1);
    let host = setup
        .expect_log("module \"recorder_a\" called timer_add in init_child_f(PROC_MAIN)")
        .expect_log("module \"recorder_a\" called timer_add in a datagram handler")
        .expect_log("timer_add works in init_f and init_child_f(PROC_INIT)")
        .start();
    assert_eq!(host.client().ask_text("timer fast late 0 10"), "-2");
    assert_eq!(host.stop().records.event("timer").len(), 0);
}
