//! Waiting: for a change in a folder, for the end of a process, always up to a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// How long a test waits for what should happen at once: long enough for a machine that does many things at a time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A point in time that no wait goes past.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Why a wait ended without what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The deadline has passed.
    Deadline,
    /// The process that should have done it has ended.
    Ended,
}

/// Waits until one of the descriptors is readable. Says which are, or none at the deadline.
pub fn readable(descriptors: &[BorrowedFd<'_>], deadline: Deadline) -> Vec<bool> {
    let mut watched: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let left = deadline.left();
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut watched, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => panic!("poll: {errno}"),
    }
    watched.iter().map(|fd| !fd.revents().is_empty()).collect()
}

/// Tells of every change to the files of a folder.
#[derive(Debug)]
pub struct Changes {
    inotify: OwnedFd,
}

impl Changes {
    pub fn of(folder: &Path) -> Self {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&inotify, folder, events).unwrap_or_else(|error| panic!("cannot watch {}: {error}", folder.display()));
        Self { inotify }
    }

    fn forget(&self) {
        let mut events = [0_u8; 4096];
        while rustix::io::read(&self.inotify, &mut events).is_ok_and(|length| length > 0) {}
    }
}

/// Waits until `look` finds something. It looks again after each change in the folder, and a last time when `process` has ended.
pub fn until<T>(
    folder: &Path,
    process: Option<BorrowedFd<'_>>,
    deadline: Deadline,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Missed> {
    let changes = Changes::of(folder);
    loop {
        // Before looking, so that nothing between the look and the wait is missed.
        changes.forget();
        if let Some(found) = look() {
            return Ok(found);
        }
        if deadline.has_passed() {
            return Err(Missed::Deadline);
        }
        let mut watched = vec![changes.inotify.as_fd()];
        watched.extend(process);
        if readable(&watched, deadline).get(1) == Some(&true) {
            return look().ok_or(Missed::Ended);
        }
    }
}
