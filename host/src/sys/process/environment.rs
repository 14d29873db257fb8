//! The environment, changed only while no other thread can read it.
//!
//! *Runs in:* the first process, before any module is loaded. *Never:* changes it once there is a
//! second thread.

use crate::error::{Error, Result};
use crate::sys::process::{counts, fork};
use std::ffi::OsString;

/// Takes a variable out of the environment, so that no module, and no program that a module starts,
/// sees it.
///
/// # Errors
/// There is a second thread; the variable stays.
pub fn take(name: &str) -> Result<Option<OsString>> {
    let value = std::env::var_os(name);
    if value.is_some() {
        require_one_thread()?;
        // SAFETY: no other thread may read or write the environment meanwhile, and there is none.
        unsafe { std::env::remove_var(name) };
    }
    Ok(value)
}

/// An error if this process has a second thread. For use before any module is loaded.
pub(super) fn require_one_thread() -> Result<()> {
    if counts::one_thread_so_far() {
        return Ok(());
    }
    match fork::thread_count()? {
        1 => Ok(()),
        threads => Err(Error::fault("the environment may not be changed now").detail(format_args!("threads={threads}"))),
    }
}
