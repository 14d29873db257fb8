//! The environment, changed only while nobody else can be reading it.
//!
//! *Runs in:* the first process, before any module is loaded. *Never:* changes it once there is a second thread.

use crate::error::{Error, Result};
use crate::sys::process::counts;
use std::ffi::OsString;

/// Takes a variable out of the environment, so that no module and no program that one starts sees it.
///
/// # Errors
/// There is more than one thread; the variable stays.
pub fn take(name: &str) -> Result<Option<OsString>> {
    let value = std::env::var_os(name);
    if value.is_some() {
        require_one_thread()?;
        // SAFETY: the only requirement is that no other thread reads or writes the environment meanwhile; there is no other thread.
        unsafe { std::env::remove_var(name) };
    }
    Ok(value)
}

/// An error when this process has more than one thread. Before any module is loaded.
pub(super) fn require_one_thread() -> Result<()> {
    if counts::one_thread_so_far() {
        return Ok(());
    }
    match crate::sys::process::fork::thread_count()? {
        1 => Ok(()),
        threads => Err(Error::fault("the environment may not be changed now").detail(format_args!("threads={threads}"))),
    }
}
