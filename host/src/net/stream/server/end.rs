//! How connections end when nobody has asked for it: their time is up, or the process stops.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits for a peer longer than a second.

use std::cmp::Reverse;

use module_api::abi;
use nix::sys::epoll::EpollTimeout;

use super::ConnectionServer;
use crate::net::stream::connection::Ending;
use crate::net::udp::GaveUp;
use crate::sys::time;

/// A stopping worker sends what is queued for so long.
const LAST_WORDS_NS: u64 = 1_000_000_000;

impl ConnectionServer {
    /// Looks at the connections whose time may be up.
    pub(super) fn look(&mut self) -> Result<(), GaveUp> {
        while let Some(Reverse((at_ns, slot, id))) = self.looks.peek().copied()
            && at_ns <= self.now_ns
        {
            self.looks.pop();
            self.with(slot, |server, connection| {
                if connection.id.0 == id && connection.look_ns == at_ns {
                    connection.look_ns = u64::MAX;
                    if connection.deadline_ns() <= server.now_ns {
                        connection.over = Some(abi::CLOSED_BY_TIMEOUT);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The process stops: what is queued is sent if the peers take it soon, then every connection ends.
    pub fn finish(&mut self) {
        let until_ns = time::now_ns() + LAST_WORDS_NS;
        let mut events = std::mem::take(&mut self.events);
        loop {
            let mut left = false;
            for connection in self.connections.iter_mut().flatten() {
                left |= !connection.is_agreeing() && !connection.is_sent() && matches!(connection.drain(), Ok(false));
            }
            let now_ns = time::now_ns();
            if !left || now_ns >= until_ns {
                break;
            }
            // What it says does not matter: each is tried again.
            let _ = self.epoll.wait(&mut events, EpollTimeout::from(10_u8));
        }
        for slot in 0..self.connections.len() {
            // One that lingers is over already.
            if let Some(mut connection) = self.connections[slot].take().filter(|connection| connection.ending != Ending::Lingering) {
                self.close(&mut connection, abi::CLOSED_BY_STOP);
            }
        }
    }
}
