//! The list of all counters, gauges and histograms, and their shared memory.
//!
//! *Runs in:* main up to the end of `PROC_INIT` (registering); every process (reading).
//! *Never:* changes after that, or takes a lock then.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use module_api::abi;
use module_api::stats::{Description, Kind, Part, Sample, Unit};

use super::HostCounter;
use crate::error::{Error, Result};
use crate::log;
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::memory::mapping::Mapping;

/// Limit on the words of all entries together: room for 260 histograms, or many more counters.
/// Untouched pages cost nothing.
const MAX_WORDS: usize = 65_536;
/// No two blocks share a pair of cache lines: processors fetch lines in pairs.
const BLOCK_BYTES: usize = 128;
const WORD_BYTES: usize = size_of::<u64>();

/// Size of the shared memory mapped before the list is complete.
pub(crate) const OUTSIDE_BYTES: usize = MAX_WORDS * WORD_BYTES;

const NAME_MAX_BYTES: usize = 47;
const HELP_MAX_BYTES: usize = 200;

/// A counter, gauge or histogram to be registered.
#[derive(Debug)]
pub(crate) struct StatRequest {
    /// Without the module's name.
    pub(crate) name: String,
    /// One sentence.
    pub(crate) help: String,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    /// 0 or `STAT_SHARED`.
    pub(crate) flags: u32,
    /// Upper bounds of a histogram's buckets, ascending; empty: log-linear buckets.
    pub(crate) bounds: Vec<u64>,
}

/// A registered counter, gauge or histogram. Lives as long as main.
#[derive(Debug)]
pub(crate) struct StatEntry {
    pub(crate) what: Description,
    /// 0 or `STAT_SHARED`.
    pub(crate) flags: u32,
    /// The texts of `what` for C: module, name, help.
    pub(crate) module: CString,
    pub(crate) name: CString,
    pub(crate) help: CString,
    /// Index of its first word in each block.
    first: usize,
}

impl StatEntry {
    /// The host's counters are registered first and have one word each.
    fn is(&self, counter: HostCounter) -> bool {
        self.first == counter as usize
    }
}

/// The list of entries and their memory.
#[derive(Debug)]
pub struct Registry {
    /// One block that no process of the table owns.
    outside: &'static [AtomicU64],
    /// Empty once the list is complete.
    list: Mutex<StatList>,
    complete: OnceLock<Blocks>,
}

#[derive(Debug, Default)]
struct StatList {
    entries: Vec<&'static StatEntry>,
    /// Every name in Prometheus, with the full name of its entry.
    names: BTreeMap<String, String>,
}

/// The blocks of all processes, laid out when every `PROC_INIT` has returned.
#[derive(Debug)]
struct Blocks {
    entries: Vec<&'static StatEntry>,
    words: &'static [AtomicU64],
    block_words: usize,
    processes: usize,
}

impl Blocks {
    /// Even numbers: the block of a slot's own thread. The next number: that of its other threads.
    fn block(&self, number: usize) -> &'static [AtomicU64] {
        let start = number * self.block_words;
        self.words.get(start..start + self.block_words).unwrap_or_default()
    }
}

impl Registry {
    /// Registers the host's own counters. In main, before any module is loaded.
    pub(crate) fn new() -> Result<Self> {
        let outside = Mapping::shared(OUTSIDE_BYTES)?.words();
        let registry = Self { outside, list: Mutex::default(), complete: OnceLock::new() };
        for (number, (name, help)) in HostCounter::ALL.into_iter().enumerate() {
            let (name, help) = (name.to_owned(), help.to_owned());
            let kind = if number < HostCounter::ConnectionsNow as usize { Kind::Counter } else { Kind::Gauge };
            registry.register("host", StatRequest { name, help, kind, unit: Unit::One, flags: 0, bounds: Vec::new() })?;
        }
        Ok(registry)
    }

    /// Adds an entry and returns the address of its first word in the block outside. In main,
    /// before the list is complete.
    pub(crate) fn register(&self, module: &str, request: StatRequest) -> Result<usize> {
        let refused = |detail: String| Error::failed(format!("module \"{module}\" cannot count as \"{}\"", request.name)).detail(detail);
        check(&request).map_err(|(detail, hint)| refused(detail).hint(hint))?;
        if self.complete.get().is_some() {
            return Err(refused("the list of counters is complete".into()));
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |text: &str| CString::new(text).map_err(|_| refused("a text contains a zero byte".into()));
        let (module_text, name, help) = (text(module)?, text(&request.name)?, text(&request.help)?);
        let leak = |text: &str| -> &'static str { String::leak(text.to_owned()) };
        let what = Description {
            module: leak(module),
            name: leak(&request.name),
            help: leak(&request.help),
            kind: request.kind,
            unit: request.unit,
            bounds: request.bounds.clone().leak(),
        };
        let names = what.prometheus_names();
        if list.entries.iter().any(|other| other.what.module == module && other.what.name == request.name) {
            return Err(refused("it has that name already".into()).hint("a name is registered once, in one phase"));
        }
        if let Some(other) = names.iter().find_map(|name| list.names.get(name)) {
            return Err(refused(format!("in Prometheus it would have a name of \"{other}\"")).hint("choose another name"));
        }
        let first = list.entries.last().map_or(0, |last| last.first + last.what.words());
        if first + what.words() > MAX_WORDS {
            return Err(refused(format!("all counters together have at most {MAX_WORDS} words")).hint("use fewer histograms"));
        }
        list.names.extend(names.into_iter().map(|name| (name, what.full_name())));
        list.entries.push(Box::leak(Box::new(StatEntry { what, flags: request.flags, module: module_text, name, help, first })));
        Ok(self.address() + first * WORD_BYTES)
    }

    /// Lays out the blocks of all processes. In main, when every `PROC_INIT` has returned, before
    /// anything is forked.
    pub fn complete(&self, processes: usize) -> Result<()> {
        let StatList { entries, .. } = std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
        let used = entries.last().map_or(0, |last| last.first + last.what.words());
        let block_words = (used * WORD_BYTES).next_multiple_of(BLOCK_BYTES) / WORD_BYTES;
        let words = Mapping::shared(processes.max(1) * 2 * block_words * WORD_BYTES)?.words();
        let complete = Blocks { entries, words, block_words, processes };
        // All that was counted until now was counted in main.
        for (before, main) in self.outside[..used].iter().zip(complete.block(0)) {
            main.store(before.swap(0, Relaxed), Relaxed);
        }
        self.complete.set(complete).map_err(|_| Error::fault("the list of counters was completed twice"))?;
        self.settle(0);
        Ok(())
    }

    /// Tells the calling process where it counts. In main and in each child's prologue, before any
    /// code of a module runs there.
    pub(crate) fn settle(&self, process_no: usize) {
        let Some(complete) = self.complete.get() else { return };
        let distance = |number| (complete.block(number).as_ptr() as usize).wrapping_sub(self.address());
        if process_no < complete.processes {
            this_process().count_at(module_api::stats::cells::thread_pointer(), distance(2 * process_no), distance(2 * process_no + 1));
        }
    }

    /// Sets a dead process's part of each gauge to zero, except of shared gauges. In main.
    pub(crate) fn process_ended(&self, process_no: usize) {
        let Some(complete) = self.complete.get().filter(|complete| process_no < complete.processes) else { return };
        let own = complete.block(2 * process_no);
        for entry in &complete.entries {
            let word = own.get(entry.first);
            if entry.what.kind == Kind::Gauge
                && entry.flags & abi::STAT_SHARED == 0
                && let Some(word) = word.filter(|word| word.load(Relaxed) != 0)
            {
                word.store(0, Relaxed);
            }
        }
    }

    /// The block of the thread in which this process calls modules.
    pub(super) fn own_words(&self) -> &'static [AtomicU64] {
        match (self.complete.get(), usize::try_from(this_process().process_no())) {
            (Some(complete), Ok(process_no)) => complete.block(2 * process_no),
            _ => self.outside,
        }
    }

    /// The block in which any thread of this process may count, by atomic additions.
    pub(super) fn words_of_any_thread(&self) -> &'static [AtomicU64] {
        match (self.complete.get(), usize::try_from(this_process().process_no())) {
            (Some(complete), Ok(process_no)) => complete.block(2 * process_no + 1),
            _ => self.outside,
        }
    }

    pub(crate) fn entry(&self, index: usize) -> Option<&'static StatEntry> {
        match self.complete.get() {
            Some(complete) => complete.entries.get(index).copied(),
            None => self.list.lock().unwrap_or_else(PoisonError::into_inner).entries.get(index).copied(),
        }
    }

    /// Number of processes that have blocks; 0 while the list is not complete.
    pub(crate) fn processes(&self) -> usize {
        self.complete.get().map_or(0, |complete| complete.processes)
    }

    /// Adds the words of one entry to `into`, of the blocks that `part` names. False if it names a
    /// process that does not exist.
    pub(crate) fn read(&self, entry: &StatEntry, part: Part, into: &mut [u64]) -> bool {
        // The log counts lost records itself, in its shared memory: the supervisor, which has
        // no block here, loses some, too.
        if entry.is(HostCounter::LogLost)
            && !matches!(part, Part::Process(_))
            && let Some(sum) = into.first_mut()
        {
            *sum = sum.wrapping_add(log::lost_records());
        }
        let mut add = |block: &[AtomicU64]| {
            for (sum, word) in into.iter_mut().zip(block.get(entry.first..).unwrap_or_default()) {
                *sum = sum.wrapping_add(word.load(Relaxed));
            }
        };
        let complete = self.complete.get();
        match part {
            Part::Outside => add(self.outside),
            Part::All => {
                add(self.outside);
                if let Some(complete) = complete {
                    (0..2 * complete.processes).for_each(|number| add(complete.block(number)));
                }
            }
            Part::Process(process_no) => match complete {
                Some(complete) if process_no < complete.processes => {
                    add(complete.block(2 * process_no));
                    add(complete.block(2 * process_no + 1));
                }
                _ => return false,
            },
        }
        true
    }

    pub(crate) fn sample(&self, entry: &StatEntry, part: Part) -> Sample {
        let mut words = vec![0; entry.what.words()];
        self.read(entry, part, &mut words);
        Sample::from_words(entry.what, &words)
    }

    /// Entries whose names begin with one of the prefixes (all if there is none), ordered by name.
    pub(crate) fn matching(&self, prefixes: &[&str]) -> Vec<&'static StatEntry> {
        let all = (0..).map_while(|index| self.entry(index));
        let mut found: Vec<_> =
            all.filter(|entry| prefixes.is_empty() || prefixes.iter().any(|prefix| entry.what.starts_with(prefix))).collect();
        found.sort_by_key(|entry| (entry.what.module, entry.what.name));
        found
    }

    fn address(&self) -> usize {
        self.outside.as_ptr().expose_provenance()
    }
}

/// The error is a detail and a hint.
fn check(request: &StatRequest) -> Result<(), (String, &'static str)> {
    let name = request.name.as_bytes();
    let is_name = (1..=NAME_MAX_BYTES).contains(&name.len())
        && name[0].is_ascii_lowercase()
        && name.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !is_name {
        return Err(("it is not a valid name".into(), "1 to 47 of a-z, 0-9 and _, the first one a letter"));
    }
    if request.help.len() > HELP_MAX_BYTES || request.help.chars().any(char::is_control) {
        return Err(("its help text is not valid".into(), "at most 200 bytes in one line"));
    }
    if request.flags & !abi::STAT_SHARED != 0 || (request.flags != 0 && request.kind != Kind::Gauge) {
        return Err((format!("unknown flags {:#x}", request.flags), "only a gauge can be shared"));
    }
    if request.bounds.len() > abi::STAT_MAX_BOUNDS as usize || (!request.bounds.is_empty() && request.kind != Kind::Histogram) {
        return Err((format!("{} bounds", request.bounds.len()), "a histogram may have up to 64, others none"));
    }
    if request.bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(("its bounds do not ascend".into(), "each bound is larger than the one before it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
