//! Reading from connections, and passing what arrives to handlers.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* reads from a client whose handler cannot
//! take more.

use module_api::abi;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::{ConnectionServer, INPUT_BYTES};
use crate::net::stream::connection::{Connection, Ending};
use crate::net::stream::handler_call::CloseMode;
use crate::net::stream::tls::ReadOutcome;
use crate::net::udp::GaveUp;
use crate::stats::HostCounter;

/// Reads from one connection before the others have their turn.
const READS_IN_A_ROW: usize = 8;
/// Buffers that are kept for later connections.
const SPARE_BUFFERS_MAX: usize = 16;

impl ConnectionServer {
    /// The kernel has reported an event of a connection.
    pub(super) fn handle_event(&mut self, connection: &mut Connection, flags: EpollFlags) -> Result<(), GaveUp> {
        if connection.ending == Ending::Lingering {
            self.discard_input(connection);
            return Ok(());
        }
        if flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            connection.hung_up = true;
            connection.readable = true;
        }
        // A hang-up means that both directions have ended. After we have ended ours it is no fault.
        connection.broken |=
            flags.contains(EpollFlags::EPOLLERR) || flags.contains(EpollFlags::EPOLLHUP) && connection.ending != Ending::SendingSideEnded;
        if flags.contains(EpollFlags::EPOLLIN) {
            connection.readable = true;
        }
        if flags.contains(EpollFlags::EPOLLOUT) && !connection.is_flushed() && !connection.is_handshaking() {
            self.send_more(connection)?;
        }
        self.advance(connection)
    }

    /// Reads and calls the handler until nothing is left to do, or until it is the others' turn.
    pub(super) fn advance(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        if connection.is_handshaking() && !self.handshake(connection)? {
            return Ok(());
        }
        self.end_back_pressure(connection)?;
        if connection.waits_for_room && connection.wants_data() {
            connection.waits_for_room = false;
            self.offer_unused(connection)?;
        }
        let mut reads = 0;
        while connection.readable && connection.wants_data() {
            if reads == READS_IN_A_ROW {
                self.postponed.push(connection.id.slot() as u32);
                return Ok(());
            }
            reads += 1;
            match connection.receive(&mut self.input, &mut self.ciphertext) {
                Ok(ReadOutcome { count: 0, .. }) => {
                    connection.readable = false;
                    connection.peer_ended = true;
                }
                Ok(ReadOutcome { count, is_all }) => {
                    connection.active_ns = self.now_ns;
                    self.counts.add(HostCounter::BytesIn, count as u64);
                    // Later bytes are a new event, unless the kernel has reported the end already.
                    if is_all && !connection.hung_up {
                        connection.readable = false;
                    }
                    self.offer_input(connection, count)?;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => connection.readable = false,
                Err(_) => connection.close_reason = Some(abi::CLOSED_BY_PEER),
            }
        }
        if connection.peer_ended && !connection.end_reported && connection.wants_data() {
            connection.end_reported = true;
            self.report_end(connection)?;
        }
        if connection.broken && !connection.wants_data() && connection.close_reason.is_none() {
            // It is not read from, so no read would report this.
            connection.close_reason = Some(abi::CLOSED_BY_PEER);
        }
        Ok(())
    }

    /// Offers the handler the first bytes of the input buffer, after those that it has not used.
    fn offer_input(&mut self, connection: &mut Connection, count: usize) -> Result<(), GaveUp> {
        if connection.unused.is_empty() {
            let input = std::mem::take(&mut self.input);
            let outcome = self.offer(connection, &input[..count]);
            if let Ok(used) = outcome
                && used < count
                && connection.close_reason.is_none()
            {
                connection.unused = self.spare_buffers.pop().unwrap_or_default();
                connection.unused.extend_from_slice(&input[used..count]);
                connection.unused_since_ns = self.now_ns;
            }
            self.input = input;
            outcome?;
        } else {
            connection.unused.extend_from_slice(&self.input[..count]);
            self.offer_unused(connection)?;
        }
        if connection.unused.len() >= connection.service.options.input_limit_bytes && connection.wants_data() {
            tracing::debug!("a handler leaves too much unused listener=\"{}\" bytes={}", connection.listener, connection.unused.len());
            connection.close_reason = Some(abi::CLOSED_BY_LIMIT);
        }
        Ok(())
    }

    fn offer_unused(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        let mut unused = std::mem::take(&mut connection.unused);
        let used = self.offer(connection, &unused)?;
        if used == unused.len() {
            connection.unused_since_ns = 0;
            self.keep_buffer(unused);
            return Ok(());
        }
        if used > 0 {
            // Here the next request begins, and its time limit.
            connection.unused_since_ns = self.now_ns;
            unused.drain(..used);
        }
        connection.unused = unused;
        Ok(())
    }

    /// Keeps a buffer for another connection, if it is of the usual size and few are kept.
    pub(super) fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 2 * INPUT_BYTES && self.spare_buffers.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare_buffers.push(buffer);
        }
    }

    /// Calls `on_data`. Calls it again as long as a write was refused in the call and the queue has
    /// room afterwards. Returns how many bytes the handler has used.
    fn offer(&mut self, connection: &mut Connection, data: &[u8]) -> Result<usize, GaveUp> {
        let on_data = connection.service.functions.on_data;
        let mut used = 0;
        while used < data.len() && connection.wants_data() {
            let rest = &data[used..];
            let mut now_used = 0;
            self.call(connection, |stream| {
                let outcome = on_data(stream, rest.as_ptr(), rest.len());
                match usize::try_from(outcome) {
                    Ok(count) if count <= rest.len() => {
                        now_used = count;
                        abi::OK
                    }
                    Ok(_) => abi::E_INVALID,
                    Err(_) => i32::try_from(outcome).unwrap_or(abi::E_FAILED),
                }
            })?;
            used += now_used;
            let refused = self.handler_call.was_refused();
            self.end_back_pressure(connection)?;
            if refused && used < data.len() {
                connection.waits_for_room = connection.full;
            }
            // With nothing refused, the handler needs more bytes than there are.
            if !refused {
                break;
            }
        }
        Ok(used)
    }

    /// Calls `on_end`: the peer has finished sending.
    fn report_end(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        let unused = connection.unused.len();
        match connection.service.functions.on_end {
            Some(on_end) => self.call(connection, |stream| on_end(stream, unused))?,
            None => self.end(connection, CloseMode::AfterSending),
        }
        self.end_when_flushed(connection);
        Ok(())
    }
}
