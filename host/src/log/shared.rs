//! What the logs of all processes share: thresholds, the count of reopenings, the count of lost
//! records.
//!
//! *Runs in:* made in the first process; read and written by every process. *Never:* takes a lock,
//! trusts a number read from shared memory.

use super::settings::LogSettings;
use crate::error::Result;
use crate::sys::memory::mapping::{Mapping, shared_words};

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Modules that can have a threshold cell; those past it follow the host's.
const MODULES_MAX: usize = 256;

const LEVEL: usize = 0;
const REOPENINGS: usize = 1;
const MODULE_LEVEL: usize = 2;
const WORDS: usize = MODULE_LEVEL + MODULES_MAX;

/// Sizes of the two pieces of shared memory that [`init`](super::init) maps.
pub const SHARED_BYTES: [usize; 2] = [WORDS * size_of::<AtomicU32>(), size_of::<AtomicU64>()];

pub(super) struct Shared {
    words: &'static [AtomicU32; WORDS],
    /// Apart from the thresholds: every process reads those for each record.
    lost: &'static [AtomicU64],
    /// The owner of each module cell. In private memory, so that the supervisor may rely on it.
    /// Filled before the first fork that matters, so that all processes agree.
    names: [OnceLock<Box<str>>; MODULES_MAX],
}

impl Shared {
    pub(super) fn new(settings: &LogSettings) -> Result<Self> {
        let lost = Mapping::shared(SHARED_BYTES[1])?.words();
        let shared = Self { words: shared_words()?, lost, names: [const { OnceLock::new() }; MODULES_MAX] };
        shared.level().store(settings.level as u32, Relaxed);
        for (name, level) in &settings.modules {
            if let Some(cell) = shared.module_cell_or_new(name) {
                cell.store(*level as u32, Relaxed);
            }
        }
        Ok(shared)
    }

    /// The same memory as another process has it.
    #[cfg(test)]
    pub(super) fn in_another_process(&self) -> Self {
        Self { words: self.words, lost: self.lost, names: [const { OnceLock::new() }; MODULES_MAX] }
    }

    /// The host's threshold.
    pub(super) fn level(&self) -> &'static AtomicU32 {
        &self.words[LEVEL]
    }

    /// How often the log file was reopened.
    pub(super) fn reopenings(&self) -> &'static AtomicU32 {
        &self.words[REOPENINGS]
    }

    pub(super) fn count_lost(&self) {
        self.lost[0].fetch_add(1, Relaxed);
    }

    /// Records that all processes together could not write.
    pub(super) fn lost(&self) -> u64 {
        self.lost[0].load(Relaxed)
    }

    /// A module's threshold cell, made when it is new; the host's when the table is full.
    pub(super) fn module_level_or_new(&self, name: &str) -> &'static AtomicU32 {
        self.module_cell_or_new(name).unwrap_or(self.level())
    }

    /// A module's threshold cell, or the host's for a module that has none. Makes no cell: two
    /// children would assign the same one to different modules.
    pub(super) fn module_level(&self, name: &str) -> &'static AtomicU32 {
        let known = self.names.iter().map_while(OnceLock::get).position(|known| **known == *name);
        known.map_or(self.level(), |index| &self.words[MODULE_LEVEL + index])
    }

    fn module_cell_or_new(&self, name: &str) -> Option<&'static AtomicU32> {
        for (owner, cell) in self.names.iter().zip(&self.words[MODULE_LEVEL..]) {
            let known = owner.get_or_init(|| {
                cell.store(self.level().load(Relaxed), Relaxed);
                name.into()
            });
            if **known == *name {
                return Some(cell);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn a_module_starts_with_its_configured_threshold_or_the_hosts() {
        let settings = LogSettings { modules: vec![("sip".into(), Severity::Debug)], ..LogSettings::default() };
        let shared = Shared::new(&settings).unwrap();
        let (sip, echo) = (shared.module_level_or_new("sip"), shared.module_level_or_new("echo"));
        assert_eq!((sip.load(Relaxed), echo.load(Relaxed)), (4, 3));
        assert!(std::ptr::eq(shared.module_level("echo"), echo));
        assert!(std::ptr::eq(shared.module_level("unknown"), shared.level()));
    }

    #[test]
    fn a_full_table_falls_back_to_the_host() {
        let shared = Shared::new(&LogSettings::default()).unwrap();
        for number in 0..MODULES_MAX {
            assert!(!std::ptr::eq(shared.module_level_or_new(&number.to_string()), shared.level()));
        }
        assert!(std::ptr::eq(shared.module_level_or_new("one too many"), shared.level()));
    }
}
