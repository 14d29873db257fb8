//! Connections that end because a time limit is reached or the process stops.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits for peers longer than a second when
//! the process stops.

use std::cmp::Reverse;

use module_api::abi;
use nix::sys::epoll::EpollTimeout;

use super::ConnectionServer;
use crate::net::stream::connection::Ending;
use crate::net::udp::GaveUp;
use crate::sys::time;

/// How long a stopping worker sends what is queued.
const STOP_FLUSH_NS: u64 = 1_000_000_000;

impl ConnectionServer {
    /// Closes the connections that have reached a time limit.
    pub(super) fn check_time_limits(&mut self) -> Result<(), GaveUp> {
        while let Some(Reverse((at_ns, slot, id))) = self.checks.peek().copied()
            && at_ns <= self.now_ns
        {
            self.checks.pop();
            self.with_connection(slot, |server, connection| {
                if connection.id.0 == id && connection.next_check_ns == at_ns {
                    connection.next_check_ns = u64::MAX;
                    if connection.deadline_ns() <= server.now_ns {
                        connection.close_reason = Some(abi::CLOSED_BY_TIMEOUT);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sends what is queued if the peers take it soon, then closes every connection.
    pub fn finish(&mut self) {
        let until_ns = time::now_ns() + STOP_FLUSH_NS;
        let mut events = std::mem::take(&mut self.events);
        loop {
            let mut left = false;
            for connection in self.connections.iter_mut().flatten() {
                left |= !connection.is_handshaking() && !connection.is_flushed() && connection.flush().is_ok() && !connection.is_flushed();
            }
            let now_ns = time::now_ns();
            if !left || now_ns >= until_ns {
                break;
            }
            // Its outcome does not matter: every connection is tried again.
            let _ = self.epoll.wait(&mut events, EpollTimeout::from(10_u8));
        }
        for slot in 0..self.connections.len() {
            // A lingering connection is closed for its handler already.
            if let Some(mut connection) = self.connections[slot].take().filter(|connection| connection.ending != Ending::Lingering) {
                self.close(&mut connection, abi::CLOSED_BY_STOP);
            }
        }
    }
}
