//! Targets and formats of the log.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use harness::{Client, Host, Log, Setup, fixture, is_root};
use rustix::process::Signal;

/// Each listener has one worker, so that a test can choose the worker.
fn two_workers(setup: Setup) -> Setup {
    setup.module(fixture("recorder_a")).listen("recorder_a:serve", 1).listen("recorder_a:serve", 1)
}

fn rotate(host: &Host) {
    fs::rename(host.path("log"), host.path("log.1")).unwrap();
    host.signal(Signal::HUP);
    host.wait("a new log file", |host| Log::parse(&fs::read_to_string(host.path("log")).ok()?).contains("log reopened").then_some(()));
}

/// After a rotation every process writes to the new file, and none to the old one.
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
fn all_processes_follow_a_log_rotation() {
    let ended = check_rotation(Setup::new()).stop();
    // Includes main's last lines; main had written nothing between the rotation and its stop.
    assert!(ended.log.contains("stopping signal=SIGTERM"));
}

#[test]
fn all_processes_follow_a_log_rotation_without_fork() {
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
fn text_of_a_module_cannot_forge_a_log_line() {
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
        // The lines of each process are in order.
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

/// Starts a host in a private mount namespace, in which the script mounts file systems.
fn with_mounts(setup: Setup, script: &str) -> Host {
    setup.launch_through(&["unshare", "-m", "sh", "-ec", &format!("{script}; exec \"$@\""), "sh"])
}

/// The same, with a receiver at this socket in its folder.
fn with_receiver(target: &str, script: &str, socket: &str) -> (Host, Receiver) {
    let setup = two_workers(Setup::new()).log("target", &format!("{target:?}")).control();
    let path = setup.folder().join(socket);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let receiver = Receiver::at(&path);
    (with_mounts(setup, script), receiver)
}

/// Plays the daemon that receives log records.
struct Receiver(UnixDatagram);

impl Receiver {
    fn at(path: &Path) -> Receiver {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        Receiver(socket)
    }

    /// The next datagram that contains the text.
    #[track_caller]
    fn wait_for(&self, text: &str) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("{text}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(text) {
                return buffer[..length].to_vec();
            }
        }
    }
}

/// A client of the listener that a log line names.
fn client_of(text: &str) -> Client {
    let port = text.rsplit_once("127.0.0.1:").unwrap().1.chars().take_while(char::is_ascii_digit).collect::<String>();
    Client::of(format!("127.0.0.1:{port}").parse().unwrap())
}

#[test]
fn syslog_gets_a_datagram_for_each_record() {
    if !is_root() {
        return;
    }
    // A /dev with `log` and the few devices that programs need.
    let script = "mkdir dev; mount -t tmpfs dev dev; for name in null zero full random urandom; do touch dev/$name; \
                  mount --bind /dev/$name dev/$name; done; touch dev/log; mount --bind syslog/socket dev/log; mount --rbind dev /dev";
    let (host, receiver) = with_receiver("syslog", script, "syslog/socket");
    let ready = String::from_utf8(receiver.wait_for("ready in ")).unwrap();
    assert!(ready.starts_with(&format!("<30>modhost[{}]: info [main] ready in ", host.main_pid())), "{ready}");
    let listener = String::from_utf8(receiver.wait_for("  listener udp ")).unwrap();
    let worker = host.records().child_inits(1)[0].pid();
    let client = client_of(&listener);
    for (level, priority, word) in [(1, 27, "error"), (2, 28, "warn"), (3, 30, "info")] {
        assert_eq!(client.ask_text(&format!("log {level} one\ntwo")), "0");
        let line = String::from_utf8(receiver.wait_for("one")).unwrap();
        assert!(line.starts_with(&format!("<{priority}>modhost[{worker}]: {word} [worker 1 udp 127.0.0.1:")), "{line}");
        assert!(line.ends_with("] recorder_a: one\\ntwo"), "{line}");
    }
    host.stop();
    receiver.wait_for("stopped");
}

/// `host.log_lost` as `modhost stats` prints it.
fn log_lost(host: &Host) -> u64 {
    let output = Command::new(host.path("modhost")).arg("stats").arg("-s").arg(host.path("control")).arg("host.log_lost").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).expect("a row of the table").parse().unwrap()
}

/// The fields of a datagram of the journal's native protocol.
fn fields(mut rest: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = BTreeMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            fields.insert(text(&line[..equals]), text(&line[equals + 1..]));
            continue;
        }
        let (length, after) = rest.split_first_chunk().unwrap();
        let (value, after) = after.split_at(u64::from_le_bytes(*length) as usize);
        fields.insert(text(line), text(value));
        rest = after.strip_prefix(b"\n").unwrap();
    }
    fields
}

#[test]
fn the_journal_gets_fields_and_is_reconnected() {
    if !is_root() {
        return;
    }
    let script = "mount -t tmpfs run /run; mkdir -p /run/systemd/journal; mount --bind journal /run/systemd/journal";
    let (host, receiver) = with_receiver("journald", script, "journal/socket");
    let ready = fields(&receiver.wait_for("ready in "));
    assert_eq!((ready["PRIORITY"].as_str(), ready["SYSLOG_IDENTIFIER"].as_str()), ("6", "modhost"));
    assert_eq!(ready["MODHOST_PROCESS"], "main");
    let client = client_of(&fields(&receiver.wait_for("  listener udp "))["MESSAGE"]);
    assert_eq!(client.ask_text("log 2 one\ntwo"), "0");
    let record = fields(&receiver.wait_for("one"));
    assert_eq!((record["PRIORITY"].as_str(), record["MODHOST_MODULE"].as_str()), ("4", "recorder_a"));
    assert_eq!(record["MESSAGE"], "recorder_a: one\ntwo");
    assert!(record["MODHOST_PROCESS"].starts_with("worker 1 udp 127.0.0.1:") && !record.contains_key("MODHOST_LOST"));

    // Lost records of every process are counted: two of a worker, one of the supervisor. Main may
    // still be writing the summary, so there can be more.
    drop(receiver);
    fs::remove_file(host.path("journal/socket")).unwrap();
    let before = log_lost(&host);
    for _ in 0..2 {
        assert_eq!(client.ask_text("log 3 to nobody"), "0");
    }
    let of_worker = log_lost(&host);
    assert!(of_worker >= before + 2, "{before}, then {of_worker}");
    host.signal(Signal::HUP);
    host.wait("the record that the supervisor loses", |host| (log_lost(host) > of_worker).then_some(()));
    let receiver = Receiver::at(&host.path("journal/socket"));
    assert_eq!(client.ask_text("log 3 again"), "0");
    let record = fields(&receiver.wait_for("again"));
    assert_eq!((record["MESSAGE"].as_str(), record["MODHOST_LOST"].as_str()), ("recorder_a: again lost=2", "2"));
    host.stop();

    // Without a journal the start fails.
    let setup = two_workers(Setup::new()).log("target", "\"journald\"");
    let host = with_mounts(setup.expect_log("cannot log to the journal"), "mount -t tmpfs run /run");
    let ended = host.ends(1, harness::PATIENCE);
    assert!(ended.log.contains("/run/systemd/journal/socket: no such file or directory"), "{}", ended.log);
}
