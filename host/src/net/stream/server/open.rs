//! How connections begin: accepted by this process or by TCP main, counted, watched, and opened by
//! their handler.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* lets open connections wait while it
//! accepts new ones without end.

use std::os::fd::AsFd;

use module_api::abi;
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::ConnectionServer;
use crate::net::stream::connection::Connection;
use crate::net::stream::directory::{ConnectionLimits, MAX_CONNECTIONS};
use crate::net::stream::messages::AcceptedConnection;
use crate::net::udp::GaveUp;
use crate::stats::HostCounter;
use crate::sys::descriptor;
use crate::sys::socket::accept;
use crate::sys::time;

/// Connections that a worker accepts before it serves those it has.
const ACCEPTS_IN_A_ROW: usize = 16;
/// Pause after a failed accept.
const ACCEPT_PAUSE_NS: u64 = 10_000_000;

impl ConnectionServer {
    /// Accepts from a listening socket that the workers share.
    pub(super) fn accept(&mut self, index: usize) -> Result<(), GaveUp> {
        let Some((index, socket)) = self.sockets.get(index).copied() else { return Ok(()) };
        let Some(listener) = self.listeners.get(index) else { return Ok(()) };
        for _ in 0..ACCEPTS_IN_A_ROW {
            let (socket, peer) = match accept::accept(socket) {
                Ok(accepted) => accepted,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => {
                    tracing::warn!("cannot accept a connection listener=\"{listener}\": accept4: {errno}");
                    // The listener stays readable. The pause keeps the loop from spinning.
                    time::sleep_until_ns(time::now_ns() + ACCEPT_PAUSE_NS);
                    return Ok(());
                }
            };
            self.open(AcceptedConnection { socket, listener: index as u32, peer })?;
        }
        Ok(())
    }

    fn free_slot(&mut self) -> Option<u32> {
        loop {
            let slot = match (self.free_slots.pop(), self.connections.len()) {
                (Some(slot), _) => slot,
                (None, used) if used < MAX_CONNECTIONS => {
                    self.connections.push(None);
                    self.directory.raise_slot_count(self.worker, used + 1);
                    used as u32
                }
                (None, _) => return None,
            };
            if !self.directory.is_used_up(self.worker, slot as usize) {
                return Some(slot);
            }
        }
    }

    /// Opens a connection. It is counted here and not when it was accepted, in one step with its
    /// entry in the directory: a process that dies with connections on their way leaves none that
    /// counts.
    pub(super) fn open(&mut self, accepted: AcceptedConnection) -> Result<(), GaveUp> {
        let index = accepted.listener as usize;
        let Some(listener) = self.listeners.get(index) else { return Ok(()) };
        let Some(service) = listener.connections() else { return Ok(()) };
        let Some(slot) = self.free_slot() else {
            tracing::warn!("a connection was refused: this worker has {MAX_CONNECTIONS}");
            return Ok(());
        };
        let limits = ConnectionLimits { connections: service.options.max_connections, per_address: service.options.max_per_address };
        let id = match self.directory.open(self.worker, slot as usize, index, accepted.peer.host(), limits) {
            Ok(Some(id)) => id,
            Ok(None) => {
                self.free_slots.push(slot);
                self.counts.add(HostCounter::ConnectionsRefused, 1);
                tracing::debug!("a connection was refused: over a limit listener=\"{listener}\"");
                return Ok(());
            }
            Err(errno) => {
                self.free_slots.push(slot);
                self.counts.add(HostCounter::ConnectionsRefused, 1);
                tracing::error!("a connection was refused: it cannot be counted listener=\"{listener}\": the lock of limits: {errno}");
                return Ok(());
            }
        };
        self.counts.add(HostCounter::Connections, 1);
        self.counts.add(HostCounter::ConnectionsNow, 1);
        let tls = self.begin_tls(listener, service);
        let refused = tls.is_err();
        let mut connection = Connection::new(accepted, id, listener, service, tls.ok().flatten(), self.now_ns);
        let outcome = if refused {
            connection.close_reason = Some(abi::CLOSED_BY_ERROR);
            Ok(())
        } else if connection.is_handshaking() {
            self.advance(&mut connection)
        } else {
            self.call_on_open(&mut connection).and_then(|()| self.advance(&mut connection))
        };
        if connection.close_reason.is_none() {
            self.watch(&mut connection);
        }
        self.put_back(slot, connection);
        outcome
    }

    /// Registers both directions once, edge-triggered. The next wait reports what is there already.
    pub(super) fn watch(&self, connection: &mut Connection) {
        if connection.watched {
            return;
        }
        if self.link.is_none() {
            descriptor::keep_private(connection.socket().as_fd());
        }
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        match self.epoll.add(connection.socket(), EpollEvent::new(flags, connection.id.slot() as u64)) {
            Ok(()) => connection.watched = true,
            Err(errno) => {
                tracing::warn!("a connection cannot be watched listener=\"{}\": epoll_ctl: {errno}", connection.listener);
                connection.close_reason = Some(abi::CLOSED_BY_ERROR);
            }
        }
    }

    pub(super) fn call_on_open(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        if let Some(on_open) = connection.service.functions.on_open {
            self.call(connection, |stream| on_open(stream))?;
        }
        // A handler whose `on_open` has failed gets no `on_close`.
        connection.opened = connection.close_reason != Some(abi::CLOSED_BY_ERROR);
        Ok(())
    }
}
