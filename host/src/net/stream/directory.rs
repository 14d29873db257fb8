//! Which connections exist, in memory that every process reads: ids, load, and the counts behind limits.
//!
//! *Runs in:* mapped by main before anything is forked. A worker writes its own part, TCP main and accepting workers the counts.
//! *Never:* gives the same id to two connections.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::error::Result;
use crate::sys::mapping::Mapping;

/// Most TCP workers of one host.
pub const MAX_WORKERS: usize = 1 << WORKER_BITS;
/// Most connections of one worker.
pub const MAX_CONNECTIONS: usize = 1 << SLOT_BITS;

const WORKER_BITS: u32 = 8;
const SLOT_BITS: u32 = 18;
const GENERATION_BITS: u32 = 64 - WORKER_BITS - SLOT_BITS;
/// Never that of a connection: a place that has come so far is not used any more.
const LAST_GENERATION: u64 = (1 << GENERATION_BITS) - 1;

/// Words before a worker's entries: open connections, descriptors that were sent to it, of those how many it knows of.
const HEAD_WORDS: usize = 8;
const OPEN_COUNT: usize = 0;
const HANDED: usize = 1;
const TAKEN: usize = 2;
const SLOTS: usize = 3;
/// An entry: generation and flags; listener and address.
const ENTRY_WORDS: usize = 2;
const WORKER_WORDS: usize = HEAD_WORDS + MAX_CONNECTIONS * ENTRY_WORDS;

const OPEN: u64 = 1;
const FULL: u64 = 2;
const FLAG_BITS: u32 = 2;

/// Counters of addresses. More different addresses than this are not told apart exactly.
const ADDRESS_CELLS: usize = 1 << 17;
/// How far from its place an address may stand.
const PROBES: usize = 16;

/// A connection's name: worker, slot, generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub u64);

impl Id {
    fn new(worker: usize, slot: usize, generation: u64) -> Self {
        Self(((worker as u64) << (SLOT_BITS + GENERATION_BITS)) | ((slot as u64) << GENERATION_BITS) | generation)
    }

    /// The index of its worker.
    pub fn worker(self) -> usize {
        (self.0 >> (SLOT_BITS + GENERATION_BITS)) as usize
    }

    /// Its place among its worker's connections.
    pub fn slot(self) -> usize {
        ((self.0 >> GENERATION_BITS) as usize) & (MAX_CONNECTIONS - 1)
    }

    fn generation(self) -> u64 {
        self.0 & ((1 << GENERATION_BITS) - 1)
    }
}

/// What the directory knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exists.
    Open,
    /// It exists and its queue is at its high-water mark.
    Full,
    /// It does not exist any more, or never did.
    Gone,
}

/// What a connection counts against: kept so that it can be given back, by the worker or by its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    /// The listener.
    pub listener: u32,
    /// Its address's cell plus one; 0: none.
    pub address: u32,
}

/// The directory. A handle: copies lead to the same memory.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    workers: &'static [AtomicU64],
    listeners: &'static [AtomicU64],
    addresses: &'static [AtomicU64],
    /// So that nobody can choose addresses that meet in one place.
    seed: u64,
}

impl Directory {
    /// An empty one. Pages cost nothing until they are touched.
    pub fn new(workers: usize, listeners: usize, seed: u64) -> Result<Self> {
        let words = |count: usize| Ok(Mapping::shared(count.max(1) * size_of::<u64>())?.words());
        Ok(Self { workers: words(workers * WORKER_WORDS)?, listeners: words(listeners)?, addresses: words(ADDRESS_CELLS)?, seed })
    }

    /// Number of workers.
    pub fn worker_count(&self) -> usize {
        self.workers.len() / WORKER_WORDS
    }

    fn head(&self, worker: usize, word: usize) -> &'static AtomicU64 {
        &self.workers[worker * WORKER_WORDS + word]
    }

    fn entry(&self, worker: usize, slot: usize) -> (&'static AtomicU64, &'static AtomicU64) {
        let at = worker * WORKER_WORDS + HEAD_WORDS + (slot % MAX_CONNECTIONS) * ENTRY_WORDS;
        (&self.workers[at], &self.workers[at + 1])
    }

    /// By a worker: `slot` is a connection now.
    pub fn open(&self, worker: usize, slot: usize, charge: Charge) -> Id {
        let (entry, charged) = self.entry(worker, slot);
        // Never 0: a number that nobody has written yet names no connection.
        let generation = (entry.load(Relaxed) >> FLAG_BITS).max(1);
        charged.store((u64::from(charge.listener) << 32) | u64::from(charge.address), Relaxed);
        entry.store((generation << FLAG_BITS) | OPEN, SeqCst);
        self.head(worker, OPEN_COUNT).fetch_add(1, Relaxed);
        Id::new(worker, slot, generation)
    }

    /// Whether no id is left for this place: years of connections have been in it.
    pub fn is_used_up(&self, worker: usize, slot: usize) -> bool {
        self.entry(worker, slot).0.load(Relaxed) >> FLAG_BITS == LAST_GENERATION
    }

    /// By its worker: it is over, and its id will never be valid again.
    pub fn close(&self, id: Id) {
        if self.retire(id.worker(), id.slot()) {
            self.head(id.worker(), OPEN_COUNT).fetch_sub(1, Relaxed);
        }
    }

    /// Whether there was a connection.
    fn retire(&self, worker: usize, slot: usize) -> bool {
        let (entry, charged) = self.entry(worker, slot);
        let word = entry.load(Relaxed);
        if word & OPEN == 0 {
            return false;
        }
        let generation = ((word >> FLAG_BITS) + 1).min(LAST_GENERATION);
        let charge = charged.load(Relaxed);
        entry.store(generation << FLAG_BITS, SeqCst);
        self.give_back(Charge { listener: (charge >> 32) as u32, address: charge as u32 });
        true
    }

    /// By its worker: whether its queue is at its high-water mark.
    pub fn set_full(&self, id: Id, full: bool) {
        let (entry, _) = self.entry(id.worker(), id.slot());
        let word = entry.load(Relaxed);
        entry.store(if full { word | FULL } else { word & !FULL }, Relaxed);
    }

    /// By anybody, of any number.
    pub fn status(&self, id: Id) -> Status {
        if id.worker() >= self.worker_count() {
            return Status::Gone;
        }
        let word = self.entry(id.worker(), id.slot()).0.load(SeqCst);
        if word & OPEN == 0 || word >> FLAG_BITS != id.generation() {
            Status::Gone
        } else if word & FULL != 0 {
            Status::Full
        } else {
            Status::Open
        }
    }

    /// By a worker that begins: what its predecessor had is over.
    pub fn adopt(&self, worker: usize, slots: usize) {
        for slot in 0..slots.min(MAX_CONNECTIONS) {
            self.retire(worker, slot);
        }
        self.head(worker, OPEN_COUNT).store(0, Relaxed);
    }

    /// Connections that a worker has, and those on their way to it.
    pub fn load(&self, worker: usize) -> u64 {
        let (handed, taken) = (self.head(worker, HANDED).load(Relaxed), self.head(worker, TAKEN).load(Relaxed));
        self.head(worker, OPEN_COUNT).load(Relaxed) + handed.saturating_sub(taken)
    }

    /// Connections that exist now, of all workers.
    pub fn open_count(&self) -> u64 {
        (0..self.worker_count()).map(|worker| self.head(worker, OPEN_COUNT).load(Relaxed)).sum()
    }

    /// Highest slot that a worker has ever used, for its successor.
    pub fn note_slots(&self, worker: usize, slots: usize) {
        self.head(worker, SLOTS).fetch_max(slots as u64, Relaxed);
    }

    /// See `note_slots`.
    pub fn noted_slots(&self, worker: usize) -> usize {
        self.head(worker, SLOTS).load(Relaxed) as usize
    }

    /// By TCP main: so many descriptors are on their way.
    pub fn hand(&self, worker: usize, count: u64) {
        self.head(worker, HANDED).fetch_add(count, Relaxed);
    }

    /// By TCP main: they could not be sent.
    pub fn take_back(&self, worker: usize, count: u64) {
        self.head(worker, HANDED).fetch_sub(count, Relaxed);
    }

    /// By a worker, before it looks into its link: what was handed to it until now.
    pub fn handed(&self, worker: usize) -> u64 {
        self.head(worker, HANDED).load(Relaxed)
    }

    /// By a worker that has found its link empty: it has everything that was handed to it before.
    pub fn taken(&self, worker: usize, handed: u64) {
        self.head(worker, TAKEN).store(handed, Relaxed);
    }

    /// Counts a connection against its listener and, if there is one, its address. None: over a limit.
    pub fn charge(&self, listener: u32, address: Option<&[u8]>, connections: u32, per_address: u32) -> Option<Charge> {
        let count = self.listeners.get(listener as usize)?;
        if count.fetch_add(1, Relaxed) >= u64::from(connections) && connections > 0 {
            count.fetch_sub(1, Relaxed);
            return None;
        }
        let mut charge = Charge { listener, address: 0 };
        if let (Some(address), true) = (address, per_address > 0) {
            match self.count_address(listener, address, per_address) {
                Ok(cell) => charge.address = cell,
                Err(OverLimit) => {
                    count.fetch_sub(1, Relaxed);
                    return None;
                }
            }
        }
        Some(charge)
    }

    /// The opposite of `charge`.
    pub fn give_back(&self, charge: Charge) {
        let less = |cell: &AtomicU64| {
            // A worker that died between two stores may have been counted too little; never below zero.
            let _ = cell.fetch_update(Relaxed, Relaxed, |word| if word as u32 == 0 { None } else { Some(word - 1) });
        };
        if let Some(count) = self.listeners.get(charge.listener as usize) {
            less(count);
        }
        if let Some(cell) = (charge.address as usize).checked_sub(1).and_then(|at| self.addresses.get(at)) {
            less(cell);
        }
    }

    /// The cell plus one. Cells hold 32 bits of the address's hash and a count; one whose count is 0 is free.
    fn count_address(&self, listener: u32, address: &[u8], limit: u32) -> Result<u32, OverLimit> {
        let hash = hash(self.seed ^ u64::from(listener), address);
        let (tag, start) = (hash >> 32, hash as usize);
        loop {
            let mut free = None;
            let mut found = None;
            for probe in 0..PROBES {
                let at = (start + probe) % ADDRESS_CELLS;
                let word = self.addresses[at].load(Relaxed);
                if word as u32 == 0 {
                    free = free.or(Some((at, word)));
                } else if word >> 32 == tag {
                    found = Some((at, word));
                    break;
                }
            }
            // No room: this one is not counted.
            let Some((at, word)) = found.or(free) else { return Ok(0) };
            let count = word as u32;
            if count >= limit {
                return Err(OverLimit);
            }
            let next = (tag << 32) | u64::from(count + 1);
            if self.addresses[at].compare_exchange(word, next, Relaxed, Relaxed).is_ok() {
                return Ok(at as u32 + 1);
            }
        }
    }
}

/// The address has as many connections as it may.
struct OverLimit;

/// A keyed mixing of some bytes; different enough for a table of counters, and not to be guessed without the seed.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 29;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31);
    }
    state ^ (state >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_valid_once() {
        let directory = Directory::new(2, 1, 7).unwrap();
        let charge = directory.charge(0, None, 0, 0).unwrap();
        let id = directory.open(1, 5, charge);
        assert_eq!((id.worker(), id.slot()), (1, 5));
        assert_eq!(directory.status(id), Status::Open);
        assert_eq!((directory.load(0), directory.load(1)), (0, 1));
        directory.set_full(id, true);
        assert_eq!(directory.status(id), Status::Full);
        directory.close(id);
        directory.close(id);
        assert_eq!(directory.status(id), Status::Gone);
        assert_eq!(directory.load(1), 0);
        let next = directory.open(1, 5, directory.charge(0, None, 0, 0).unwrap());
        assert_ne!(next, id);
        assert_ne!(directory.open(0, 0, directory.charge(0, None, 0, 0).unwrap()), Id(0));
        assert_eq!(directory.status(id), Status::Gone);
        assert_eq!(directory.status(next), Status::Open);
        directory.adopt(1, 6);
        assert_eq!(directory.status(next), Status::Gone);
        for number in [0, u64::MAX, 1 << 63, 12345] {
            assert_eq!(directory.status(Id(number)), Status::Gone, "{number}");
        }
    }

    #[test]
    fn a_place_whose_ids_are_used_up_is_not_used_again() {
        let directory = Directory::new(1, 1, 7).unwrap();
        directory.entry(0, 3).0.store((LAST_GENERATION - 1) << FLAG_BITS, Relaxed);
        assert!(!directory.is_used_up(0, 3));
        let last = directory.open(0, 3, directory.charge(0, None, 0, 0).unwrap());
        assert_eq!(directory.status(last), Status::Open);
        directory.close(last);
        assert_eq!(directory.status(last), Status::Gone);
        assert!(directory.is_used_up(0, 3) && !directory.is_used_up(0, 4));
    }

    #[test]
    fn limits_count_and_are_given_back() {
        let directory = Directory::new(1, 2, 7).unwrap();
        let charge = |address: &[u8]| directory.charge(1, Some(address), 4, 2);
        let first = charge(b"one").unwrap();
        charge(b"one").unwrap();
        assert_eq!(charge(b"one"), None, "two from one address");
        charge(b"two").unwrap();
        charge(b"three").unwrap();
        assert_eq!(charge(b"four"), None, "four in all");
        assert!(directory.charge(0, Some(b"one"), 4, 2).is_some(), "another listener");
        directory.give_back(first);
        assert!(charge(b"one").is_some());
        assert_eq!(charge(b"one"), None);
        // The successor of a worker gives back what its predecessor had.
        let directory = Directory::new(1, 1, 7).unwrap();
        directory.open(0, 3, directory.charge(0, Some(b"one"), 0, 1).unwrap());
        assert_eq!(directory.charge(0, Some(b"one"), 0, 1), None);
        directory.adopt(0, 4);
        assert!(directory.charge(0, Some(b"one"), 0, 1).is_some());
    }

    #[test]
    fn what_is_on_its_way_is_load() {
        let directory = Directory::new(1, 1, 7).unwrap();
        directory.hand(0, 3);
        assert_eq!(directory.load(0), 3);
        let seen = directory.handed(0);
        directory.hand(0, 1);
        directory.taken(0, seen);
        assert_eq!(directory.load(0), 1);
        directory.take_back(0, 1);
        assert_eq!(directory.load(0), 0);
    }
}
