//! Shared by tests of connections under stress: unusual clients, and observations of a host from
//! outside.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use harness::processes::Process;
use harness::setup::module;
use harness::{Deadline, Fixture, Host, PATIENCE, Setup, processes};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::Value;

/// The longest that an unaffected client may wait for an answer.
pub(super) const IN_TIME: Duration = Duration::from_secs(1);

/// The module with a route `/ok` and a folder of that setup with a file `large` of this size.
pub(super) fn http_with_file(setup: &Setup, bytes: usize) -> Fixture {
    let root = setup.folder().join("files");
    fs::create_dir_all(&root).expect("a folder");
    fs::write(root.join("large"), vec![b'x'; bytes]).expect("a file");
    module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }").text("root", &root.display().to_string())
}

pub(super) fn address(host: &Host, listener: usize) -> SocketAddr {
    host.addresses(listener)[0].parse().expect("an address")
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A connection with the smallest possible receive buffer. Large answers soon meet a window of
/// zero.
pub(super) fn connect_with_tiny_window(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, 1).expect("a buffer");
    rustix::net::connect(&socket, &address).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Ends a connection by a reset.
pub(super) fn reset(socket: TcpStream) {
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("an option");
    drop(socket);
}

pub(super) const GET_OK: &[u8] = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n";
const OK_END: &[u8] = b"\r\n\r\nok";

/// Requests `/ok` and reads the answer.
pub(super) fn try_ok(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    stream.write_all(GET_OK)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 512]);
    while !answer.ends_with(OK_END) {
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Runs an action that must not take longer than an unaffected client may wait.
#[track_caller]
pub(super) fn in_time<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let limit = Deadline::after(IN_TIME);
    let outcome = act();
    assert!(!limit.has_passed(), "{what} took longer than {IN_TIME:?}");
    outcome
}

/// Polls until the usual deadline.
#[track_caller]
pub(super) fn wait_until(host: &Host, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Deadline::after(PATIENCE);
    while !is_so() {
        assert!(!deadline.has_passed(), "{what} did not happen in time\n{}", host.report());
    }
}

/// The JSON output of a command at the control socket.
#[track_caller]
pub(super) fn control_json(host: &Host, arguments: &[&str]) -> Value {
    let mut command = Command::new(host.path("modhost"));
    command.args(arguments).arg("--json").arg("-s").arg(host.path("control"));
    let output = command.output().expect("the host's program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}\n{}", host.report());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A value that the host itself counts.
#[track_caller]
pub(super) fn counted(host: &Host, name: &str) -> i64 {
    let all = control_json(host, &["stats", &format!("host.{name}")]);
    let entry = all.as_array().and_then(|all| all.iter().find(|entry| entry["name"] == *name));
    entry.and_then(|entry| entry["value"].as_i64()).unwrap_or_else(|| panic!("no host.{name} in {all:#}"))
}

/// Waits until the host has closed every connection.
#[track_caller]
pub(super) fn wait_for_no_connection(host: &Host) {
    wait_until(host, "the end of all connections", || counted(host, "connections") == 0);
}

/// The number of descriptors of all processes of a host.
pub(super) fn descriptors(host: &Host) -> usize {
    host.processes().iter().map(|pid| processes::descriptors(*pid).len()).sum()
}

/// The same when all processes sleep. A process that has just begun to serve, or has just passed on
/// or closed a connection, opens and closes some before it sleeps.
#[track_caller]
pub(super) fn descriptors_at_rest(host: &Host) -> usize {
    let deadline = Deadline::after(PATIENCE);
    host.processes().into_iter().filter_map(Process::open).for_each(|process| process.wait_until_asleep(deadline));
    descriptors(host)
}

/// Waits until the host has this many descriptors again.
#[track_caller]
pub(super) fn wait_for_descriptors(host: &Host, before: usize) {
    wait_until(host, &format!("a return to {before} descriptors"), || descriptors(host) <= before);
}

/// The TCP workers, by pid.
pub(super) fn workers(host: &Host) -> Vec<i32> {
    host.children().into_iter().filter(|pid| processes::title(*pid).contains("TCP worker")).collect()
}

/// The number of connections on which the server cannot send because of a zero window, from the
/// kernel's socket table: bytes wait to be sent, and the running timer is the window probe. Each
/// connection is named by both ports, because clients of two servers may have the same port.
pub(super) fn zero_windows(clients: &[(u16, u16)]) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets");
    let port = |address: &str| address.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok());
    let stands = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |number: usize| fields.get(number).copied().unwrap_or_default();
        let is_theirs = port(field(1)).zip(port(field(2))).is_some_and(|ports| clients.contains(&ports));
        is_theirs && field(5).starts_with("04:") && !field(4).starts_with("00000000:")
    };
    table.lines().filter(stands).count()
}
