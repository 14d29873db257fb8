//! Waiting for several sockets at once.
//!
//! *Runs in:* workers whose listener has several addresses. *Never:* made before the fork:
//! processes must not share an epoll descriptor.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::error::{Error, Result};

/// Maximum number of sockets that one wait reports.
const EVENTS: usize = 16;

#[derive(Debug)]
pub struct ReadySockets {
    epoll: Epoll,
    events: [EpollEvent; EVENTS],
}

impl ReadySockets {
    /// Watches these sockets, numbered in their order. The kernel wakes one waiting process per
    /// datagram.
    pub fn watch<S: AsFd>(sockets: impl IntoIterator<Item = S>) -> Result<Self> {
        let failed = |call: &str, errno: Errno| {
            Error::failed("cannot wait for several sockets")
                .detail(format!("{call}: {errno}"))
                .hint("raise the limit on open files (ulimit -n)")
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| failed("epoll_create1", errno))?;
        for (index, socket) in (0..).zip(sockets) {
            // Level-triggered: datagrams that a dead process left in the queue wake the next to
            // wait.
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, index);
            epoll.add(socket, event).map_err(|errno| failed("epoll_ctl", errno))?;
        }
        Ok(Self { epoll, events: [EpollEvent::empty(); EVENTS] })
    }

    /// Waits for datagrams or a signal. Returns the numbers of the ready sockets; none after a
    /// signal.
    pub fn wait(&mut self) -> Result<impl Iterator<Item = usize> + '_, Errno> {
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        Ok(self.events[..count].iter().map(|event| event.data() as usize))
    }
}
