//! Descriptors: which ones children must close, replacing one in place, writing to a pipe whose
//! reader may be gone.
//!
//! *Runs in:* every process, every phase. *Never:* changes a signal's disposition, leaves a signal
//! blocked.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::sys::fast_fork::child_calls;

/// Descriptors that no forked process keeps. Only main changes it, in no-fork mode, where main
/// itself serves connections.
static PRIVATE: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
/// How many there are. Children read this instead of the lock, which they would write to.
static PRIVATE_COUNT: AtomicUsize = AtomicUsize::new(0);

/// From now on forked processes close this descriptor.
pub fn keep_private(descriptor: BorrowedFd<'_>) {
    let mut private = private();
    private.insert(descriptor.as_raw_fd());
    PRIVATE_COUNT.store(private.len(), Relaxed);
}

/// The descriptor is closed, or about to be.
pub fn forget_private(descriptor: BorrowedFd<'_>) {
    let mut private = private();
    private.remove(&descriptor.as_raw_fd());
    PRIVATE_COUNT.store(private.len(), Relaxed);
}

/// In a child: closes the private descriptors of its parent.
pub fn close_private() {
    if PRIVATE_COUNT.load(Relaxed) > 0 {
        private().iter().for_each(|descriptor| child_calls::close(*descriptor));
    }
}

fn private() -> MutexGuard<'static, BTreeSet<RawFd>> {
    PRIVATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raises the soft limit on open files, usually 1024, to the hard limit, for this process and its
/// children: each connection takes a descriptor.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!("the limit on open files stays as it is: setrlimit: {errno}");
    }
}

/// Makes `target` refer to the file of `source`, close-on-exec, in one atomic step. The number
/// stays the same, so other threads and remembered numbers need no lock and never see a closed
/// descriptor.
///
/// # Errors
/// That of `dup3`.
pub fn replace(target: BorrowedFd<'_>, source: OwnedFd) -> Result<(), Errno> {
    loop {
        // SAFETY: both numbers are open descriptors (a borrow and an owner prove it); `target`
        // keeps its owner, who closes the new file.
        let result = unsafe { libc::dup3(source.as_raw_fd(), target.as_raw_fd(), libc::O_CLOEXEC) };
        match Errno::result(result) {
            // EBUSY: a race with an open in another thread, documented as "try again".
            Err(Errno::EINTR | Errno::EBUSY) => {}
            other => return other.map(drop),
        }
    }
}

/// `write(2)` that fails with `EPIPE` if the reader is gone, whatever SIGPIPE does in this process.
///
/// `send` has MSG_NOSIGNAL for this; a pipe has nothing on the kernels that the host supports. The
/// host ignores SIGPIPE, but modules get the default back, and a lost log reader must not kill a
/// module's process. The mask is per thread, and so is a SIGPIPE raised by `write`.
///
/// # Errors
/// That of `write`.
pub fn write_past_sigpipe(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut pipe_only = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given; sigaddset then works on an initialised
    // set.
    let pipe_only = unsafe {
        libc::sigemptyset(pipe_only.as_mut_ptr());
        libc::sigaddset(pipe_only.as_mut_ptr(), libc::SIGPIPE);
        pipe_only.assume_init()
    };
    // A SIGPIPE that is pending already is left for its receiver; a new one would merge with it.
    let was_pending = sigpipe_is_pending();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both pointers are to live sets; the old mask is written on success, and blocking a
    // valid signal always succeeds.
    let before = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe_only, before.as_mut_ptr());
        before.assume_init()
    };
    let result = nix::unistd::write(fd, bytes);
    if result == Err(Errno::EPIPE) && !was_pending {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the timeout are live and initialised, a null siginfo is allowed. A
        // zero timeout never waits, so this is right too when the signal is ignored and was never
        // queued.
        unsafe { libc::sigtimedwait(&raw const pipe_only, std::ptr::null_mut(), &raw const at_once) };
    }
    // SAFETY: `before` is the mask that pthread_sigmask stored above; a null old mask is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    result
}

fn sigpipe_is_pending() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigpending fills the set and cannot fail for a valid pointer; sigismember reads it
    // afterwards.
    unsafe {
        libc::sigpending(pending.as_mut_ptr());
        libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}

/// Makes a standard stream refer to the file of `source`. Unlike with `replace`, programs that are
/// executed later inherit it.
pub fn replace_standard(target: BorrowedFd<'_>, source: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: both numbers are open descriptors, as the borrows prove; `target` keeps its owner.
    Errno::result(unsafe { libc::dup2(source.as_raw_fd(), target.as_raw_fd()) }).map(drop)
}

/// Closes everything but the standard streams and `keep`. Only at the very start of a process that
/// owns nothing else yet.
pub fn close_others(keep: BorrowedFd<'_>) -> Result<(), Errno> {
    let keep = keep.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, keep.saturating_sub(1)), (keep.max(2) + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: the caller vouches that nobody in this process owns what is closed here.
            Errno::result(unsafe { libc::close_range(first, last, 0) })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};
    use std::os::fd::AsFd;

    #[test]
    fn a_replaced_descriptor_keeps_its_number_and_writes_to_the_new_file() {
        let (mut old, mut new) = (temporary(), temporary());
        let number = old.as_raw_fd();
        replace(old.as_fd(), new.try_clone().unwrap().into()).unwrap();
        assert_eq!(old.as_raw_fd(), number);
        std::io::Write::write_all(&mut old, b"here").unwrap();
        let mut text = String::new();
        new.rewind().unwrap();
        new.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
    }

    #[test]
    fn a_closed_reader_is_epipe_even_with_the_default_disposition() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        // The harness ignores SIGPIPE like every Rust program; a module's process does not.
        // Meanwhile only this test's pipe is written to.
        let default = nix::sys::signal::SigHandler::SigDfl;
        // SAFETY: no handler function is installed; the old disposition is put back below.
        let before = unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, default) }.unwrap();
        let result = write_past_sigpipe(writer.as_fd(), b"lost");
        // SAFETY: as above.
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, before) }.unwrap();
        assert_eq!(result, Err(Errno::EPIPE));
        assert!(!sigpipe_is_pending());
    }

    fn temporary() -> std::fs::File {
        let fd = nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::empty()).unwrap();
        fd.into()
    }
}
