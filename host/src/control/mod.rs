//! The control process.
//!
//! *Runs in:* the control process. *Never:* in main: no parser and no client's pace may hold main up.

/// First byte of a message to main: stop.
pub const ORDER_STOP: u8 = 1;
