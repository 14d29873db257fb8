//! Counters: the host's own, and the shared memory in which every process counts.
//!
//! *Runs in:* main (registering, layout), every process (counting, reading). *Never:* locks,
//! allocates or calls anything in order to count; takes a word of shared memory for more than a
//! number.
//!
//! ```text
//! outside │ words of all counters │   mapped by main before any module is loaded; used until
//!         │                       │   PROC_INIT is over
//! slot 0  │ own thread │ others   │   mapped when the numbers of processes and counters are
//! slot 1  │ own thread │ others   │   known; each block begins on a new cache line, and only
//!                                     one process writes to it
//! ```

pub mod registry;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use module_api::abi;

use crate::state::MainMemory;

/// What the host itself counts; the number of each is the index of its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum HostCounter {
    Received,
    Batches,
    Sent,
    Refused,
    Restarts,
    /// Counted by the log, whose supervisor has no words here.
    LogLost,
    TimerRuns,
    TimerOverruns,
    Connections,
    ConnectionsRefused,
    ClosedNormally,
    ClosedByPeer,
    ClosedByTimeout,
    ClosedByLimit,
    ClosedByError,
    ClosedByStop,
    BytesIn,
    BytesOut,
    /// A gauge; all before it are counters.
    ConnectionsNow,
}

impl HostCounter {
    /// Name and help of each, by its number.
    const ALL: [(&'static str, &'static str); 19] = [
        ("received", "datagrams that workers received"),
        ("batches", "calls of datagram handlers"),
        ("sent", "datagrams that the kernel accepted for sending"),
        ("refused", "datagrams that the kernel refused to send"),
        ("restarts", "replacements forked for processes that ended"),
        ("log_lost", "log records that could not be written"),
        ("timer_runs", "calls of timer functions"),
        ("timer_overruns", "calls of timer functions that took longer than their period"),
        ("connections_opened", "connections that were opened"),
        ("connections_refused", "connections that were closed at once, over a limit of their listener"),
        ("closed_normally", "connections that the handler ended, or both sides"),
        ("closed_by_peer", "connections whose peer was gone"),
        ("closed_by_timeout", "connections that a time limit ended"),
        ("closed_by_limit", "connections that a limit on buffered bytes ended"),
        ("closed_by_error", "connections that a failing handler ended"),
        ("closed_by_stop", "connections that the end of their worker ended"),
        ("bytes_in", "bytes that connections have received"),
        ("bytes_out", "bytes that the kernel accepted from connections for sending"),
        ("connections", "connections that exist now"),
    ];

    /// The counter for a `CLOSED_*` reason of the ABI.
    pub(crate) fn closed(reason: u32) -> Self {
        match reason {
            abi::CLOSED_BY_PEER => Self::ClosedByPeer,
            abi::CLOSED_BY_TIMEOUT => Self::ClosedByTimeout,
            abi::CLOSED_BY_LIMIT => Self::ClosedByLimit,
            abi::CLOSED_BY_ERROR => Self::ClosedByError,
            abi::CLOSED_BY_STOP => Self::ClosedByStop,
            _ => Self::ClosedNormally,
        }
    }
}

/// The words in which the thread that calls modules counts for the host. Code that counts often
/// keeps them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostCounters {
    words: &'static [AtomicU64],
}

impl HostCounters {
    pub(crate) fn of_this_process() -> Self {
        Self { words: MainMemory::current().map_or(&[], |memory| memory.stats.own_words()) }
    }

    /// Adds without an atomic operation: only in the thread in which this process calls modules.
    #[inline(always)]
    pub(crate) fn add(self, counter: HostCounter, amount: u64) {
        if let Some(word) = self.words.get(counter as usize) {
            word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    /// Subtracts one from a gauge; otherwise as `add`.
    #[inline(always)]
    pub(crate) fn take_one(self, counter: HostCounter) {
        self.add(counter, 1_u64.wrapping_neg());
    }
}

/// Counts in any thread, by an atomic addition: for rare events.
pub(crate) fn count(counter: HostCounter, amount: u64) {
    if let Some(word) = MainMemory::current().and_then(|memory| memory.stats.words_of_any_thread().get(counter as usize)) {
        word.fetch_add(amount, Relaxed);
    }
}
