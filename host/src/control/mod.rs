//! The control process: answers `modhost ps`, `stop` and `rpc` on a Unix socket, one JSON object a line in either direction.
//!
//! *Runs in:* the control process; [`client`] and [`command`] in the commands of those names.
//! *Never:* in main: no parser and no client's pace may hold main up.
//!
//! ```text
//! client ──{"id":1,"method":"ps"}──────────► control process ──fixed-size order──► main
//!        ◄─{"id":1,"result":[...]}──────────      │
//!        ◄─{"id":1,"error":{"what",...}}────      └─ reads the process table
//! ```

pub mod client;
pub mod command;
mod lines;
pub mod methods;
mod request;
mod serve;
pub mod show;
pub mod stats;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::error::{EXIT_FAILED, EXIT_OK};
use crate::process::slots::Slots;
use crate::state::MainMemory;
use crate::sys::process::signal;
use crate::sys::socket::seqpacket::{Link, Wait};

pub use methods::View;
pub use serve::Limits;

/// The one byte of an order to main: stop.
pub const ORDER_STOP: u8 = 1;

/// How much longer than two stages of a stop the supervisor may take.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The control process before it serves.
#[derive(Debug)]
pub struct ControlServer {
    socket: OwnedFd,
    main: Link,
    modules: Vec<String>,
    supervisor_pid: i32,
    main_pid: i32,
    stop_limit: Duration,
}

impl ControlServer {
    /// With the bound socket, the link to main, the modules' names in load order, and the limit of a stage of a stop.
    /// Made in main, whose parent is the supervisor.
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

    /// What only the control process may have open, beside main.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.socket.as_raw_fd(), self.main.as_fd().as_raw_fd()]
    }

    /// What the control process does for its whole life. Returns its exit code.
    pub fn work(&self, slots: Slots) -> u8 {
        let Some(memory) = MainMemory::current() else {
            tracing::error!(target: "fault", "the control process has no shared memory");
            return EXIT_FAILED;
        };
        let view = View {
            slots,
            stats: &memory.stats,
            modules: &self.modules,
            supervisor_pid: self.supervisor_pid,
            main_pid: self.main_pid,
            stop_limit_ms: u64::try_from(self.stop_limit.as_millis()).unwrap_or(u64::MAX),
            arena: Some(&memory.arena),
        };
        let served = signal::stop_by_flag()
            .and_then(|()| serve::serve(&self.socket, &view, Limits::DEFAULT, &|| self.order_stop(), &signal::stop_requested));
        match served {
            Ok(()) => EXIT_OK,
            Err(error) => {
                tracing::error!("{error}");
                EXIT_FAILED
            }
        }
    }

    /// Main takes it from here, as from a signal.
    fn order_stop(&self) {
        tracing::info!("stopping, asked for through the control socket");
        if let Err(errno) = self.main.send(&[IoSlice::new(&[ORDER_STOP])], &[], Wait::Block) {
            tracing::error!("cannot reach main: sendmsg: {errno}");
        }
    }
}
