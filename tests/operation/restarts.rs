//! Replacements beyond promise L34: when they are delayed, when there are none, and a main that
//! cannot start again.

use std::fs;

use harness::processes::Process;
use harness::{Deadline, PATIENCE, Setup, fixture};
use rustix::process::Signal;

#[test]
fn a_worker_that_keeps_dying_is_replaced_with_growing_delays() {
    let host = Setup::new()
        .module(fixture("recorder_a"))
        .listen("recorder_a:serve", 1)
        .expect_log("a process died and is replaced")
        .expect_log("a process keeps dying, its replacement waits process_no=1")
        .start();
    for life in 1..=8 {
        let worker = host.records().child_inits(1).last().unwrap().pid();
        host.kill(worker);
        host.wait_for_record("the replacement", |record| record.is_child_init(1) && record.number("restarts") == life);
        // Wait until it serves: a process that dies during its initialisation is handled
        // differently.
        assert_eq!(host.client().ask_text("max_procs"), "4");
    }
    let log = host.log();
    assert_eq!(log.count("a process died and is replaced"), 5, "the first replacements are immediate: {log}");
    for delay in ["delay_ms=100", "delay_ms=200", "delay_ms=400"] {
        log.assert(&["its replacement waits", delay]);
    }
    assert_eq!(host.client().ask_text("max_procs"), "4");
    host.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_delayed_replacement() {
    let host = Setup::new().module(fixture("recorder_a").script("child_init[1]@1: fail; child_init[1]@2: fail; child_init[1]@3: fail"));
    let host = host.listen("recorder_a:serve", 1).allow_log("").start();
    host.kill(host.records().child_inits(1)[0].pid());
    host.wait_for_log("delay_ms=200");
    host.stop();
}

#[test]
fn module_processes_are_replaced_only_if_they_fail() {
    let script = "init_f: register 4; proc_main: fork 11 finishes, fork 12 fails, fork 13 panics, fork_return 14 returning; \
                  process[11]: leave; process[12]@0: fail no more paper; process[13]@0: panic no more ink; returned: segv";
    let host = Setup::new()
        .module(fixture("recorder_a").script(script))
        .expect_log("a module's process failed module=\"recorder_a\" code=-1 error=\"no more paper\"")
        .expect_log("a module's process failed module=\"recorder_a\" code=-70")
        .expect_log("a process died and is replaced process_no=4 name=\"fails\" how=\"exited with status 1\"")
        .expect_log("a process died and is replaced process_no=5 name=\"panics\" how=\"exited with status 70\"")
        .expect_log("a module's process died and is not restarted, it has no entry function process_no=6 name=\"returning\" how=\"was killed by SIGSEGV\"")
        .allow_log("panicked: no more ink")
        .start();
    for rank in [12, 13] {
        host.wait_for_record("the replacement", |record| {
            record.event == "process" && record.rank() == rank && record.number("restarts") == 1
        });
    }
    host.wait_for_log("a module's process has finished process_no=3 name=\"finishes\"");
    host.wait_for_log("is not restarted");
    // Two timers and the two replacements.
    assert_eq!(host.children().len(), 4);
    let records = host.stop().records;
    assert_eq!(records.child_inits(11).len(), 1);
    assert_eq!(records.child_inits(14).len(), 1);
}

#[test]
fn a_worker_ended_by_a_stop_signal_is_replaced() {
    let host =
        Setup::new().module(fixture("recorder_a")).listen("recorder_a:serve", 2).expect_log("a process died and is replaced").start();
    let worker = Process::open(host.records().child_inits(2)[0].pid()).unwrap();
    worker.wait_until_asleep(Deadline::after(PATIENCE));
    worker.signal(Signal::TERM);
    host.wait_for_record("the replacement", |record| record.is_child_init(2) && record.number("restarts") == 1);
    host.log().assert(&["process_no=2", "how=\"exited with status 0\""]);
    host.stop();
}

#[test]
fn a_new_main_that_fails_to_start_is_retried() {
    let setup = Setup::new();
    let obstacle = setup.folder().join("obstacle");
    let script = format!("init_f: fail_if_file {}", obstacle.display());
    let host = setup
        .pid_file()
        .module(fixture("recorder_a").script(&script))
        .listen("recorder_a:serve", 1)
        .expect_log("was killed by SIGKILL")
        .expect_log("module \"recorder_a\" failed in init_f: the file is there")
        .allow_log("starting a new main")
        .start();
    let client = host.client();
    fs::write(&obstacle, "").unwrap();
    host.kill(host.main_pid());
    host.wait_for_log("failed in init_f: the file is there");
    client.send(b"max_procs");
    fs::remove_file(&obstacle).unwrap();
    assert_eq!(client.receive(), b"4", "datagrams that came meanwhile are answered by the next main that starts");
    host.stop();
}

#[test]
fn retries_of_a_new_main_end() {
    let setup = Setup::new();
    let obstacle = setup.folder().join("obstacle");
    let host = setup
        .pid_file()
        .control()
        .module(fixture("recorder_a").script(&format!("init_f: fail_if_file {}", obstacle.display())))
        .allow_log("")
        .start();
    fs::write(&obstacle, "").unwrap();
    host.kill(host.main_pid());
    let ended = host.ends(1, PATIENCE);
    assert_eq!(ended.records.event("init_f").len(), 1 + 5, "{}", ended.log);
    assert!(ended.log.contains("main keeps dying"), "{}", ended.log);
    ended.assert_files_removed();
}

#[test]
fn a_later_crash_of_main_is_blamed_on_the_module() {
    // The second main crashes in a module; the third starts.
    let setup = Setup::new();
    let obstacle = setup.folder().join("obstacle");
    let hang = format!("init_f: await_file {}; proc_init: fail_if_file {}.not", obstacle.display(), obstacle.display());
    fs::write(&obstacle, "").unwrap();
    let host = setup
        .module(fixture("recorder_a"))
        .module(fixture("recorder_b").script(&hang))
        .expect_log("was killed by SIGKILL outside any module")
        .expect_log("was killed by SIGKILL in init_f of module \"recorder_b\"")
        .allow_log("starting a new main")
        .start();
    fs::remove_file(&obstacle).unwrap();
    host.kill(host.main_pid());
    let second = host.wait_for_records("the second main", 2, |record| record.event == "init_f" && record.module() == "recorder_b");
    host.kill(second[1].pid());
    fs::write(&obstacle, "").unwrap();
    host.wait_for_log_lines("ready in ", 2);
    host.stop();
}

#[test]
fn a_new_main_that_hangs_is_ended_by_the_start_timeout() {
    let setup = Setup::new();
    let gate = setup.folder().join("gate");
    fs::write(&gate, "").unwrap();
    let host = setup
        .host("start_timeout", "\"3s\"")
        .module(fixture("recorder_a").script(&format!("init_f: await_file {}", gate.display())))
        .expect_log("the start did not finish in time")
        .expect_log("in init_f of module \"recorder_a\"")
        .allow_log("starting a new main")
        .start();
    fs::remove_file(&gate).unwrap();
    host.kill(host.main_pid());
    host.wait_for_log("the start did not finish in time");
    fs::write(&gate, "").unwrap();
    host.wait_for_log_lines("ready in ", 2);
    host.stop();
}

#[test]
fn a_stop_while_the_next_main_is_delayed() {
    let setup = Setup::new();
    let obstacle = setup.folder().join("obstacle");
    let host = setup
        .pid_file()
        .module(fixture("recorder_a").script(&format!("init_f: fail_if_file {}", obstacle.display())))
        .allow_log("")
        .start();
    fs::write(&obstacle, "").unwrap();
    host.kill(host.main_pid());
    host.wait_for_log("delay_ms=400");
    let ended = host.stop();
    assert!(!ended.folder().join("pid").exists());
}
