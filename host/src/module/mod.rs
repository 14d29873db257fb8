//! Modules as files: found, read without running them, judged, ordered, and their parameters checked.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`; main checks parameters again against the loaded table.
//! *Never:* runs one instruction of a module.

pub mod elf;
pub mod inspection;
pub mod judge;
pub mod order;
pub mod params;
pub mod relocation;
pub mod resolve;
pub mod source;
pub mod table;
#[cfg(test)]
mod tests;

pub use inspection::{FileInfo, Inspection, NoteInfo, Verdict, inspect, inspect_bytes};
pub use params::{ParamDecl, ParamValue};
pub use resolve::{Resolution, Resolved, Skipped, resolve};
pub use table::{Function, TableInfo};
