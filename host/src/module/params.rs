//! Checks configured values against declared parameters and returns errors of the host.
//!
//! *Runs in:* the supervisor over what the file declares, main over what the loaded table declares,
//! and the commands `check` and `inspect`. *Never:* stops at the first error, writes a value, or
//! adds rules to those of `module_api::check`, which authors test with.
//!
//! *Pure:* no clock, no environment, no system call.

pub use module_api::check::{Folders, ParamDecl, ParamValue, kind_name};

use crate::config::ParamSetting;
use crate::error::Error;

/// The values that a module gets, each with the index of its declaration, in the order of the
/// declarations, or all errors at once. A parameter that is neither set nor has a default is left
/// out: its target keeps its value.
pub fn check(
    module: &str,
    declared: &[ParamDecl],
    settings: &[ParamSetting],
    folders: &Folders,
) -> Result<Vec<(usize, ParamValue)>, Vec<Error>> {
    module_api::check::check(module, declared, settings, folders).map_err(|complaints| {
        let error = |complaint: module_api::check::Complaint<_>| {
            let place = complaint.position.map_or_else(String::new, |position: crate::config::Position| format!("{position}: "));
            Error::config(format!("{place}{}", complaint.what)).detail(complaint.detail).hint(complaint.hint)
        };
        complaints.into_iter().map(error).collect()
    })
}
