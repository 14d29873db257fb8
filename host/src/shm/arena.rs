//! The arena: one mapping from which modules get memory that all processes share.
//!
//! *Runs in:* main, in `init_f` and `PROC_INIT`. *Never:* frees; what is allocated here lives as long as main.

use std::ptr::NonNull;
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::module::Module;
use crate::sys::mapping::Mapping;

/// Largest alignment that may be asked for, in bytes.
pub const MAX_ALIGN_BYTES: usize = 4096;

/// The arena of one main.
#[derive(Debug)]
pub struct Arena {
    memory: Mapping,
    used_bytes: Mutex<usize>,
}

impl Arena {
    /// Maps the memory; its pages cost nothing until they are touched.
    pub fn new(size_bytes: usize) -> Result<Self> {
        Ok(Self { memory: Mapping::shared(size_bytes)?, used_bytes: Mutex::new(0) })
    }

    /// Zeroed memory for a module. `align_bytes` is a power of two up to 4096.
    pub fn allocate(&self, module: &Module, size_bytes: usize, align_bytes: usize) -> Result<NonNull<u8>> {
        if size_bytes == 0 || !align_bytes.is_power_of_two() || align_bytes > MAX_ALIGN_BYTES {
            return Err(Error::failed(format!("module \"{}\" asked for impossible shared memory", module.name))
                .detail(format!("{size_bytes} bytes aligned to {align_bytes}")));
        }
        let mut used = self.used_bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = used.next_multiple_of(align_bytes);
        let end = start.checked_add(size_bytes).filter(|end| *end <= self.memory.size_bytes()).ok_or_else(|| {
            Error::failed(format!("module \"{}\" cannot get {size_bytes} bytes of shared memory", module.name))
                .detail(format!("{} of {} bytes are in use", *used, self.memory.size_bytes()))
                .hint("raise host.shared_memory")
        })?;
        *used = end;
        // SAFETY: start < end <= the mapping's size.
        Ok(unsafe { self.memory.start().add(start) })
    }

    /// Whether the whole range lies in the arena.
    pub fn contains(&self, start: *const u8, size_bytes: usize) -> bool {
        let first = self.memory.start().as_ptr() as usize;
        let start = start as usize;
        start >= first && start.checked_add(size_bytes).is_some_and(|end| end <= first + self.memory.size_bytes())
    }

    /// Bytes in use and bytes in all.
    pub fn usage_bytes(&self) -> (usize, usize) {
        (*self.used_bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner), self.memory.size_bytes())
    }
}
