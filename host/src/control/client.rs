//! The other end of the control socket: connect, ask, read one answer, with a deadline on everything.
//!
//! *Runs in:* the commands `ps`, `stop`, `ping` and `rpc`. *Never:* waits for ever; trusts the answer to be of any form.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::sys::time;

/// For connecting, and again for each answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// More than a whole process table takes.
const ANSWER_BYTES: usize = 16 << 20;

/// A full backlog is tried again so often.
const AGAIN_NS: u64 = 20_000_000;

/// A connection to a running host.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    path: PathBuf,
    limit: Duration,
    read: Vec<u8>,
}

/// What came back.
#[derive(Debug, Deserialize)]
struct Reply {
    result: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    what: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    hint: String,
}

impl Connection {
    /// Connects within the limit.
    pub fn open(path: &Path, limit: Duration) -> Result<Self> {
        let unreachable = |detail: String| Error::failed("cannot reach a running host").detail(detail);
        let shown = path.display();
        let failed = |call: &str, errno: Errno| match errno {
            Errno::ENOENT => unreachable(format!("there is no control socket {shown}"))
                .hint("is the host running, with \"control\" in its [host] section? -s SOCKET names its socket"),
            Errno::ECONNREFUSED if is_no_socket(path) => {
                unreachable(format!("{shown} is not a socket")).hint("-s SOCKET names the socket of the host")
            }
            Errno::ECONNREFUSED => unreachable(format!("nobody serves {shown}"))
                .hint("the host that made it has ended without removing it; the next start takes it over"),
            Errno::EACCES | Errno::EPERM => unreachable(format!("{shown}: {call}: {errno}"))
                .hint("only root and the user that started the host may use its control socket"),
            Errno::ENAMETOOLONG => unreachable(format!("{shown}: a socket's path may have 107 bytes")).hint("use a shorter path"),
            errno => unreachable(format!("{shown}: {call}: {errno}")),
        };
        let address = UnixAddr::new(path).map_err(|errno| failed("address", errno))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|errno| failed("socket", errno))?;
        let deadline_ns = time::now_ns() + limit.as_nanos() as u64;
        loop {
            match connect(descriptor.as_raw_fd(), &address) {
                Ok(()) => break,
                // The backlog is full.
                Err(Errno::EAGAIN | Errno::EINTR) if time::now_ns() < deadline_ns => time::sleep_until_ns(time::now_ns() + AGAIN_NS),
                Err(Errno::EAGAIN) => return Err(no_answer(path, limit)),
                Err(errno) => return Err(failed("connect", errno)),
            }
        }
        let stream = UnixStream::from(descriptor);
        stream.set_nonblocking(false).map_err(|error| unreachable(format!("{shown}: fcntl: {error}")))?;
        Ok(Self { stream, path: path.to_path_buf(), limit, read: Vec::new() })
    }

    /// Pid of who serves the socket: the supervisor bound it. None if it cannot be seen from here.
    pub fn server_pid(&self) -> Option<i32> {
        getsockopt(&self.stream.as_fd(), sockopt::PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
    }

    /// Calls a method. The host's refusal is an error like any other.
    pub fn call(&mut self, method: &str, params: &[Value]) -> Result<Value> {
        self.ask(method, params)?
    }

    /// Calls a method. Outside: whether there was an answer; inside: the answer.
    pub fn ask(&mut self, method: &str, params: &[Value]) -> Result<Result<Value>> {
        let mut request = serde_json::json!({ "id": 1, "method": method, "params": params }).to_string().into_bytes();
        request.push(b'\n');
        let deadline_ns = time::now_ns() + self.limit.as_nanos() as u64;
        self.send(&request, deadline_ns)?;
        let line = self.line(deadline_ns)?;
        let strange = |detail: String| Error::failed("the answer of the host makes no sense").detail(detail);
        let hint = "host and command may be of different versions; \"modhost rpc ping\" shows the host's";
        let reply: Reply = serde_json::from_slice(&line).map_err(|error| strange(error.to_string()).hint(hint))?;
        Ok(match reply {
            Reply { error: Some(Refusal { what, detail, hint }), .. } => Err(Error { detail, hint, ..Error::failed(what) }),
            Reply { result, .. } => Ok(result.unwrap_or(Value::Null)),
        })
    }

    fn send(&mut self, request: &[u8], deadline_ns: u64) -> Result<()> {
        let mut sent = 0;
        while sent < request.len() {
            self.stream.set_write_timeout(left(deadline_ns)).map_err(|error| self.broken(&error))?;
            match self.stream.write(&request[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The host may have said why before it hung up.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    fn line(&mut self, deadline_ns: u64) -> Result<Vec<u8>> {
        let mut bytes = [0; 16 << 10];
        loop {
            let searched = self.read.len();
            self.stream.set_read_timeout(left(deadline_ns)).map_err(|error| self.broken(&error))?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(self.ended()),
                Ok(length) => self.read.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(self.ended()),
                Err(error) => return Err(self.broken(&error)),
            }
            if let Some(at) = self.read[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            if self.read.len() > ANSWER_BYTES {
                return Err(Error::failed("the answer of the host makes no sense").detail(format!("it has more than {ANSWER_BYTES} bytes")));
            }
            if time::now_ns() >= deadline_ns {
                return Err(no_answer(&self.path, self.limit));
            }
        }
    }

    fn ended(&self) -> Error {
        Error::failed("the host has closed the connection without an answer")
            .detail(self.path.display())
            .hint("it may be stopping; its log says more")
    }

    fn broken(&self, error: &std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => no_answer(&self.path, self.limit),
            _ => Error::failed("the connection to the host broke").detail(format!("{}: {error}", self.path.display())),
        }
    }
}

fn no_answer(path: &Path, limit: Duration) -> Error {
    Error::failed("the host does not answer")
        .detail(format!("waited {} s at {}", limit.as_secs_f64(), path.display()))
        .hint("it may be starting, stopping or overloaded; its log says more")
}

/// A timeout of zero would mean none.
fn left(deadline_ns: u64) -> Option<Duration> {
    Some(Duration::from_nanos(deadline_ns.saturating_sub(time::now_ns()).max(1_000_000)))
}

fn is_no_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}
