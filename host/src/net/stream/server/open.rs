//! Connections that begin: accepted by this process or by TCP main, counted, watched, and made known to their handler.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* accepts without end while those that are here wait.

use std::os::fd::AsFd;

use module_api::abi;
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::ConnectionServer;
use crate::net::stream::connection::Connection;
use crate::net::stream::directory::{Limits, MAX_CONNECTIONS};
use crate::net::stream::link::Arrival;
use crate::net::udp::GaveUp;
use crate::stats::HostCounter;
use crate::sys::descriptor;
use crate::sys::socket::accept;
use crate::sys::time;

/// Connections that a worker accepts before it serves those it has.
const ACCEPTS_IN_A_ROW: usize = 16;

impl ConnectionServer {
    /// Accepts from a listener that its workers share.
    pub(super) fn accept(&mut self, number: usize) -> Result<(), GaveUp> {
        let Some((number, socket)) = self.sockets.get(number).copied() else { return Ok(()) };
        let Some(listener) = self.listeners.get(number) else { return Ok(()) };
        for _ in 0..ACCEPTS_IN_A_ROW {
            let (socket, peer) = match accept::accept(socket) {
                Ok(accepted) => accepted,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => {
                    tracing::warn!("cannot accept a connection listener=\"{listener}\": accept4: {errno}");
                    // Level-triggered: the listener is looked at again; not at full speed.
                    time::sleep_until_ns(time::now_ns() + 10_000_000);
                    return Ok(());
                }
            };
            self.open(Arrival { socket, listener: number as u32, peer })?;
        }
        Ok(())
    }

    /// A place for a connection, if there is one.
    fn free_slot(&mut self) -> Option<u32> {
        loop {
            let slot = match (self.free.pop(), self.connections.len()) {
                (Some(slot), _) => slot,
                (None, used) if used < MAX_CONNECTIONS => {
                    self.connections.push(None);
                    self.directory.note_slots(self.index, used + 1);
                    used as u32
                }
                (None, _) => return None,
            };
            // One whose ids are all taken is left alone.
            if !self.directory.is_used_up(self.index, slot as usize) {
                return Some(slot);
            }
        }
    }

    /// A new connection. It is counted here and not when it was accepted, in one step with its entry in the directory: whoever dies with
    /// connections on their way leaves nothing that counts against a limit.
    pub(super) fn open(&mut self, arrival: Arrival) -> Result<(), GaveUp> {
        let place = arrival.listener as usize;
        let Some(listener) = self.listeners.get(place) else { return Ok(()) };
        let Some(service) = listener.connections() else { return Ok(()) };
        let Some(slot) = self.free_slot() else {
            tracing::warn!("a connection was refused: this worker has {MAX_CONNECTIONS}");
            return Ok(());
        };
        let limits = Limits { connections: service.options.max_connections, per_address: service.options.max_per_address };
        let id = match self.directory.open(self.index, slot as usize, place, arrival.peer.host(), limits) {
            Ok(Some(id)) => id,
            Ok(None) => {
                self.free.push(slot);
                self.counts.add(HostCounter::ConnectionsRefused, 1);
                tracing::debug!("a connection was refused: over a limit listener=\"{listener}\"");
                return Ok(());
            }
            Err(errno) => {
                self.free.push(slot);
                self.counts.add(HostCounter::ConnectionsRefused, 1);
                tracing::error!("a connection was refused: it cannot be counted listener=\"{listener}\": the lock of limits: {errno}");
                return Ok(());
            }
        };
        self.counts.add(HostCounter::Connections, 1);
        self.counts.add(HostCounter::ConnectionsNow, 1);
        let tls = self.begin_tls(listener, service);
        let refused = tls.is_err();
        let mut connection = Connection::new(arrival, id, listener, service, tls.ok().flatten(), self.now_ns);
        let outcome = if refused {
            connection.over = Some(abi::CLOSED_BY_ERROR);
            Ok(())
        } else if connection.is_agreeing() {
            self.go_on(&mut connection)
        } else {
            self.begin(&mut connection).and_then(|()| self.go_on(&mut connection))
        };
        if connection.over.is_none() {
            self.watch(&mut connection);
        }
        self.settle(slot, connection);
        outcome
    }

    /// Edges of both directions, once and for all. What is there already is reported by the next wait.
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
                connection.over = Some(abi::CLOSED_BY_ERROR);
            }
        }
    }

    /// `on_open`.
    pub(super) fn begin(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        if let Some(on_open) = connection.service.functions.on_open {
            self.call(connection, |stream| on_open(stream))?;
        }
        // A handler that failed to open has nothing to close.
        connection.opened = connection.over != Some(abi::CLOSED_BY_ERROR);
        Ok(())
    }
}
