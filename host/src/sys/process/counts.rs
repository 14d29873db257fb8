//! How many threads and open descriptors this process has, from its folders in `/proc`.
//!
//! *Runs in:* every process; mostly in main, around each call into a module. *Never:* lists a
//! folder, or leaves one open in a child that the host forks.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::sys::fast_fork::child_calls;

const THREADS: &str = "/proc/self/task";
const DESCRIPTORS: &str = "/proc/self/fd";

/// The folders, kept open while main reads both numbers again and again: opening a folder takes
/// several times as long as reading its metadata.
struct Folders {
    threads: File,
    descriptors: File,
}

static KEPT: Mutex<Option<Folders>> = Mutex::new(None);
/// Whether [`KEPT`] has folders. Children read this instead of the lock, which they would write to.
static IS_KEPT: AtomicBool = AtomicBool::new(false);

/// Keeps the folders of this process open until `let_go`. If no descriptors are left for that, each
/// reading opens them anew.
pub fn keep() {
    if let (Ok(threads), Ok(descriptors)) = (File::open(THREADS), File::open(DESCRIPTORS)) {
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Folders { threads, descriptors });
        IS_KEPT.store(true, Relaxed);
    }
}

/// Closes what `keep` has opened. Called before many processes are forked, each of which would have
/// to close the folders.
pub fn let_go() {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    IS_KEPT.store(false, Relaxed);
}

/// In a child: closes the kept folders, which describe its parent.
pub fn leave_to_parent() {
    if IS_KEPT.load(Relaxed) {
        IS_KEPT.store(false, Relaxed);
        if let Some(Folders { threads, descriptors }) = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child_calls::close(threads.into_raw_fd());
            child_calls::close(descriptors.into_raw_fd());
        }
    }
}

fn metadata(path: &str, kept: impl FnOnce(&Folders) -> &File) -> io::Result<Metadata> {
    match &*KEPT.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(folders) => kept(folders).metadata(),
        None => std::fs::metadata(path),
    }
}

/// Number of threads. The link count of their folder is 2 plus the number of its sub-folders, and
/// costs a fraction of listing them.
pub fn threads() -> io::Result<u64> {
    Ok(metadata(THREADS, |folders| &folders.threads)?.nlink().saturating_sub(2))
}

/// Whether the C library has started no thread yet. It does not know of threads that a module makes
/// without it, so this is for processes in which no module has run. Costs a fraction of `threads`.
pub fn one_thread_so_far() -> bool {
    unsafe extern "C" {
        static __libc_single_threaded: std::ffi::c_char;
    }
    // SAFETY: a variable of the C library (2.32 or later), which writes it before it starts a
    // thread, so no other thread exists that could write it while it is not 0.
    unsafe { (&raw const __libc_single_threaded).read_volatile() != 0 }
}

/// Number of open descriptors. None on kernels before 6.2, where that folder has no size.
pub fn descriptors() -> Option<u64> {
    metadata(DESCRIPTORS, |folders| &folders.descriptors).ok().map(|folder| folder.size()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_folders_give_the_same_counts() {
        // The test harness has other threads, which come and go.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || stopped.recv());
        assert!(threads().unwrap() >= 2);
        let before = descriptors();
        keep();
        assert!(threads().unwrap() >= 2);
        assert_eq!(before.is_some(), descriptors().is_some());
        let_go();
        keep();
        leave_to_parent();
        assert!(KEPT.lock().unwrap().is_none());
        drop(stop);
        waiting.join().unwrap().unwrap_err();
    }
}
