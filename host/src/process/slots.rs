//! The process table in shared memory: one slot per process, made of words that any process may
//! read at any time.
//!
//! *Runs in:* mapped by the supervisor before main exists; written by main and, its own slot, by
//! each child; read by all. *Never:* trusted by the supervisor as more than numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::error::{Error, Result};
use crate::sys::memory::mapping::Mapping;

/// Most processes of one host.
pub const MAX_PROCESSES: usize = 8192;

const SLOT_WORDS: usize = 16;
/// Size of the whole table.
pub const TABLE_BYTES: usize = (MAX_PROCESSES + 1) * SLOT_WORDS * size_of::<u64>();
const NAME_WORDS: usize = 6;

/// What a slot's process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum SlotState {
    /// Never forked.
    Free = 0,
    /// Forked, in its own initialisation.
    Starting = 1,
    /// Initialised.
    Serving = 2,
    /// Dead, and its restart is due later.
    Waiting = 3,
    /// Ended, and not restarted.
    Ended = 4,
}

impl SlotState {
    /// The word in `modhost ps`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
        }
    }

    fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Starting,
            2 => Self::Serving,
            3 => Self::Waiting,
            4 => Self::Ended,
            _ => Self::Free,
        }
    }
}

/// The table: a handle, so copies lead to the same memory.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    words: &'static [AtomicU64],
}

impl Slots {
    /// An empty table, shared with every process forked later. Its pages cost nothing until they
    /// are touched.
    pub fn new() -> Result<Self> {
        let slots = Self { words: Mapping::shared(TABLE_BYTES)?.words() };
        slots.await_nobody();
        Ok(slots)
    }

    /// The same memory as an empty table, for another main. No process of the last one is left.
    pub fn cleared(self) -> Self {
        let used = (self.count() + 1) * SLOT_WORDS;
        self.words[..used].iter().for_each(|word| word.store(0, SeqCst));
        self.await_nobody();
        self
    }

    /// The slot of a process. None past the table's capacity.
    pub fn slot(&self, process_no: usize) -> Option<Slot> {
        let start = (process_no + 1) * SLOT_WORDS;
        self.words.get(start..start + SLOT_WORDS).map(|words| Slot { words })
    }

    /// The slots in use, main's first. Empty before the table's size is fixed.
    pub fn iter(self) -> impl Iterator<Item = (usize, Slot)> {
        (0..self.count()).filter_map(move |process_no| Some((process_no, self.slot(process_no)?)))
    }

    /// The exact number of processes; 0 before `seal`.
    pub fn count(&self) -> usize {
        usize::try_from(self.words[0].load(Relaxed)).unwrap_or(0).min(MAX_PROCESSES)
    }

    /// Fixes the number of processes for good. In main, once, at `seal`.
    pub fn fix_count(&self, count: usize) -> Result<()> {
        check_count(count)?;
        self.words[0].store(count as u64, SeqCst);
        Ok(())
    }

    /// Counts a child that has finished its own initialisation. Returns true for the one that
    /// completes what main waits for.
    pub fn child_done(&self) -> bool {
        let done = self.words[1].fetch_add(1, SeqCst) + 1;
        done >= self.words[2].load(SeqCst)
    }

    /// Number of children that have finished their initialisation since the start.
    pub fn children_done(&self) -> u64 {
        self.words[1].load(SeqCst)
    }

    /// Main waits until `count` children are done; the child that completes the number wakes it.
    /// Returns true if they are done already.
    pub fn await_children(&self, count: u64) -> bool {
        self.words[2].store(count, SeqCst);
        self.children_done() >= count
    }

    /// Main waits no longer.
    pub fn await_nobody(&self) {
        self.words[2].store(u64::MAX, SeqCst);
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    words: &'static [AtomicU64],
}

fn signed(word: u64) -> i32 {
    word as u32 as i32
}

impl Slot {
    /// Pid of the process, 0 if there is none. Main writes it after the fork, and so does the
    /// child.
    pub fn pid(&self) -> i32 {
        signed(self.words[0].load(Relaxed))
    }

    pub fn set_pid(&self, pid: i32) {
        self.words[0].store(u64::from(pid as u32), Relaxed);
    }

    /// Written by main, and by the child when it is initialised.
    pub fn state(&self) -> SlotState {
        SlotState::from_word(self.words[1].load(SeqCst))
    }

    pub fn set_state(&self, state: SlotState) {
        self.words[1].store(state as u64, SeqCst);
    }

    /// Written by main before the fork.
    pub fn rank(&self) -> i32 {
        signed(self.words[2].load(Relaxed))
    }

    /// How often the slot was forked again.
    pub fn restarts(&self) -> u32 {
        self.words[3].load(Relaxed) as u32
    }

    /// When its process was forked: monotonic nanoseconds.
    pub fn forked_ns(&self) -> u64 {
        self.words[4].load(Relaxed)
    }

    /// Main notes a fork just before it.
    pub fn note_fork(&self, rank: i32, restarts: u32, now_ns: u64) {
        self.words[2].store(u64::from(rank as u32), Relaxed);
        self.words[3].store(u64::from(restarts), Relaxed);
        self.words[4].store(now_ns, Relaxed);
        self.trail().store(0, Relaxed);
        self.set_state(SlotState::Starting);
    }

    /// Where the process leaves its breadcrumbs.
    pub fn trail(&self) -> &'static AtomicU64 {
        &self.words[5]
    }

    /// The name that main wrote, at most 47 bytes.
    pub fn name(&self) -> String {
        let mut bytes = Vec::with_capacity(NAME_WORDS * 8);
        for word in &self.words[8..8 + NAME_WORDS] {
            bytes.extend_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// In main, before the fork.
    pub fn set_name(&self, name: &str) {
        let mut bytes = [0_u8; NAME_WORDS * 8];
        let mut length = name.len().min(bytes.len() - 1);
        while !name.is_char_boundary(length) {
            length -= 1;
        }
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        for (word, chunk) in self.words[8..8 + NAME_WORDS].iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(chunk.try_into().unwrap_or_default()), Relaxed);
        }
    }
}

/// Refuses more than [`MAX_PROCESSES`].
pub fn check_count(count: usize) -> Result<()> {
    if count <= MAX_PROCESSES {
        return Ok(());
    }
    let error = Error::failed("too many processes").detail(format!("{count} asked for, {MAX_PROCESSES} is the limit"));
    Err(error.hint("lower host.workers or a listener's workers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_what_was_written() {
        let slots = Slots::new().unwrap();
        assert_eq!(slots.count(), 0);
        slots.fix_count(3).unwrap();
        assert_eq!(slots.iter().count(), 3);
        let slot = slots.slot(2).unwrap();
        slot.set_pid(4_000_000);
        slot.note_fork(-127, 9, 77);
        slot.set_name("a name that is much longer than the forty-seven bytes of a slot é");
        assert_eq!((slot.pid(), slot.rank(), slot.restarts(), slot.forked_ns()), (4_000_000, -127, 9, 77));
        assert_eq!(slot.name(), "a name that is much longer than the forty-seven");
        assert_eq!(slot.state(), SlotState::Starting);
        assert_eq!(slots.cleared().count(), 0);
        assert_eq!((slot.pid(), slot.state(), slot.name().as_str()), (0, SlotState::Free, ""));
        assert!(slots.slot(MAX_PROCESSES).is_none());
        assert!(slots.fix_count(MAX_PROCESSES + 1).is_err());
    }

    #[test]
    fn the_last_child_wakes_main() {
        let slots = Slots::new().unwrap();
        assert!(!slots.child_done());
        assert!(!slots.await_children(3));
        assert!(!slots.child_done());
        assert!(slots.child_done());
        assert!(slots.child_done(), "one more was restarted meanwhile");
        assert!(slots.await_children(3));
        slots.await_nobody();
        assert!(!slots.child_done());
    }
}
