//! The log of the supervisor, main and every child: one `write` or datagram per record, so that processes never mix their lines.
//!
//! *Runs in:* every process; `init` in the first, before any fork. *Never:* takes a lock, waits for a syslog or journal, ends its process.
//!
//! The host logs with `tracing`'s macros and [`fault!`](crate::fault); a field `module = name` says which module a record is about. Modules come in through
//! [`module_record`]. A record that cannot be written is counted, and the next that can says how many were lost.
#![deny(unsafe_code)]

mod clock;
mod levels;
mod line;
mod record;
mod settings;
mod sink;

pub use levels::{LEVELS_BYTES, MODULES_MAX};
pub use line::RECORD_BYTES;
pub use settings::{Format, LogSettings, Severity, Target};

use crate::error::{Error, Result, io_text};
use crate::sys::fast_fork::process_identity::{self, NAME_BYTES, this_process};
use levels::Levels;
use line::Line;
use nix::unistd::{Gid, Uid};
use record::{Fields, KeptOldFile, Record, Sent};
use sink::{Creation, Protocol, Sink};
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

/// Logs a fault of our own: what the host guarantees did not hold. Takes what `tracing::error!` takes.
#[macro_export]
macro_rules! fault {
    ($($event:tt)+) => { ::tracing::error!(target: "fault", $($event)+) };
}

/// The target by which [`Severity::Fault`] travels through `tracing`, whose worst level is ERROR.
const FAULT: &str = "fault";

static LOG: OnceLock<&'static Log> = OnceLock::new();

/// Before `init`, so that every call has an answer.
static EARLY_LEVEL: AtomicU32 = AtomicU32::new(Severity::Info as u32);

thread_local! {
    /// Zero-initialised thread-local memory: a page is touched only when a record is written, and only as far as records reach.
    static BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer([0; RECORD_BYTES])) };
}

/// Where a record is put together.
///
/// Its alignment is for what lies behind: the C library puts a thread's control block at the end of its thread-local memory, aligned as that is, and
/// the kernel writes to both ends of that block at each fork. At the start of a page it is in one page, otherwise often in two, and what is
/// written to is copied.
#[repr(align(4096))]
struct Buffer([u8; RECORD_BYTES]);

/// Opens the target and installs the log for this process and all forked from it.
///
/// # Errors
/// The target cannot be opened, no memory can be shared, or the log is installed already.
#[inline(never)]
pub fn init(settings: &LogSettings) -> Result<()> {
    let log: &'static Log = Box::leak(Box::new(Log::open(settings)?));
    let twice = || Error::fault("the log was initialised twice");
    LOG.set(log).map_err(|_| twice())?;
    tracing::dispatcher::set_global_default(tracing::Dispatch::new(Front(log))).map_err(|_| twice())
}

/// Names this process in its records ("worker 3"). Part of the child prologue: it also forgets records that the parent lost.
pub fn set_process(name: &ProcessName) {
    if let Some(log) = LOG.get() {
        // A child writes to its own page anyway; the log is on one that it would have to copy.
        name.write_to(if this_process().pid() == 0 { &log.label } else { this_process().name() });
        if log.lost.load(Relaxed) > 0 {
            log.lost.store(0, Relaxed);
        }
    }
}

/// Writes a record that a module sent, unless its threshold says no. `level` counts as the ABI does; 0 counts as 1. Any thread may call.
pub fn module_record(module_name: &str, level: u32, target: &str, text: &str) {
    if let Some(log) = LOG.get() {
        // A module cannot report a fault of the host.
        let level = level.clamp(Severity::Error as u32, Severity::Trace as u32);
        if level <= log.levels.module(module_name).load(Relaxed) {
            log.emit(Severity::from_number(level), target, &Sent { module: module_name, text });
        }
    }
}

/// The threshold of the host, shared by all processes.
pub fn level() -> &'static AtomicU32 {
    LOG.get().map_or(&EARLY_LEVEL, |log| log.levels.host())
}

/// The threshold cell of a module, shared by all processes. Called in main when it loads the module: a cell made later is known to one process only.
/// The host's own cell when there are more than [`MODULES_MAX`] modules.
pub fn module_level(name: &str) -> &'static AtomicU32 {
    LOG.get().map_or(&EARLY_LEVEL, |log| log.levels.module_or_new(name))
}

/// Sets the threshold of the host, and of every module without its own, in all processes.
pub fn set_level(level: Severity) {
    match LOG.get() {
        Some(log) => log.levels.set_host(level),
        None => EARLY_LEVEL.store(level as u32, Relaxed),
    }
}

/// Sets a module's threshold in all processes, or with `None` lets it follow the host's.
pub fn set_module_level(name: &str, level: Option<Severity>) {
    if let Some(log) = LOG.get() {
        log.levels.set_module(name, level);
    }
}

/// Whether the file of these settings could be opened, as far as can be known without making it.
///
/// # Errors
/// Those of the start.
pub fn check_file(settings: &LogSettings) -> Result<()> {
    Sink::check(&settings.target)
}

/// Opens the log file anew (it was rotated), gives it to `owner`, and tells every other process to do the same at its next record.
/// Called in the supervisor, with its identity: on SIGHUP, and once after `init` when privileges will be dropped.
///
/// # Errors
/// The path cannot be opened or chowned; all processes go on with the file they have.
pub fn reopen(owner: Option<(Uid, Gid)>) -> Result<()> {
    LOG.get().map_or(Ok(()), |log| log.reopen(owner))
}

/// Descriptors that a child must keep open, besides 2. The numbers never change.
pub fn open_descriptors() -> impl Iterator<Item = RawFd> {
    LOG.get().and_then(|log| log.sink.descriptor()).into_iter()
}

struct Log {
    sink: Sink,
    format: Format,
    levels: Levels,
    /// Of the process that opened it, and of main.
    label: Label,
    /// The generation of the file that this process has open.
    generation: AtomicU32,
    /// Records that could not be written since the last that was.
    lost: AtomicU64,
}

impl Log {
    fn open(settings: &LogSettings) -> Result<Self> {
        let levels = Levels::new(settings)?;
        let (label, generation, lost) = (Label::default(), AtomicU32::new(0), AtomicU64::new(0));
        Ok(Self { sink: Sink::open(&settings.target)?, format: settings.format, levels, label, generation, lost })
    }

    fn emit(&self, severity: Severity, target: &str, fields: &dyn Fields) {
        self.follow_reopen();
        // Borrowed already: a value that logs while it is being written. That record is lost, the outer one is not.
        let written = BUFFER.try_with(|buffer| {
            let mut bytes = buffer.try_borrow_mut().ok()?;
            let mut line = Line::new(&mut bytes.0);
            self.write(severity, target, fields, &mut line)
        });
        if written != Ok(Some(())) {
            self.lost.fetch_add(1, Relaxed);
            crate::stats::count(crate::stats::Own::LogLost, 1);
        }
    }

    fn write(&self, severity: Severity, target: &str, fields: &dyn Fields, line: &mut Line<'_>) -> Option<()> {
        let mut name = [0; NAME_BYTES];
        // Taken, not read: two threads must not report the same ones. The load keeps the page clean while there are none.
        let lost = if self.lost.load(Relaxed) == 0 { 0 } else { self.lost.swap(0, Relaxed) };
        let (time, pid) = (SystemTime::now().into(), std::process::id());
        let record = Record { time, severity, process: self.process(&mut name), pid, target, fields, lost };
        if self.sink.is_torn() {
            line.raw("\n");
        }
        match self.sink {
            Sink::Stderr(_) | Sink::File { .. } => record.line(self.format, line),
            Sink::Datagram { protocol: Protocol::Syslog, .. } => record.syslog(self.format, line),
            Sink::Datagram { protocol: Protocol::Journald, .. } => record.journald(line),
        }
        let written = self.sink.write(line.as_bytes());
        if written.is_err() {
            self.lost.fetch_add(lost, Relaxed);
        }
        written.ok()
    }

    fn reopen(&self, owner: Option<(Uid, Gid)>) -> Result<()> {
        let Some(path) = self.sink.path() else { return Ok(()) };
        self.sink.reopen(Creation::IfMissing, owner).map_err(|error| {
            let detail = format!("{}: {}", path.display(), io_text(&error));
            Error::failed("cannot reopen the log file").detail(detail).hint("records go to the old file until it can be opened")
        })?;
        // First ours, then everyone's, so that this process does not follow itself.
        let next = self.levels.generation().load(Relaxed).wrapping_add(1);
        self.generation.store(next, Relaxed);
        self.levels.generation().store(next, Relaxed);
        Ok(())
    }

    fn follow_reopen(&self) {
        let (seen, current) = (self.generation.load(Relaxed), self.levels.generation().load(Relaxed));
        // One thread of this process wins; a failure is not tried again before the next SIGHUP.
        if seen == current || self.generation.compare_exchange(seen, current, Relaxed, Relaxed).is_err() {
            return;
        }
        // The supervisor made the file; made here, it would be in the wrong hands.
        if let Err(error) = self.sink.reopen(Creation::Never, None) {
            self.emit(Severity::Warn, module_path!(), &KeptOldFile { error: &error });
        }
    }
}

/// What the records of a process begin with that the host did not fork.
const STRANGER: &str = "forked by a module";

/// The name of a process in its records. Words, not a locked string: a module may fork while one of its threads logs.
type Label = [AtomicU64; NAME_BYTES / 8];

/// Such a name, made before a fork, so that the child has nothing to copy together.
#[derive(Debug, Clone, Copy)]
pub struct ProcessName([u64; NAME_BYTES / 8]);

impl ProcessName {
    /// Cut to 32 bytes, between two characters.
    pub fn new(name: &str) -> Self {
        let end = line::whole_characters(name, NAME_BYTES);
        let mut bytes = [0; NAME_BYTES];
        bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
        let mut words = [0; NAME_BYTES / 8];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*chunk);
        }
        Self(words)
    }

    fn write_to(&self, label: &Label) {
        for (place, word) in label.iter().zip(self.0) {
            place.store(word, Relaxed);
        }
    }
}

fn read<'b>(label: &Label, bytes: &'b mut [u8; NAME_BYTES]) -> &'b str {
    for (word, chunk) in label.iter().zip(bytes.as_chunks_mut().0) {
        *chunk = word.load(Relaxed).to_ne_bytes();
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    std::str::from_utf8(&bytes[..end]).unwrap_or("?")
}

impl Log {
    /// Who is writing.
    fn process<'b>(&self, bytes: &'b mut [u8; NAME_BYTES]) -> &'b str {
        let process = this_process();
        if process.pid() == 0 && process_identity::is_prepared() {
            return STRANGER;
        }
        let is_child = process.name()[0].load(Relaxed) != 0;
        read(if is_child { process.name() } else { &self.label }, bytes)
    }
}

/// What `tracing` talks to.
struct Front(&'static Log);

impl tracing::Subscriber for Front {
    /// Thresholds change at run time, so `tracing` may not remember an answer; spans are never wanted.
    fn register_callsite(&self, metadata: &'static tracing::Metadata<'static>) -> tracing::subscriber::Interest {
        if metadata.is_event() { tracing::subscriber::Interest::sometimes() } else { tracing::subscriber::Interest::never() }
    }

    /// One relaxed load.
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && severity_of(metadata) as u32 <= self.0.levels.host().load(Relaxed)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let severity = severity_of(metadata);
        let target = if severity == Severity::Fault { metadata.module_path().unwrap_or(FAULT) } else { metadata.target() };
        self.0.emit(severity, target, event);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn severity_of(metadata: &tracing::Metadata<'_>) -> Severity {
    match *metadata.level() {
        tracing::Level::ERROR if metadata.target() == FAULT => Severity::Fault,
        tracing::Level::ERROR => Severity::Error,
        tracing::Level::WARN => Severity::Warn,
        tracing::Level::INFO => Severity::Info,
        tracing::Level::DEBUG => Severity::Debug,
        tracing::Level::TRACE => Severity::Trace,
    }
}

#[cfg(test)]
mod tests;
