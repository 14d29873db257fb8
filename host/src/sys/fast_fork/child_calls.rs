//! The system calls of a child's prologue, made without the C library: see [`super`] for the
//! reason.
//!
//! *Runs in:* every child, in its prologue. *Never:* makes a call that the C library keeps state
//! about.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::raw_call::call;

/// Bytes of the kernel's signal mask: a bit for each of its 64 signals.
const MASK_BYTES: usize = 8;

pub fn own_pid() -> Pid {
    // SAFETY: has no arguments and cannot fail.
    Pid::from_raw(unsafe { call(libc::SYS_getpid, [0; 6]) }.unwrap_or_default() as i32)
}

pub fn parent_pid() -> Pid {
    // SAFETY: has no arguments and cannot fail.
    Pid::from_raw(unsafe { call(libc::SYS_getppid, [0; 6]) }.unwrap_or_default() as i32)
}

/// Sets the signal that the kernel sends this process when its parent dies.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    // SAFETY: numbers only.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, signal as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Sets what `top` shows of this process: up to the first zero byte, at most 15.
pub fn set_comm(name: &[u8; 16]) -> Result<(), Errno> {
    // SAFETY: the kernel reads no more than these 16 bytes.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr().expose_provenance(), 0, 0, 0, 0]) }.map(drop)
}

pub fn unblock_signals() -> Result<(), Errno> {
    let none = [0_u8; MASK_BYTES];
    let none = (&raw const none).expose_provenance();
    // SAFETY: the kernel reads a mask of `MASK_BYTES`; a null pointer means that no old mask is
    // wanted.
    unsafe { call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, none, 0, MASK_BYTES, 0, 0]) }.map(drop)
}

/// Closes a descriptor that this process inherited and nobody in it owns.
pub fn close(descriptor: RawFd) {
    // An error means that a module has closed it already.
    // SAFETY: takes a number; the caller knows that no owner of it is left in this process.
    let _ = unsafe { call(libc::SYS_close, [descriptor as usize, 0, 0, 0, 0, 0]) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_results_as_from_the_c_library() {
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
