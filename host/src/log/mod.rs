//! The log of the supervisor, main and every child: one `write` or datagram per record, so that
//! processes never mix their lines.
//!
//! *Runs in:* every process; `init` in the first, before any fork. *Never:* takes a lock, waits for
//! a syslog or journal, ends its process, reaches anything of the host but `sys` and `error`.
//!
//! The host logs with `tracing`'s macros and [`fault!`](crate::fault); a field `module = name` says
//! which module a record is about. Records of modules come in through [`module_record`]. A record
//! that cannot be written is counted, and the next one that can be says how many its process lost.
#![deny(unsafe_code)]

mod line;
mod record;
mod settings;
mod shared;
mod sink;
mod timestamp;

pub use settings::{LogSettings, RecordFormat, Severity, SinkTarget};
pub use shared::SHARED_BYTES;

use crate::error::{Error, Result, io_text};
use crate::sys::fast_fork::process_identity::{self, NAME_BYTES, this_process};
use line::{Line, RECORD_BYTES};
use nix::unistd::{Gid, Uid};
use record::{Fields, KeptOldFile, ModuleMessage, Record};
use shared::Shared;
use sink::{FileCreation, LogSink, Protocol};
use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

/// Logs a fault of the host: a guarantee of it was broken. Takes the arguments of
/// `tracing::error!`.
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
    /// Zero-initialised thread-local memory: pages are touched only when a record is written, and
    /// only as far as records reach.
    static BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer([0; RECORD_BYTES])) };
}

/// Where a record is put together.
///
/// The alignment is for the thread's control block, which the C library puts right after the
/// thread-local memory, at the same alignment. The kernel writes to both ends of that block at each
/// fork, and each page written to is copied. At the start of a page the block is in one page,
/// elsewhere often in two.
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
    tracing::dispatcher::set_global_default(tracing::Dispatch::new(EventSubscriber(log))).map_err(|_| twice())
}

/// Sets the name of this process in its records ("worker 3"). Part of the child prologue: it also
/// forgets records that the parent lost and has not reported, so that they are reported once.
pub fn set_process(name: &ProcessName) {
    if let Some(log) = LOG.get() {
        // A child writes to its identity page anyway; the page with the log it would have to copy.
        name.write_to(if this_process().pid() == 0 { &log.label } else { this_process().name() });
        if log.unreported.load(Relaxed) > 0 {
            log.unreported.store(0, Relaxed);
        }
    }
}

/// Writes a module's record if its threshold admits it. `level` counts as the ABI does; 0 counts as
/// 1. Any thread may call.
pub(crate) fn module_record(module_name: &str, level: u32, target: &str, text: &str) {
    if let Some(log) = LOG.get() {
        // A module cannot report a fault of the host.
        let level = level.clamp(Severity::Error as u32, Severity::Trace as u32);
        if level <= log.shared.module_level(module_name).load(Relaxed) {
            log.emit(Severity::from_number(level), target, &ModuleMessage { module: module_name, text });
        }
    }
}

/// A module's threshold cell, shared by all processes; the host's when too many modules have one.
/// Called in main when it loads the module: a cell made later is known to one process only.
pub fn module_level(name: &str) -> &'static AtomicU32 {
    LOG.get().map_or(&EARLY_LEVEL, |log| log.shared.module_level_or_new(name))
}

/// Records that could not be written, counted over the supervisor, main and all their children.
pub(crate) fn lost_records() -> u64 {
    LOG.get().map_or(0, |log| log.shared.lost())
}

/// Whether the file of these settings could be opened, as far as can be known without making it.
///
/// # Errors
/// Those of `init`.
pub(crate) fn check_file(settings: &LogSettings) -> Result<()> {
    LogSink::check(&settings.target)
}

/// Opens the log file again after a rotation, makes `owner` its owner, and has every other process
/// reopen it at its next record. Called in the supervisor, with its identity: on SIGHUP, and once
/// after `init` when privileges will be dropped.
///
/// # Errors
/// The path cannot be opened or chowned; all processes keep the file that they have.
pub fn reopen(owner: Option<(Uid, Gid)>) -> Result<()> {
    LOG.get().map_or(Ok(()), |log| log.reopen(owner))
}

struct Log {
    sink: LogSink,
    format: RecordFormat,
    shared: Shared,
    /// The name of the process that opened the log, and of main.
    label: Label,
    /// How many reopenings this process has followed.
    reopenings: AtomicU32,
    /// Records that this process could not write since the last that it wrote.
    unreported: AtomicU64,
}

impl Log {
    fn open(settings: &LogSettings) -> Result<Self> {
        let shared = Shared::new(settings)?;
        let (label, reopenings, unreported) = (Label::default(), AtomicU32::new(0), AtomicU64::new(0));
        Ok(Self { sink: LogSink::open(&settings.target)?, format: settings.format, shared, label, reopenings, unreported })
    }

    fn emit(&self, severity: Severity, target: &str, fields: &dyn Fields) {
        self.follow_reopening();
        // Borrowed already: a value logs while it is being written. Its record is lost, the outer
        // one is not.
        let written = BUFFER.try_with(|buffer| {
            let mut bytes = buffer.try_borrow_mut().ok()?;
            let mut line = Line::new(&mut bytes.0);
            self.write(severity, target, fields, &mut line)
        });
        if written != Ok(Some(())) {
            self.unreported.fetch_add(1, Relaxed);
            self.shared.count_lost();
        }
    }

    fn write(&self, severity: Severity, target: &str, fields: &dyn Fields, line: &mut Line<'_>) -> Option<()> {
        let mut name = [0; NAME_BYTES];
        // Taken, not read: two threads must not report the same ones. The load keeps the page clean
        // while there are none.
        let lost = if self.unreported.load(Relaxed) == 0 { 0 } else { self.unreported.swap(0, Relaxed) };
        let (time, pid) = (SystemTime::now().into(), std::process::id());
        let record = Record { time, severity, process: self.process(&mut name), pid, target, fields, lost };
        if self.sink.is_torn() {
            line.raw("\n");
        }
        match self.sink {
            LogSink::Stderr(_) | LogSink::File { .. } => record.line(self.format, line),
            LogSink::Datagram { protocol: Protocol::Syslog, .. } => record.syslog(self.format, line),
            LogSink::Datagram { protocol: Protocol::Journald, .. } => record.journald(line),
        }
        let written = self.sink.write(line.as_bytes());
        if written.is_err() {
            self.unreported.fetch_add(lost, Relaxed);
        }
        written.ok()
    }

    fn reopen(&self, owner: Option<(Uid, Gid)>) -> Result<()> {
        let Some(path) = self.sink.path() else { return Ok(()) };
        self.sink.reopen(FileCreation::IfMissing, owner).map_err(|error| {
            let detail = format!("{}: {}", path.display(), io_text(&error));
            Error::failed("cannot reopen the log file").detail(detail).hint("records go to the old file until it can be opened")
        })?;
        // First ours, then everyone's, so that this process does not follow itself.
        let next = self.shared.reopenings().load(Relaxed).wrapping_add(1);
        self.reopenings.store(next, Relaxed);
        self.shared.reopenings().store(next, Relaxed);
        Ok(())
    }

    fn follow_reopening(&self) {
        let (followed, current) = (self.reopenings.load(Relaxed), self.shared.reopenings().load(Relaxed));
        // One thread of this process wins; after a failure the next attempt is at the next SIGHUP.
        if followed == current || self.reopenings.compare_exchange(followed, current, Relaxed, Relaxed).is_err() {
            return;
        }
        // The supervisor made the file. Made here, it would have the wrong owner.
        if let Err(error) = self.sink.reopen(FileCreation::Never, None) {
            self.emit(Severity::Warn, module_path!(), &KeptOldFile { error: &error });
        }
    }

    /// The name of the calling process.
    fn process<'b>(&self, bytes: &'b mut [u8; NAME_BYTES]) -> &'b str {
        let process = this_process();
        if process.pid() == 0 && process_identity::is_prepared() {
            return NOT_OF_THE_HOST;
        }
        let is_child = process.name()[0].load(Relaxed) != 0;
        read(if is_child { process.name() } else { &self.label }, bytes)
    }
}

/// The name in records of a process that the host did not fork.
const NOT_OF_THE_HOST: &str = "forked by a module";

/// The name of a process in its records. Words, not a locked string: a module may fork while one of
/// its threads logs.
type Label = [AtomicU64; NAME_BYTES / 8];

/// A [`Label`]'s contents, made before a fork, so that the child only stores them.
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

/// The subscriber that receives the host's `tracing` events.
struct EventSubscriber(&'static Log);

impl tracing::Subscriber for EventSubscriber {
    /// Thresholds change at run time, so `tracing` must ask each time; spans are never recorded.
    fn register_callsite(&self, metadata: &'static tracing::Metadata<'static>) -> tracing::subscriber::Interest {
        if metadata.is_event() { tracing::subscriber::Interest::sometimes() } else { tracing::subscriber::Interest::never() }
    }

    /// One relaxed load.
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && severity_of(metadata) as u32 <= self.0.shared.level().load(Relaxed)
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
