//! Messages to the service manager that started us (`NOTIFY_SOCKET`).
//!
//! *Runs in:* the supervisor; without one, main. *Never:* leaves the variable to modules, holds a descriptor, swallows an error.

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

/// A manager that does not read for so long is not waited for.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the service manager listens. `sd_notify::notify` would look that up in the environment each time; the words of its protocol are used, not its socket.
#[derive(Debug, Clone)]
pub struct ServiceManager {
    address: SocketAddr,
}

impl ServiceManager {
    /// The manager named by the environment, if any. The variable is removed, so this must come first in `main()`, and works once.
    ///
    /// # Errors
    /// There are threads already, or the address is none we can reach.
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

    /// The start is finished. `main_pid` is the process that the manager watches: ours, also after daemonising.
    ///
    /// # Errors
    /// The manager cannot be reached; it will take the start for failed.
    pub fn ready(&self, main_pid: Pid, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Ready, NotifyState::MainPid(main_pid.as_raw().unsigned_abs()), NotifyState::Status(&one_line(status))])
    }

    /// A reload begins; [`Self::ready`] ends it.
    ///
    /// # Errors
    /// The manager cannot be reached.
    pub fn reloading(&self, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?, NotifyState::Status(&one_line(status))])
    }

    /// A stop begins.
    ///
    /// # Errors
    /// The manager cannot be reached.
    pub fn stopping(&self, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))])
    }

    /// What `systemctl status` shows.
    ///
    /// # Errors
    /// The manager cannot be reached.
    pub fn status(&self, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Status(&one_line(status))])
    }

    /// One datagram, so that the manager sees all of it or nothing. A new socket each time: the manager may have been re-executed since,
    /// and no child inherits one.
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
            manager.reloading("reloading").unwrap();
            let text = receive();
            assert!(text.starts_with("RELOADING=1\nMONOTONIC_USEC=") && text.ends_with("\nSTATUS=reloading\n"), "{text}");
            manager.stopping("bye").unwrap();
            assert_eq!(receive(), "STOPPING=1\nSTATUS=bye\n");
            manager.status("2 workers").unwrap();
            assert_eq!(receive(), "STATUS=2 workers\n");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(ServiceManager::at(path.as_os_str()).unwrap().status("nobody there").is_err());
        assert!(ServiceManager::at(OsStr::new("vsock:2:1234")).is_err());
    }
}
