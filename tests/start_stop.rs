//! A plain start and stop. All other tests build on this.

use harness::setup::module;
use harness::{Setup, fixture};

#[test]
fn a_host_starts_serves_and_stops() {
    let host = Setup::new().module(module("echo")).listen("echo", 2).start();
    assert_eq!(host.client().ask(b"hello"), b"hello");
    let ended = host.stop();
    assert_eq!(ended.log.count("ready in "), 1);
}

#[test]
fn all_kinds_of_processes_run_together() {
    let host = Setup::new()
        .module(fixture("recorder_a").script("init_f: register 1; proc_main: fork 7 extra"))
        .listen("recorder_a:serve", 2)
        .control()
        .pid_file()
        .start();
    // Main, two workers, two timers, control, one registered.
    assert_eq!(host.client().ask_text("max_procs"), "7");
    assert_eq!(host.children().len(), 6);
    let ended = host.stop();
    assert_eq!(ended.records.event("destroy_f").len(), 1);
    ended.assert_files_removed();
}

#[test]
fn wrong_calls_return_errors() {
    for setup in [Setup::new(), Setup::new().argument("--no-fork")] {
        // Most errors are returned to the module only; some are logged too.
        let host = setup.module(fixture("wrong_calls")).listen("wrong_calls:serve", 1).allow_log("wrong_calls").allow_log("] ?: ").start();
        for _ in 0..3 {
            assert_eq!(host.client().ask_text("go"), "as expected");
        }
        host.stop();
    }
}

#[test]
fn the_shipped_modules_run_together() {
    let modules = ["echo", "hello", "ticker"].into_iter().map(module);
    let setup = modules.fold(Setup::new(), Setup::module);
    let host = setup.listen("hello", 1).listen("echo", 1).argument("--set").argument("ticker.period=10ms").start();
    assert_eq!(harness::Client::of(host.address(1)).ask(b"x"), b"x");
    let greeting = host.client().ask_text("x");
    assert!(greeting.starts_with("hello 127.0.0.1:") && greeting.ends_with("you are number 1 at worker 1\n"), "{greeting}");
    // Its two processes count until they are stopped and then log the count.
    host.wait_for_log("hello: hello from post_child_init");
    let ended = host.stop();
    assert!(ended.log.contains("ticker: "), "{}", ended.log);
    assert!(ended.log.contains("hello: hello for the last time, from destroy"));
}
