//! Messages to the service manager that started the host (`NOTIFY_SOCKET`).
//!
//! *Runs in:* the supervisor; without one, main. *Never:* leaves the variable to modules, holds a
//! descriptor, swallows an error.

use crate::error::{Error, Result, io_text};
use crate::sys::process::environment;
use nix::unistd::Pid;
use sd_notify::NotifyState;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a message waits for a manager that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the service manager listens. Only the words of `sd_notify` are used, not its socket:
/// `sd_notify::notify` looks up the environment each time.
#[derive(Debug, Clone)]
pub struct ServiceManager {
    address: SocketAddr,
}

impl ServiceManager {
    /// The manager that the environment names, if any. Removes the variable, so this must come
    /// first in `main()`, and works once.
    ///
    /// # Errors
    /// There is a second thread, or the address is of an unknown kind.
    pub fn take_from_environment() -> Result<Option<Self>> {
        environment::take("NOTIFY_SOCKET")?.filter(|value| !value.is_empty()).map(|value| Self::at(&value)).transpose()
    }

    /// `/path`, or `@name` for the abstract namespace.
    fn at(value: &OsStr) -> Result<Self> {
        let address = match value.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(value),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        let address = address.map_err(|error| {
            let detail = format!("NOTIFY_SOCKET={}: {}", value.display(), io_text(&error));
            Error::failed("cannot reach the service manager").detail(detail).hint("an absolute path or @name is understood")
        })?;
        Ok(Self { address })
    }

    /// The start is finished. `main_pid` is the process that the manager is to watch: the
    /// supervisor, also after daemonising.
    ///
    /// # Errors
    /// The manager cannot be reached; it will consider the start failed.
    pub fn ready(&self, main_pid: Pid, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Ready, NotifyState::MainPid(main_pid.as_raw().unsigned_abs()), NotifyState::Status(&one_line(status))])
    }

    /// A stop begins.
    ///
    /// # Errors
    /// The manager cannot be reached.
    pub fn stopping(&self, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))])
    }

    /// Sends one datagram, so that the manager sees all of it or nothing. From a new socket each
    /// time: the manager may have been re-executed since, and no child inherits one.
    fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let message = states.iter().fold(String::new(), |mut message, state| {
            let _ = writeln!(message, "{state}");
            message
        });
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
    }
}

/// A newline would begin another assignment.
fn one_line(status: &str) -> String {
    status.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("modhost-notify-{}", std::process::id()));
        let name = format!("modhost-notify-{}", std::process::id());
        let servers = [
            (path.clone().into_os_string(), SocketAddr::from_pathname(&path).unwrap()),
            (format!("@{name}").into(), SocketAddr::from_abstract_name(&name).unwrap()),
        ];
        for (value, address) in servers {
            let server = UnixDatagram::bind_addr(&address).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let receive = || {
                let mut bytes = [0; 512];
                let length = server.recv(&mut bytes).unwrap();
                String::from_utf8(bytes[..length].to_vec()).unwrap()
            };
            let manager = ServiceManager::at(&value).unwrap();
            manager.ready(Pid::from_raw(42), "serving\nMAINPID=1").unwrap();
            assert_eq!(receive(), "READY=1\nMAINPID=42\nSTATUS=serving MAINPID=1\n");
            manager.stopping("bye").unwrap();
            assert_eq!(receive(), "STOPPING=1\nSTATUS=bye\n");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(ServiceManager::at(path.as_os_str()).unwrap().stopping("nobody there").is_err());
        assert!(ServiceManager::at(OsStr::new("vsock:2:1234")).is_err());
    }
}
