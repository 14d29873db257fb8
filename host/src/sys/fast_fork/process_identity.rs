//! The identity of this process, on a page that the kernel wipes in every forked process.
//!
//! *Runs in:* every process; written by main at its start and by the child prologue. *Never:*
//! shared between processes.
//!
//! A process that a module forked by itself finds zeros here, so one plain load tells the call
//! trampoline that it returned in another process than it was called in (`tests/promises.rs`, L19).

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use module_api::abi::StatHome;

use crate::error::Result;
use crate::sys::memory::mapping::Mapping;
use crate::sys::udp::datagrams::Datagrams;

/// Identity of one process. Zeros in a process that the host did not fork.
#[derive(Debug)]
#[repr(C)]
pub struct ProcessIdentity {
    /// The pid in the lower half, [`PANICKED`] in the upper.
    identity: AtomicU64,
    process_no: AtomicI32,
    rank: AtomicI32,
    /// Where breadcrumbs are stored: a cell in the shared process table; if null, `no_trail`.
    trail: AtomicPtr<AtomicU64>,
    no_trail: AtomicU64,
    /// The buffers of the batch that a datagram handler is working on; null otherwise.
    serving: AtomicPtr<Datagrams>,
    /// Where this process counts. Modules read it, too.
    stat_home: StatHome,
    /// What its log records begin with.
    name: [AtomicU64; NAME_BYTES / 8],
}

/// Size of [`ProcessIdentity::name`].
pub const NAME_BYTES: usize = 32;

/// A function that one module called in another has panicked, and the host's call has not returned
/// yet.
const PANICKED: u64 = 1 << 32;

static PAGE: AtomicPtr<ProcessIdentity> = AtomicPtr::new(ptr::null_mut());

/// Maps the page. Once, before the first fork.
pub fn prepare() -> Result<()> {
    if PAGE.load(Relaxed).is_null() {
        PAGE.store(Mapping::wiped_on_fork()?.start().cast().as_ptr(), Relaxed);
    }
    Ok(())
}

/// Whether `prepare` has run, in this process or in an ancestor.
pub fn is_prepared() -> bool {
    !PAGE.load(Relaxed).is_null()
}

/// This process's identity. Without `prepare`, as in unit tests, it is all zeros.
#[inline(always)]
pub fn this_process() -> &'static ProcessIdentity {
    static NONE: ProcessIdentity = ProcessIdentity {
        identity: AtomicU64::new(0),
        process_no: AtomicI32::new(0),
        rank: AtomicI32::new(0),
        trail: AtomicPtr::new(ptr::null_mut()),
        no_trail: AtomicU64::new(0),
        serving: AtomicPtr::new(ptr::null_mut()),
        stat_home: StatHome { thread: AtomicUsize::new(0), own: AtomicUsize::new(0), threads: AtomicUsize::new(0) },
        name: [const { AtomicU64::new(0) }; NAME_BYTES / 8],
    };
    let page = PAGE.load(Relaxed);
    if page.is_null() {
        return &NONE;
    }
    // SAFETY: the pointer leads to a page that is mapped for the process's life; every bit pattern,
    // all zeros included, is a ProcessIdentity.
    unsafe { &*page }
}

impl ProcessIdentity {
    /// Sets the identity of the calling process. For main at its start and the child prologue.
    pub fn become_process(&self, pid: i32, process_no: i32, rank: i32, trail: &'static AtomicU64) {
        self.process_no.store(process_no, Relaxed);
        self.rank.store(rank, Relaxed);
        self.trail.store(ptr::from_ref(trail).cast_mut(), Relaxed);
        self.identity.store(u64::from(pid as u32), Relaxed);
    }

    /// Sets where this process counts, and the thread that counts without atomic operations. A
    /// `thread` of 1 means that this machine cannot tell its thread pointer; then no thread does.
    pub fn count_at(&self, thread: usize, own_bytes: usize, threads_bytes: usize) {
        self.stat_home.own.store(own_bytes, Relaxed);
        self.stat_home.threads.store(threads_bytes, Relaxed);
        self.stat_home.thread.store(if thread == 1 { 0 } else { thread }, Relaxed);
    }

    /// The part that modules read. Valid for the process's life.
    pub fn stat_home(&self) -> &StatHome {
        &self.stat_home
    }

    /// What the log records of this process begin with, padded with zeros.
    pub fn name(&self) -> &[AtomicU64; NAME_BYTES / 8] {
        &self.name
    }

    /// In no-fork mode main takes rank 1, too.
    pub fn take_rank(&self, rank: i32) {
        self.rank.store(rank, Relaxed);
    }

    /// The pid; 0 in a process that the host did not fork.
    #[inline(always)]
    pub fn pid(&self) -> i32 {
        self.identity() as i32
    }

    /// Compared before and after a call into a module. It differs if the call returned in another
    /// process, or if a panic was noted meanwhile.
    #[inline(always)]
    pub fn identity(&self) -> u64 {
        self.identity.load(Relaxed)
    }

    /// Notes that a function which one module called in another has panicked.
    pub fn note_panic(&self) {
        self.identity.store(self.identity() | PANICKED, Relaxed);
    }

    /// The noted panic has been handled.
    pub fn forget_panic(&self) {
        self.identity.store(self.identity() & !PANICKED, Relaxed);
    }

    /// Index in the process table; -1 in a process that the host did not fork.
    pub fn process_no(&self) -> i32 {
        if self.pid() == 0 { -1 } else { self.process_no.load(Relaxed) }
    }

    /// The rank of this process; 0 in a process that the host did not fork.
    pub fn rank(&self) -> i32 {
        self.rank.load(Relaxed)
    }

    /// Where this process stores its breadcrumbs.
    #[inline(always)]
    pub fn trail(&self) -> &AtomicU64 {
        let trail = self.trail.load(Relaxed);
        if trail.is_null() {
            return &self.no_trail;
        }
        // SAFETY: only `become_process` stores here, a pointer made from a `&'static AtomicU64`.
        unsafe { &*trail }
    }

    /// Notes the buffers of the batch that is being handled; none when it is done.
    #[inline(always)]
    pub fn serve(&self, datagrams: Option<&'static Datagrams>) {
        self.serving.store(datagrams.map_or(ptr::null_mut(), |datagrams| ptr::from_ref(datagrams).cast_mut()), Relaxed);
    }

    /// The buffers of the batch that is being handled; none outside a datagram handler.
    #[inline(always)]
    pub fn serving(&self) -> Option<&'static Datagrams> {
        // SAFETY: only `serve` stores here, a pointer made from a `&'static Datagrams`.
        unsafe { self.serving.load(Relaxed).as_ref() }
    }
}
