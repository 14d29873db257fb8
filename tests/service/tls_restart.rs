//! New certificates while a worker is dead: its replacement has the last good ones.

use std::fs;

use harness::processes::{self, Process};
use harness::{Deadline, Host, PATIENCE};
use rcgen::KeyPair;
use rustix::process::Signal;

use super::from_outside::{address, control_json, wait_until, workers};
use super::tls::{Authority, offered, put, setup, written};

/// The states of the TCP workers in `ps`.
fn states(host: &Host) -> Vec<String> {
    let all = control_json(host, &["ps"]);
    let rows = all.as_array().expect("a list").iter().filter(|row| row["name"].as_str().is_some_and(|name| name.contains("TCP worker")));
    rows.map(|row| row["state"].as_str().expect("a state").to_owned()).collect()
}

#[test]
fn a_delayed_worker_returns_with_new_certificates() {
    let authority = Authority::new();
    let setup = setup(&authority, "").host("workers", "1").control();
    let host = setup.expect_log("its replacement waits").expect_log("the certificates stay as they were").start();
    let host = host.allowing("a process died and is replaced");
    let (at, offer) = (address(&host, 0), authority.client());
    let first = written(&host, "server.pem");
    assert_eq!(offered(&offer, at), first);
    // The one worker dies repeatedly until its replacement is delayed for long.
    while !host.log().contains("delay_ms=3200") {
        wait_until(&host, "a worker", || !workers(&host).is_empty());
        let worker = workers(&host)[0];
        let deaths = |host: &Host| host.log().count("died and is replaced") + host.log().count("its replacement waits");
        let before = deaths(&host);
        host.kill(worker);
        host.wait("a death in the log", |host| (deaths(host) > before).then_some(()));
    }
    assert_eq!(states(&host), ["waiting"]);
    authority.certify(host.folder(), "server", "localhost", 2090);
    let second = written(&host, "server.pem");
    host.signal(Signal::HUP);
    host.wait_for_log("certificates read again");
    // The next certificate is bad and changes nothing.
    let key = KeyPair::generate().unwrap().serialize_pem();
    put(host.folder(), "server.key", &key);
    host.signal(Signal::HUP);
    host.wait_for_log("the certificates stay as they were");
    let log = host.log();
    let line = &log.line("the certificates stay as they were").unwrap().text;
    assert!(line.contains("the key does not belong to the certificate") && line.contains("server.key"), "{line}");
    assert_eq!(states(&host), ["waiting"], "the replacement should have come by now");
    // It waits in the link of the worker, which has never seen the first certificate.
    let got = offered(&offer, at);
    assert!(got != first && got == second);
    assert_eq!(states(&host), ["serving"]);
    host.stop();
}

#[test]
fn a_dead_worker_returns_with_new_certificates() {
    let authority = Authority::new();
    let host = setup(&authority, "").host("workers", "2").expect_log("a process died and is replaced").start();
    let (at, offer) = (address(&host, 0), authority.client());
    let old = written(&host, "server.pem");
    for _ in 0..4 {
        assert_eq!(offered(&offer, at), old);
    }
    // Main is stopped and does not notice a death.
    let main = Process::open(host.main_pid()).expect("main");
    main.stop(Deadline::after(PATIENCE));
    let victim = workers(&host)[0];
    processes::signal_process(victim, Signal::KILL);
    authority.certify(host.folder(), "server", "localhost", 2090);
    let new = written(&host, "server.pem");
    host.signal(Signal::HUP);
    host.wait_for_log("certificates read again");
    // The files are not read again.
    fs::remove_file(host.path("server.pem")).unwrap();
    main.signal(Signal::CONT);
    host.wait_for_log("a process died and is replaced");
    for _ in 0..8 {
        assert_eq!(offered(&offer, at), new);
    }
    assert!(!workers(&host).contains(&victim));
    host.stop();
}
