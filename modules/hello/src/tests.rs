//! Tests of the module with the SDK's fake host.

use module_api::testing::{Host, Level};

use super::*;

#[test]
fn each_worker_counts_its_own_greetings() {
    let peer = "192.0.2.1:5060".parse().unwrap();
    let host = Host::new().param("greeting", "moin").workers(2).start::<Hello>().unwrap();
    let (mut first, mut second) = (host.worker(1).unwrap(), host.worker(2).unwrap());
    let answers = first.datagrams("hello", &[(peer, "a"), (peer, "b")]).unwrap();
    assert_eq!(answers[1].data(), b"moin 192.0.2.1:5060, you are number 2 at worker 1\n");
    let answers = second.datagrams("hello", &[(peer, "c")]).unwrap();
    assert_eq!(answers[0].data(), b"moin 192.0.2.1:5060, you are number 1 at worker 2\n");
    // A restarted worker starts from zero.
    first.restart().unwrap();
    assert_eq!(first.state().map(|child| child.greeted), Some(0));
}

#[test]
fn each_phase_logs_a_greeting() {
    let host = Host::new().workers(1).start::<Hello>().unwrap();
    host.timer().unwrap();
    host.ready().unwrap();
    let logs = host.stop();
    let lines: Vec<_> = logs.records().iter().map(|record| (record.level, record.text.as_str())).collect();
    assert_eq!(
        lines,
        [
            (Level::Info, "hello from init, in main, before any fork"),
            (Level::Info, "hello from proc_init: there will be 5 processes"),
            (Level::Info, "hello from proc_main, in main, which has forked the workers"),
            (Level::Debug, "hello from process 3 of rank -1"),
            (Level::Info, "hello from post_child_init: everybody is ready"),
            (Level::Info, "hello for the last time, from destroy"),
        ]
    );
}
