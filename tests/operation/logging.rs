//! Where the log goes and what it looks like.

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::{Client, Host, Log, Setup, fixture, is_root};
use rustix::process::Signal;

/// Each listener has one worker, so that a test can speak to one at a time.
fn two_workers(setup: Setup) -> Setup {
    setup.module(fixture("recorder_a")).listen("recorder_a:serve", 1).listen("recorder_a:serve", 1)
}

fn rotate(host: &Host) {
    fs::rename(host.path("log"), host.path("log.1")).unwrap();
    host.signal(Signal::HUP);
    host.wait("a new log file", |host| Log::parse(&fs::read_to_string(host.path("log")).ok()?).contains("log reopened").then_some(()));
}

/// Every process writes to the new file, and none to the old one any more.
fn check_rotation(setup: Setup) -> Host {
    let host = two_workers(setup).log_file().start();
    let clients = [Client::of(host.address(0)), Client::of(host.address(1))];
    for round in 1..=2 {
        rotate(&host);
        let old = fs::read_to_string(host.path("log.1")).unwrap();
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.ask_text(&format!("log 3 worker {number} in round {round}")), "0");
            host.wait_for_log(&format!("recorder_a: worker {number} in round {round}"));
        }
        assert_eq!(fs::read_to_string(host.path("log.1")).unwrap(), old);
    }
    host
}

#[test]
fn a_rotated_file_is_left_by_all() {
    let ended = check_rotation(Setup::new()).stop();
    // Main's last words, too: it has written nothing between the rotation and now.
    assert!(ended.log.contains("stopping signal=SIGTERM"));
}

#[test]
fn a_rotated_file_is_left_by_all_without_fork() {
    let setup = Setup::new().module(fixture("recorder_a")).listen("recorder_a:serve", 1).argument("--no-fork").log_file();
    let host = setup.start();
    let client = host.client();
    fs::rename(host.path("log"), host.path("log.1")).unwrap();
    host.signal(Signal::HUP);
    host.wait("a new log file", |host| {
        assert_eq!(client.ask_text("log 3 again"), "0");
        fs::read_to_string(host.path("log")).ok()?.contains("recorder_a: again").then_some(())
    });
    host.stop();
}

#[test]
fn a_rotated_file_belongs_to_the_configured_user() {
    if !is_root() {
        return;
    }
    let host = check_rotation(Setup::new().host("user", "\"54321\"").host("group", "\"54322\""));
    let found = fs::metadata(host.path("log")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (54_321, 54_322, 0o640));
    host.stop();
}

#[test]
fn json_lines_are_json() {
    let host =
        Setup::new().module(fixture("recorder_a")).listen("recorder_a:serve", 1).log("format", "\"json\"").log_file().allow_log("").start();
    let port = host.wait("the address", |host| {
        let log = fs::read_to_string(host.path("log")).ok()?;
        let rest = log.split_once("listener udp 127.0.0.1:")?.1;
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse::<u16>().ok()
    });
    let client = Client::of(([127, 0, 0, 1], port).into());
    let nasty = "quote \" backslash \\ newline \n tab \t escape \u{1b}[31m level=error é \u{2028}";
    assert_eq!(client.ask_text(&format!("log 3 {nasty}")), "0");
    let worker = host.records().child_inits(1)[0].pid();
    let ended = host.stop();
    let text = fs::read_to_string(ended.folder().join("log")).unwrap();
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(records.len() > 5);
    for record in &records {
        assert!(record["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{record}");
        assert!(record["level"].is_string() && record["process"].is_string() && record["pid"].is_i64(), "{record}");
        assert!(record["message"].is_string(), "{record}");
    }
    let sent = records.iter().find(|record| record["module"] == "recorder_a").expect("the module's record");
    assert_eq!((sent["message"].as_str().unwrap(), sent["pid"].as_i64().unwrap()), (nasty, i64::from(worker)));
    assert_eq!(sent["level"], "info");
}

#[test]
fn no_text_of_a_module_makes_a_line_of_its_own() {
    let host = Setup::new().module(fixture("recorder_a")).listen("recorder_a:serve", 1).start();
    let forged = "2026-01-31T12:00:00.000Z error [main 1] all is lost";
    assert_eq!(host.client().ask_text(&format!("log 3 harmless\n{forged}\r\n{forged}")), "0");
    let ended = host.stop();
    let line = ended.log.line("harmless").expect("one line");
    assert!(line.level == "info" && line.text.contains("all is lost"), "{line:?}");
}

#[test]
fn levels_of_host_and_modules() {
    let speak = "proc_init: log 1 one, log 2 two, log 3 three, log 4 four, log 5 five";
    let host = Setup::new()
        .module(fixture("recorder_a").script(speak))
        .module(fixture("recorder_b").script(speak))
        .log("level", "\"warn\"")
        .log("modules", "{ recorder_b = \"debug\" }")
        .allow_log("recorder_a: ")
        .allow_log("recorder_b: ")
        .launch();
    host.wait_for_record("readiness", |record| record.is_child_init(-126));
    let log = host.stop().log;
    for (word, first, second) in [("one", 1, 1), ("two", 1, 1), ("three", 0, 1), ("four", 0, 1), ("five", 0, 0)] {
        assert_eq!(log.count(&format!("recorder_a: {word}")), first, "{log}");
        assert_eq!(log.count(&format!("recorder_b: {word}")), second, "{log}");
    }
    assert!(!log.contains("ready in "), "{log}");
}

#[test]
fn lines_of_many_processes_never_mix() {
    for setup in [Setup::new(), Setup::new().log_file()] {
        let script = "child_init: chatter 300 200";
        let host = setup.module(fixture("recorder_a").script(script)).listen("recorder_a:serve", 6).start();
        let log = host.stop().log;
        let lines: Vec<_> = log.lines.iter().filter(|line| line.text.starts_with("recorder_a: line ")).collect();
        assert_eq!(lines.len(), 8 * 300);
        let tail = format!(" {}", "x".repeat(200));
        for line in &lines {
            assert!(line.text.ends_with(&tail) && line.text.len() <= "recorder_a: line 299".len() + tail.len(), "{line:?}");
        }
        // Each process's own lines are in order.
        for pid in lines.iter().map(|line| line.pid).collect::<std::collections::BTreeSet<i32>>() {
            let own: Vec<_> = lines.iter().filter(|line| line.pid == pid).collect();
            for (number, line) in own.iter().enumerate() {
                assert!(line.text.starts_with(&format!("recorder_a: line {number} ")), "{line:?}");
            }
        }
    }
}

#[test]
fn a_log_that_cannot_be_opened_fails_the_start() {
    let setup = Setup::new().module(fixture("recorder_a")).log("target", "\"/nonexistent/folder/log\"");
    let ended = setup.expect_log("modhost: cannot open the log file").fails(1);
    assert_eq!(ended.records.0.len(), 0);
}
