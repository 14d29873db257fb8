//! The guard around every call of the host into the module, and the panic hook that gives it the
//! text of a panic.
//!
//! Runs in every process and phase. Lets no panic through: a panic must not unwind into the host.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use crate::abi;
use crate::host::try_host;
use crate::{Error, Result};

thread_local! {
    /// Message and location of this thread's last panic, passed from the hook to the guard. Written
    /// only on a panic.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// Calls into the module. An error or a panic becomes a code, and its text goes to the host.
#[inline]
pub(crate) fn guard(entry: impl FnOnce() -> Result<()>) -> i32 {
    // A panic may leave the module's state half-changed, but the state is not used again: in an
    // init phase the panic fails the start, in a serving process the host ends the process.
    match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(Ok(())) => abi::OK,
        Ok(Err(error)) => failed(error),
        Err(payload) => panicked(payload),
    }
}

// Not inlined, so that a call without an error needs no stack for dropping one.
#[cold]
#[inline(never)]
fn failed(error: Error) -> i32 {
    if let Some(host) = try_host() {
        host.set_error(error.text());
    }
    abi::E_FAILED
}

#[cold]
#[inline(never)]
fn panicked(payload: Box<dyn Any + Send>) -> i32 {
    let text = LAST_PANIC.take().unwrap_or_else(|| format!("panicked: {}", message(&*payload)));
    if let Some(host) = try_host() {
        host.set_error(&text);
    }
    // Its destructor is the author's code and may panic, too.
    std::mem::forget(payload);
    abi::E_PANIC
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(no text)"
    }
}

/// Sends panics of this module, in any thread, to the host's log instead of stderr.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(report));
}

fn report(info: &PanicHookInfo<'_>) {
    let mut text = format!("panicked: {}", message(info.payload()));
    if let Some(location) = info.location() {
        let _ = write!(text, " at={location}");
    }
    if let Some(host) = try_host() {
        host.log(abi::LEVEL_ERROR, "panic", text.as_bytes());
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            for line in backtrace.to_string().lines() {
                host.log(abi::LEVEL_ERROR, "panic", line.as_bytes());
            }
        }
    }
    LAST_PANIC.set(Some(text));
}
