//! Registering and reading: thin calls to the host.
//!
//! Registering runs in main, in `init` and `proc_init`; reading in any process and thread from
//! `proc_init` on.

use std::ffi::{CStr, c_char, c_void};
use std::{ptr, slice};

use crate::abi::{self, StatInfo, StatSpec};
use crate::host::{c_string, check, host};
use crate::stats::cells::StatCells;
use crate::stats::{Counter, Description, Gauge, Histogram, Kind, Sample, Unit};
use crate::{Error, Result};

fn register(kind: u32, flags: u32, unit: Unit, name: &str, help: &str, bounds: &'static [u64]) -> Result<StatCells> {
    let (c_name, c_help) = (c_string("name", name)?, c_string("help", help)?);
    let spec = StatSpec {
        size: size_of::<StatSpec>() as u32,
        kind,
        flags,
        unit: unit.number(),
        name: c_name.as_ptr(),
        help: c_help.as_ptr(),
        bounds: if bounds.is_empty() { ptr::null() } else { bounds.as_ptr() },
        bound_count: u32::try_from(bounds.len()).map_err(|_| Error::new("a histogram has too many bounds"))?,
        ..StatSpec::EMPTY
    };
    let mut first: *mut c_void = ptr::null_mut();
    let host = host();
    let code = (host.api.stat_register)(host.module, &raw const spec, &raw mut first);
    check(&format!("counting as {name:?}"), code)?;
    if first.is_null() {
        return Err("the host has no place to count".into());
    }
    Ok(StatCells::new(first.expose_provenance()))
}

pub(crate) fn counter(name: &str, unit: Unit, help: &str) -> Result<Counter> {
    register(abi::STAT_COUNTER, 0, unit, name, help, &[]).map(|cells| Counter { cells })
}

pub(crate) fn gauge(name: &str, flags: u32, unit: Unit, help: &str) -> Result<Gauge> {
    register(abi::STAT_GAUGE, flags, unit, name, help, &[]).map(|cells| Gauge { cells })
}

pub(crate) fn histogram(name: &str, unit: Unit, bounds: &'static [u64], help: &str) -> Result<Histogram> {
    register(abi::STAT_HISTOGRAM, 0, unit, name, help, bounds).map(|cells| Histogram { cells, bounds })
}

/// The processes whose counts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All processes together.
    All,
    /// The process of that `process_no`, and the earlier ones of its slot.
    Process(usize),
    /// Processes that the host did not fork.
    Outside,
}

impl Part {
    fn number(self) -> i32 {
        match self {
            Part::All => abi::STAT_ALL,
            Part::Process(process_no) => i32::try_from(process_no).unwrap_or(i32::MAX),
            Part::Outside => abi::STAT_OUTSIDE,
        }
    }
}

/// Reads the counters, gauges and histograms of the host and its modules. Made by `cx.stats()` and
/// [`Batch::stats`](crate::Batch::stats); can be kept and used in any thread.
#[derive(Debug, Clone, Copy)]
pub struct Stats(());

impl Stats {
    /// For contexts of phases in which counters can be read.
    pub(crate) fn new() -> Stats {
        Stats(())
    }

    /// The values in the order of registration, the host's own first. Processes go on counting
    /// meanwhile: numbers that belong together may differ by what happens during the reading.
    pub fn read(self) -> Samples {
        self.read_part(Part::All)
    }

    /// As [`read`](Stats::read), for a part of the processes.
    pub fn read_part(self, part: Part) -> Samples {
        Samples { part, next: 0, words: Vec::new() }
    }
}

/// Iterator over values, each read when it is reached.
#[derive(Debug)]
pub struct Samples {
    part: Part,
    next: u32,
    words: Vec<u64>,
}

impl Iterator for Samples {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let host = host();
        loop {
            let index = self.next;
            self.next = index.checked_add(1)?;
            let mut info = StatInfo { size: size_of::<StatInfo>() as u32, ..StatInfo::EMPTY };
            if (host.api.stat_info)(host.module, index, &raw mut info) != abi::OK {
                return None;
            }
            // Skips a kind that only a newer host knows.
            let Some(what) = described(&info) else { continue };
            self.words.clear();
            self.words.resize(what.words(), 0);
            let code = (host.api.stat_read)(host.module, index, self.part.number(), self.words.as_mut_ptr(), self.words.len() as u32);
            if code < 0 {
                return None;
            }
            return Some(Sample::from_words(what, &self.words));
        }
    }
}

fn described(info: &StatInfo) -> Option<Description> {
    let bounds = if info.bounds.is_null() {
        &[]
    } else {
        // SAFETY: the host gives the address of as many bounds as it says, valid for good.
        unsafe { slice::from_raw_parts(info.bounds, info.bound_count as usize) }
    };
    Some(Description {
        module: text(info.module),
        name: text(info.name),
        help: text(info.help),
        kind: Kind::from_number(info.kind)?,
        unit: Unit::from_number(info.unit)?,
        bounds,
    })
}

fn text(text: *const c_char) -> &'static str {
    if text.is_null() {
        return "";
    }
    // SAFETY: the host gives texts that end with a zero byte and are never freed or changed.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("?")
}
