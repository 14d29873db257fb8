//! Starting and stopping, the whole of it and nothing special: what every other test builds upon.

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
fn every_kind_of_process_at_once() {
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
    assert!(!ended.folder().join("pid").exists());
    assert!(!ended.folder().join("control").exists());
}
