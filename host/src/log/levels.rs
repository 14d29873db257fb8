//! The thresholds, in one page that every process shares.
//!
//! *Runs in:* created in the first process; read in every process; changed by any. *Never:* takes a lock, trusts a number read from the page.

use super::settings::{LogSettings, Severity};
use crate::error::Result;
use crate::sys::memory::mapping::shared_words;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Modules that can have a threshold cell; those past it follow the host's.
pub const MODULES_MAX: usize = 256;

/// One page: what the words mean.
const WORDS: usize = 1024;
/// Of the shared page.
pub const LEVELS_BYTES: usize = WORDS * size_of::<AtomicU32>();
const LEVEL: usize = 0;
const GENERATION: usize = 1;
const MODULE_LEVEL: usize = 256;
/// 1 where a module's threshold was set for it, 0 where it follows the host's.
const MODULE_OWN: usize = 512;

pub(super) struct Levels {
    words: &'static [AtomicU32; WORDS],
    /// Which cell is whose. Private memory: the supervisor may rely on it. Filled before the first fork that matters, so all agree.
    names: [OnceLock<Box<str>>; MODULES_MAX],
}

impl Levels {
    pub(super) fn new(settings: &LogSettings) -> Result<Self> {
        let levels = Self { words: shared_words()?, names: [const { OnceLock::new() }; MODULES_MAX] };
        levels.host().store(settings.level as u32, Relaxed);
        for (name, level) in &settings.modules {
            levels.set_module(name, Some(*level));
        }
        Ok(levels)
    }

    /// The same page as another process has it.
    #[cfg(test)]
    pub(super) fn sharing(&self) -> Self {
        Self { words: self.words, names: [const { OnceLock::new() }; MODULES_MAX] }
    }

    /// The host's threshold.
    pub(super) fn host(&self) -> &'static AtomicU32 {
        &self.words[LEVEL]
    }

    /// Counts how often the log file was reopened.
    pub(super) fn generation(&self) -> &'static AtomicU32 {
        &self.words[GENERATION]
    }

    /// Sets the host's threshold and that of every module that follows it.
    pub(super) fn set_host(&self, level: Severity) {
        self.host().store(level as u32, Relaxed);
        for index in 0..self.names.iter().take_while(|name| name.get().is_some()).count() {
            if self.words[MODULE_OWN + index].load(Relaxed) == 0 {
                self.words[MODULE_LEVEL + index].store(level as u32, Relaxed);
            }
        }
    }

    /// Sets one module's threshold, or lets it follow the host's again.
    pub(super) fn set_module(&self, name: &str, level: Option<Severity>) {
        let Some(index) = self.index_or_new(name) else { return };
        self.words[MODULE_OWN + index].store(level.is_some().into(), Relaxed);
        self.words[MODULE_LEVEL + index].store(level.map_or_else(|| self.host().load(Relaxed), |own| own as u32), Relaxed);
    }

    /// The cell of a module, made when it is new; the host's own when the table is full.
    pub(super) fn module_or_new(&self, name: &str) -> &'static AtomicU32 {
        self.index_or_new(name).map_or(self.host(), |index| &self.words[MODULE_LEVEL + index])
    }

    /// The cell of a module that has one, else the host's. Registers nothing: two children would give the same cell to different names.
    pub(super) fn module(&self, name: &str) -> &'static AtomicU32 {
        let known = self.names.iter().map_while(OnceLock::get).position(|known| **known == *name);
        known.map_or(self.host(), |index| &self.words[MODULE_LEVEL + index])
    }

    fn index_or_new(&self, name: &str) -> Option<usize> {
        for (index, cell) in self.names.iter().enumerate() {
            let mut new = false;
            let holder = cell.get_or_init(|| {
                new = true;
                name.into()
            });
            if new {
                self.words[MODULE_LEVEL + index].store(self.host().load(Relaxed), Relaxed);
            }
            if **holder == *name {
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_follow_the_host_until_they_have_their_own() {
        let settings = LogSettings { modules: vec![("sip".into(), Severity::Debug)], ..LogSettings::default() };
        let levels = Levels::new(&settings).unwrap();
        let (sip, echo) = (levels.module_or_new("sip"), levels.module_or_new("echo"));
        assert_eq!((sip.load(Relaxed), echo.load(Relaxed)), (4, 3));
        levels.set_host(Severity::Warn);
        assert_eq!((sip.load(Relaxed), echo.load(Relaxed)), (4, 2));
        levels.set_module("sip", None);
        levels.set_module("echo", Some(Severity::Trace));
        assert_eq!((sip.load(Relaxed), echo.load(Relaxed)), (2, 5));
        assert!(std::ptr::eq(levels.module("echo"), echo));
        assert!(std::ptr::eq(levels.module("unknown"), levels.host()));
    }

    #[test]
    fn a_full_table_falls_back_to_the_host() {
        let levels = Levels::new(&LogSettings::default()).unwrap();
        for number in 0..MODULES_MAX {
            assert!(!std::ptr::eq(levels.module_or_new(&number.to_string()), levels.host()));
        }
        assert!(std::ptr::eq(levels.module_or_new("one too many"), levels.host()));
    }
}
