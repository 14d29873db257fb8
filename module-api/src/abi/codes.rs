//! Return codes and log levels.

/// Success.
pub const OK: i32 = 0;
/// Failure without a more precise code.
pub const E_FAILED: i32 = -1;
/// The call is not allowed in this phase or process; the log says where it is.
pub const E_PHASE: i32 = -2;
/// An argument is out of its range.
pub const E_INVALID: i32 = -3;
/// Shared memory is exhausted.
pub const E_NO_MEMORY: i32 = -4;
/// More than the module registered, or more than the host has room for.
pub const E_LIMIT: i32 = -5;
/// A system call failed; the log has the detail.
pub const E_SYSTEM: i32 = -6;
/// Another process holds the lock (`mutex_trylock`), or the peer cannot take more now.
pub const E_BUSY: i32 = -7;
/// The calling process already holds this lock.
pub const E_DEADLOCK: i32 = -8;
/// The data under the lock was left damaged and nobody repaired it; the lock is unusable for good.
pub const E_NOT_RECOVERABLE: i32 = -9;
/// The sender of the datagram has no address and cannot be answered.
pub const E_NO_PEER: i32 = -10;
/// The connection no longer exists.
pub const E_GONE: i32 = -11;
/// What the SDK's guard returns for a panic in the module.
pub const E_PANIC: i32 = -70;

/// Log level: an operator has to act. The numbers are those of the `log` crate.
pub const LEVEL_ERROR: u32 = 1;
/// Log level: degraded, but going on.
pub const LEVEL_WARN: u32 = 2;
/// Log level: what an operator wants to know.
pub const LEVEL_INFO: u32 = 3;
/// Log level: what an author wants to know.
pub const LEVEL_DEBUG: u32 = 4;
/// Log level: everything.
pub const LEVEL_TRACE: u32 = 5;
