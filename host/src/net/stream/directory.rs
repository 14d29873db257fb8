//! Which connections exist, in memory that every process reads: ids, load, and the counts behind limits.
//!
//! *Runs in:* mapped by main before anything is forked. A worker writes its own part, and the counts while it holds their lock.
//! *Never:* gives the same id to two connections; never counts what a dead process had, or forgets what a living one has.
//!
//! A connection of a listener that has limits is counted in one step with its entry: under a robust lock, whose holder first writes down
//! what it is about to change and what that was. Whoever takes the lock after a death undoes what was half done, so a worker can be killed
//! at any instruction. Listeners without limits take no lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::sys::memory::mapping::Mapping;
use crate::sys::memory::robust_mutex::{Locked, Patience, RobustMutex};

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

/// All of it is one row of words. It begins with the lock, so 0 is the place of nothing that is counted.
const UNDO: usize = RobustMutex::SIZE_BYTES / size_of::<u64>();
/// How many words the lock's holder is changing; which ones, and what they were.
const UNDO_WORDS: usize = 1 + 2 * CHANGES_MAX;
const CHANGES_MAX: usize = 3;
/// Cells of addresses, workers, counts of listeners. Each worker begins a line of the processor's cache.
const ADDRESSES: usize = (UNDO + UNDO_WORDS).next_multiple_of(HEAD_WORDS);
const WORKERS: usize = ADDRESSES + ADDRESS_CELLS;
/// Two places fit into one word.
const _: () = assert!(WORKERS + MAX_WORKERS * WORKER_WORDS < 1 << 31);

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

/// Most connections of a listener; 0: any number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// In all.
    pub connections: u32,
    /// From one address.
    pub per_address: u32,
}

/// The directory. A handle: copies lead to the same memory.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    memory: Mapping,
    words: &'static [AtomicU64],
    worker_count: usize,
    /// So that nobody can choose addresses that meet in one place.
    seed: u64,
}

impl Directory {
    /// An empty one. Pages cost nothing until they are touched.
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

    /// Number of workers.
    pub fn worker_count(&self) -> usize {
        self.worker_count
    }

    fn head(&self, worker: usize, word: usize) -> &'static AtomicU64 {
        &self.words[WORKERS + worker * WORKER_WORDS + word]
    }

    fn place(worker: usize, slot: usize) -> usize {
        WORKERS + worker * WORKER_WORDS + HEAD_WORDS + (slot % MAX_CONNECTIONS) * ENTRY_WORDS
    }

    /// An entry, and the places of what its connection counts against: its listener's count and its address's cell, 0 for none.
    fn entry(&self, worker: usize, slot: usize) -> (&'static AtomicU64, &'static AtomicU64) {
        let at = Self::place(worker, slot);
        (&self.words[at], &self.words[at + 1])
    }

    /// By a worker: `slot` is a connection now. None: that is one more than a limit of its listener allows.
    pub fn open(&self, worker: usize, slot: usize, listener: usize, address: Option<&[u8]>, limits: Limits) -> Result<Option<Id>, Errno> {
        let (entry, charged) = self.entry(worker, slot);
        // Never 0: a number that nobody has written yet names no connection.
        let generation = (entry.load(Relaxed) >> FLAG_BITS).max(1);
        let opened = (generation << FLAG_BITS) | OPEN;
        let address = address.filter(|_| limits.per_address > 0);
        if limits.connections == 0 && address.is_none() {
            charged.store(0, Relaxed);
            entry.store(opened, SeqCst);
        } else {
            let counts = self.counts()?;
            let mut changes = Changes::default();
            let mut spec = 0;
            if limits.connections > 0 {
                let at = WORKERS + self.worker_count * WORKER_WORDS + listener;
                let count = self.words[at].load(Relaxed);
                if count >= u64::from(limits.connections) {
                    return Ok(None);
                }
                changes.add(at, count + 1);
                spec |= (at as u64) << 32;
            }
            if let Some((at, cell)) = address.and_then(|address| self.find_address(listener, address)) {
                if cell as u32 >= limits.per_address {
                    return Ok(None);
                }
                changes.add(at, cell + 1);
                spec |= at as u64;
            }
            changes.add(Self::place(worker, slot), opened);
            charged.store(spec, Relaxed);
            counts.change(&changes);
        }
        self.head(worker, OPEN_COUNT).fetch_add(1, Relaxed);
        Ok(Some(Id::new(worker, slot, generation)))
    }

    /// Whether no id is left for this place: years of connections have been in it.
    pub fn is_used_up(&self, worker: usize, slot: usize) -> bool {
        self.entry(worker, slot).0.load(Relaxed) >> FLAG_BITS == LAST_GENERATION
    }

    /// By its worker: it is over, and its id will never be valid again.
    pub fn close(&self, id: Id) -> Result<(), Errno> {
        let (entry, charged) = self.entry(id.worker(), id.slot());
        if entry.load(Relaxed) & OPEN == 0 {
            return Ok(());
        }
        if charged.load(Relaxed) == 0 {
            entry.store(closed(entry.load(Relaxed)), SeqCst);
        } else {
            self.counts()?.retire(id.worker(), id.slot());
        }
        self.head(id.worker(), OPEN_COUNT).fetch_sub(1, Relaxed);
        Ok(())
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
    pub fn adopt(&self, worker: usize, slots: usize) -> Result<(), Errno> {
        if slots > 0 {
            // Also what the predecessor has left half done is undone here, at the latest.
            let counts = self.counts()?;
            (0..slots.min(MAX_CONNECTIONS)).for_each(|slot| counts.retire(worker, slot));
        }
        self.head(worker, OPEN_COUNT).store(0, Relaxed);
        Ok(())
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

    /// Takes the lock of the counts. What its last holder has left half done is undone.
    fn counts(&self) -> Result<Counts<'_>, Errno> {
        let lock = RobustMutex::at_start_of(self.memory);
        if let Locked::OwnerDied { .. } = lock.lock(Patience::Wait)? {
            let (count, saved) = self.undo();
            for saved in saved.chunks_exact(2).take(count.load(Relaxed) as usize) {
                if let Some(word) = self.words.get(saved[0].load(Relaxed) as usize) {
                    word.store(saved[1].load(Relaxed), SeqCst);
                }
            }
            compiler_fence(SeqCst);
            count.store(0, Relaxed);
            lock.repaired()?;
        }
        Ok(Counts { directory: self, lock })
    }

    fn undo(&self) -> (&'static AtomicU64, &'static [AtomicU64]) {
        (&self.words[UNDO], &self.words[UNDO + 1..][..2 * CHANGES_MAX])
    }

    /// The place of an address's cell, and what it holds: 32 bits of the address's hash and a count; one whose count is 0 is free. None: there is no
    /// room, so this one is not counted.
    fn find_address(&self, listener: usize, address: &[u8]) -> Option<(usize, u64)> {
        let hash = hash(self.seed ^ listener as u64, address);
        let (tag, start) = (hash >> 32, hash as usize);
        let mut free = None;
        for probe in 0..PROBES {
            let at = ADDRESSES + start.wrapping_add(probe) % ADDRESS_CELLS;
            let word = self.words[at].load(Relaxed);
            if word as u32 == 0 {
                free = free.or(Some((at, tag << 32)));
            } else if word >> 32 == tag {
                return Some((at, word));
            }
        }
        free
    }
}

/// What an entry becomes when its connection is over.
fn closed(entry: u64) -> u64 {
    ((entry >> FLAG_BITS) + 1).min(LAST_GENERATION) << FLAG_BITS
}

/// Places of words, and what is to become of them, all at once.
#[derive(Default)]
struct Changes {
    words: [(usize, u64); CHANGES_MAX],
    count: usize,
}

impl Changes {
    fn add(&mut self, place: usize, value: u64) {
        self.words[self.count] = (place, value);
        self.count += 1;
    }
}

/// The right to change counts.
struct Counts<'a> {
    directory: &'a Directory,
    lock: RobustMutex,
}

impl Counts<'_> {
    /// All of it, or nothing if this process dies meanwhile. A process is killed between two instructions, and those before have happened:
    /// it is enough that the compiler keeps the order.
    fn change(&self, changes: &Changes) {
        let (words, changes) = (self.directory.words, &changes.words[..changes.count]);
        let (count, saved) = self.directory.undo();
        for (saved, (place, _)) in saved.chunks_exact(2).zip(changes) {
            saved[0].store(*place as u64, Relaxed);
            saved[1].store(words[*place].load(Relaxed), Relaxed);
        }
        compiler_fence(SeqCst);
        count.store(changes.len() as u64, Relaxed);
        compiler_fence(SeqCst);
        for (place, value) in changes {
            words[*place].store(*value, SeqCst);
        }
        compiler_fence(SeqCst);
        count.store(0, Relaxed);
    }

    /// Ends a connection, if there is one, and gives back what it counted.
    fn retire(&self, worker: usize, slot: usize) {
        let (entry, charged) = self.directory.entry(worker, slot);
        let (word, spec) = (entry.load(Relaxed), charged.load(Relaxed));
        if word & OPEN == 0 {
            return;
        }
        let mut changes = Changes::default();
        for counted in [(spec >> 32) as usize, spec as u32 as usize] {
            if counted != 0 {
                changes.add(counted, self.directory.words[counted].load(Relaxed) - 1);
            }
        }
        changes.add(Directory::place(worker, slot), closed(word));
        self.change(&changes);
    }
}

impl Drop for Counts<'_> {
    fn drop(&mut self) {
        if let Err(errno) = self.lock.unlock() {
            tracing::error!(target: "fault", "the lock of limits was not released: {errno}");
        }
    }
}

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
        let open = |worker, slot| directory.open(worker, slot, 0, None, Limits::default()).unwrap().unwrap();
        let id = open(1, 5);
        assert_eq!((id.worker(), id.slot()), (1, 5));
        assert_eq!(directory.status(id), Status::Open);
        assert_eq!((directory.load(0), directory.load(1)), (0, 1));
        directory.set_full(id, true);
        assert_eq!(directory.status(id), Status::Full);
        directory.close(id).unwrap();
        directory.close(id).unwrap();
        assert_eq!(directory.status(id), Status::Gone);
        assert_eq!(directory.load(1), 0);
        let next = open(1, 5);
        assert_ne!(next, id);
        assert_ne!(open(0, 0), Id(0));
        assert_eq!(directory.status(id), Status::Gone);
        assert_eq!(directory.status(next), Status::Open);
        directory.adopt(1, 6).unwrap();
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
        let last = directory.open(0, 3, 0, None, Limits::default()).unwrap().unwrap();
        assert_eq!(directory.status(last), Status::Open);
        directory.close(last).unwrap();
        assert_eq!(directory.status(last), Status::Gone);
        assert!(directory.is_used_up(0, 3) && !directory.is_used_up(0, 4));
    }

    #[test]
    fn limits_count_and_are_given_back() {
        let directory = Directory::new(1, 2, 7).unwrap();
        let open = |slot, listener, address: &[u8]| {
            directory.open(0, slot, listener, Some(address), Limits { connections: 4, per_address: 2 }).unwrap()
        };
        let first = open(0, 1, b"one").unwrap();
        open(1, 1, b"one").unwrap();
        assert_eq!(open(2, 1, b"one"), None, "two from one address");
        open(2, 1, b"two").unwrap();
        open(3, 1, b"three").unwrap();
        assert_eq!(open(4, 1, b"four"), None, "four in all");
        assert_eq!(directory.load(0), 4);
        open(4, 0, b"one").expect("another listener");
        directory.close(first).unwrap();
        open(0, 1, b"one").unwrap();
        assert_eq!(open(5, 1, b"one"), None);
        // The successor of a worker gives back what its predecessor had.
        directory.adopt(0, 6).unwrap();
        assert_eq!(directory.load(0), 0);
        for slot in 0..2 {
            open(slot, 1, b"one").unwrap();
        }
        assert_eq!(open(2, 1, b"one"), None);
    }

    #[test]
    fn addresses_beyond_all_cells_are_not_refused() {
        let directory = Directory::new(1, 1, 7).unwrap();
        let limits = Limits { connections: 0, per_address: 1 };
        let ids: Vec<Id> = (0..ADDRESS_CELLS + 1000)
            .map(|number| directory.open(0, number, 0, Some(&number.to_le_bytes()), limits).unwrap().expect("another address"))
            .collect();
        assert!(
            directory.open(0, ids.len(), 0, Some(&0_usize.to_le_bytes()), limits).unwrap().is_none(),
            "it has a cell, and one connection"
        );
        ids.into_iter().for_each(|id| directory.close(id).unwrap());
        assert!(directory.words[ADDRESSES..WORKERS].iter().all(|cell| cell.load(Relaxed) as u32 == 0));
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
