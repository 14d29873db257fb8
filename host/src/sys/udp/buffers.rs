//! The memory that a process receives datagrams in and answers from.
//!
//! *Runs in:* reserved in main, before the first fork; taken once by each process that serves
//! datagrams. *Never:* shared between processes, or wiped in a fork: a process that a handler forks
//! must still see the batch.
//!
//! All buffers are one private mapping. A page costs memory only once it is touched. So the parts
//! that every datagram needs are at the end, close together, and those of large datagrams at the
//! start:
//!
//! ```text
//! large        16 × 64 KiB      a datagram that does not fit into its small buffer
//! out          1 MiB            answers, filled from the start for each batch
//! small        16 × 1536 bytes  the first bytes of each datagram; most have no more
//! packet info                   for sockets that are not bound to one internet address
//! answers                       the headers of the answers
//! headers                       the headers and addresses of received datagrams
//! ```
//!
//! A process that waits for its first datagram has touched the last page alone.

use std::mem::size_of;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use module_api::abi;

use super::datagrams::Datagrams;
use super::packet_info::PacketInfo;
use crate::error::Result;
use crate::sys::memory::mapping::{Mapping, page_bytes};

/// Maximum number of datagrams in one batch.
pub const BATCH: usize = 16;
/// Largest payload of a UDP datagram in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

pub(super) const SMALL_BYTES: usize = 1536;
pub(super) const LARGE_BYTES: usize = 65_536;
/// Size of all large buffers, where the memory starts.
pub(super) const ALL_LARGE_BYTES: usize = BATCH * LARGE_BYTES;
pub(super) const OUT_BYTES: usize = BATCH * LARGE_BYTES;
/// Size of a `sockaddr_in6`.
pub(super) const ADDRESS_BYTES: usize = 28;

/// What the kernel and the module read and write for received datagrams.
#[repr(C)]
pub(super) struct Headers {
    /// 1: this process has these buffers, or its parent was serving with them when it forked.
    taken: AtomicU32,
    pub datagrams: std::mem::MaybeUninit<Datagrams>,
    pub batch: abi::UdpBatch,
    pub received: [abi::Datagram; BATCH],
    pub messages: [libc::mmsghdr; BATCH],
    pub parts: [[libc::iovec; 2]; BATCH],
    pub addresses: [[u32; ADDRESS_BYTES / 4]; BATCH],
}

/// What the kernel reads of the answers. Not touched before the first one.
#[repr(C)]
pub(super) struct Answers {
    pub messages: [libc::mmsghdr; BATCH],
    pub parts: [libc::iovec; BATCH],
}

// A process that waits for datagrams has touched one page.
const _: () = assert!(size_of::<Headers>() <= 4096);

/// The parts of one process's buffers.
#[derive(Debug)]
pub(super) struct Buffers {
    pub memory: Mapping,
    pub large: *mut u8,
    pub out: *mut u8,
    pub small: *mut u8,
    pub packet_info: *mut PacketInfo,
    pub answers: *mut Answers,
    pub headers: *mut Headers,
}

/// Where each part starts, in bytes from the start of the memory.
struct Offsets {
    small: usize,
    packet_info: usize,
    answers: usize,
    headers: usize,
    end: usize,
}

impl Offsets {
    fn new() -> Self {
        let page = page_bytes();
        let small = ALL_LARGE_BYTES + OUT_BYTES;
        let packet_info = (small + BATCH * SMALL_BYTES).next_multiple_of(page);
        let answers = packet_info + size_of::<PacketInfo>().next_multiple_of(page);
        let headers = answers + size_of::<Answers>().next_multiple_of(page);
        let end = headers + size_of::<Headers>().next_multiple_of(page);
        Self { small, packet_info, answers, headers, end }
    }
}

static RESERVED: OnceLock<Buffers> = OnceLock::new();

// SAFETY: the pointers lead into one mapping that lives as long as the process. Whoever has set
// `taken` uses them in one thread.
unsafe impl Send for Buffers {}
// SAFETY: as above; of a shared reference only `taken` is used, which is atomic.
unsafe impl Sync for Buffers {}

/// Maps buffers for every process that is forked later, so that none has to map its own. Called in
/// main, before the first fork.
pub fn reserve() -> Result<()> {
    let buffers = Buffers::map()?;
    RESERVED.get_or_init(|| buffers);
    Ok(())
}

impl Buffers {
    /// Untouched buffers: the reserved ones, or new ones if this process has those already.
    pub fn take() -> Result<Self> {
        if let Some(reserved) = RESERVED.get() {
            // SAFETY: inside the mapping; zeros are a valid flag. Written without reading it first:
            // a read would cause a page fault more.
            let taken = unsafe { &(*reserved.headers).taken };
            if taken.swap(1, Relaxed) == 0 {
                return Ok(Self { ..*reserved });
            }
        }
        Self::map()
    }

    fn map() -> Result<Self> {
        let offsets = Offsets::new();
        let memory = Mapping::private(offsets.end)?.in_small_pages();
        let large = memory.start().as_ptr();
        let part = |offset_bytes: usize| large.wrapping_add(offset_bytes);
        Ok(Self {
            memory,
            large,
            out: part(ALL_LARGE_BYTES),
            small: part(offsets.small),
            packet_info: part(offsets.packet_info).cast(),
            answers: part(offsets.answers).cast(),
            headers: part(offsets.headers).cast(),
        })
    }
}
