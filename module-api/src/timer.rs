//! Description of a timer: when, how often, and in which of the two timer processes.
//!
//! `ModInit::timer` and `ProcInit::timer` pass it to the host.

use std::time::Duration;

use crate::abi;
use crate::{Error, Result};

/// When and where a timer function is called.
///
/// ```
/// # use module_api::{Duration, Timer};
/// let tick = Timer::every("tick", Duration::from_secs(1)).first_after(Duration::ZERO);
/// let report = Timer::every("report", Duration::from_secs(60)).slow();
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Timer<'a> {
    pub(crate) name: &'a str,
    pub(crate) process: u32,
    pub(crate) first: Duration,
    pub(crate) period: Option<Duration>,
}

impl<'a> Timer<'a> {
    /// A call every `period`, the first one after the first period. `name` is for the log, at most
    /// 31 bytes.
    pub fn every(name: &'a str, period: Duration) -> Timer<'a> {
        Timer { name, process: abi::TIMER_FAST, first: period, period: Some(period) }
    }

    /// One call, `delay` after the start of the timer process. If that process is restarted, there
    /// is another call.
    pub fn once(name: &'a str, delay: Duration) -> Timer<'a> {
        Timer { name, process: abi::TIMER_FAST, first: delay, period: None }
    }

    /// Sets the time from the start of the timer process to the first call.
    #[must_use]
    pub fn first_after(self, delay: Duration) -> Timer<'a> {
        Timer { first: delay, ..self }
    }

    /// Runs it in the slow timer process: for functions that may block or take long.
    #[must_use]
    pub fn slow(self) -> Timer<'a> {
        Timer { process: abi::TIMER_SLOW, ..self }
    }

    /// Runs it in the timer process for functions that finish in well under a millisecond. The
    /// default.
    #[must_use]
    pub fn fast(self) -> Timer<'a> {
        Timer { process: abi::TIMER_FAST, ..self }
    }

    pub(crate) fn nanoseconds(&self, duration: Duration) -> Result<u64> {
        u64::try_from(duration.as_nanos()).map_err(|_| Error::new(format_args!("timer {:?} waits longer than 500 years", self.name)))
    }
}
