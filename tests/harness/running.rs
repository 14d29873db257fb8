//! A running host, and the remains of one that has ended.

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

/// A started host. If it is dropped, it is stopped and must end well. If the test fails, all its
/// processes are killed, and its files are printed.
#[derive(Debug)]
pub struct Host {
    folder: Option<TempDir>,
    /// The process in the foreground.
    child: Option<Child>,
    /// The supervisor. None if a daemon did not start.
    process: Option<Process>,
    expected: Vec<String>,
    allowed: Vec<String>,
}

/// The remains of a host that has ended. Its end was checked: no process left, nothing unexpected
/// in the log.
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

    /// Names of the modules whose `destroy_f` was called, in order.
    pub fn destroyed(&self) -> Vec<&str> {
        self.records.event("destroy_f").iter().map(|record| record.module()).collect()
    }

    /// Neither the pid file nor the control socket is left.
    #[track_caller]
    pub fn assert_files_removed(&self) {
        for name in ["pid", "control"] {
            assert!(!self.folder().join(name).exists(), "the file {name:?} is left\n{}", self.log);
        }
    }
}

/// Waits for the end of a child. Returns its exit code, or 128 plus the signal that killed it.
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
        self.folder.as_ref().expect("a host that has not ended").path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The supervisor's pid; main's pid in no-fork mode.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("a running host").pid
    }

    /// The pid of main, which is the supervisor's only child.
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

    /// The log may contain a warning or error with this text.
    #[must_use]
    pub fn allowing(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Pids of all the host's processes.
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

    /// Waits until `look` finds something in the folder. Fails if the supervisor ends first.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let process = self.process.as_ref().map(AsFd::as_fd);
        match until(self.folder(), process, Deadline::after(PATIENCE), || look(self)) {
            Ok(found) => found,
            Err(Missed::Ended) => panic!("the host has ended, without {what}\n{}", self.report()),
            Err(Missed::Deadline) => panic!("{what} did not happen in time\n{}", self.report()),
        }
    }

    /// Waits for a log line that contains the text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_lines(text, 1);
    }

    /// Waits until this many log lines contain the text.
    #[track_caller]
    pub fn wait_for_log_lines(&self, text: &str, count: usize) {
        self.wait(&format!("\"{text}\" in the log"), |host| (host.log().count(text) >= count).then_some(()));
    }

    /// Waits for the first record that satisfies the condition.
    #[track_caller]
    pub fn wait_for_record(&self, what: &str, condition: impl Fn(&Record) -> bool) -> Record {
        self.wait(what, |host| host.records().iter().find(|record| condition(record)).cloned())
    }

    /// Waits until this many records satisfy the condition. Returns all that do.
    #[track_caller]
    pub fn wait_for_records(&self, what: &str, count: usize, condition: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.wait(what, |host| {
            let records = host.records();
            let found: Vec<Record> = records.that(&condition).into_iter().cloned().collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Waits until this many processes of recorders have begun their work, whichever way they were
    /// forked.
    #[track_caller]
    pub fn wait_for_module_processes(&self, count: usize) {
        self.wait_for_records("the processes of modules", count, |record| matches!(record.event.as_str(), "process" | "returned"));
    }

    /// The first address of a UDP listener, from the log.
    #[track_caller]
    pub fn address(&self, listener: usize) -> SocketAddr {
        self.wait("the addresses of the listeners", |host| {
            let log = host.log();
            let mut addresses =
                log.lines.iter().filter_map(|line| line.text.split_once("listener udp ")?.1.split(' ').next()?.parse().ok());
            addresses.nth(listener)
        })
    }

    /// All addresses of a listener, from the log.
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

    /// Kills a process of the host and waits for its end.
    #[track_caller]
    pub fn kill(&self, pid: i32) {
        let process = Process::open(pid).unwrap_or_else(|| panic!("process {pid} is gone already"));
        process.signal(Signal::KILL);
        assert!(process.ends(Deadline::after(PATIENCE)), "process {pid} survives SIGKILL");
    }

    /// Stops the host as an operator does. It must end well.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ends(0, PATIENCE)
    }

    /// Waits for the end, which must come within the limit and with that code, and checks the
    /// remains. The code of a daemon is not known.
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
        // All other processes end before the supervisor.
        let left = self.processes();
        assert!(left.is_empty(), "processes are left: {left:?}\n{}", self.report());
        self.into_ended(code)
    }

    /// Kills the supervisor and waits for the other processes, which may take a moment to end.
    #[track_caller]
    pub fn kill_supervisor(mut self) -> Ended {
        // A process stops running its program shortly before the kernel closes its descriptors,
        // sockets included. So wait for the end of each process.
        let all: Vec<Process> = self.processes().into_iter().filter_map(Process::open).collect();
        self.kill(self.pid());
        if let Some(child) = &mut self.child {
            child.wait().expect("a status");
        }
        let deadline = Deadline::after(PATIENCE);
        assert!(all.iter().all(|process| process.ends(deadline)), "processes are left\n{}", self.report());
        let left = processes::wait_for_none_from(self.folder(), Deadline::after(PATIENCE));
        assert!(left.is_empty(), "processes are left: {left:?}\n{}", self.report());
        // Main may notice it and log it before the kernel ends main.
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
        let folder = self.folder.take().expect("a host that has not ended");
        (self.child, self.process) = (None, None);
        Ended { folder, code, log, records }
    }

    /// Everything that explains a failure.
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
