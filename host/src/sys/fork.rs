//! The one function that forks.
//!
//! *Runs in:* the starting command, the supervisor, main. *Never:* forks a process that has more than one thread.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{census, first, handlers};
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
pub struct Alone {
    /// Libraries may have registered functions to be called around a fork.
    has_handlers: bool,
}

/// Counts the threads. An error if a second one exists: it would be gone in a child, with every lock it held locked for ever.
pub fn alone() -> Result<Alone> {
    match thread_count()? {
        1 => Ok(Alone { has_handlers: handlers::possible() }),
        threads => Err(Error::fault("refusing to fork a process with more than one thread").detail(format!("{threads} threads exist"))),
    }
}

/// The same for a process in which no module runs.
pub fn alone_so_far() -> Result<Alone> {
    if census::one_thread_so_far() { Ok(Alone { has_handlers: true }) } else { alone() }
}

/// Forks. Inlined, as are other first steps of a child: code that stands in one place costs it one page fault.
#[inline(always)]
pub fn fork(alone: &Alone) -> Result<Side> {
    unsafe extern "C" {
        fn _Fork() -> libc::pid_t;
    }
    // SAFETY: the process is single-threaded (that is what it takes), so every lock of the C library and of ours is free in the child. Then the two
    // functions differ in the handlers alone.
    match unsafe { if alone.has_handlers { libc::fork() } else { _Fork() } } {
        -1 => Err(Error::failed("cannot fork a process")
            .detail(format!("fork: {}", Errno::last()))
            .hint("check the limits on processes (ulimit -u, pids.max of the control group) and on memory")),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(Pid::from_raw(pid))),
    }
}

/// Gives back what the process has used at its start and does not need any more: freed memory, and stack below the caller's. Each page of it
/// would be one more for every fork to note.
#[inline(never)]
pub fn give_back_memory() {
    /// Enough for this function's frame, and those of what it calls.
    const KEPT_BYTES: usize = 8 << 10;
    const GIVEN_BACK_BYTES: usize = 128 << 10;
    // SAFETY: touches only what is free.
    unsafe { libc::malloc_trim(0) };
    let here = 0_u8;
    let page = super::mapping::page_bytes();
    let end = ((&raw const here).addr() - KEPT_BYTES) / page * page;
    // SAFETY: `here` lies in the innermost frame, this one, since the function is not inlined. So nothing is alive from a little below it on, and nothing
    // but the stack is mapped so close below: the kernel keeps a larger gap. Where the stack does not reach as far, the call says so after having
    // done the rest.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(end - GIVEN_BACK_BYTES), GIVEN_BACK_BYTES, libc::MADV_DONTNEED) };
}

/// Calls with the stack at the start of a page, the way that it grows. A child writes to the stack from the fork on, and each page that it writes to is
/// copied for it: so it is one.
#[inline(never)]
pub fn on_a_page_of_its_own<T>(call: impl FnOnce() -> T) -> T {
    /// Pages of most machines; of others a part.
    #[repr(align(4096))]
    struct Start;
    let start = Start;
    let result = call();
    // SAFETY: no instruction: it only keeps `start` in the frame, whose lower end the compiler then aligns to a page.
    unsafe { std::arch::asm!("/* {} */", in(reg) &raw const start, options(nostack, readonly, preserves_flags)) };
    result
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_goes_on_where_a_page_begins() {
        #[inline(never)]
        fn frame_end() -> usize {
            let here = std::hint::black_box(0_u8);
            (&raw const here).addr()
        }
        fn deeper(levels: usize) -> usize {
            // Frames of all sizes, so that the stack is somewhere else each time.
            let room = std::hint::black_box([0_u8; 48]);
            if levels == 0 { on_a_page_of_its_own(frame_end) } else { deeper(levels - 1) + usize::from(room[0]) }
        }
        for levels in 0..200 {
            assert!(4096 - deeper(levels) % 4096 < 256, "{levels} levels deep it is not close below the end of a page");
        }
    }

    #[test]
    fn what_is_alive_is_not_given_back() {
        fn deeper(levels: u64) -> u64 {
            let page = std::hint::black_box([levels; 512]);
            let below = if levels == 0 { 0 } else { deeper(levels - 1) };
            if levels.is_multiple_of(3) {
                give_back_memory();
            }
            below + page.iter().sum::<u64>() / 512
        }
        let heap: Vec<Vec<u8>> = (0..100_u8).map(|byte| vec![byte; 10_000]).collect();
        assert_eq!(deeper(40), (0..=40).sum::<u64>());
        assert!(heap.iter().zip(0..100_u8).all(|(bytes, byte)| bytes.iter().all(|one| *one == byte)));
    }
}
