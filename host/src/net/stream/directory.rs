//! The table of open connections, in memory that every process reads: ids, load, and the counts
//! that limits are compared with.
//!
//! *Runs in:* mapped by main before anything is forked. A worker writes its own part, and the
//! counts while it holds their lock. *Never:* gives the same id to two connections; never counts
//! the connections of a dead process, or loses count of a living one's.
//!
//! Shared memory records every open connection: worker, slot, serial. If its listener has limits,
//! the connection is counted in one step with its entry; see [`counts`]. Listeners without limits
//! take no lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::sys::memory::mapping::Mapping;
use crate::sys::memory::robust_mutex::RobustMutex;

mod counts;

/// Most TCP workers of one host.
pub const MAX_WORKERS: usize = 1 << WORKER_BITS;
/// Most connections of one worker.
pub const MAX_CONNECTIONS: usize = 1 << SLOT_BITS;

const WORKER_BITS: u32 = 8;
const SLOT_BITS: u32 = 18;
const SERIAL_BITS: u32 = 64 - WORKER_BITS - SLOT_BITS;
/// No connection has this serial: a slot that has reached it is not used any more.
const LAST_SERIAL: u64 = (1 << SERIAL_BITS) - 1;

/// A worker's part begins with these words; its entries follow.
const HEAD_WORDS: usize = 8;
const OPEN_COUNT: usize = 0;
/// Connections that TCP main has sent to the worker since the start.
const SENT_COUNT: usize = 1;
/// How many of those the worker has received.
const RECEIVED_COUNT: usize = 2;
const SLOT_COUNT: usize = 3;
/// An entry: serial and flags; the places of the counts that include the connection.
const ENTRY_WORDS: usize = 2;
const WORKER_WORDS: usize = HEAD_WORDS + MAX_CONNECTIONS * ENTRY_WORDS;

const OPEN: u64 = 1;
const FULL: u64 = 2;
const FLAG_BITS: u32 = 2;

/// The words: lock, undo list, cells of addresses, parts of workers, counts of listeners. Each
/// worker's part begins a cache line.
const WORKERS: usize = counts::ADDRESSES_END;
/// Two places fit into one word.
const _: () = assert!(WORKERS + MAX_WORKERS * WORKER_WORDS < 1 << 31);

/// Names a connection: worker, slot, serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    fn new(worker: usize, slot: usize, serial: u64) -> Self {
        Self(((worker as u64) << (SLOT_BITS + SERIAL_BITS)) | ((slot as u64) << SERIAL_BITS) | serial)
    }

    /// Index among the TCP workers.
    pub fn worker(self) -> usize {
        (self.0 >> (SLOT_BITS + SERIAL_BITS)) as usize
    }

    /// Index among its worker's connections.
    pub fn slot(self) -> usize {
        ((self.0 >> SERIAL_BITS) as usize) & (MAX_CONNECTIONS - 1)
    }

    fn serial(self) -> u64 {
        self.0 & ((1 << SERIAL_BITS) - 1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStatus {
    Open,
    /// Open, and its queue is at the high-water mark.
    Full,
    /// Closed, or never opened.
    Gone,
}

/// Whether a connection's queue takes more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueState {
    HasRoom,
    /// It has reached the high-water mark, and not yet fallen to the low-water mark.
    Full,
}

/// Most connections of one listener; 0: no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectionLimits {
    pub connections: u32,
    /// From one IP address.
    pub per_address: u32,
}

/// A handle: copies lead to the same memory.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    memory: Mapping,
    words: &'static [AtomicU64],
    worker_count: usize,
    /// Of the hash of addresses, so that no client can choose addresses whose cells collide.
    seed: u64,
}

struct DirectoryEntry {
    /// Serial and flags. The serial of a closed entry is the next connection's.
    state: &'static AtomicU64,
    /// Places of its listener's count and of its address's cell; 0: not counted there.
    counted_at: &'static AtomicU64,
}

impl Directory {
    /// Maps an empty table. Pages cost nothing until they are touched.
    pub fn new(workers: usize, listeners: usize, seed: u64) -> Result<Self> {
        let count = WORKERS + workers * WORKER_WORDS + listeners;
        let memory = Mapping::shared(count * size_of::<u64>())?;
        if listeners > 0 {
            RobustMutex::at_start_of(memory)
                .initialise()
                .map_err(|errno| Error::failed("cannot make the lock of limits").detail(format!("pthread_mutex_init: {errno}")))?;
        }
        Ok(Self { memory, words: &memory.words()[..count], worker_count: workers, seed })
    }

    pub fn worker_count(&self) -> usize {
        self.worker_count
    }

    fn head(&self, worker: usize, word: usize) -> &'static AtomicU64 {
        &self.words[WORKERS + worker * WORKER_WORDS + word]
    }

    fn entry_place(worker: usize, slot: usize) -> usize {
        WORKERS + worker * WORKER_WORDS + HEAD_WORDS + (slot % MAX_CONNECTIONS) * ENTRY_WORDS
    }

    fn entry(&self, worker: usize, slot: usize) -> DirectoryEntry {
        let place = Self::entry_place(worker, slot);
        DirectoryEntry { state: &self.words[place], counted_at: &self.words[place + 1] }
    }

    /// By a worker: opens a connection in its slot. None: a limit of the listener is reached.
    pub fn open(
        &self,
        worker: usize,
        slot: usize,
        listener: usize,
        address: Option<&[u8]>,
        limits: ConnectionLimits,
    ) -> Result<Option<ConnectionId>, Errno> {
        let entry = self.entry(worker, slot);
        // Serials begin at 1, so the id 0 names no connection.
        let serial = (entry.state.load(Relaxed) >> FLAG_BITS).max(1);
        let opened = (serial << FLAG_BITS) | OPEN;
        let address = address.filter(|_| limits.per_address > 0);
        if limits.connections == 0 && address.is_none() {
            entry.counted_at.store(0, Relaxed);
            entry.state.store(opened, SeqCst);
        } else if !self.lock_counts()?.open(worker, slot, opened, listener, address, limits) {
            return Ok(None);
        }
        self.head(worker, OPEN_COUNT).fetch_add(1, Relaxed);
        Ok(Some(ConnectionId::new(worker, slot, serial)))
    }

    /// Whether a slot has no serial left, after years of connections.
    pub fn is_used_up(&self, worker: usize, slot: usize) -> bool {
        self.entry(worker, slot).state.load(Relaxed) >> FLAG_BITS == LAST_SERIAL
    }

    /// By its worker: closes a connection. Its id is never valid again.
    pub fn close(&self, id: ConnectionId) -> Result<(), Errno> {
        let entry = self.entry(id.worker(), id.slot());
        if entry.state.load(Relaxed) & OPEN == 0 {
            return Ok(());
        }
        if entry.counted_at.load(Relaxed) == 0 {
            entry.state.store(closed(entry.state.load(Relaxed)), SeqCst);
        } else {
            self.lock_counts()?.close(id.worker(), id.slot());
        }
        self.head(id.worker(), OPEN_COUNT).fetch_sub(1, Relaxed);
        Ok(())
    }

    /// By its worker.
    pub fn set_queue_state(&self, id: ConnectionId, state: QueueState) {
        let entry = self.entry(id.worker(), id.slot()).state;
        let word = entry.load(Relaxed);
        let next = match state {
            QueueState::Full => word | FULL,
            QueueState::HasRoom => word & !FULL,
        };
        entry.store(next, Relaxed);
    }

    /// By any process, of any number.
    pub fn status(&self, id: ConnectionId) -> ConnectionStatus {
        if id.worker() >= self.worker_count() {
            return ConnectionStatus::Gone;
        }
        let word = self.entry(id.worker(), id.slot()).state.load(SeqCst);
        if word & OPEN == 0 || word >> FLAG_BITS != id.serial() {
            ConnectionStatus::Gone
        } else if word & FULL != 0 {
            ConnectionStatus::Full
        } else {
            ConnectionStatus::Open
        }
    }

    /// By a new worker: closes the connections of its predecessor, which are in the first slots.
    pub fn adopt(&self, worker: usize, slots: usize) -> Result<(), Errno> {
        if slots > 0 {
            // Taking the lock also undoes what the predecessor has left half done.
            let counts = self.lock_counts()?;
            (0..slots.min(MAX_CONNECTIONS)).for_each(|slot| counts.close(worker, slot));
        }
        self.head(worker, OPEN_COUNT).store(0, Relaxed);
        Ok(())
    }

    /// Connections that a worker has, and those on their way to it.
    pub fn load(&self, worker: usize) -> u64 {
        let (sent, received) = (self.sent_count(worker), self.head(worker, RECEIVED_COUNT).load(Relaxed));
        self.head(worker, OPEN_COUNT).load(Relaxed) + sent.saturating_sub(received)
    }

    /// Open connections of all workers.
    pub fn open_count(&self) -> u64 {
        (0..self.worker_count()).map(|worker| self.head(worker, OPEN_COUNT).load(Relaxed)).sum()
    }

    /// Raises the number of slots that a worker has ever used, for its successor.
    pub fn raise_slot_count(&self, worker: usize, slots: usize) {
        self.head(worker, SLOT_COUNT).fetch_max(slots as u64, Relaxed);
    }

    pub fn slot_count(&self, worker: usize) -> usize {
        self.head(worker, SLOT_COUNT).load(Relaxed) as usize
    }

    /// By TCP main, before it sends connections to a worker.
    pub fn add_sent(&self, worker: usize, count: u64) {
        self.head(worker, SENT_COUNT).fetch_add(count, Relaxed);
    }

    /// By TCP main, when they could not be sent.
    pub fn subtract_sent(&self, worker: usize, count: u64) {
        self.head(worker, SENT_COUNT).fetch_sub(count, Relaxed);
    }

    /// Connections sent to a worker until now. A worker reads it before it reads its link.
    pub fn sent_count(&self, worker: usize) -> u64 {
        self.head(worker, SENT_COUNT).load(Relaxed)
    }

    /// By a worker whose link is empty: it has received everything that was sent before.
    pub fn set_received(&self, worker: usize, sent: u64) {
        self.head(worker, RECEIVED_COUNT).store(sent, Relaxed);
    }
}

/// The state of an entry after its connection is closed.
fn closed(state: u64) -> u64 {
    ((state >> FLAG_BITS) + 1).min(LAST_SERIAL) << FLAG_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_valid_once() {
        let directory = Directory::new(2, 1, 7).unwrap();
        let open = |worker, slot| directory.open(worker, slot, 0, None, ConnectionLimits::default()).unwrap().unwrap();
        let id = open(1, 5);
        assert_eq!((id.worker(), id.slot()), (1, 5));
        assert_eq!(directory.status(id), ConnectionStatus::Open);
        assert_eq!((directory.load(0), directory.load(1)), (0, 1));
        directory.set_queue_state(id, QueueState::Full);
        assert_eq!(directory.status(id), ConnectionStatus::Full);
        directory.set_queue_state(id, QueueState::HasRoom);
        assert_eq!(directory.status(id), ConnectionStatus::Open);
        directory.close(id).unwrap();
        directory.close(id).unwrap();
        assert_eq!(directory.status(id), ConnectionStatus::Gone);
        assert_eq!(directory.load(1), 0);
        let next = open(1, 5);
        assert_ne!(next, id);
        assert_ne!(open(0, 0), ConnectionId(0));
        assert_eq!(directory.status(id), ConnectionStatus::Gone);
        assert_eq!(directory.status(next), ConnectionStatus::Open);
        directory.adopt(1, 6).unwrap();
        assert_eq!(directory.status(next), ConnectionStatus::Gone);
        for number in [0, u64::MAX, 1 << 63, 12345] {
            assert_eq!(directory.status(ConnectionId(number)), ConnectionStatus::Gone, "{number}");
        }
    }

    #[test]
    fn a_slot_without_serials_is_not_used_again() {
        let directory = Directory::new(1, 1, 7).unwrap();
        directory.entry(0, 3).state.store((LAST_SERIAL - 1) << FLAG_BITS, Relaxed);
        assert!(!directory.is_used_up(0, 3));
        let last = directory.open(0, 3, 0, None, ConnectionLimits::default()).unwrap().unwrap();
        assert_eq!(directory.status(last), ConnectionStatus::Open);
        directory.close(last).unwrap();
        assert_eq!(directory.status(last), ConnectionStatus::Gone);
        assert!(directory.is_used_up(0, 3) && !directory.is_used_up(0, 4));
    }

    #[test]
    fn connections_on_their_way_are_load() {
        let directory = Directory::new(1, 1, 7).unwrap();
        directory.add_sent(0, 3);
        assert_eq!(directory.load(0), 3);
        let sent = directory.sent_count(0);
        directory.add_sent(0, 1);
        directory.set_received(0, sent);
        assert_eq!(directory.load(0), 1);
        directory.subtract_sent(0, 1);
        assert_eq!(directory.load(0), 0);
    }
}
