//! A host that runs, and what is left of one that has ended.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::log::Log;
use crate::processes::{self, Process};
use crate::record::{Record, Records};
use crate::watch::{Deadline, Missed, PATIENCE, until};

/// A started host. If a test drops it, it is stopped and must end well; if a test fails, everything of it is killed and shown.
#[derive(Debug)]
pub struct Host {
    folder: Option<TempDir>,
    /// In the foreground.
    child: Option<Child>,
    /// The supervisor; none if a daemon did not start.
    process: Option<Process>,
    expected: Vec<String>,
    allowed: Vec<String>,
}

/// What a host has left, its end checked: no process, and nothing unexpected in the log.
#[derive(Debug)]
pub struct Ended {
    folder: TempDir,
    pub code: i32,
    pub log: Log,
    pub records: Records,
}

impl Ended {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Waits for the end of a child. Its exit code, or 128 and the number of the signal that killed it.
pub fn wait_for(child: &mut Child, limit: Duration) -> Option<i32> {
    if let Some(process) = Process::open(child.id() as i32)
        && !process.ends(Deadline::after(limit))
    {
        return None;
    }
    let status = child.wait().expect("a status");
    Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

impl Host {
    pub(crate) fn of_child(folder: TempDir, child: Child, expected: Vec<String>, allowed: Vec<String>) -> Self {
        let process = Process::open(child.id() as i32);
        Self { folder: Some(folder), child: Some(child), process, expected, allowed }
    }

    pub(crate) fn of_daemon(folder: TempDir, pid: i32, expected: Vec<String>, allowed: Vec<String>) -> Self {
        Self { folder: Some(folder), child: None, process: Process::open(pid), expected, allowed }
    }

    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("a host that was not consumed").path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Pid of the supervisor; of main in no-fork mode.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("a running host").pid
    }

    /// Pid of main, by its parent.
    #[track_caller]
    pub fn main_pid(&self) -> i32 {
        let supervisor = self.pid();
        let mains: Vec<i32> = self.processes().into_iter().filter(|pid| processes::parent(*pid) == supervisor).collect();
        assert_eq!(mains.len(), 1, "children of the supervisor: {mains:?}\n{}", self.report());
        mains[0]
    }

    /// Pids of main's children.
    pub fn children(&self) -> Vec<i32> {
        self.children_of(self.main_pid())
    }

    /// Pids of the host's processes with that parent.
    pub fn children_of(&self, parent: i32) -> Vec<i32> {
        self.processes().into_iter().filter(|pid| processes::parent(*pid) == parent).collect()
    }

    /// A warning or error with this text may be in the log at the end, too.
    #[must_use]
    pub fn allowing(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Pids of all of the host's processes.
    pub fn processes(&self) -> Vec<i32> {
        processes::running_from(self.folder())
    }

    pub fn log(&self) -> Log {
        Log::parse(&self.read("log"))
    }

    pub fn records(&self) -> Records {
        Records::parse(&self.read("record"))
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    /// Waits until `look` finds something in the folder; fails when the supervisor has ended before.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let process = self.process.as_ref().map(AsFd::as_fd);
        match until(self.folder(), process, Deadline::after(PATIENCE), || look(self)) {
            Ok(found) => found,
            Err(Missed::Ended) => panic!("the host has ended, without {what}\n{}", self.report()),
            Err(Missed::Deadline) => panic!("{what} did not happen in time\n{}", self.report()),
        }
    }

    /// Waits for a line of the log that contains the text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_lines(text, 1);
    }

    /// Waits for so many lines of the log that contain the text.
    #[track_caller]
    pub fn wait_for_log_lines(&self, text: &str, count: usize) {
        self.wait(&format!("\"{text}\" in the log"), |host| (host.log().count(text) >= count).then_some(()));
    }

    /// Waits for the first record for which the condition holds.
    #[track_caller]
    pub fn wait_for_record(&self, what: &str, condition: impl Fn(&Record) -> bool) -> Record {
        self.wait(what, |host| host.records().iter().find(|record| condition(record)).cloned())
    }

    /// Waits until so many records match. All that match by then.
    #[track_caller]
    pub fn wait_for_records(&self, what: &str, count: usize, condition: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.wait(what, |host| {
            let records = host.records();
            let found: Vec<Record> = records.that(&condition).into_iter().cloned().collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Where the host's listeners are bound, as its log says.
    #[track_caller]
    pub fn address(&self, listener: usize) -> SocketAddr {
        self.wait("the addresses of the listeners", |host| {
            let log = host.log();
            let mut addresses =
                log.lines.iter().filter_map(|line| line.text.split_once("listener udp ")?.1.split(' ').next()?.parse().ok());
            addresses.nth(listener)
        })
    }

    /// Every address of a listener, as the log says.
    #[track_caller]
    pub fn addresses(&self, listener: usize) -> Vec<String> {
        self.wait("the addresses of the listeners", |host| {
            let log = host.log();
            let mut listeners = log.lines.iter().filter_map(|line| line.text.split_once("  listener ")?.1.split(' ').nth(1));
            listeners.nth(listener).map(|addresses| addresses.split(',').map(str::to_owned).collect())
        })
    }

    /// A client of the first listener.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::of(self.address(0))
    }

    pub fn signal(&self, signal: Signal) {
        processes::signal_process(self.pid(), signal);
    }

    /// Kills a process of the host and waits until it is gone.
    #[track_caller]
    pub fn kill(&self, pid: i32) {
        let process = Process::open(pid).unwrap_or_else(|| panic!("process {pid} is gone already"));
        process.signal(Signal::KILL);
        assert!(process.ends(Deadline::after(PATIENCE)), "process {pid} survives SIGKILL");
    }

    /// Asks the host to stop as an operator does. It must end well.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ends(0, PATIENCE)
    }

    /// Waits for the end, which must come within the limit and with that code, and checks what is left. A daemon's code is not looked at.
    #[track_caller]
    pub fn ends(mut self, code: i32, limit: Duration) -> Ended {
        match &mut self.child {
            Some(child) => match wait_for(child, limit) {
                Some(ended) if ended == code => {}
                Some(ended) => panic!("the host has ended with {ended}, not with {code}\n{}", self.report()),
                None => panic!("the host does not end\n{}", self.report()),
            },
            None => {
                let ended = self.process.as_ref().is_none_or(|process| process.ends(Deadline::after(limit)));
                assert!(ended, "the host does not end\n{}", self.report());
            }
        }
        // By the time the supervisor has ended everything else has.
        let left = self.processes();
        assert!(left.is_empty(), "processes are left: {left:?}\n{}", self.report());
        self.into_ended(code)
    }

    /// As `ends` for a supervisor that was killed: the others may take a moment.
    #[track_caller]
    pub fn ends_with_its_supervisor(mut self) -> Ended {
        // A process runs no program any more a moment before the kernel closes what it has open, sockets among it.
        let all: Vec<Process> = self.processes().into_iter().filter_map(Process::open).collect();
        self.kill(self.pid());
        if let Some(child) = &mut self.child {
            child.wait().expect("a status");
        }
        let deadline = Deadline::after(PATIENCE);
        assert!(all.iter().all(|process| process.ends(deadline)), "processes are left\n{}", self.report());
        let left = processes::wait_for_none_from(self.folder(), Deadline::after(PATIENCE));
        assert!(left.is_empty(), "processes are left: {left:?}\n{}", self.report());
        // Main may notice it a moment before the kernel ends it.
        self.allowed.push("the supervisor is gone".to_owned());
        self.into_ended(137)
    }

    #[track_caller]
    fn into_ended(mut self, code: i32) -> Ended {
        let (log, records) = (self.log(), self.records());
        let known = [&self.expected[..], &self.allowed[..]].concat();
        let unexpected = log.unexpected(&known);
        assert!(unexpected.is_empty(), "unexpected in the log:\n  {}\n{}", unexpected.join("\n  "), self.report());
        let missing: Vec<&String> = self.expected.iter().filter(|text| !log.contains(text)).collect();
        assert!(missing.is_empty(), "missing in the log: {missing:?}\n{}", self.report());
        let folder = self.folder.take().expect("a host that was not consumed");
        (self.child, self.process) = (None, None);
        Ended { folder, code, log, records }
    }

    /// What a person needs to see why a test failed.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for name in ["modhost.toml", "log", "terminal", "record"] {
            let text = self.read(name);
            if !text.is_empty() {
                let _ = write!(report, "--- {name}\n{text}");
            }
        }
        let _ = writeln!(report, "--- processes");
        for pid in self.processes() {
            let _ = writeln!(report, "{pid} parent={} {}", processes::parent(pid), processes::title(pid));
        }
        report
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Some(folder) = &self.folder else { return };
        let failing = std::thread::panicking();
        let mut trouble = None;
        if !failing {
            if let Some(process) = &self.process {
                process.signal(Signal::TERM);
                if !process.ends(Deadline::after(PATIENCE)) {
                    trouble = Some("the host does not end".to_owned());
                }
            }
            let left = processes::running_from(folder.path());
            if trouble.is_none() && !left.is_empty() {
                trouble = Some(format!("processes are left: {left:?}"));
            }
            let known = [&self.expected[..], &self.allowed[..]].concat();
            let log = self.log();
            if trouble.is_none() && !log.unexpected(&known).is_empty() {
                trouble = Some(format!("unexpected in the log: {:?}", log.unexpected(&known)));
            }
            if let Some(missing) = self.expected.iter().find(|text| !log.contains(text))
                && trouble.is_none()
            {
                trouble = Some(format!("missing in the log: {missing}"));
            }
            trouble = trouble.map(|trouble| format!("{trouble}\n{}", self.report()));
        }
        for pid in processes::running_from(folder.path()) {
            processes::signal_process(pid, Signal::KILL);
        }
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        if let Some(trouble) = trouble {
            panic!("{trouble}");
        }
    }
}
