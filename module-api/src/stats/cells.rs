//! Counting: what a counter, a gauge and a histogram do in the process and the thread that they are used in.
//!
//! Runs in every process, phase and thread. Calls nobody: an addition is an addition to a word of shared memory.
//!
//! Two threads that add to one word need an atomic addition, which costs many times a plain one. So the thread in which the host calls
//! the module has words for itself, and knows by its thread pointer that it is the one; all others share words next to them.

use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::abi::StatHome;
use crate::host::SLOT;
use crate::stats::buckets;

/// Tells the calling thread from all others of the process. 1 on machines where that is not one instruction; there it is no thread's.
#[doc(hidden)]
#[inline(always)]
pub fn thread_pointer() -> usize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let pointer: usize;
        // SAFETY: the first word of a thread's control block, at fs:0, is its own address: so the ABI for thread-local storage has it.
        // Not `pure`: code that moves from one thread to another must look again.
        unsafe { std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly)) };
        pointer
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        let pointer: usize;
        // SAFETY: reads a register that user code may read, and that the thread library keeps its control block's address in.
        unsafe { std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem)) };
        pointer
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    1
}

/// Where this process counts.
#[inline(always)]
fn home() -> &'static StatHome {
    // SAFETY: who counts has been given an address by the host, whose loader had filled the slot; its page is mapped for good.
    unsafe { &*(*SLOT.as_ptr()).stat_home }
}

/// The address that the host gave for one counter, gauge or histogram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cells {
    first: usize,
}

impl Cells {
    /// From `stat_register`, which has succeeded.
    pub(crate) fn new(first: usize) -> Cells {
        Cells { first }
    }

    #[inline(always)]
    fn word(self, distance: &AtomicUsize, index: usize) -> &'static AtomicU64 {
        let address = self.first.wrapping_add(distance.load(Relaxed)).wrapping_add(index * size_of::<u64>());
        // SAFETY: the host keeps, at this distance from each first word it gave out, as many words as were registered, in memory that is
        // mapped for good in every process; every bit pattern is a number, and every process goes there by atomic operations.
        unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(address) }
    }

    #[inline(always)]
    fn add(self, index: usize, amount: u64) {
        let home = home();
        if thread_pointer() == home.thread.load(Relaxed) {
            let word = self.word(&home.own, index);
            // Nobody else writes to this word. Relaxed, so that a reader sees a whole number.
            word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
        } else {
            self.add_in_another_thread(index, amount);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_in_another_thread(self, index: usize, amount: u64) {
        self.word(&home().threads, index).fetch_add(amount, Relaxed);
    }

    #[inline]
    fn part(self) -> &'static AtomicI64 {
        let word = self.word(&home().own, 0);
        // SAFETY: the same size and alignment, and both are valid for every bit pattern.
        unsafe { &*ptr::from_ref(word).cast::<AtomicI64>() }
    }
}

/// A number that only grows: what has happened, in all processes together. Made by `cx.counter(..)` in
/// [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
///
/// Counting costs about a nanosecond and can be done in any process, phase and thread. What a process has counted stays when
/// it dies, and its replacement goes on from there.
///
/// A signal handler that counts may lose what the code it interrupts counts at that moment.
#[derive(Clone, Copy)]
pub struct Counter {
    pub(crate) cells: Cells,
}

impl Counter {
    /// One more.
    #[inline(always)]
    pub fn increment(self) {
        self.cells.add(0, 1);
    }

    /// `amount` more.
    #[inline(always)]
    pub fn add(self, amount: u64) {
        self.cells.add(0, amount);
    }
}

/// A number that goes up and down: the sum of what each process has. Made by `cx.gauge(..)` and `cx.shared_gauge(..)` in
/// [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
///
/// Each process changes its own part. The part of a process that ends is taken away, with the connections or buffers that it
/// counted; the part in a *shared* gauge is kept, because what lies in shared memory outlives the process that put it there, and may be
/// removed by another one. Changing it is atomic, in any process, phase and thread, and costs some nanoseconds.
#[derive(Clone, Copy)]
pub struct Gauge {
    pub(crate) cells: Cells,
}

impl Gauge {
    /// More, in this process.
    #[inline]
    pub fn add(self, amount: i64) {
        self.cells.part().fetch_add(amount, Relaxed);
    }

    /// Less, in this process.
    #[inline]
    pub fn sub(self, amount: i64) {
        self.cells.part().fetch_sub(amount, Relaxed);
    }

    /// This process has so much now. What others have is added: for a number that describes the whole host, only one process may set
    /// it.
    #[inline]
    pub fn set(self, value: i64) {
        self.cells.part().store(value, Relaxed);
    }
}

/// How often values of which size are seen, such as how long answers take. Made by `cx.histogram(..)` and
/// `cx.histogram_with(..)` in [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
///
/// It keeps the sum of all values, and how many fell into each of its buckets; quantiles are estimated from these when it is read.
#[derive(Clone, Copy)]
pub struct Histogram {
    pub(crate) cells: Cells,
    pub(crate) bounds: &'static [u64],
}

impl Histogram {
    /// One value, in the unit it was registered with.
    #[inline]
    pub fn record(self, value: u64) {
        self.cells.add(1 + buckets::index(self.bounds, value), 1);
        self.cells.add(0, value);
    }

    /// A time, in nanoseconds.
    #[inline]
    pub fn record_duration(self, time: std::time::Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}
