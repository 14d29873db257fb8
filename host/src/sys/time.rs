//! The monotonic clock and sleeping until a moment on it; the wall clock.
//!
//! *Runs in:* every process. *Never:* used by the pure parts, which take the time as an argument.

use nix::errno::Errno;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// Nanoseconds on the monotonic clock, the same in every process.
pub fn now_ns() -> u64 {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(time) => {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
            seconds * 1_000_000_000 + nanoseconds
        }
        // The kernel has no reason to refuse this clock; 0 makes timers due at once rather than never.
        Err(_) => 0,
    }
}

/// Seconds since 1970, as the machine believes.
pub fn wall_s() -> i64 {
    // Refused by no kernel; see `now_ns`.
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |time| time.tv_sec())
}

/// Sleeps until the moment, or until a signal was handled.
pub fn sleep_until_ns(moment_ns: u64) {
    let seconds = i64::try_from(moment_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let nanoseconds = i64::try_from(moment_ns % 1_000_000_000).unwrap_or(0);
    let until = nix::sys::time::TimeSpec::new(seconds, nanoseconds);
    match clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &until) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => tracing::error!(target: "fault", "cannot sleep: clock_nanosleep: {errno}"),
    }
}
