//! Leaving a forked process without running the exit handlers and destructors of its parent.
//!
//! *Runs in:* every forked process. *Never:* returns.

use std::io::Write;

/// Ends this process at once. Buffered standard output is written first; the parent flushed it
/// before the fork, so nothing is written twice.
pub fn leave(code: u8) -> ! {
    // The terminal may be closed; this process ends all the same.
    let _ = std::io::stdout().flush();
    leave_now(code)
}

/// Ends this process at once, flushing nothing.
pub fn leave_now(code: u8) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}
