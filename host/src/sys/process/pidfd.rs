//! Waiting for the end of a process that is not a child.
//!
//! *Runs in:* the command `stop`. *Never:* confuses a process with a later one of the same pid, once it is held.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::time;

/// A hold on a process.
#[derive(Debug)]
pub struct ProcessHold {
    descriptor: OwnedFd,
}

impl ProcessHold {
    /// None if there is no such process, it cannot be seen from here, or the kernel is older than 5.3.
    pub fn of_pid(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0)?;
        // SAFETY: the kernel has just made this descriptor for us (with close-on-exec set); nobody else owns it.
        Some(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// Waits for its end until the deadline. Says whether it has ended.
    pub fn ended_by(&self, deadline_ns: u64) -> bool {
        loop {
            let left_ms = deadline_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000).min(1_000_000);
            let mut watched = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)) {
                Ok(1..) => return true,
                Ok(_) | Err(Errno::EINTR) if time::now_ns() < deadline_ns => {}
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let hold = ProcessHold::of_pid(child.id() as i32).unwrap();
        assert!(!hold.ended_by(time::now_ns()));
        child.kill().unwrap();
        assert!(hold.ended_by(time::now_ns() + 10_000_000_000));
        child.wait().unwrap();
        assert!(ProcessHold::of_pid(0).is_none());
        assert!(ProcessHold::of_pid(i32::MAX).is_none());
    }
}
