//! Counters: who counts what, and where the words are that every process adds to.
//!
//! *Runs in:* main (registering, laying out), every process (settling in, counting), whoever reads. *Never:* locks, allocates or calls
//! where something is counted; trusts a word of shared memory to be more than a number.
//!
//! ```text
//! outside  │ words of all counters │            mapped by main before any module is loaded; counted at until PROC_INIT is over
//! slot 0   │ own thread │ other threads │       mapped when the number of processes and counters is known;
//! slot 1   │ own thread │ other threads │       each block begins on a cache line of its own, and is touched by one process
//! ```

pub mod registry;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use module_api::abi;

use crate::state::MainMemory;

/// What the host itself counts, in the order of its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Own {
    /// Datagrams that workers took.
    Received,
    /// Batches that handlers were called with.
    Batches,
    /// Datagrams that the kernel took.
    Sent,
    /// Datagrams that the kernel refused.
    Refused,
    /// Processes that were forked again.
    Restarts,
    /// Log records that could not be written.
    LogLost,
    /// Calls of timer functions.
    TimerRuns,
    /// Calls that took longer than their period.
    TimerOverruns,
    /// Connections that were opened.
    Connections,
    /// Connections over a limit.
    ConnectionsRefused,
    /// Connections that are over, by their reasons, in the order of `CLOSED_*`.
    ClosedNormally,
    /// The peer was gone.
    ClosedByPeer,
    /// A time limit.
    ClosedByTimeout,
    /// A limit on bytes.
    ClosedByLimit,
    /// A failing handler.
    ClosedByError,
    /// The end of the process.
    ClosedByStop,
    /// What connections have received.
    BytesIn,
    /// What the kernel took from connections.
    BytesOut,
    /// Connections that exist now. A gauge; all before it are counters.
    ConnectionsNow,
}

impl Own {
    /// Name and help of each, by its number.
    const ALL: [(&'static str, &'static str); 19] = [
        ("received", "datagrams that workers took"),
        ("batches", "calls of datagram handlers"),
        ("sent", "datagrams that the kernel took from the host"),
        ("refused", "datagrams that the kernel refused to send"),
        ("restarts", "processes that were forked again in their slots"),
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
        ("bytes_out", "bytes that the kernel took from connections"),
        ("connections", "connections that exist now"),
    ];

    /// For a `CLOSED_*`.
    pub fn closed(reason: u32) -> Self {
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

/// The words that the host's one thread of this process counts in. Taken once by whoever counts often.
#[derive(Debug, Clone, Copy)]
pub struct OwnWords {
    words: &'static [AtomicU64],
}

impl OwnWords {
    /// Of the calling process.
    pub fn of_this_process() -> Self {
        Self { words: MainMemory::current().map_or(&[], |memory| memory.stats.own_words()) }
    }

    /// Adds without an atomic operation: only in the thread in which this process calls modules.
    #[inline(always)]
    pub fn add(self, what: Own, amount: u64) {
        if let Some(word) = self.words.get(what as usize) {
            word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    /// Takes one from a gauge; otherwise as `add`.
    #[inline(always)]
    pub fn take_one(self, what: Own) {
        self.add(what, 1_u64.wrapping_neg());
    }
}

/// Counts in whatever thread, seldom.
pub fn count(what: Own, amount: u64) {
    if let Some(word) = MainMemory::current().and_then(|memory| memory.stats.words_of_any_thread().get(what as usize)) {
        word.fetch_add(amount, Relaxed);
    }
}
