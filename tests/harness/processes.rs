//! Processes as seen from outside: which belong to a host, their state in /proc, and their end.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::watch::{Deadline, readable};

/// Every process that runs a program of that folder. Each test has its copy of the host there, so
/// this finds all processes that a test started, whatever their parent is now. Zombies run no
/// program and are not found.
pub fn running_from(folder: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = numbers_in(Path::new("/proc"))
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.starts_with(folder)))
        .collect();
    pids.sort_unstable();
    pids
}

fn numbers_in(folder: &Path) -> impl Iterator<Item = i32> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/status`.
pub fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// The parent's pid; 0 if there is no such process.
pub fn parent(pid: i32) -> i32 {
    status(pid).get("PPid").and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

/// The four user ids and the four group ids (real, effective, saved, file system), and the
/// supplementary groups.
pub fn identity(pid: i32) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let status = status(pid);
    let numbers = |key: &str| -> Vec<u32> {
        status.get(key).map(|text| text.split_whitespace().filter_map(|number| number.parse().ok()).collect()).unwrap_or_default()
    };
    (numbers("Uid"), numbers("Gid"), numbers("Groups"))
}

/// The title as `ps` shows it.
pub fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches(['\0', ' ']).to_owned()
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Process group.
    pub group: i32,
    pub session: i32,
    /// Device number of the controlling terminal, 0 without one.
    pub terminal: i32,
}

/// Group, session and terminal of a process.
pub fn stat(pid: i32) -> Stat {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<i32> = text.rsplit(')').next().unwrap_or("").split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number).copied().unwrap_or(0);
    Stat { group: field(2), session: field(3), terminal: field(4) }
}

/// The targets of a process's descriptors, by number.
pub fn descriptors(pid: i32) -> BTreeMap<i32, PathBuf> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    numbers_in(&folder).filter_map(|number| Some((number, fs::read_link(folder.join(number.to_string())).ok()?))).collect()
}

/// A process, held by a pidfd: never a later process with the same pid.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    descriptor: OwnedFd,
}

impl Process {
    /// None if the process has ended and was reaped.
    pub fn open(pid: i32) -> Option<Self> {
        let descriptor = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        Some(Self { pid, descriptor })
    }

    /// Waits for its end. Whether it ended before the deadline.
    pub fn ends(&self, deadline: Deadline) -> bool {
        loop {
            if readable(&[self.descriptor.as_fd()], deadline) == [true] {
                return true;
            }
            if deadline.has_passed() {
                return false;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid, signal);
    }

    /// Waits until it sleeps. A process that has reported that it serves has a few steps left
    /// before it waits for work.
    #[track_caller]
    pub fn wait_until_asleep(&self, deadline: Deadline) {
        self.is_in_state('S', deadline);
    }

    /// Stops it with SIGSTOP and waits until it has stopped: until then it may receive another
    /// datagram.
    #[track_caller]
    pub fn stop(&self, deadline: Deadline) {
        self.signal(Signal::STOP);
        self.is_in_state('T', deadline);
    }

    #[track_caller]
    fn is_in_state(&self, wanted: char, deadline: Deadline) {
        while !status(self.pid).get("State").is_some_and(|state| state.starts_with(wanted)) {
            assert!(!deadline.has_passed(), "process {} does not get into state {wanted}", self.pid);
            // Only its parent is told of a change of state, so look again after a moment.
            self.ends(Deadline::after(Duration::from_millis(1)));
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Sends a signal. A process that has ended is not an error.
pub fn signal_process(pid: i32, signal: Signal) {
    match kill_process(Pid::from_raw(pid).expect("a pid"), signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => panic!("kill {pid}: {errno}"),
    }
}

/// Waits until no process runs a program of that folder. Returns those that still do at the
/// deadline.
pub fn wait_for_none_from(folder: &Path, deadline: Deadline) -> Vec<i32> {
    loop {
        let left = running_from(folder);
        match left.first() {
            None => return left,
            Some(_) if deadline.has_passed() => return left,
            // A process that ends meanwhile is not listed again.
            Some(pid) => Process::open(*pid).map(|process| process.ends(deadline)),
        };
    }
}
