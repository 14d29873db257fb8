//! Whether another process has ended, asked once or waited for.
//!
//! *Runs in:* a process that was told of the death of another one (`has_ended`); the command `stop`
//! ([`ProcessHold`]). *Never:* waits without a deadline; once a process is held, confuses it with a
//! later one of the same pid.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::sys::time;

/// Whether that process will never run another instruction. It may be a zombie, which its parent
/// has not reaped. False if that cannot be determined.
pub fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which may contain anything but is in parentheses.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
    }
}

/// A reference to one process, whoever gets its pid later.
#[derive(Debug)]
pub struct ProcessHold {
    descriptor: OwnedFd,
}

impl ProcessHold {
    /// `None`: the process does not exist or cannot be seen from here, or the kernel is older than
    /// 5.3.
    pub fn of_pid(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0)?;
        // SAFETY: the kernel has just made this descriptor, with close-on-exec set; nobody else
        // owns it.
        Some(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// Waits for the end of the process until a deadline on the monotonic clock. Whether it has
    /// ended.
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
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_runs_and_a_zombie_has_ended() {
        assert!(!has_ended(std::process::id() as i32));
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        while !has_ended(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(has_ended(pid));
    }

    #[test]
    fn the_end_of_a_held_process_is_seen() {
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
