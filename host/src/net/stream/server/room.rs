//! Room in the queue: a handler that was refused is told when there is some again.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* tells it so before it was refused, or again and again at one go.

use super::ConnectionServer;
use crate::net::stream::connection::{Connection, Ending};
use crate::net::udp::GaveUp;

impl ConnectionServer {
    /// The handler could not queue something in the call that has just returned. The kernel may have taken everything since, and then
    /// would not tell when it takes more: the connection counts as full until the next turn.
    #[cold]
    pub(super) fn note_refusal(&mut self, connection: &mut Connection) {
        if connection.full || connection.over.is_some() {
            return;
        }
        connection.full = true;
        self.directory.set_full(connection.id, true);
        if has_room(connection) {
            self.again.push(connection.id.slot() as u32);
        }
    }

    /// If the queue has fallen to the low-water mark, the connection is not full any more, and the handler hears of it.
    #[inline]
    pub(super) fn relieve(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        if !connection.full || connection.over.is_some() || !has_room(connection) {
            return Ok(());
        }
        connection.full = false;
        self.directory.set_full(connection.id, false);
        match connection.service.functions.on_writable {
            Some(on_writable) if connection.ending == Ending::No => self.call(connection, |stream| on_writable(stream)),
            _ => Ok(()),
        }
    }
}

fn has_room(connection: &Connection) -> bool {
    connection.output.queued_bytes() <= (connection.service.options.output_limit_bytes / 4) as u64
}
