//! Signals: supervisor and main read them from a descriptor, the host's loops in children get a
//! stop flag, the processes of modules have the defaults.
//!
//! *Runs in:* every process. *Never:* does anything in a signal handler but set one flag.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};
use crate::sys::fast_fork::child_calls;

/// The signals that supervisor and main read from their descriptor.
const WATCHED: [Signal; 7] =
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks the watched signals and opens a descriptor for them. The standard library ignores
    /// SIGPIPE in every process.
    pub fn watch() -> Result<Self> {
        let failed = |call: &str, errno| Error::failed("cannot watch for signals").detail(format!("{call}: {errno}"));
        // A signal that the starting program ignored would never reach the descriptor. With SIGCHLD
        // ignored, the kernel would reap children before main sees them die.
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

    /// The next pending signal, if any.
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

/// For the host's own loops: SIGTERM interrupts a blocking call and sets a flag instead of killing,
/// so that received requests are answered first. Main repeats a signal that arrives between the
/// check of the flag and the call.
pub fn stop_by_flag() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(on_stop), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only stores to an atomic, which is allowed at any moment.
    unsafe { sigaction(Signal::SIGTERM, &action) }
        .map(drop)
        .map_err(|errno| Error::failed("cannot prepare for the stop signal").detail(format!("sigaction: {errno}")))
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

/// Gives a forked child the signal state of a new program: nothing blocked, every signal at its
/// default except SIGPIPE, which is ignored.
pub fn fresh() -> Result<()> {
    // Read before writing: a child copies each page that it writes to, and the flag is rarely set.
    if STOP.load(Relaxed) {
        STOP.store(false, Relaxed);
    }
    child_calls::unblock_signals()
        .map_err(|errno| Error::failed("cannot restore the signal mask").detail(format!("rt_sigprocmask: {errno}")))
}
