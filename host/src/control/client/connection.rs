//! The client's end of the control socket: connects, asks and reads one answer, with a deadline for
//! each of the two.
//!
//! *Runs in:* the commands for a running host. *Never:* waits for ever; relies on the form of an
//! answer.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::sys::time;

/// For connecting, and again for each answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Limit of an answer: more than a whole process table takes.
const ANSWER_BYTES: usize = 16 << 20;

/// Time between two attempts to connect while the backlog is full.
const CONNECT_RETRY_NS: u64 = 20_000_000;

const SENSELESS: &str = "the answer of the host makes no sense";

/// A connection to a running host.
#[derive(Debug)]
pub struct ControlConnection {
    stream: UnixStream,
    path: PathBuf,
    limit: Duration,
    /// Received and not yet returned.
    received: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct ReceivedAnswer {
    result: Option<Value>,
    error: Option<Error>,
}

impl ControlConnection {
    /// Connects. The limit holds for this, and again for each answer.
    pub fn open(path: &Path, limit: Duration) -> Result<Self> {
        let address = UnixAddr::new(path).or_else(|errno| unreachable(path, "address", errno))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor = socket(AddressFamily::Unix, SockType::Stream, flags, None).or_else(|errno| unreachable(path, "socket", errno))?;
        let deadline_ns = time::now_ns() + limit.as_nanos() as u64;
        loop {
            match connect(descriptor.as_raw_fd(), &address) {
                Ok(()) => break,
                // The backlog is full.
                Err(Errno::EAGAIN | Errno::EINTR) if time::now_ns() < deadline_ns => {
                    time::sleep_until_ns(time::now_ns() + CONNECT_RETRY_NS);
                }
                Err(Errno::EAGAIN) => return Err(no_answer(path, limit).into()),
                Err(errno) => return unreachable(path, "connect", errno),
            }
        }
        let stream = UnixStream::from(descriptor);
        let connection = Self { stream, path: path.to_path_buf(), limit, received: Vec::new() };
        connection.stream.set_nonblocking(false).or_else(|error| connection.broken(error))?;
        Ok(connection)
    }

    /// The pid of the process that bound the socket: the supervisor's. None if it is in another pid
    /// namespace.
    pub fn server_pid(&self) -> Option<i32> {
        getsockopt(&self.stream.as_fd(), sockopt::PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
    }

    /// Calls a method. A refusal by the host is an error like any other.
    pub fn call(&mut self, method: &str, params: &[Value]) -> Result<Value> {
        Ok(self.ask(method, params)??)
    }

    /// Calls a method. The outer result is about the connection, the inner one is the answer.
    pub fn ask(&mut self, method: &str, params: &[Value]) -> Result<Result<Value, Error>> {
        let mut request = serde_json::json!({ "id": 1, "method": method, "params": params }).to_string().into_bytes();
        request.push(b'\n');
        let deadline_ns = time::now_ns() + self.limit.as_nanos() as u64;
        self.send(&request, deadline_ns)?;
        let line = self.receive_line(deadline_ns)?;
        Ok(match understood(serde_json::from_slice(&line))? {
            ReceivedAnswer { error: Some(error), .. } => Err(error),
            ReceivedAnswer { result, .. } => Ok(result.unwrap_or(Value::Null)),
        })
    }

    fn send(&mut self, request: &[u8], deadline_ns: u64) -> Result<()> {
        let mut sent = 0;
        while sent < request.len() {
            self.stream.set_write_timeout(time_left(deadline_ns)).or_else(|error| self.broken(error))?;
            match self.stream.write(&request[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The host may have sent the reason before it closed the connection.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return self.broken(error),
            }
        }
        Ok(())
    }

    fn receive_line(&mut self, deadline_ns: u64) -> Result<Vec<u8>> {
        let mut bytes = [0; 16 << 10];
        loop {
            let searched = self.received.len();
            self.stream.set_read_timeout(time_left(deadline_ns)).or_else(|error| self.broken(error))?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(self.ended().into()),
                Ok(length) => self.received.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(self.ended().into()),
                Err(error) => return self.broken(error),
            }
            if let Some(at) = self.received[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            if self.received.len() > ANSWER_BYTES {
                return Err(Error::failed(format!("it has more than {ANSWER_BYTES} bytes"))).context(SENSELESS);
            }
            if time::now_ns() >= deadline_ns {
                return Err(no_answer(&self.path, self.limit).into());
            }
        }
    }

    fn ended(&self) -> Error {
        Error::failed("the host has closed the connection without an answer")
            .detail(self.path.display())
            .hint("it may be stopping; its log says more")
    }

    fn broken<T>(&self, error: io::Error) -> Result<T> {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(no_answer(&self.path, self.limit).into()),
            _ => Err(error).with_context(|| self.path.display().to_string()).context("the connection to the host broke"),
        }
    }
}

/// An answer in its expected form.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T> {
    understood(serde_json::from_value(answer))
}

fn understood<T>(parsed: serde_json::Result<T>) -> Result<T> {
    let hint = "host and command may be of different versions; \"modhost rpc ping\" shows the host's";
    parsed.map_err(|error| Error::failed(error.to_string()).hint(hint)).context(SENSELESS)
}

fn unreachable<T>(path: &Path, call: &str, errno: Errno) -> Result<T> {
    let shown = path.display();
    let cause = match errno {
        Errno::ENOENT => Error::failed(format!("there is no control socket {shown}"))
            .hint("is the host running, with \"control\" in its [host] section? -s SOCKET names its socket"),
        Errno::ECONNREFUSED if is_no_socket(path) => {
            Error::failed(format!("{shown} is not a socket")).hint("-s SOCKET names the socket of the host")
        }
        Errno::ECONNREFUSED => Error::failed(format!("nobody serves {shown}"))
            .hint("the host that made it has ended without removing it; the next start takes it over"),
        Errno::EACCES | Errno::EPERM => Error::failed(format!("{shown}: {call}: {errno}"))
            .hint("only root and the user that started the host may use its control socket"),
        Errno::ENAMETOOLONG => Error::failed(format!("{shown}: a socket's path may have 107 bytes")).hint("use a shorter path"),
        errno => Error::failed(format!("{shown}: {call}: {errno}")),
    };
    Err(cause).context("cannot reach a running host")
}

fn no_answer(path: &Path, limit: Duration) -> Error {
    Error::failed("the host does not answer")
        .detail(format!("waited {} s at {}", limit.as_secs_f64(), path.display()))
        .hint("it may be starting, stopping or overloaded; its log says more")
}

/// At least a millisecond, because a timeout of zero means none.
fn time_left(deadline_ns: u64) -> Option<Duration> {
    Some(Duration::from_nanos(deadline_ns.saturating_sub(time::now_ns()).max(1_000_000)))
}

fn is_no_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{Backlog, listen};

    use super::*;

    #[test]
    fn errors_of_reaching_a_host_say_what_to_do() {
        let limit = Duration::from_millis(50);
        let open = |path: &Path| ControlConnection::open(path, limit).map_err(|error| Error::of_chain(&error));
        let folder = std::env::temp_dir().join(format!("modhost-client-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (missing, file, stale, silent) = (folder.join("none"), folder.join("file"), folder.join("stale"), folder.join("silent"));
        fs::write(&file, "").unwrap();
        drop(UnixListener::bind(&stale).unwrap());
        let listener = UnixListener::bind(&silent).unwrap();
        for (path, detail) in [(&missing, "there is no control socket"), (&file, "is not a socket"), (&stale, "nobody serves")] {
            let error = open(path).unwrap_err();
            assert_eq!(error.what, "cannot reach a running host");
            assert!(error.detail.contains(detail) && !error.hint.is_empty(), "{error}");
        }
        let error = open(&folder.join("x".repeat(200))).unwrap_err();
        assert!(error.detail.contains("107 bytes"), "{error}");
        let mut connection = open(&silent).unwrap();
        let error = connection.call("ping", &[]).unwrap_err();
        assert_eq!(Error::of_chain(&error).what, "the host does not answer");
        // A full backlog: the connection above is in it.
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        assert_eq!(open(&silent).unwrap_err().what, "the host does not answer");
        drop(listener);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_answer_in_another_form_is_an_error_with_a_hint() {
        let error = Error::of_chain(&read::<u8>(Value::from("x")).unwrap_err());
        assert_eq!(error.what, SENSELESS);
        assert!(error.detail.contains("expected u8") && error.hint.contains("versions"), "{error}");
    }
}
