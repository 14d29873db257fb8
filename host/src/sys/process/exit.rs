//! Leaving a forked process without running what belongs to its parent (exit handlers, buffers, destructors).
//!
//! *Runs in:* every forked process. *Never:* returns.

use std::io::Write;

/// Ends this process at once. Buffered output of our own streams is written first; the parent flushed before it forked,
/// so nothing is written twice.
pub fn leave(code: u8) -> ! {
    // A closed terminal is no reason to stay.
    let _ = std::io::stdout().flush();
    leave_now(code)
}

/// Ends this process at once, flushing nothing.
pub fn leave_now(code: u8) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}
