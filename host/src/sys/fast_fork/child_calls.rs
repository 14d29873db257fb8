//! System calls of a child's first steps, none of them through the C library on the machines that `raw` knows.
//!
//! A forked process has none of the library's code in its page tables: each function that is called for the first time, and does not lie
//! close to one that was, costs it a page fault, several times what the call itself takes.
//!
//! *Runs in:* every child, before and at its entry. *Never:* what has state in the C library: locks.

use std::os::fd::RawFd;
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::sys::fast_fork::raw_call::call;

/// Bytes of the kernel's signal mask: a bit for each of its 64 signals.
const MASK_BYTES: usize = 8;

/// The id of this process.
pub fn own_pid() -> Pid {
    // SAFETY: has no arguments and cannot fail.
    Pid::from_raw(unsafe { call(libc::SYS_getpid, [0; 6]) }.unwrap_or_default() as i32)
}

/// The id of its parent.
pub fn parent_pid() -> Pid {
    // SAFETY: has no arguments and cannot fail.
    Pid::from_raw(unsafe { call(libc::SYS_getppid, [0; 6]) }.unwrap_or_default() as i32)
}

/// The signal that the kernel sends this process when its parent dies.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    // SAFETY: numbers only.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, signal as usize, 0, 0, 0, 0]) }.map(drop)
}

/// What `top` shows of this process: up to the first zero byte, or 15.
pub fn set_comm(name: &[u8; 16]) -> Result<(), Errno> {
    // SAFETY: the kernel reads no more than these 16 bytes.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr().expose_provenance(), 0, 0, 0, 0]) }.map(drop)
}

/// Lets every signal through.
pub fn unblock_signals() -> Result<(), Errno> {
    let none = [0_u8; MASK_BYTES];
    let none = (&raw const none).expose_provenance();
    // SAFETY: the kernel reads a mask of as many bytes as it is told, and writes no old one to a null pointer.
    unsafe { call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, none, 0, MASK_BYTES, 0, 0]) }.map(drop)
}

/// What a signal does, as the kernel has it. Which of these words there are differs between machines; there are never more.
#[derive(Debug)]
pub struct Disposition([u64; 8]);

/// What the signal does in this process.
pub fn disposition(signal: Signal) -> Result<Disposition, Errno> {
    let mut found = Disposition([0; 8]);
    let place = (&raw mut found.0).expose_provenance();
    // SAFETY: the kernel writes its struct, which is no larger than that, with a mask of as many bytes as it is told.
    unsafe { call(libc::SYS_rt_sigaction, [signal as usize, 0, place, MASK_BYTES, 0, 0]) }.map(|_| found)
}

/// Has the signal do what was found before, in this process or in one that it was forked from.
pub fn set_disposition(signal: Signal, disposition: &Disposition) -> Result<(), Errno> {
    let wanted = (&raw const disposition.0).expose_provenance();
    // SAFETY: the kernel reads what it has written itself; a handler in it is at the same address in a forked process.
    unsafe { call(libc::SYS_rt_sigaction, [signal as usize, wanted, 0, MASK_BYTES, 0, 0]) }.map(drop)
}

/// Closes what this process got by being forked and nobody in it owns.
pub fn close(descriptor: RawFd) {
    // A module may have closed it already.
    // SAFETY: takes a number. That no owner of it is left in this process is for the caller to know.
    let _ = unsafe { call(libc::SYS_close, [descriptor as usize, 0, 0, 0, 0, 0]) };
}

/// Memory of this process alone, zeroed, at an address of the kernel's choice.
pub fn map_private(size_bytes: usize) -> Result<*mut u8, Errno> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: without an address no existing mapping is touched.
    let start = unsafe { call(libc::SYS_mmap, [0, size_bytes, access as usize, kind as usize, usize::MAX, 0]) }?;
    Ok(ptr::with_exposed_provenance_mut(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_as_by_their_names() {
        assert_eq!((own_pid(), parent_pid()), (nix::unistd::getpid(), nix::unistd::getppid()));
        let mut set = nix::sys::signal::SigSet::empty();
        set.add(Signal::SIGUSR2);
        set.thread_block().unwrap();
        unblock_signals().unwrap();
        assert_eq!(nix::sys::signal::SigSet::thread_get_mask().unwrap(), nix::sys::signal::SigSet::empty());
        let (reader, writer) = nix::unistd::pipe().unwrap();
        close(std::os::fd::IntoRawFd::into_raw_fd(writer));
        assert_eq!(nix::unistd::read(&reader, &mut [0]), Ok(0), "the other end is closed");
    }
}
