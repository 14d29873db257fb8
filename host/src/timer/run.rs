//! The timer processes' loop: call what is due, sleep until the next.
//!
//! *Runs in:* the timer and the slow timer process. *Never:* lets a late function shift the
//! schedule of any.

use std::fmt;

use super::queue::TimerQueue;
use crate::error::{EXIT_FAILED, EXIT_FAULT, EXIT_OK};
use crate::module::{Module, call};
use crate::process::phase::Phase;
use crate::stats::{HostCounter, HostCounters};
use crate::sys::process::signal;
use crate::sys::time;

/// How long a timer process without functions sleeps at a time. It only waits for its stop signal.
const IDLE_NS: u64 = 3_600_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerProcess {
    /// For functions that may block.
    Slow,
    /// For functions that take well under a millisecond.
    Fast,
}

impl fmt::Display for TimerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "slow timer",
            Self::Fast => "timer",
        })
    }
}

#[derive(Debug, Clone)]
pub struct TimerFunction {
    /// For the log.
    pub name: String,
    pub module: &'static Module,
    pub which: TimerProcess,
    /// Time from the process's start to the first call.
    pub first_ns: u64,
    /// Time between two calls; 0: called once.
    pub period_ns: u64,
    pub function: extern "C" fn(data: *mut std::ffi::c_void, expirations: u64) -> i32,
    /// Its argument: an address in the module, stored as a number.
    pub data: usize,
}

/// The work of a timer process, until it is stopped. Returns its exit code.
pub fn work(functions: &[TimerFunction]) -> u8 {
    if let Err(error) = signal::stop_by_flag() {
        tracing::error!("{error}");
        return EXIT_FAILED;
    }
    let mut queue = TimerQueue::default();
    let counts = HostCounters::of_this_process();
    let started_ns = time::now_ns();
    for (id, function) in functions.iter().enumerate() {
        queue.add(id, started_ns.saturating_add(function.first_ns), function.period_ns);
    }
    let mut slow_times = vec![0_u64; functions.len()];
    while !signal::stop_requested() {
        while let Some(due) = queue.due(time::now_ns()) {
            if let Some(code) = run(&functions[due.id], due.expirations, &mut slow_times[due.id], counts) {
                return code;
            }
            if signal::stop_requested() {
                return EXIT_OK;
            }
        }
        time::sleep_until_ns(queue.next_deadline_ns().unwrap_or_else(|| time::now_ns() + IDLE_NS));
    }
    EXIT_OK
}

/// Calls one function. Returns an exit code if the process must end.
fn run(timer: &TimerFunction, expirations: u64, slow_times: &mut u64, counts: HostCounters) -> Option<u8> {
    let (module, name) = (timer.module, &timer.name);
    let before_ns = time::now_ns();
    let code = call::enter(module, Phase::Timer, || (timer.function)(std::ptr::with_exposed_provenance_mut(timer.data), expirations));
    let took_ns = time::now_ns().saturating_sub(before_ns);
    counts.add(HostCounter::TimerRuns, 1);
    if timer.period_ns > 0 && took_ns > timer.period_ns {
        counts.add(HostCounter::TimerOverruns, 1);
        *slow_times += 1;
        // Logged at powers of two: a slow function must not fill the disk.
        if slow_times.is_power_of_two() {
            tracing::warn!(
                "a timer function is slower than its period module=\"{}\" timer=\"{name}\" took_ms={} period_ms={} times={slow_times}",
                module.name,
                took_ns / 1_000_000,
                timer.period_ns / 1_000_000
            );
        }
    }
    if code == module_api::abi::E_PANIC {
        call::ends_after(module, Phase::Timer);
        tracing::error!("a timer function panicked module=\"{}\" timer=\"{name}\" error=\"{}\"", module.name, call::error_text());
        return Some(EXIT_FAULT);
    }
    if code < 0 {
        tracing::error!("a timer function failed module=\"{}\" timer=\"{name}\" code={code} error=\"{}\"", module.name, call::error_text());
    }
    None
}
