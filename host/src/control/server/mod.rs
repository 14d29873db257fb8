//! The control process: what main gives it, and its work.
//!
//! *Runs in:* [`ControlServer::new`] in main, [`ControlServer::work`] in the control process.
//! *Never:* does what is main's task: it sends main an order.

mod lines;
mod request;
mod serve;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use self::serve::{ClientLimits, serve};
use super::answers::HostView;
use crate::error::{EXIT_FAILED, EXIT_OK};
use crate::process::order::MainOrder;
use crate::process::slots::Slots;
use crate::state::MainMemory;
use crate::sys::process::signal;
use crate::sys::socket::seqpacket::Link;

/// Time for the supervisor in addition to the two stages of a stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The control process before it serves.
#[derive(Debug)]
pub struct ControlServer {
    socket: OwnedFd,
    main: Link,
    /// Names in load order.
    modules: Vec<String>,
    supervisor_pid: i32,
    main_pid: i32,
    /// The longest time that a stop can take.
    stop_limit: Duration,
}

impl ControlServer {
    /// Takes the bound socket, the link to main, the modules' names in load order, and the time
    /// limit of one stage of a stop. Called in main, whose parent is the supervisor.
    pub fn new(socket: OwnedFd, main: Link, modules: Vec<String>, stop_timeout: Duration) -> Self {
        Self {
            socket,
            main,
            modules,
            supervisor_pid: nix::unistd::getppid().as_raw(),
            main_pid: nix::unistd::getpid().as_raw(),
            stop_limit: stop_timeout.saturating_mul(2).saturating_add(STOP_GRACE),
        }
    }

    /// The descriptors that only main and the control process may have open.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.socket.as_raw_fd(), self.main.as_fd().as_raw_fd()]
    }

    /// Serves until a stop signal arrives. Returns the exit code.
    pub fn work(&self, slots: Slots) -> u8 {
        let Some(memory) = MainMemory::current() else {
            tracing::error!(target: "fault", "the control process has no shared memory");
            return EXIT_FAILED;
        };
        let view = HostView {
            slots,
            stats: &memory.stats,
            arena: &memory.arena,
            modules: &self.modules,
            supervisor_pid: self.supervisor_pid,
            main_pid: self.main_pid,
            stop_limit_ms: u64::try_from(self.stop_limit.as_millis()).unwrap_or(u64::MAX),
        };
        let served = signal::stop_by_flag()
            .and_then(|()| serve(&self.socket, &view, ClientLimits::DEFAULT, &|| self.order_stop(), &signal::stop_requested));
        match served {
            Ok(()) => EXIT_OK,
            Err(error) => {
                tracing::error!("{error}");
                EXIT_FAILED
            }
        }
    }

    /// Main stops as on a signal.
    fn order_stop(&self) {
        tracing::info!("stopping, asked for through the control socket");
        if let Err(errno) = MainOrder::Stop.send(&self.main) {
            tracing::error!("cannot reach main: sendmsg: {errno}");
        }
    }
}
