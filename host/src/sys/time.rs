//! The clocks of the host: monotonic and wall time, and sleeping until a moment.
//!
//! *Runs in:* every process. *Never:* used by the pure parts, which take the time as an argument.

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

const NS_PER_S: u64 = 1_000_000_000;

/// Nanoseconds on the monotonic clock, the same in every process.
pub fn now_ns() -> u64 {
    // The kernel has no reason to refuse this clock; 0 makes timers due at once rather than never.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let part = |value: i64| u64::try_from(value).unwrap_or(0);
        part(time.tv_sec()) * NS_PER_S + part(time.tv_nsec())
    })
}

/// Seconds since 1970 on the machine's clock.
pub fn wall_s() -> i64 {
    // Refused by no kernel; see `now_ns`.
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |time| time.tv_sec())
}

/// Sleeps until a moment of the monotonic clock, or until a signal has been handled.
pub fn sleep_until_ns(moment_ns: u64) {
    let seconds = i64::try_from(moment_ns / NS_PER_S).unwrap_or(i64::MAX);
    let until = TimeSpec::new(seconds, (moment_ns % NS_PER_S) as i64);
    match clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &until) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => tracing::error!(target: "fault", "cannot sleep: clock_nanosleep: {errno}"),
    }
}
