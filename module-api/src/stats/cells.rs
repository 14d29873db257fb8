//! Counting: what a counter, a gauge and a histogram do in the process and the thread that use
//! them.
//!
//! Runs in every process, phase and thread. Calls nothing: it adds to a word of shared memory.
//!
//! Two threads that add to one word need an atomic addition, which costs many times as much as a
//! plain one. Therefore the thread in which the host calls the module has its own words; it
//! recognises itself by its thread pointer. All other threads share words next to those.

use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::abi::StatHome;
use crate::host::SLOT;
use crate::stats::buckets;

/// A number that only the calling thread of the process has. 1 on machines where reading it takes
/// more than one instruction; no thread has that number.
#[doc(hidden)]
#[inline(always)]
pub fn thread_pointer() -> usize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let pointer: usize;
        // SAFETY: the ABI for thread-local storage puts a thread's control block at fs:0, and its
        // own address in the first word. Not `pure`: code that moves from one thread to another
        // must read it again.
        unsafe { std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly)) };
        pointer
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        let pointer: usize;
        // SAFETY: reads a register that user code may read; the thread library keeps its control
        // block's address there.
        unsafe { std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem)) };
        pointer
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    1
}

/// Where this process counts.
#[inline(always)]
fn home() -> &'static StatHome {
    // SAFETY: a counter's address comes from the host, whose loader had filled the slot; the page
    // is mapped for good.
    unsafe { &*(*SLOT.as_ptr()).stat_home }
}

/// The address that the host gave for one counter, gauge or histogram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatCells {
    first: usize,
}

impl StatCells {
    /// `first` is the address that `stat_register` gave when it succeeded.
    pub(crate) fn new(first: usize) -> StatCells {
        StatCells { first }
    }

    #[inline(always)]
    fn word(self, distance: &AtomicUsize, index: usize) -> &'static AtomicU64 {
        let address = self.first.wrapping_add(distance.load(Relaxed)).wrapping_add(index * size_of::<u64>());
        // SAFETY: at this distance from each first word that it gave out, the host keeps as many
        // words as were registered, in memory that is mapped for good in every process. Every bit
        // pattern is a number, and every process uses atomic operations.
        unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(address) }
    }

    #[inline(always)]
    fn add(self, index: usize, amount: u64) {
        let home = home();
        if thread_pointer() == home.thread.load(Relaxed) {
            let word = self.word(&home.own, index);
            // No other thread writes this word. Atomic, so that a reader sees a whole number.
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

/// A number that only grows: events in all processes together. Made by `cx.counter(..)` in
/// [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
///
/// Counting takes about a nanosecond and works in any process, phase and thread. The count of a
/// process stays when it dies, and its replacement goes on from there.
///
/// If a signal handler counts, an increment of the interrupted code may be lost.
#[derive(Clone, Copy)]
pub struct Counter {
    pub(crate) cells: StatCells,
}

impl Counter {
    /// Adds 1.
    #[inline(always)]
    pub fn increment(self) {
        self.cells.add(0, 1);
    }

    /// Adds `amount`.
    #[inline(always)]
    pub fn add(self, amount: u64) {
        self.cells.add(0, amount);
    }
}

/// A number that goes up and down: the sum of what each process has. Made by `cx.gauge(..)` and
/// `cx.shared_gauge(..)` in [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
///
/// Each process changes its own part. When a process ends, its part is removed, as are the
/// connections or buffers that it counted. In a *shared* gauge the part is kept, because an object
/// in shared memory outlives the process that put it there and may be removed by another one.
/// Changing a gauge is atomic, works in any process, phase and thread, and takes a few nanoseconds.
#[derive(Clone, Copy)]
pub struct Gauge {
    pub(crate) cells: StatCells,
}

impl Gauge {
    /// Adds `amount` to this process's part.
    #[inline]
    pub fn add(self, amount: i64) {
        self.cells.part().fetch_add(amount, Relaxed);
    }

    /// Subtracts `amount` from this process's part.
    #[inline]
    pub fn sub(self, amount: i64) {
        self.cells.part().fetch_sub(amount, Relaxed);
    }

    /// Sets this process's part. The parts of other processes are added to it: if the number
    /// describes the whole host, only one process may set it.
    #[inline]
    pub fn set(self, value: i64) {
        self.cells.part().store(value, Relaxed);
    }
}

/// Counts values by their size, for example the times that answers take. Made by `cx.histogram(..)`
/// and `cx.histogram_with(..)` in [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
///
/// It keeps the sum of all values, and the number of values in each of its buckets. A reader
/// estimates quantiles from these.
#[derive(Clone, Copy)]
pub struct Histogram {
    pub(crate) cells: StatCells,
    pub(crate) bounds: &'static [u64],
}

impl Histogram {
    /// Adds a value, in the unit that the histogram was registered with.
    #[inline]
    pub fn record(self, value: u64) {
        self.cells.add(1 + buckets::index(self.bounds, value), 1);
        self.cells.add(0, value);
    }

    /// Adds a time, in nanoseconds.
    #[inline]
    pub fn record_duration(self, time: std::time::Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}
