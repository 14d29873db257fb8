//! The control process.
//!
//! *Runs in:* the control process. *Never:* in main: no parser and no client's pace may hold main up.

use std::os::fd::OwnedFd;

use crate::process::slots::Slots;
use crate::sys::passing::Link;

/// First byte of a message to main: stop.
pub const ORDER_STOP: u8 = 1;

/// The control process before it serves.
#[derive(Debug)]
pub struct Server {
    _socket: OwnedFd,
    _main: Link,
}

impl Server {
    /// With the bound socket and the link to main.
    pub fn new(socket: OwnedFd, main: Link) -> Self {
        Self { _socket: socket, _main: main }
    }

    /// What the control process does for its whole life. Returns its exit code.
    pub fn work(&self, _slots: Slots) -> u8 {
        loop {
            nix::unistd::pause();
        }
    }
}
