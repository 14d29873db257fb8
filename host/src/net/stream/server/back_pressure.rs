//! Back pressure: a connection whose queue is full is not read from. Its handler is told when there
//! is room again, if a write was refused.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* calls `on_writable` before a write was
//! refused, or several times in one turn.

use super::ConnectionServer;
use crate::net::stream::connection::{Connection, Ending};
use crate::net::stream::directory::QueueState;
use crate::net::udp::GaveUp;

impl ConnectionServer {
    /// A write was refused in the last call. The connection is full until the next turn, even if
    /// the kernel has taken everything since: then it would not report that it takes more.
    #[cold]
    pub(super) fn note_refused_write(&mut self, connection: &mut Connection) {
        if connection.full || connection.close_reason.is_some() {
            return;
        }
        connection.full = true;
        self.directory.set_queue_state(connection.id, QueueState::Full);
        if has_room(connection) {
            self.postponed.push(connection.id.slot() as u32);
        }
    }

    /// Tells the handler when the queue has fallen to the low-water mark.
    #[inline]
    pub(super) fn end_back_pressure(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        if !connection.full || connection.close_reason.is_some() || !has_room(connection) {
            return Ok(());
        }
        connection.full = false;
        self.directory.set_queue_state(connection.id, QueueState::HasRoom);
        match connection.service.functions.on_writable {
            Some(on_writable) if connection.ending == Ending::No => self.call(connection, |stream| on_writable(stream)),
            _ => Ok(()),
        }
    }
}

fn has_room(connection: &Connection) -> bool {
    connection.output.queued_bytes() <= (connection.service.options.output_limit_bytes / 4) as u64
}
