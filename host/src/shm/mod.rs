//! The modules' shared memory and its allocator.
//!
//! *Runs in:* mapped by main before any `init_f`; the same memory at the same address in every
//! process. *Never:* read by the supervisor.

#[allow(unsafe_code)] // the arena: one of the few places where unsafe code is allowed
pub mod arena;
pub mod class;
pub mod heap;
pub mod pages;
pub mod slot;
pub mod span;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod usage;
