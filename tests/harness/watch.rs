//! Waits for a change in a folder or for the end of a process, always with a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// The limit for events that should happen at once; long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The time at which a wait gives up.
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

/// Why a wait ended without its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The deadline has passed.
    Deadline,
    /// The process that should have caused the event has ended.
    Ended,
}

/// Waits until one of the descriptors is readable. Returns for each whether it is; at the deadline
/// none is.
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

/// Notices every change to the files of a folder.
#[derive(Debug)]
pub struct Changes {
    inotify: Arc<OwnedFd>,
    watch: i32,
}

/// Inotify descriptors that are not in use. The kernel can take seconds to close one on a busy
/// machine, and the test would wait.
static IDLE: Mutex<Vec<Arc<OwnedFd>>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Arc<OwnedFd>>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Changes {
    pub fn of(folder: &Path) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let used = idle().pop();
        let inotify = used.unwrap_or_else(|| Arc::new(inotify::init(flags).expect("inotify")));
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE;
        let watch = inotify::add_watch(&inotify, folder, events);
        Self { inotify, watch: watch.unwrap_or_else(|error| panic!("cannot watch {}: {error}", folder.display())) }
    }

    fn forget(&self) {
        let mut events = [0_u8; 4096];
        while rustix::io::read(&self.inotify, &mut events).is_ok_and(|length| length > 0) {}
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // The watch is gone already if the folder is.
        let _ = inotify::remove_watch(&self.inotify, self.watch);
        idle().push(Arc::clone(&self.inotify));
    }
}

/// Waits until `look` finds something. It looks again after each change in the folder, and a last
/// time when `process` has ended.
pub fn until<T>(
    folder: &Path,
    process: Option<BorrowedFd<'_>>,
    deadline: Deadline,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Missed> {
    let changes = Changes::of(folder);
    loop {
        // Before looking, so that no change between the look and the wait is missed.
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
