//! Descriptors: replacing one in place, and writing to one whose reader may be gone.
//!
//! *Runs in:* every process, every phase. *Never:* changes a signal's disposition, leaves one blocked or allocates.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that no forked process is to have; changed by main alone, in no-fork mode, where it serves connections itself.
static PRIVATE: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
/// How many. Read by every child, which then does not write to the lock.
static PRIVATE_COUNT: AtomicUsize = AtomicUsize::new(0);

/// From now on processes that are forked close this.
pub fn keep_private(descriptor: BorrowedFd<'_>) {
    let mut private = PRIVATE.lock().unwrap_or_else(PoisonError::into_inner);
    private.insert(descriptor.as_raw_fd());
    PRIVATE_COUNT.store(private.len(), Relaxed);
}

/// It is closed, or about to be.
pub fn forget_private(descriptor: BorrowedFd<'_>) {
    let mut private = PRIVATE.lock().unwrap_or_else(PoisonError::into_inner);
    private.remove(&descriptor.as_raw_fd());
    PRIVATE_COUNT.store(private.len(), Relaxed);
}

/// In a child: closes what is its parent's alone.
pub fn close_private() {
    if PRIVATE_COUNT.load(Relaxed) > 0 {
        for descriptor in &*PRIVATE.lock().unwrap_or_else(PoisonError::into_inner) {
            crate::sys::fast_fork::child_calls::close(*descriptor);
        }
    }
}

/// Lets this process and its children open as many descriptors as the system allows, and not only the usual 1024: each connection takes
/// one.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!("the limit on open files stays as it is: setrlimit: {errno}");
    }
}

/// Makes `target` refer to what `source` refers to, close-on-exec, in one atomic step. The number stays the same, so other threads
/// and remembered numbers need no lock and never see a closed descriptor.
///
/// # Errors
/// That of `dup3`.
pub fn replace(target: BorrowedFd<'_>, source: OwnedFd) -> Result<(), Errno> {
    loop {
        // SAFETY: both numbers are open descriptors (a borrow and an owner prove it); `target` keeps its owner, who closes the new file.
        let result = unsafe { libc::dup3(source.as_raw_fd(), target.as_raw_fd(), libc::O_CLOEXEC) };
        match Errno::result(result) {
            // EBUSY: a race with an open in another thread, documented as "try again".
            Err(Errno::EINTR | Errno::EBUSY) => {}
            other => return other.map(drop),
        }
    }
}

/// `write(2)` that a reader who went away answers with `EPIPE`, whatever this thread's SIGPIPE disposition is.
///
/// `send` has MSG_NOSIGNAL for this; a pipe has nothing on the kernels we support. The host ignores SIGPIPE, but modules get the default back,
/// and a lost log reader must not kill a module's process. The mask is per thread, and so is a SIGPIPE raised by `write`.
///
/// # Errors
/// That of `write`.
pub fn write_past_sigpipe(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut pipe_only = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given; sigaddset then works on an initialised set.
    let pipe_only = unsafe {
        libc::sigemptyset(pipe_only.as_mut_ptr());
        libc::sigaddset(pipe_only.as_mut_ptr(), libc::SIGPIPE);
        pipe_only.assume_init()
    };
    // A SIGPIPE already waiting is not ours to swallow; ours would merge with it.
    let was_pending = sigpipe_is_pending();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both pointers are to live sets; the old mask is written on success, which blocking a valid signal always is.
    let before = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe_only, before.as_mut_ptr());
        before.assume_init()
    };
    let result = nix::unistd::write(fd, bytes);
    if result == Err(Errno::EPIPE) && !was_pending {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the timeout are live and initialised, a null siginfo is allowed; a zero timeout never waits,
        // so this is right too when the signal is ignored and was never queued.
        unsafe { libc::sigtimedwait(&raw const pipe_only, std::ptr::null_mut(), &raw const at_once) };
    }
    // SAFETY: `before` is the mask that pthread_sigmask stored above; a null old mask is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    result
}

fn sigpipe_is_pending() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigpending fills the set and cannot fail for a valid pointer; sigismember reads it afterwards.
    unsafe {
        libc::sigpending(pending.as_mut_ptr());
        libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}

/// Makes a standard stream lead where `source` does; unlike `replace`, programs that are executed later inherit it.
pub fn replace_standard(target: BorrowedFd<'_>, source: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: both numbers are open descriptors, as the borrows prove; `target` keeps its owner.
    match unsafe { libc::dup2(source.as_raw_fd(), target.as_raw_fd()) } {
        -1 => Err(Errno::last()),
        _ => Ok(()),
    }
}

/// Closes everything but the standard streams and `keep`. Only at the very start of a process that owns nothing else yet.
pub fn close_others(keep: BorrowedFd<'_>) -> Result<(), Errno> {
    let keep = keep.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, keep.saturating_sub(1)), (keep.max(2) + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: the caller vouches that nobody in this process owns what is closed here.
            if unsafe { libc::close_range(first, last, 0) } == -1 {
                return Err(Errno::last());
            }
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
        // The harness ignores SIGPIPE like every Rust program; a module's process does not. Only this test's own pipe is written to meanwhile.
        let default = nix::sys::signal::SigHandler::SigDfl;
        // SAFETY: no handler function is installed, only dispositions are switched, and back again below.
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
