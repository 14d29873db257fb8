//! The one function that forks.
//!
//! *Runs in:* the starting command, the supervisor, main. *Never:* forks a process that has more
//! than one thread.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::{EXIT_FAILED, Error, Result};
use crate::sys::fast_fork::child_calls;
use crate::sys::process::{counts, exit};

/// The process in which a fork returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The calling process, with the new process's pid.
    Parent(Pid),
    Child,
}

/// Proof that this process has one thread. It stays true while only the host's own code runs, which
/// starts none.
#[derive(Debug)]
pub struct Alone(());

/// Counts the threads. A second one is an error: the child would not have it, and every lock that
/// it held would stay locked for ever.
pub fn alone() -> Result<Alone> {
    match thread_count()? {
        1 => Ok(Alone(())),
        threads => Err(Error::fault("refusing to fork a process with more than one thread").detail(format!("{threads} threads exist"))),
    }
}

/// As [`alone`], for a process in which no module has run: there it is enough to ask the C library.
pub fn alone_so_far() -> Result<Alone> {
    if counts::one_thread_so_far() { Ok(Alone(())) } else { alone() }
}

/// Forks. The C library runs the handlers that libraries registered with `pthread_atfork`.
pub fn fork(_: &Alone) -> Result<Side> {
    // SAFETY: the process has one thread (`Alone` proves it), so every lock of the C library and of
    // the host is free in the child.
    match unsafe { libc::fork() } {
        -1 => Err(Error::failed("cannot fork a process")
            .detail(format!("fork: {}", Errno::last()))
            .hint("check the limits on processes (ulimit -u, pids.max of the control group) and on memory")),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(Pid::from_raw(pid))),
    }
}

/// Flushes the buffers of C streams: after a fork, parent and child would both write them. Called
/// after each call into a module that may print, not in `fork`, because flushing writes to pages
/// that would then be copied for the child.
pub fn flush_c_streams() {
    // SAFETY: fflush(NULL) flushes every stream of this process; callers are single-threaded.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

pub fn thread_count() -> Result<u64> {
    counts::threads().map_err(|error| Error::failed("cannot count the threads of this process").detail(format!("/proc/self/task: {error}")))
}

/// Makes the kernel kill this process when its parent dies. Ends it at once if the parent is dead
/// already.
///
/// Must be called after every fork and after every change of user or group id, which clears the
/// request.
pub fn die_with_parent(parent: Pid) -> Result<()> {
    child_calls::set_parent_death_signal(Signal::SIGKILL)
        .map_err(|errno| Error::failed("cannot tie this process to its parent").detail(format!("prctl(PR_SET_PDEATHSIG): {errno}")))?;
    if child_calls::parent_pid() != parent {
        exit::leave_now(EXIT_FAILED);
    }
    Ok(())
}
