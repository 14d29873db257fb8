//! The one function that forks.
//!
//! *Runs in:* the starting command, the supervisor, main. *Never:* forks a process that has more than one thread.

use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};

use super::first;
use crate::error::{Error, Result};

/// Which side of a fork the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that called, with the new process's pid.
    Parent(Pid),
    /// The new process.
    Child,
}

/// This process has one thread. Stays true as long as nothing but the host's own code runs, which starts none.
#[derive(Debug)]
pub struct Alone(());

/// Counts the threads. An error if a second one exists: it would be gone in a child, with every lock it held locked for ever.
pub fn alone() -> Result<Alone> {
    match thread_count()? {
        1 => Ok(Alone(())),
        threads => Err(Error::fault("refusing to fork a process with more than one thread").detail(format!("{threads} threads exist"))),
    }
}

/// Forks.
pub fn fork(_: &Alone) -> Result<Side> {
    // SAFETY: the process is single-threaded (that is what it takes), so every lock of the C library and of ours is free in the child.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Side::Parent(child)),
        Ok(ForkResult::Child) => Ok(Side::Child),
        Err(errno) => Err(Error::failed("cannot fork a process")
            .detail(format!("fork: {errno}"))
            .hint("check the limits on processes (ulimit -u, pids.max of the control group) and on memory")),
    }
}

/// Writes what stands in the buffers of C streams: after a fork, parent and child would both write it. After each call into a module
/// that may print, rather than in `fork`, because it writes to memory that parent and child share until then.
pub fn flush_c_streams() {
    // SAFETY: fflush(NULL) flushes every stream of this process; callers are single-threaded.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Number of threads of this process. The link count of a folder in /proc is 2 plus the number of sub-folders, at a fraction of the cost
/// of listing it.
pub fn thread_count() -> Result<u64> {
    let folder = std::fs::metadata("/proc/self/task")
        .map_err(|error| Error::failed("cannot count the threads of this process").detail(format!("/proc/self/task: {error}")))?;
    Ok(folder.nlink().saturating_sub(2))
}

/// Makes the kernel kill this process when its parent dies, and notices if that has happened already.
///
/// Must be called after every fork and after every change of user or group id, which clears the request.
pub fn die_with_parent(parent: Pid) -> Result<()> {
    first::set_parent_death_signal(Signal::SIGKILL)
        .map_err(|errno| Error::failed("cannot tie this process to its parent").detail(format!("prctl(PR_SET_PDEATHSIG): {errno}")))?;
    if first::parent_pid() != parent {
        super::exit::leave_now(crate::error::EXIT_FAILED);
    }
    Ok(())
}
