//! The tricks that keep a fork cheap, in one place. `docs/design/0018-a-fast-start.md` has the
//! measurements.
//!
//! - [`process_identity`]: pid, rank and breadcrumb cell of a process lie on a page that the kernel
//!   wipes in every fork. After each call into a module, one load tells whether the module has
//!   forked meanwhile. Asking the kernel for the pid would cost more than the whole guarded call (3
//!   ns).
//! - [`child_calls`], with [`raw_call`]: the prologue of a child makes its few system calls without
//!   the C library. A C function that this process calls for the first time costs a page fault, 3
//!   to 5 µs.
//! - [`trim`]: main returns freed heap memory before its first fork. Each private page of main
//!   costs every fork 0.1 µs.
//!
//! The start sequence has one line for this folder: `fast_fork::trim()`, before `fork_all`. The
//! prologue in `process/family.rs` uses the rest.
//!
//! *Runs in:* main before it forks, every child in its prologue. *Never:* changes what a fork
//! means.

pub mod child_calls;
pub mod process_identity;
mod raw_call;

/// Returns freed heap memory to the kernel. Called once, before the first fork.
pub fn trim() {
    // SAFETY: `malloc_trim` touches free memory only, and the process has one thread.
    unsafe { libc::malloc_trim(0) };
}
