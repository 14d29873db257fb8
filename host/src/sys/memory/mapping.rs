//! Anonymous memory mappings: shared between a process and its children, or private to one process.
//!
//! *Runs in:* supervisor and main (shared), every process (private). *Never:* unmaps: a mapping lives as long as its process.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::sys::fast_fork::child_calls;

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
        let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
        match reserve.as_mut().and_then(|reserve| reserve.take(size_bytes)) {
            Some(part) => Ok(part),
            None => Self::near(0, size_bytes, MapFlags::MAP_SHARED),
        }
    }

    /// Has shared mappings of these sizes, in any order, made of one: each one more is one more for every fork to copy.
    pub fn reserve_shared(sizes: &[usize]) -> Result<()> {
        let pages = |size_bytes: &usize| size_bytes.div_ceil(page_bytes());
        let all = sizes.iter().map(pages).fold(0, usize::saturating_add).saturating_mul(page_bytes());
        let whole_bytes = all.saturating_add(FAULT_AROUND_BYTES);
        let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
        // Away from the C library: what is loaded later has its place there, and shares page tables with it, which every fork makes anew.
        let above = reserve.as_ref().map_or((libc::getpid as *const () as usize).saturating_sub(AWAY_BYTES), |before| before.lowest);
        let whole = Self::near(above.saturating_sub(whole_bytes), whole_bytes, MapFlags::MAP_SHARED)?;
        let skipped = whole.start.addr().get().wrapping_neg() % FAULT_AROUND_BYTES;
        // SAFETY: less than what the mapping is larger by.
        let rest = Self { start: unsafe { whole.start.add(skipped) }, size_bytes: all };
        *reserve = Some(Reserve { lowest: whole.start.addr().get(), rest, owner: Pid::this() });
        Ok(())
    }

    /// Memory of this process alone. One of the first things that a worker does.
    #[inline(always)]
    pub fn private(size_bytes: usize) -> Result<Self> {
        let start = child_calls::map_private(size_bytes).map_err(|errno| cannot_map(size_bytes, errno))?;
        let start = NonNull::new(start).ok_or_else(|| cannot_map(size_bytes, Errno::ENOMEM))?;
        Ok(Self { start, size_bytes })
    }

    /// Private memory for processes that are forked later. Right below what is shared, which they use, too: one page table leads to both.
    pub fn private_below_shared(size_bytes: usize) -> Result<Self> {
        let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
        let address = reserve.as_ref().map_or(0, |before| before.lowest.saturating_sub(size_bytes));
        let memory = Self::near(address, size_bytes, MapFlags::MAP_PRIVATE)?;
        if let Some(reserve) = reserve.as_mut().filter(|_| memory.start.addr().get() == address) {
            reserve.lowest = address;
        }
        Ok(memory)
    }

    /// One private page that reads as zeros in every process forked later, however it was forked.
    pub fn wiped_on_fork() -> Result<Self> {
        let page = Self::private_below_shared(page_bytes())?;
        // SAFETY: the range is exactly the page that was just mapped, and nothing points into it yet.
        unsafe { madvise(page.start.cast(), page.size_bytes, MmapAdvise::MADV_WIPEONFORK) }.map_err(|errno| {
            Error::failed("cannot prepare the page that tells processes apart")
                .detail(format!("madvise(MADV_WIPEONFORK): {errno}"))
                .hint("Linux 4.14 or newer is needed")
        })?;
        Ok(page)
    }

    /// Whatever the system's setting: a page that is touched is one page, not the 512 around it.
    pub fn in_small_pages(self) -> Self {
        // SAFETY: advice that changes no contents. A kernel that knows no huge pages refuses it, and does as it says.
        let _ = unsafe { madvise(self.start.cast(), self.size_bytes, MmapAdvise::MADV_NOHUGEPAGE) };
        self
    }

    /// At this address, if it is not 0 and nothing is in the way.
    fn near(address: usize, size_bytes: usize, kind: MapFlags) -> Result<Self> {
        let length = NonZeroUsize::new(size_bytes).ok_or_else(|| cannot_map(0, Errno::EINVAL))?;
        let address = NonZeroUsize::new(address / page_bytes() * page_bytes());
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the address is a wish: the kernel chooses one where nothing is mapped, so no existing memory is touched.
        let start = unsafe { mmap_anonymous(address, length, access, kind | MapFlags::MAP_NORESERVE) }
            .map_err(|errno| cannot_map(size_bytes, errno))?;
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

    /// Gives its first pages back to the kernel; they read as zeros afterwards. For private mappings.
    pub fn release_first(&self, length_bytes: usize) {
        // SAFETY: no longer than the mapping, and the callers hold no reference into what they release.
        let released = unsafe { madvise(self.start.cast(), length_bytes.min(self.size_bytes), MmapAdvise::MADV_DONTNEED) };
        if let Err(errno) = released {
            tracing::debug!("cannot give memory back: madvise: {errno}");
        }
    }
}

#[cold]
fn cannot_map(size_bytes: usize, errno: Errno) -> Error {
    Error::failed("cannot map memory").detail(format!("mmap of {size_bytes} bytes: {errno}"))
}

/// What is left of a mapping that shared memory is taken from.
struct Reserve {
    /// Address of the whole, or of what was put below it.
    lowest: usize,
    rest: Mapping,
    /// What is left belongs to this process alone: of two that take from it, each would have the other's memory.
    owner: Pid,
}

/// Enough for most hosts' modules; not so far that it takes page tables of a higher order.
const AWAY_BYTES: usize = 64 << 20;

/// What the kernel brings into a process at once where it is read: pages that stand in one such piece. The default.
const FAULT_AROUND_BYTES: usize = 64 << 10;

static RESERVE: Mutex<Option<Reserve>> = Mutex::new(None);

impl Reserve {
    /// Whole pages.
    fn take(&mut self, size_bytes: usize) -> Option<Mapping> {
        let taken_bytes = size_bytes.checked_next_multiple_of(page_bytes())?;
        if size_bytes == 0 || taken_bytes > self.rest.size_bytes || self.owner != Pid::this() {
            return None;
        }
        let part = Mapping { start: self.rest.start, size_bytes };
        // SAFETY: not behind the end of the mapping, as was just checked.
        self.rest = Mapping { start: unsafe { self.rest.start.add(taken_bytes) }, size_bytes: self.rest.size_bytes - taken_bytes };
        Some(part)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_reserve_gives_whole_pages_to_its_own_process() {
        let page = page_bytes();
        let mut reserve = Reserve { lowest: 0, rest: Mapping::near(0, 4 * page, MapFlags::MAP_SHARED).unwrap(), owner: Pid::this() };
        let start = reserve.rest.start().addr().get();
        let offset = |part: Mapping| (part.start().addr().get() - start, part.size_bytes());
        assert_eq!(reserve.take(0).map(offset), None);
        assert_eq!(reserve.take(1).map(offset), Some((0, 1)));
        assert_eq!(reserve.take(page + 1).map(offset), Some((page, page + 1)));
        assert_eq!(reserve.take(page + 1).map(offset), None);
        assert_eq!(reserve.take(usize::MAX).map(offset), None);
        let mut strange = Reserve { rest: reserve.rest, owner: Pid::from_raw(1), ..reserve };
        assert_eq!(strange.take(page).map(offset), None);
        let last = reserve.take(page).unwrap();
        last.words().iter().for_each(|word| word.store(7, Relaxed));
        assert_eq!((offset(last), reserve.take(1).map(offset)), ((3 * page, page), None));
    }
}
