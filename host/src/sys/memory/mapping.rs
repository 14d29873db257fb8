//! Anonymous memory mappings: shared between a process and its children, or private to one process.
//!
//! *Runs in:* supervisor and main (shared), every process (private). *Never:* unmaps: a mapping
//! lives as long as its process.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::unistd::Pid;

use crate::error::{Error, Result};

/// A zeroed mapping that is never unmapped.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    start: NonNull<u8>,
    size_bytes: usize,
}

// SAFETY: the mapping is plain memory that lives as long as the process; its users' contract says
// who may touch which part of it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Memory that this process shares with everything it forks later, at one address. Pages cost
    /// nothing until they are touched. Taken from the reserve if it has room.
    pub fn shared(size_bytes: usize) -> Result<Self> {
        let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
        match reserve.as_mut().and_then(|reserve| reserve.take(size_bytes)) {
            Some(part) => Ok(part),
            None => Self::map(size_bytes, MapFlags::MAP_SHARED),
        }
    }

    /// Makes one mapping for later shared ones of these sizes, in any order. Every fork copies the
    /// list of mappings, so one is cheaper than several.
    pub fn reserve_shared(sizes: &[usize]) -> Result<()> {
        let pages = |size_bytes: &usize| size_bytes.div_ceil(page_bytes());
        let all_bytes = sizes.iter().map(pages).fold(0, usize::saturating_add).saturating_mul(page_bytes());
        let rest = Self::map(all_bytes, MapFlags::MAP_SHARED)?;
        *RESERVE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reserve { rest, owner: Pid::this() });
        Ok(())
    }

    /// Memory of this process alone. A process that it forks later gets a copy.
    pub fn private(size_bytes: usize) -> Result<Self> {
        Self::map(size_bytes, MapFlags::MAP_PRIVATE)
    }

    /// One private page that reads as zeros in every process forked later, however it was forked.
    pub fn wiped_on_fork() -> Result<Self> {
        let page = Self::private(page_bytes())?;
        // SAFETY: the range is exactly the page that was just mapped, and nothing points into it
        // yet.
        unsafe { madvise(page.start.cast(), page.size_bytes, MmapAdvise::MADV_WIPEONFORK) }.map_err(|errno| {
            Error::failed("cannot prepare the page that tells processes apart")
                .detail(format!("madvise(MADV_WIPEONFORK): {errno}"))
                .hint("Linux 4.14 or newer is needed")
        })?;
        Ok(page)
    }

    /// Excludes the mapping from huge pages, whatever the system's setting: touching one page takes
    /// that page, not the 512 around it.
    pub fn in_small_pages(self) -> Self {
        // SAFETY: advice that changes no contents. A kernel without huge pages refuses it, and has
        // small pages anyway.
        let _ = unsafe { madvise(self.start.cast(), self.size_bytes, MmapAdvise::MADV_NOHUGEPAGE) };
        self
    }

    fn map(size_bytes: usize, kind: MapFlags) -> Result<Self> {
        let cannot_map = |errno| Error::failed("cannot map memory").detail(format!("mmap of {size_bytes} bytes: {errno}"));
        let length = NonZeroUsize::new(size_bytes).ok_or_else(|| cannot_map(Errno::EINVAL))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without an address the kernel chooses one where nothing is mapped, so no existing
        // memory is touched.
        let start = unsafe { mmap_anonymous(None, length, access, kind | MapFlags::MAP_NORESERVE) }.map_err(cannot_map)?;
        Ok(Self { start: start.cast(), size_bytes })
    }

    /// The mapping as words that any process may read and write at any time.
    pub fn words(&self) -> &'static [AtomicU64] {
        // SAFETY: the mapping is page-aligned, zeroed, lives as long as the process, and an atomic
        // word is valid for every bit pattern.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.size_bytes / size_of::<AtomicU64>()) }
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes, as it was asked for.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Returns its first pages to the kernel; they read as zeros afterwards. For private mappings.
    pub fn release_first(&self, length_bytes: usize) {
        // SAFETY: no longer than the mapping, and the callers hold no reference into what they
        // release.
        let released = unsafe { madvise(self.start.cast(), length_bytes.min(self.size_bytes), MmapAdvise::MADV_DONTNEED) };
        if let Err(errno) = released {
            tracing::debug!("cannot return memory: madvise: {errno}");
        }
    }
}

/// `N` zeroed words that this process shares with everything it forks later.
///
/// What another process wrote there is an untrusted number: any child may have stored anything.
///
/// # Errors
/// That of the mapping: out of memory, or over `RLIMIT_AS`.
pub fn shared_words<const N: usize>() -> Result<&'static [AtomicU32; N]> {
    let mapping = Mapping::shared(size_of::<[AtomicU32; N]>())?;
    // SAFETY: the range is page-aligned, at least as large as the array, zeroed (a valid
    // AtomicU32), and never unmapped; atomics are the only view of it in any process.
    Ok(unsafe { mapping.start.cast::<[AtomicU32; N]>().as_ref() })
}

/// The unused rest of a mapping that shared memory is taken from.
struct Reserve {
    rest: Mapping,
    /// Only this process takes from it: two processes would get the same memory.
    owner: Pid,
}

static RESERVE: Mutex<Option<Reserve>> = Mutex::new(None);

impl Reserve {
    /// Takes whole pages.
    fn take(&mut self, size_bytes: usize) -> Option<Mapping> {
        let taken_bytes = size_bytes.checked_next_multiple_of(page_bytes())?;
        if size_bytes == 0 || taken_bytes > self.rest.size_bytes || self.owner != Pid::this() {
            return None;
        }
        let part = Mapping { start: self.rest.start, size_bytes };
        // SAFETY: not past the end of the mapping, as was just checked.
        self.rest = Mapping { start: unsafe { self.rest.start.add(taken_bytes) }, size_bytes: self.rest.size_bytes - taken_bytes };
        Some(part)
    }
}

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
        let mut reserve = Reserve { rest: Mapping::map(4 * page, MapFlags::MAP_SHARED).unwrap(), owner: Pid::this() };
        let start = reserve.rest.start.addr().get();
        let offset = |part: Mapping| (part.start.addr().get() - start, part.size_bytes);
        assert_eq!(reserve.take(0).map(offset), None);
        assert_eq!(reserve.take(1).map(offset), Some((0, 1)));
        assert_eq!(reserve.take(page + 1).map(offset), Some((page, page + 1)));
        assert_eq!(reserve.take(page + 1).map(offset), None);
        assert_eq!(reserve.take(usize::MAX).map(offset), None);
        let mut foreign = Reserve { rest: reserve.rest, owner: Pid::from_raw(1) };
        assert_eq!(foreign.take(page).map(offset), None);
        let last = reserve.take(page).unwrap();
        last.words().iter().for_each(|word| word.store(7, Relaxed));
        assert_eq!((offset(last), reserve.take(1).map(offset)), ((3 * page, page), None));
    }

    #[test]
    fn shared_words_start_at_zero_in_a_shared_mapping() {
        let words = shared_words::<1024>().unwrap();
        assert!(words.iter().all(|word| word.load(Relaxed) == 0));
        let start = format!("{:x}-", words.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        // The listing may merge neighbouring mappings of the same kind; then the line starts lower.
        if let Some(line) = maps.lines().find(|line| line.starts_with(&start)) {
            assert!(line.contains("rw-s"), "{line}");
        }
    }
}
