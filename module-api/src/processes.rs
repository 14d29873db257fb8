//! Reading the process table: thin calls to the host, and rows for display.
//!
//! Any process and thread, from `proc_init` on.

use std::fmt::Write as _;
use std::time::Duration;

use crate::abi;
use crate::host::host;
use crate::process::{Pid, Rank};
use crate::stats::quoted;
use crate::{Batch, ChildInit, Destroy, Module, PostChildInit, ProcInit, ProcMain, Process, TimerCx};

/// Reads the process table and facts about the host. Made by `cx.processes()` and
/// [`Batch::processes`](crate::Batch::processes); can be kept and used in any thread.
///
/// ```
/// # use module_api::prelude::*;
/// # use module_api::ProcessState;
/// # fn of(batch: &Batch<'_>) -> usize {
/// let waiting = batch.processes().iter().filter(|row| row.state == ProcessState::Waiting).count();
/// # waiting
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Processes(());

impl Processes {
    /// For contexts of phases in which the table can be read.
    pub(crate) fn new() -> Processes {
        Processes(())
    }

    /// The rows in the order of `process_no`, main's first; each row is read when the iterator
    /// reaches it. A row is read word by word while others write: while a process is being
    /// replaced, its row may have the new pid and the old uptime.
    pub fn iter(self) -> ProcessRows {
        ProcessRows { next: 0 }
    }

    /// One row; none past the last.
    pub fn row(self, process_no: usize) -> Option<ProcessRow> {
        let mut row = abi::ProcessRow { size: size_of::<abi::ProcessRow>() as u32, ..abi::ProcessRow::EMPTY };
        let host = host();
        let code = (host.api.process_at)(host.module, u32::try_from(process_no).ok()?, &raw mut row);
        (code == abi::OK).then(|| ProcessRow::of(&row))
    }

    /// The host that runs the module.
    pub fn host(self) -> HostInfo {
        let mut info = abi::HostInfo { size: size_of::<abi::HostInfo>() as u32, ..abi::HostInfo::EMPTY };
        let host = host();
        // This cannot fail: a `Processes` exists from `proc_init` on only, and the size is right.
        // If it did, the info stays empty.
        let _ = (host.api.host_info)(host.module, &raw mut info);
        HostInfo { pid: Pid::new(info.pid), version: text(&info.version) }
    }
}

impl IntoIterator for Processes {
    type Item = ProcessRow;
    type IntoIter = ProcessRows;

    fn into_iter(self) -> ProcessRows {
        self.iter()
    }
}

/// Iterator over the rows, each read when it is reached.
#[derive(Debug)]
pub struct ProcessRows {
    next: usize,
}

impl Iterator for ProcessRows {
    type Item = ProcessRow;

    fn next(&mut self) -> Option<ProcessRow> {
        let row = Processes(()).row(self.next)?;
        self.next += 1;
        Some(row)
    }
}

/// State of a slot of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessState {
    /// Never forked.
    Free,
    /// Forked, in its own initialisation.
    Starting,
    /// Initialised.
    Serving,
    /// Dead, to be restarted later.
    Waiting,
    /// Ended, not to be restarted.
    Ended,
    /// A state that only a newer host knows.
    Unknown,
}

impl ProcessState {
    /// The word in `modhost ps`.
    pub fn name(self) -> &'static str {
        match self {
            ProcessState::Free => "free",
            ProcessState::Starting => "starting",
            ProcessState::Serving => "serving",
            ProcessState::Waiting => "waiting",
            ProcessState::Ended => "ended",
            ProcessState::Unknown => "unknown",
        }
    }

    fn from_number(number: u32) -> ProcessState {
        match number {
            abi::PROCESS_FREE => ProcessState::Free,
            abi::PROCESS_STARTING => ProcessState::Starting,
            abi::PROCESS_SERVING => ProcessState::Serving,
            abi::PROCESS_WAITING => ProcessState::Waiting,
            abi::PROCESS_ENDED => ProcessState::Ended,
            _ => ProcessState::Unknown,
        }
    }
}

/// A row of the process table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessRow {
    /// Index of the row: the slot in `modhost ps`.
    pub process_no: usize,
    /// As in the process title.
    pub name: String,
    /// The rank that `child_init` got; 0 for main, and for a process that was never forked.
    pub rank: Rank,
    /// Process id; none: there is no process now.
    pub pid: Option<Pid>,
    /// State of the slot.
    pub state: ProcessState,
    /// How often the slot was forked again.
    pub restarts: u32,
    /// Time since this process was forked; none: there is no process now.
    pub uptime: Option<Duration>,
    /// The call into a module that the process is in, or died in.
    pub last: Option<LastCall>,
}

/// A call into a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCall {
    /// What the call is for, in the words of the log: `a datagram handler`.
    pub phase: String,
    /// The module's name.
    pub module: String,
}

/// The host that runs the module.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostInfo {
    /// The process to send signals to: the supervisor, or main in no-fork mode.
    pub pid: Pid,
    /// The host's version: `0.1.0`.
    pub version: String,
}

impl ProcessRow {
    /// A slot without a process, for tests, which set the other fields.
    pub fn new(process_no: usize, name: &str) -> ProcessRow {
        ProcessRow {
            process_no,
            name: name.to_owned(),
            rank: Rank::new(0),
            pid: None,
            state: ProcessState::Free,
            restarts: 0,
            uptime: None,
            last: None,
        }
    }

    fn of(row: &abi::ProcessRow) -> ProcessRow {
        let last = LastCall { phase: text(&row.phase), module: text(&row.module) };
        ProcessRow {
            process_no: row.process_no as usize,
            name: text(&row.name),
            rank: Rank::new(row.rank),
            pid: (row.pid > 0).then(|| Pid::new(row.pid)),
            state: ProcessState::from_number(row.state),
            restarts: row.restarts,
            uptime: (row.pid > 0).then(|| Duration::from_nanos(row.uptime_ns)),
            last: (!last.module.is_empty()).then_some(last),
        }
    }

    /// The object of `modhost ps --json`: `slot`, `pid`, `rank`, `name`, `state`, `uptime_ms`,
    /// `restarts`, and `last` with `phase` and `module`.
    pub fn write_json(&self, json: &mut String) {
        let or_null = |number: Option<u128>| number.map_or_else(|| "null".to_owned(), |number| number.to_string());
        let pid = or_null(self.pid.map(|pid| u128::from(pid.get().unsigned_abs())));
        // Writing to a `String` does not fail.
        let _ = write!(json, "{{\"slot\":{},\"pid\":{pid},\"rank\":{},\"name\":", self.process_no, self.rank);
        quoted(json, &self.name);
        let (state, uptime) = (self.state.name(), or_null(self.uptime.map(|uptime| uptime.as_millis())));
        let _ = write!(json, ",\"state\":\"{state}\",\"uptime_ms\":{uptime},\"restarts\":{},\"last\":", self.restarts);
        match &self.last {
            None => json.push_str("null"),
            Some(last) => {
                json.push_str("{\"phase\":");
                quoted(json, &last.phase);
                json.push_str(",\"module\":");
                quoted(json, &last.module);
                json.push('}');
            }
        }
        json.push('}');
    }
}

/// The text before the NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

macro_rules! impl_processes {
    ($($context:ident [$($generics:tt)*] [$($arguments:tt)*]),* $(,)?) => {$(
        impl<$($generics)*> $context<$($arguments)*> {
            /// The process table, and facts about the host.
            pub fn processes(&self) -> Processes {
                Processes::new()
            }
        }
    )*};
}
impl_processes!(
    ProcInit[M: Module] ['_, M], ProcMain[M: Module] ['_, M], ChildInit[] ['_], Process[] ['_], TimerCx[] ['_], PostChildInit[] ['_],
    Destroy[] ['_], Batch[] ['_],
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{fake, install};

    fn busy() -> ProcessRow {
        ProcessRow {
            pid: Some(Pid::new(4711)),
            rank: Rank::new(1),
            state: ProcessState::Serving,
            restarts: 3,
            uptime: Some(Duration::from_millis(61_000)),
            last: Some(LastCall { phase: "a datagram handler".to_owned(), module: "echo".to_owned() }),
            ..ProcessRow::new(1, "worker <1> \"\u{e9}\"")
        }
    }

    #[test]
    fn rows_are_the_hosts() {
        install();
        assert_eq!(Processes::new().iter().count(), 0, "before there is a table");
        let rows = vec![ProcessRow::new(0, "main"), busy(), ProcessRow { state: ProcessState::Waiting, ..ProcessRow::new(2, "") }];
        fake(|fake| (fake.max_procs, fake.processes) = (3, rows.clone()));
        assert_eq!(Processes::new().into_iter().collect::<Vec<_>>(), rows);
        assert_eq!(Processes::new().row(1), Some(busy()));
        assert_eq!([3, usize::MAX].map(|process_no| Processes::new().row(process_no)), [None, None]);
        assert!(Processes::new().host().version.starts_with(|first: char| first.is_ascii_digit()));
    }

    #[test]
    fn a_text_without_nul_is_read_to_its_end_and_garbage_becomes_text() {
        assert_eq!(text(b"ab\0c"), "ab");
        assert_eq!(text(b"ab"), "ab");
        assert_eq!(text(b"\xffb\0"), "\u{fffd}b");
        assert_eq!(ProcessState::from_number(u32::MAX).name(), "unknown");
    }

    #[test]
    fn json_is_that_of_ps() {
        let json = |row: &ProcessRow| {
            let mut json = String::new();
            row.write_json(&mut json);
            json
        };
        assert_eq!(
            json(&busy()),
            "{\"slot\":1,\"pid\":4711,\"rank\":1,\"name\":\"worker <1> \\\"\u{e9}\\\"\",\"state\":\"serving\",\"uptime_ms\":61000,\
             \"restarts\":3,\"last\":{\"phase\":\"a datagram handler\",\"module\":\"echo\"}}"
        );
        let free = "{\"slot\":7,\"pid\":null,\"rank\":0,\"name\":\"x\",\"state\":\"free\",\"uptime_ms\":null,\"restarts\":0,\"last\":null}";
        assert_eq!(json(&ProcessRow::new(7, "x")), free);
    }
}
