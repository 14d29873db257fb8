//! The list of all counters, and the memory behind it.
//!
//! *Runs in:* main up to the end of `PROC_INIT` (registering); every process (reading). *Never:* changes after that, or takes a lock then.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use module_api::abi;
use module_api::stats::{Description, Kind, Part, Sample, Unit};

use super::Own;
use crate::error::{Error, Result};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::memory::mapping::Mapping;

/// Words of all counters together: 260 histograms, or many more counters. What is not registered costs nothing.
const MAX_WORDS: usize = 65_536;
/// Blocks begin on lines of their own, two of them, because processors fetch neighbours together.
const BLOCK_BYTES: usize = 128;
const WORD_BYTES: usize = size_of::<u64>();

/// Shared memory before the list is complete. What comes then depends on the list.
pub const OUTSIDE_BYTES: usize = MAX_WORDS * WORD_BYTES;

/// Longest name and help, in bytes.
pub const MAX_NAME_BYTES: usize = 47;
/// Longest help, in bytes.
pub const MAX_HELP_BYTES: usize = 200;

/// What is asked for.
#[derive(Debug)]
pub struct Wish {
    /// Its name without the module's.
    pub name: String,
    /// One sentence.
    pub help: String,
    /// Which of the three.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// `STAT_SHARED`.
    pub flags: u32,
    /// Of a histogram.
    pub bounds: Vec<u64>,
}

/// One counter, gauge or histogram. Lives as long as main.
#[derive(Debug)]
pub struct Entry {
    /// As readers see it.
    pub what: Description,
    /// `STAT_SHARED`.
    pub flags: u32,
    /// The same texts for C.
    pub module: CString,
    /// As above.
    pub name: CString,
    /// As above.
    pub help: CString,
    /// Index of its first word in each block.
    first: usize,
}

/// The list and the memory.
#[derive(Debug)]
pub struct Registry {
    /// The words that no process of the table owns.
    outside: &'static [AtomicU64],
    /// Until the list is complete.
    list: Mutex<List>,
    complete: OnceLock<Complete>,
}

/// What was registered.
#[derive(Debug, Default)]
struct List {
    entries: Vec<&'static Entry>,
    /// All that they are called in Prometheus, and what that is a name of.
    names: BTreeMap<String, String>,
}

/// What is known when every `PROC_INIT` has returned.
#[derive(Debug)]
struct Complete {
    entries: Vec<&'static Entry>,
    words: &'static [AtomicU64],
    block_words: usize,
    processes: usize,
}

impl Complete {
    /// The block of a slot's own thread, or the one of its other threads behind it.
    fn block(&self, number: usize) -> &'static [AtomicU64] {
        let start = number * self.block_words;
        self.words.get(start..start + self.block_words).unwrap_or_default()
    }
}

impl Registry {
    /// With the host's own counters. In main, before any module is loaded.
    pub fn new() -> Result<Self> {
        let outside = Mapping::shared(OUTSIDE_BYTES)?.words();
        let registry = Self { outside, list: Mutex::default(), complete: OnceLock::new() };
        for (number, (name, help)) in Own::ALL.into_iter().enumerate() {
            let (name, help) = (name.to_owned(), help.to_owned());
            let kind = if number < Own::ConnectionsNow as usize { Kind::Counter } else { Kind::Gauge };
            registry.register("host", Wish { name, help, kind, unit: Unit::One, flags: 0, bounds: Vec::new() })?;
        }
        Ok(registry)
    }

    /// Adds one, and gives the address of its first word outside of all processes' blocks. In main, before the list is complete.
    pub fn register(&self, module: &str, wish: Wish) -> Result<usize> {
        let refused = |detail: String| Error::failed(format!("module \"{module}\" cannot count as \"{}\"", wish.name)).detail(detail);
        check(&wish).map_err(|(detail, hint)| refused(detail).hint(hint))?;
        if self.complete.get().is_some() {
            return Err(refused("the list of counters is complete".into()));
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |text: &str| CString::new(text).map_err(|_| refused("a text contains a zero byte".into()));
        let (module_text, name, help) = (text(module)?, text(&wish.name)?, text(&wish.help)?);
        let leak = |text: &str| -> &'static str { String::leak(text.to_owned()) };
        let what = Description {
            module: leak(module),
            name: leak(&wish.name),
            help: leak(&wish.help),
            kind: wish.kind,
            unit: wish.unit,
            bounds: wish.bounds.clone().leak(),
        };
        let names = what.prometheus_names();
        if list.entries.iter().any(|other| other.what.module == module && other.what.name == wish.name) {
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
        list.entries.push(Box::leak(Box::new(Entry { what, flags: wish.flags, module: module_text, name, help, first })));
        Ok(self.address() + first * WORD_BYTES)
    }

    /// Lays the blocks out. In main, when every `PROC_INIT` has returned, before anything is forked.
    pub fn complete(&self, processes: usize) -> Result<()> {
        let List { entries, .. } = std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
        let used = entries.last().map_or(0, |last| last.first + last.what.words());
        let block_words = (used * WORD_BYTES).next_multiple_of(BLOCK_BYTES) / WORD_BYTES;
        let words = Mapping::shared(processes.max(1) * 2 * block_words * WORD_BYTES)?.words();
        let complete = Complete { entries, words, block_words, processes };
        // What main has counted until now was main's.
        for (before, main) in self.outside[..used].iter().zip(complete.block(0)) {
            main.store(before.swap(0, Relaxed), Relaxed);
        }
        self.complete.set(complete).map_err(|_| Error::fault("the list of counters was completed twice"))?;
        self.settle(0);
        Ok(())
    }

    /// Tells the calling process where it counts. In main and in each child's prologue, before any code of a module runs there.
    pub fn settle(&self, process_no: usize) {
        let Some(complete) = self.complete.get() else { return };
        let distance = |number| (complete.block(number).as_ptr() as usize).wrapping_sub(self.address());
        if process_no < complete.processes {
            this_process().count_at(module_api::stats::cells::thread_pointer(), distance(2 * process_no), distance(2 * process_no + 1));
        }
    }

    /// What a process had ends with it: its part of each gauge, except of those that are shared. In main, when it is dead.
    pub fn process_ended(&self, process_no: usize) {
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

    /// The words that the host's own thread of this process counts in.
    pub(super) fn own_words(&self) -> &'static [AtomicU64] {
        match (self.complete.get(), usize::try_from(this_process().process_no())) {
            (Some(complete), Ok(process_no)) => complete.block(2 * process_no),
            _ => self.outside,
        }
    }

    /// The words that any thread of this process may count in, by an atomic addition.
    pub(super) fn words_of_any_thread(&self) -> &'static [AtomicU64] {
        match (self.complete.get(), usize::try_from(this_process().process_no())) {
            (Some(complete), Ok(process_no)) => complete.block(2 * process_no + 1),
            _ => self.outside,
        }
    }

    /// The `index`-th of all.
    pub fn entry(&self, index: usize) -> Option<&'static Entry> {
        match self.complete.get() {
            Some(complete) => complete.entries.get(index).copied(),
            None => self.list.lock().unwrap_or_else(PoisonError::into_inner).entries.get(index).copied(),
        }
    }

    /// Number of processes that there are words for; 0 while the list is not complete.
    pub fn processes(&self) -> usize {
        self.complete.get().map_or(0, |complete| complete.processes)
    }

    /// Adds up the words of one entry: of all processes or of some. Whether there is such a process.
    pub fn read(&self, entry: &Entry, part: Part, into: &mut [u64]) -> bool {
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

    /// The value of one entry.
    pub fn sample(&self, entry: &Entry, part: Part) -> Sample {
        let mut words = vec![0; entry.what.words()];
        self.read(entry, part, &mut words);
        Sample::from_words(entry.what, &words)
    }

    /// Those whose names begin with one of the prefixes (with none: all), in the order of their names.
    pub fn matching(&self, prefixes: &[&str]) -> Vec<&'static Entry> {
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

/// What is wrong with a wish, and what would be right.
fn check(wish: &Wish) -> Result<(), (String, &'static str)> {
    let name = wish.name.as_bytes();
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name[0].is_ascii_lowercase()
        && name.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !is_name {
        return Err(("it is no name".into(), "1 to 47 of a-z, 0-9 and _, the first one a letter"));
    }
    if wish.help.len() > MAX_HELP_BYTES || wish.help.chars().any(char::is_control) {
        return Err(("its help is no sentence".into(), "at most 200 bytes in one line"));
    }
    if wish.flags & !abi::STAT_SHARED != 0 || (wish.flags != 0 && wish.kind != Kind::Gauge) {
        return Err((format!("unknown flags {:#x}", wish.flags), "only a gauge can be shared"));
    }
    if wish.bounds.len() > abi::STAT_MAX_BOUNDS as usize || (!wish.bounds.is_empty() && wish.kind != Kind::Histogram) {
        return Err((format!("{} bounds", wish.bounds.len()), "a histogram may have up to 64, others none"));
    }
    if wish.bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(("its bounds do not ascend".into(), "each bound is larger than the one before it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use module_api::stats::Value;

    use super::*;

    fn wish(name: &str, kind: Kind) -> Wish {
        Wish { name: name.into(), help: "help".into(), kind, unit: Unit::One, flags: 0, bounds: Vec::new() }
    }

    fn registry() -> Registry {
        let registry = Registry::new().unwrap();
        registry.register("m", wish("counter", Kind::Counter)).unwrap();
        registry.register("m", wish("gauge", Kind::Gauge)).unwrap();
        registry.register("m", Wish { flags: abi::STAT_SHARED, ..wish("shared", Kind::Gauge) }).unwrap();
        registry.register("m", wish("histogram", Kind::Histogram)).unwrap();
        registry
    }

    fn word(registry: &Registry, name: &str, block: usize) -> &'static AtomicU64 {
        let entry = registry.matching(&[name])[0];
        &registry.complete.get().unwrap().block(block)[entry.first]
    }

    fn value(registry: &Registry, name: &str, part: Part) -> Value {
        registry.sample(registry.matching(&[name])[0], part).value
    }

    #[test]
    fn blocks_are_summed_and_main_keeps_what_it_counted_before() {
        let registry = registry();
        let entry = registry.matching(&["m.counter"])[0];
        registry.outside[entry.first].store(100, Relaxed);
        assert!(!registry.read(entry, Part::Process(0), &mut [0]));
        assert_eq!(value(&registry, "m.counter", Part::All), Value::Counter(100));
        registry.complete(3).unwrap();
        for block in 0..6 {
            word(&registry, "m.counter", block).fetch_add(1 << block, Relaxed);
        }
        registry.outside[entry.first].fetch_add(1000, Relaxed);
        let parts = [Part::All, Part::Outside, Part::Process(0), Part::Process(1), Part::Process(2), Part::Process(3)];
        let sums = [1163, 1000, 103, 12, 48, 0];
        assert_eq!(parts.map(|part| value(&registry, "m.counter", part)), sums.map(Value::Counter));
        assert!(registry.complete(3).is_err());
        assert!(registry.register("m", wish("late", Kind::Counter)).is_err());
    }

    #[test]
    fn blocks_share_no_cache_line() {
        let registry = registry();
        registry.complete(2).unwrap();
        let complete = registry.complete.get().unwrap();
        for block in 0..4 {
            assert_eq!(complete.block(block).as_ptr() as usize % BLOCK_BYTES, 0);
        }
        assert_eq!(complete.block(4).len(), 0);
        let used: usize = complete.entries.iter().map(|entry| entry.what.words()).sum();
        assert!(complete.block(0).len() >= used && complete.block(0).len() < used + BLOCK_BYTES);
    }

    #[test]
    fn the_end_of_a_process_takes_its_part_of_gauges_and_nothing_else() {
        let registry = registry();
        registry.complete(3).unwrap();
        for name in ["m.counter", "m.gauge", "m.shared", "m.histogram"] {
            for process_no in 0..3 {
                word(&registry, name, 2 * process_no).store(5, Relaxed);
            }
        }
        [1, 1, 7].into_iter().for_each(|process_no| registry.process_ended(process_no));
        assert_eq!(value(&registry, "m.counter", Part::All), Value::Counter(15));
        assert_eq!(value(&registry, "m.gauge", Part::All), Value::Gauge(10));
        assert_eq!(value(&registry, "m.shared", Part::All), Value::Gauge(15));
        assert_eq!(word(&registry, "m.histogram", 2).load(Relaxed), 5);
    }

    #[test]
    fn what_cannot_be_counted_is_refused_with_a_reason() {
        let registry = registry();
        let long = "x".repeat(48);
        for name in ["", "Upper", "1st", "_x", "a-b", "a.b", "ä", &long] {
            let error = registry.register("m", wish(name, Kind::Counter)).unwrap_err();
            assert_eq!(error.detail, "it is no name", "{name}");
        }
        let twice = registry.register("m", wish("counter", Kind::Gauge)).unwrap_err();
        assert_eq!(twice.what, "module \"m\" cannot count as \"counter\"");
        assert_eq!(twice.detail, "it has that name already");
        registry.register("other", wish("counter", Kind::Counter)).unwrap();
        // modhost_m_histogram_sum is the histogram's, and modhost_a_b_c can be of two modules.
        assert!(registry.register("m", wish("histogram_sum", Kind::Gauge)).unwrap_err().detail.contains("m.histogram"));
        registry.register("a_b", wish("c", Kind::Counter)).unwrap();
        assert!(registry.register("a-b", wish("c", Kind::Counter)).is_err());
        assert!(registry.register("m", Wish { help: "two\nlines".into(), ..wish("x", Kind::Counter) }).is_err());
        assert!(registry.register("m", Wish { flags: 1, ..wish("x", Kind::Counter) }).is_err());
        assert!(registry.register("m", Wish { flags: 2, ..wish("x", Kind::Gauge) }).is_err());
        for bounds in [vec![1, 1], vec![2, 1], (0..65).collect()] {
            assert!(registry.register("m", Wish { bounds, ..wish("x", Kind::Histogram) }).is_err());
        }
        assert!(registry.register("m", Wish { bounds: vec![1], ..wish("x", Kind::Counter) }).is_err());
        assert!(registry.register("m", Wish { bounds: (0..64).collect(), ..wish("x", Kind::Histogram) }).is_ok());
    }

    #[test]
    fn there_is_an_end_to_it() {
        let registry = registry();
        let failed = (0..1000).find_map(|number| registry.register("m", wish(&format!("h{number}"), Kind::Histogram)).err());
        assert!(failed.is_some_and(|error| error.detail.contains("65536 words")));
        registry.register("m", wish("small", Kind::Counter)).unwrap();
        assert_eq!(registry.matching(&["host.re", "m.small"]).len(), 4);
        assert_eq!(
            registry.matching(&["host.re"]).iter().map(|entry| entry.what.name).collect::<Vec<_>>(),
            ["received", "refused", "restarts"]
        );
    }
}
