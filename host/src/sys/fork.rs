//! The one function that forks.
//!
//! *Runs in:* the starting command, the supervisor, main. *Never:* forks a process that has more than one thread.

use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};

use super::{census, first};
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

/// Forks. Inlined, as are other first steps of a child: code that stands in one place costs it one page fault.
#[inline(always)]
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

/// Gives back what the process has used at its start and does not need any more: freed memory, and stack below the caller's. Each page of it
/// would be one more for every fork to note.
pub fn give_back_memory() {
    /// Enough for the kernel's own frame of a signal, and for what is called here.
    const KEPT_BYTES: usize = 8 << 10;
    const GIVEN_BACK_BYTES: usize = 128 << 10;
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what is free.
    unsafe {
        libc::malloc_trim(0)
    };
    let here = 0_u8;
    let page = super::mapping::page_bytes();
    let end = ((&raw const here).addr() - KEPT_BYTES) / page * page;
    // SAFETY: below the stack pointer nothing is alive, and nothing but the stack is mapped so close below it: the kernel keeps a larger gap.
    // Where the stack does not reach as far, the call says so after having done the rest.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(end - GIVEN_BACK_BYTES), GIVEN_BACK_BYTES, libc::MADV_DONTNEED) };
}

/// Writes what stands in the buffers of C streams: after a fork, parent and child would both write it. After each call into a module
/// that may print, rather than in `fork`, because it writes to memory that parent and child share until then.
pub fn flush_c_streams() {
    // SAFETY: fflush(NULL) flushes every stream of this process; callers are single-threaded.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Number of threads of this process.
pub fn thread_count() -> Result<u64> {
    census::threads().map_err(|error| Error::failed("cannot count the threads of this process").detail(format!("/proc/self/task: {error}")))
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
