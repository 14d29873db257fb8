//! Access to the host: the slot that the loader fills, and thin calls through it.
//!
//! Runs in every process and phase of a module. Knows no phase rules: the context types in `phase`
//! and `process` do.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::Ordering;

use crate::abi::{self, HostApi, HostSlot, ProcessInfo};
use crate::{Error, Result};

/// The module's [`HostSlot`]. Every module links its own copy of this crate, so there is one per
/// module. The loader writes it in main before any function of the module runs; nobody writes it
/// afterwards.
#[doc(hidden)]
#[repr(transparent)]
pub struct LoadedSlot(UnsafeCell<HostSlot>);

// SAFETY: written once by the loader while the module has no thread and no running function,
// read-only afterwards.
unsafe impl Sync for LoadedSlot {}

impl LoadedSlot {
    /// The address for the exports table.
    pub const fn as_ptr(&self) -> *mut HostSlot {
        self.0.get()
    }
}

#[doc(hidden)]
pub static SLOT: LoadedSlot = LoadedSlot(UnsafeCell::new(HostSlot::EMPTY));

/// The host's functions, and the handle that identifies this module in calls of them.
#[derive(Clone, Copy)]
pub(crate) struct HostHandle {
    pub api: &'static HostApi,
    pub module: *mut c_void,
}

/// The host, once the loader has filled the slot. Panics where there is none: without a host nobody
/// can own one of the values (contexts, handles) whose methods call this.
#[inline]
pub(crate) fn host() -> HostHandle {
    match try_host() {
        Some(host) => host,
        None => no_host(),
    }
}

/// The host, if there is one.
#[inline]
pub(crate) fn try_host() -> Option<HostHandle> {
    // SAFETY: the loader writes the slot before any code of the module runs and never again, so
    // this read does not race.
    let slot = unsafe { &*SLOT.as_ptr() };
    // SAFETY: the pointer is null or leads to the host's table, which lives as long as the process.
    let api = unsafe { slot.api.as_ref() }?;
    Some(HostHandle { api, module: slot.module })
}

#[cold]
fn no_host() -> ! {
    panic!("this module was not loaded by a modhost")
}

/// The highest level at which the host takes records, 0 for none. One pointer read and one atomic
/// load.
#[inline]
pub(crate) fn log_level() -> u32 {
    // SAFETY: as in `try_host`.
    let slot = unsafe { &*SLOT.as_ptr() };
    // SAFETY: the pointer is null or leads to a level that the host owns and that lives as long as
    // the process.
    match unsafe { slot.log_level.as_ref() } {
        Some(level) => level.load(Ordering::Relaxed),
        None => 0,
    }
}

/// Fails unless the slot leads to a table that this crate can call.
pub(crate) fn check_host() -> Result<()> {
    let api = try_host().ok_or("the host left its slot in this module empty")?.api;
    if api.magic != abi::HOST_MAGIC || api.abi_major != abi::ABI_MAJOR || (api.size as usize) < size_of::<HostApi>() {
        let (major, minor) = (api.abi_major, api.abi_minor);
        return Err(Error::new(format_args!(
            "this host speaks ABI {major}.{minor}, the module needs {}.{}",
            abi::ABI_MAJOR,
            abi::ABI_MINOR
        )));
    }
    Ok(())
}

impl HostHandle {
    #[inline]
    pub fn log(self, level: u32, target: &str, text: &[u8]) {
        (self.api.log)(self.module, level, target.as_ptr(), target.len(), text.as_ptr(), text.len());
    }

    pub fn set_error(self, text: &str) {
        (self.api.set_error)(self.module, text.as_ptr(), text.len());
    }

    pub fn fill_random(self, buffer: &mut [u8]) -> Result<()> {
        check("random", (self.api.random)(self.module, buffer.as_mut_ptr(), buffer.len())).map(drop)
    }

    /// The calling process. The host answers for every process that it forked; in any other one
    /// `process_no` is -1.
    pub fn process_info(self) -> ProcessInfo {
        let mut info = ProcessInfo { size: size_of::<ProcessInfo>() as u32, process_no: -1, ..ProcessInfo::EMPTY };
        (self.api.process_info)(self.module, &raw mut info);
        info
    }

    /// Only for contexts of phases in which the number is fixed.
    pub fn max_procs(self) -> usize {
        let count = (self.api.max_procs)(self.module);
        usize::try_from(count).unwrap_or_else(|_| panic!("the host does not know its number of processes: code {count}"))
    }
}

/// A non-negative return, or the error for a negative one.
#[inline]
pub(crate) fn check(call: &str, code: c_int) -> Result<u32> {
    u32::try_from(code).map_err(|_| Error::from_code(call, code))
}

/// A text for the host, which copies it.
pub(crate) fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(format_args!("{what} {text:?} contains a zero byte")))
}
