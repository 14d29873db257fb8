//! The few tricks that make a fork cheap, in one place.
//!
//! Measured and explained in `docs/design/0018-what-a-start-does-not-do.md`:
//! - [`process_identity`]: a process's identity on a page that the kernel wipes in every fork;
//! - [`child_calls`], [`raw_call`]: the system calls of a child's prologue, without the C library,
//!   whose code a new process has not mapped yet;
//! - [`trim`]: freed heap is returned before the first fork.
//!
//! *Runs in:* main before it forks, every child in its prologue. *Never:* changes what a fork means.

pub mod child_calls;
pub mod process_identity;
pub mod raw_call;

/// Returns freed heap memory to the kernel. The single entry of this folder in the start sequence:
/// every page that main still holds is one more page for each fork to account for.
pub fn trim() {
    // SAFETY: `malloc_trim` touches free memory only, and the process has one thread.
    unsafe { libc::malloc_trim(0) };
}
