//! How connections end: the handler has closed them, or the server has a reason to.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* lets a peer take a truncated answer for a
//! whole one.

use module_api::abi;
use nix::errno::Errno;

use super::ConnectionServer;
use crate::module::call;
use crate::net::stream::connection::{CloseReason, Connection, Ending};
use crate::net::stream::handler_call::CloseMode;
use crate::process::phase::Phase;
use crate::stats::HostCounter;

/// How long a connection is read from after our last byte, so that the peer receives it.
const LINGER_NS: u64 = 2_000_000_000;

impl ConnectionServer {
    /// Closes a connection as its handler wants.
    pub(super) fn end(&mut self, connection: &mut Connection, mode: CloseMode) {
        match (mode, connection.ending) {
            (CloseMode::Now, _) => {
                connection.reset_on_close();
                connection.output.clear();
                // After a reset the connection does not linger.
                connection.peer_ended = true;
                connection.close_reason = Some(abi::CLOSED_NORMALLY);
            }
            (CloseMode::AfterSending, _) => connection.ending = Ending::AfterSending,
            (CloseMode::SendingSide, Ending::No) => connection.ending = Ending::SendingSide,
            (CloseMode::SendingSide, _) => {}
        }
        self.end_when_flushed(connection);
    }

    /// Does what was to be done after sending, if everything is sent.
    pub(super) fn end_when_flushed(&mut self, connection: &mut Connection) {
        if !connection.is_flushed() || connection.close_reason.is_some() {
            return;
        }
        if matches!(connection.ending, Ending::AfterSending | Ending::SendingSide) && !connection.send_close_notify() {
            return;
        }
        match connection.ending {
            Ending::AfterSending => connection.close_reason = Some(abi::CLOSED_NORMALLY),
            Ending::SendingSide => {
                connection.end_sending();
                connection.ending = Ending::SendingSideEnded;
            }
            Ending::No | Ending::SendingSideEnded | Ending::Lingering => {}
        }
        if connection.ending == Ending::SendingSideEnded && connection.end_reported {
            connection.close_reason = Some(abi::CLOSED_NORMALLY);
        }
    }

    /// Closes a connection and tells its handler. Clears `close_reason` if the socket is to linger.
    pub(super) fn close(&mut self, connection: &mut Connection, reason: CloseReason) {
        if let Err(errno) = self.directory.close(connection.id) {
            tracing::error!("a connection that is over stays counted: the lock of limits: {errno}");
        }
        self.counts.add(HostCounter::closed(reason), 1);
        self.counts.take_one(HostCounter::ConnectionsNow);
        if connection.opened
            && let Some(on_close) = connection.service.functions.on_close
        {
            connection.opened = false;
            let stream = &raw mut connection.stream;
            call::enter(connection.listener.module, Phase::Stream, || {
                on_close(stream, reason);
                0
            });
        }
        if !connection.unused.is_empty() {
            self.keep_buffer(std::mem::take(&mut connection.unused));
            // The peer may be sending more: to close now would reset the connection.
            connection.readable = true;
        }
        if matches!(reason, abi::CLOSED_BY_TIMEOUT | abi::CLOSED_BY_STOP) && connection.is_flushed() {
            connection.send_close_notify();
        }
        if !connection.is_flushed() {
            // Without a reset the peer would take what was sent for everything, and the kernel
            // would keep the rest for a peer that takes nothing.
            connection.reset_on_close();
        }
        connection.output.clear();
        let lingers = reason == abi::CLOSED_NORMALLY && !connection.peer_ended && connection.readable;
        if lingers {
            connection.end_sending();
            connection.ending = Ending::Lingering;
            connection.lingers_until_ns = self.now_ns + LINGER_NS;
            connection.close_reason = None;
            self.discard_input(connection);
            if connection.close_reason.is_none() {
                self.watch(connection);
            }
        }
    }

    /// Reads and drops the input of a connection that lingers.
    pub(super) fn discard_input(&mut self, connection: &mut Connection) {
        loop {
            match connection.receive_raw(&mut self.input) {
                Ok(0) => connection.close_reason = Some(abi::CLOSED_NORMALLY),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(_) => connection.close_reason = Some(abi::CLOSED_BY_PEER),
            }
            return;
        }
    }
}
