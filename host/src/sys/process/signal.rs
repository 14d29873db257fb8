//! Signals: a descriptor to read them from in supervisor and main, a stop flag in the host's own loops, nothing in modules' processes.
//!
//! *Runs in:* every process. *Never:* does anything in a signal handler but set one flag.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};
use crate::sys::fast_fork::child_calls::{self, Disposition};

/// What supervisor and main read from their descriptor.
const WATCHED: [Signal; 7] =
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals of this process as a descriptor.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks the watched signals and opens a descriptor for them. The standard library ignores
    /// SIGPIPE in every process.
    pub fn watch() -> Result<Self> {
        let failed = |call: &str, errno| Error::failed("cannot watch for signals").detail(format!("{call}: {errno}"));
        // What the starting program ignored would never reach the descriptor, and children would be reaped before main sees them die.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        for signal in WATCHED {
            // SAFETY: no handler is involved.
            unsafe { sigaction(signal, &default) }.map_err(|errno| failed("sigaction", errno))?;
        }
        let set: SigSet = WATCHED.into_iter().collect();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None).map_err(|errno| failed("sigprocmask", errno))?;
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(|errno| failed("signalfd", errno))?;
        Ok(Self { descriptor })
    }

    /// The next signal that is pending, if any.
    pub fn next(&self) -> Option<Signal> {
        let info = self.descriptor.read_signal().ok().flatten()?;
        i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_stop(_signal: libc::c_int) {
    STOP.store(true, Relaxed);
}

/// Whether this process was asked to stop. Only after `stop_by_flag`.
#[inline]
pub fn stop_requested() -> bool {
    STOP.load(Relaxed)
}

/// The disposition that `stop_by_flag` sets: made by the C library once, for all processes that are forked later.
static BY_FLAG: OnceLock<Disposition> = OnceLock::new();

/// Prepares `stop_by_flag` for what is forked later. In main, where the signal is blocked and read from a descriptor.
pub fn prepare_stop_by_flag() -> Result<()> {
    let failed = |errno| Error::failed("cannot prepare for the stop signal").detail(format!("sigaction: {errno}"));
    let action = SigAction::new(SigHandler::Handler(on_stop), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only stores to an atomic, which is allowed at any moment.
    let before = unsafe { sigaction(Signal::SIGTERM, &action) }.map_err(failed)?;
    let by_flag = child_calls::disposition(Signal::SIGTERM).map_err(failed)?;
    // SAFETY: what was there before.
    unsafe { sigaction(Signal::SIGTERM, &before) }.map_err(failed)?;
    BY_FLAG.get_or_init(|| by_flag);
    Ok(())
}

/// For the host's own loops: SIGTERM interrupts a blocking call and sets a flag instead of killing, so that what was received is
/// answered first. A signal that arrives between the check and the call is repeated by main.
#[inline(always)]
pub fn stop_by_flag() -> Result<()> {
    let by_flag = BY_FLAG.get().ok_or_else(|| Error::fault("the stop signal was not prepared for"))?;
    child_calls::set_disposition(Signal::SIGTERM, by_flag)
        .map_err(|errno| Error::failed("cannot prepare for the stop signal").detail(format!("rt_sigaction: {errno}")))
}

/// Restores the default of SIGSEGV and SIGBUS. The standard library's handler for stack overflows
/// would be inherited by every child, and a module's overflow would end in SIGABRT and a message on
/// standard error instead of the signal that the log names.
pub fn restore_fault_signals() -> Result<()> {
    for fault in [Signal::SIGSEGV, Signal::SIGBUS] {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler is involved, and the process has one thread.
        unsafe { sigaction(fault, &default) }
            .map_err(|errno| Error::failed("cannot restore the default of a signal").detail(format!("{fault}: sigaction: {errno}")))?;
    }
    Ok(())
}

/// Gives a forked child the signal state that a fresh program has: nothing blocked, everything at its default but SIGPIPE (ignored).
#[inline(always)]
pub fn fresh() -> Result<()> {
    // Read before it is written: nearly always there is nothing to write, and a page that a child writes to is a page that it has to copy.
    if STOP.load(Relaxed) {
        STOP.store(false, Relaxed);
    }
    child_calls::unblock_signals()
        .map_err(|errno| Error::failed("cannot restore the signal mask").detail(format!("rt_sigprocmask: {errno}")))
}
