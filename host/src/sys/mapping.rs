//! Anonymous memory mappings: shared between a process and its children, or private to one process.
//!
//! *Runs in:* supervisor and main (shared), every process (private). *Never:* unmaps: a mapping lives as long as its process.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

use crate::error::{Error, Result};

/// A zeroed mapping that is never unmapped.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    start: NonNull<u8>,
    size_bytes: usize,
}

// SAFETY: the mapping is plain memory that lives as long as the process; who may touch which part of it is its users' contract.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Memory that this process and all it forks later share, at one address. Pages cost nothing until they are touched.
    pub fn shared(size_bytes: usize) -> Result<Self> {
        Self::map(size_bytes, MapFlags::MAP_SHARED)
    }

    /// Memory of this process alone.
    pub fn private(size_bytes: usize) -> Result<Self> {
        Self::map(size_bytes, MapFlags::MAP_PRIVATE)
    }

    /// One private page that reads as zeros in every process forked later, however it was forked.
    pub fn wiped_on_fork() -> Result<Self> {
        let page = Self::private(page_bytes())?;
        // SAFETY: the range is exactly the page that was just mapped, and nothing points into it yet.
        unsafe { madvise(page.start.cast(), page.size_bytes, MmapAdvise::MADV_WIPEONFORK) }.map_err(|errno| {
            Error::failed("cannot prepare the page that tells processes apart")
                .detail(format!("madvise(MADV_WIPEONFORK): {errno}"))
                .hint("Linux 4.14 or newer is needed")
        })?;
        Ok(page)
    }

    fn map(size_bytes: usize, sharing: MapFlags) -> Result<Self> {
        let failed = |detail: String| Error::failed("cannot map memory").detail(detail);
        let length = NonZeroUsize::new(size_bytes).ok_or_else(|| failed("the size is 0".into()))?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let start =
            unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, sharing | MapFlags::MAP_NORESERVE) }
                .map_err(|errno| failed(format!("mmap of {size_bytes} bytes: {errno}")))?;
        Ok(Self { start: start.cast(), size_bytes })
    }

    /// The mapping as words that any process may read and write at any time.
    pub fn words(&self) -> &'static [AtomicU64] {
        // SAFETY: the mapping is page-aligned, zeroed, lives as long as the process, and an atomic word is valid for every bit pattern.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.size_bytes / size_of::<AtomicU64>()) }
    }

    /// First byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Gives the pages of `from..` back to the kernel; they read as zeros afterwards. For private mappings.
    pub fn release_from(&self, from_bytes: usize) {
        if from_bytes < self.size_bytes {
            // SAFETY: the range lies inside the mapping, and the callers hold no reference into what they release.
            let released = unsafe { madvise(self.start.add(from_bytes).cast(), self.size_bytes - from_bytes, MmapAdvise::MADV_DONTNEED) };
            if let Err(errno) = released {
                tracing::debug!("cannot give memory back: madvise: {errno}");
            }
        }
    }
}

/// Size of a page in bytes. Asked for once, in main: every child asks again for the answer that it inherited.
pub fn page_bytes() -> usize {
    static PAGE_BYTES: OnceLock<usize> = OnceLock::new();
    *PAGE_BYTES.get_or_init(|| match nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
        Ok(Some(bytes)) => usize::try_from(bytes).unwrap_or(4096),
        _ => 4096,
    })
}
