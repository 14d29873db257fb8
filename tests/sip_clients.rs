//! SIP clients of other projects: sipp at 5,000 calls a second, and sipsak. A separate test
//! program, so that the other tests do not compete with it for processors.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::setup::module;
use harness::{Host, Setup, built, running};

/// Whether a program is installed. If not, its test is skipped and says so on stderr.
fn is_installed(program: &str, package: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        let _ = writeln!(std::io::stderr(), "{program} is not installed (Debian, Ubuntu: apt-get install {package}): not run");
    }
    found
}

/// The receive buffer is large because requests come in bursts and a lost request is sent again.
fn registrar() -> Host {
    let listener = "udp = \"127.0.0.1:0\"\nreceive_buffer = \"4MiB\"";
    Setup::new()
        .module(module("sip").param("registrar", "true"))
        .listen_with(listener, "sip", Some(2))
        .allow_log("a timer function is slower than its period")
        .start()
}

/// The counters of sipp: successful calls, failed calls, retransmitted requests.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    succeeded: u64,
    failed: u64,
    sent_again: u64,
}

/// Plays a scenario of `tests/sip` against a new host, at 5,000 calls a second. All calls must
/// succeed without a retransmission.
fn play(scenario: &str, calls: u64) {
    let host = registrar();
    let folder = host.folder().to_owned();
    let output = File::create(folder.join("sipp.out")).expect("a file for output");
    let mut child = Command::new("sipp")
        .arg("-sf")
        .arg(built::root().join(format!("tests/sip/{scenario}.xml")))
        .args(["-r", "5000", "-m", &calls.to_string(), "-l", "15000", "-i", "127.0.0.1", "-buff_size", "4194304", "-nostdin"])
        .args(["-trace_stat", "-stf", "sipp.csv", "-fd", "1", "-trace_err", "-error_file", "sipp.err", "-timeout", "90"])
        .arg(host.address(0).to_string())
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stderr(output.try_clone().expect("a file for output"))
        .stdout(output)
        .spawn()
        .expect("sipp");
    let ended = running::wait_for(&mut child, Duration::from_secs(120));
    let statistics = fs::read_to_string(folder.join("sipp.csv")).unwrap_or_default();
    let output = fs::read_to_string(folder.join("sipp.out")).unwrap_or_default();
    assert!(ended.is_some(), "sipp does not end: {output}");
    let unexpected = fs::read_to_string(folder.join("sipp.err")).unwrap_or_default();
    let mut lines = statistics.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
    let values: Vec<&str> = lines.next_back().unwrap_or_else(|| panic!("no statistics: {output}")).split(';').collect();
    let count = |name: &str| {
        let at = names.iter().position(|found| *found == name).unwrap_or_else(|| panic!("no {name} in {statistics}"));
        values[at].parse().unwrap_or_else(|_| panic!("{name}: {:?}", values[at]))
    };
    let counts = Counts { succeeded: count("SuccessfulCall(C)"), failed: count("FailedCall(C)"), sent_again: count("Retransmissions(C)") };
    host.stop();
    assert_eq!(counts, Counts { succeeded: calls, failed: 0, sent_again: 0 }, "{scenario}: {unexpected}");
}

#[test]
fn sipp_gets_every_answer_without_retransmission() {
    if !is_installed("sipp", "sip-tester") {
        return;
    }
    for (scenario, calls) in [("options", 60_000), ("register_invite", 20_000)] {
        play(scenario, calls);
    }
}

#[test]
fn sipsak_agrees() {
    if !is_installed("sipsak", "sipsak") {
        return;
    }
    let host = registrar();
    let address = host.address(0).to_string();
    let user = format!("sip:bob@{address}");
    let run = |arguments: &[&str]| Command::new("sipsak").args(arguments).stdin(Stdio::null()).output().expect("sipsak");
    let code = |arguments: &[&str]| run(arguments).status.code();
    assert_eq!(code(&["-s", &format!("sip:{address}")]), Some(0), "OPTIONS to the server");
    assert_eq!(code(&["-s", &user]), Some(1), "OPTIONS to nobody");
    let registered = run(&["-U", "-i", "-C", "sip:desk@192.0.2.9:5099", "-x", "600", "-s", &user]);
    assert_eq!(registered.status.code(), Some(0), "{registered:?}");
    let client = host.client();
    let port = client.address().port();
    let question = format!(
        "INVITE {user} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKs\r\nFrom: <sip:c@example.org>;tag=1\r\n\
         To: <{user}>\r\nCall-ID: s\r\nCSeq: 1 INVITE\r\n\r\n"
    );
    let answer = client.ask_text(&question);
    assert!(answer.starts_with("SIP/2.0 302 ") && answer.contains("\r\nContact: <sip:desk@192.0.2.9:5099>\r\n"), "{answer}");
    host.stop();
}
