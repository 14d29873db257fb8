//! System calls of a child's first steps, all by the C library's one function `syscall`.
//!
//! A forked process has none of the library's code in its page tables: each function that is called for the first time, and does not lie
//! close to one that was, costs it a page fault, several times what the call itself takes.
//!
//! *Runs in:* every child, before and at its entry. *Never:* what has state in the C library: locks.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The id of this process.
pub fn own_pid() -> Pid {
    // SAFETY: has no arguments and cannot fail.
    Pid::from_raw(unsafe { libc::syscall(libc::SYS_getpid) } as i32)
}

/// The id of its parent.
pub fn parent_pid() -> Pid {
    // SAFETY: has no arguments and cannot fail.
    Pid::from_raw(unsafe { libc::syscall(libc::SYS_getppid) } as i32)
}

/// The signal that the kernel sends this process when its parent dies.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) }).map(drop)
}

/// What `top` shows of this process: up to the first zero byte, or 15.
pub fn set_comm(name: &[u8; 16]) -> Result<(), Errno> {
    // SAFETY: the kernel reads no more than these 16 bytes.
    Errno::result(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Lets every signal through.
pub fn unblock_signals() -> Result<(), Errno> {
    let none = 0_u64;
    let before = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads a mask of as many bytes as it is told, one bit for each of its 64 signals, and writes no old one.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, before, size_of::<u64>()) })
        .map(drop)
}

/// What a signal does, as the kernel has it. Which of these words there are differs between machines; there are never more.
#[derive(Debug)]
pub struct Disposition([u64; 8]);

/// What the signal does in this process.
pub fn disposition(signal: Signal) -> Result<Disposition, Errno> {
    let mut found = Disposition([0; 8]);
    let none = std::ptr::null::<u64>();
    // SAFETY: the kernel writes its struct, which is no larger than that, with a mask of as many bytes as it is told.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal as libc::c_int, none, &raw mut found.0, size_of::<u64>()) })?;
    Ok(found)
}

/// Has the signal do what was found before, in this process or in one that it was forked from.
pub fn set_disposition(signal: Signal, disposition: &Disposition) -> Result<(), Errno> {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads what it has written itself; a handler in it is at the same address in a forked process.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal as libc::c_int, &raw const disposition.0, none, size_of::<u64>()) })
        .map(drop)
}

/// Closes what this process got by being forked and nobody in it owns.
pub fn close(descriptor: RawFd) {
    // SAFETY: takes a number. That no owner of it is left in this process is for the caller to know.
    unsafe { libc::syscall(libc::SYS_close, descriptor) };
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
