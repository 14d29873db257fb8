//! The one guard around every entry of the host into the module, and the panic hook that feeds it.
//!
//! Runs in every process and phase. No panic gets past it: it would be undefined behaviour on the host's side.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use crate::abi;
use crate::host::try_host;
use crate::{Error, Result};

thread_local! {
    /// Message and location of the last panic of this thread, from the hook to the guard. Not touched unless something panics.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// Calls into the module. An error or a panic becomes a code; its text goes to the host.
#[inline]
pub(crate) fn guard(entry: impl FnOnce() -> Result<()>) -> i32 {
    // The module's state may be half-changed after a panic. It is not used again: in an init phase the panic fails the start,
    // in a serving process the host ends the process.
    match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(Ok(())) => abi::OK,
        Ok(Err(error)) => failed(error),
        Err(payload) => panicked(payload),
    }
}

// Not inlined, with the error to drop: the way without one needs no stack.
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
    // Its destructor is the author's and may panic too.
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

/// Makes panics of this module, in any thread, a record in the host's log instead of text on stderr.
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
