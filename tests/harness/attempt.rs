//! Runs commands in a temporary folder, with any files, arguments and environment: for input that
//! must be refused. Each command must end in time and leave no process and no file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::processes::{self, Process};
use crate::running::{Ended, Host, wait_for};
use crate::setup::surround;
use crate::watch::{Deadline, Missed, PATIENCE, until};

/// A temporary folder with the host's program and a test's files.
#[derive(Debug)]
pub struct Attempt {
    folder: TempDir,
    through: Vec<String>,
    environment: Vec<(String, String)>,
    expected: Vec<String>,
}

/// Exit code and output of a command that has ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

/// One error as printed on a terminal: what failed, detail, hint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaint {
    pub what: String,
    pub detail: String,
    pub hint: String,
}

/// The harness's files in the folder. Commands must leave no others.
const OURS: [&str; 4] = ["modhost", "out", "log", "record"];

impl Attempt {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let folder = crate::setup::folder();
        Self { folder, through: Vec::new(), environment: Vec::new(), expected: Vec::new() }
    }

    /// A folder with this configuration as `modhost.toml`.
    pub fn with(configuration: &str) -> Self {
        let this = Self::new();
        this.write("modhost.toml", configuration);
        this
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the folder. Returns its path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Copies a file into the folder. Returns its path.
    pub fn copy(&self, file: &Path, name: &str) -> PathBuf {
        self.write(name, fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
    }

    /// Builds `tests/modules/malformed/table.c` with these options as this file. Returns its path.
    pub fn table(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.folder().join(name);
        crate::built::table(&path, options);
        path
    }

    /// Another program starts the host, such as `sh -c 'ulimit -n 9; exec "$@"' sh`. The host's
    /// command follows these arguments.
    #[must_use]
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A shell runs this script and then executes the host.
    #[must_use]
    pub fn after(self, script: &str) -> Self {
        self.through(&["sh", "-c", &format!("{script}; exec \"$@\""), "sh"])
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The log of a started host must contain a warning or error with this text.
    #[must_use]
    pub fn expect_log(mut self, text: &str) -> Self {
        self.expected.push(text.to_owned());
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = self.folder().join("modhost");
        let mut command = match self.through.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        // Without the output of earlier commands.
        for name in ["out", "log"] {
            File::create(self.folder().join(name)).expect("a file for output");
        }
        command.args(arguments);
        surround(&mut command, self.folder(), &self.environment);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let before = self.files();
        let mut child = self.command(arguments).spawn().expect("the host can be started");
        let code = wait_for(&mut child, PATIENCE);
        let read = |name: &str| String::from_utf8_lossy(&fs::read(self.folder().join(name)).unwrap_or_default()).into_owned();
        let (output, errors) = (read("out"), read("log"));
        let Some(code) = code else {
            self.kill_all();
            let _ = child.wait();
            panic!("{arguments:?} does not end\n--- stdout\n{output}\n--- stderr\n{errors}");
        };
        let left = processes::running_from(self.folder());
        self.kill_all();
        assert!(left.is_empty(), "{arguments:?} leaves processes {left:?}\n--- stdout\n{output}\n--- stderr\n{errors}");
        assert_eq!(self.files(), before, "{arguments:?} leaves other files\n--- stdout\n{output}\n--- stderr\n{errors}");
        Outcome { code, output, errors }
    }

    /// Runs a command that must fail with this exit code.
    #[track_caller]
    pub fn refused(&self, code: i32, arguments: &[&str]) -> Vec<Complaint> {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, code, "{arguments:?}\n--- stdout\n{}\n--- stderr\n{}", outcome.output, outcome.errors);
        assert_eq!(outcome.output, "", "errors belong to stderr");
        outcome.complaints()
    }

    /// Runs `run -c modhost.toml`, which must fail with this exit code and one error that contains
    /// these parts. An empty string means an empty part.
    #[track_caller]
    pub fn assert_refused(&self, code: i32, what: &str, detail: &str, hint: &str) {
        let complaints = self.refused(code, &["run", "-c", "modhost.toml"]);
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        complaints[0].assert(what, detail, hint);
    }

    /// Starts a host that may fail to start. If it starts, it is stopped; if not, its errors are
    /// returned.
    #[track_caller]
    pub fn try_start(self, arguments: &[&str]) -> Result<Ended, Vec<Complaint>> {
        let before = self.files();
        let mut child = self.command(arguments).spawn().expect("the host can be started");
        let process = Process::open(child.id() as i32);
        let log = || String::from_utf8_lossy(&fs::read(self.folder().join("log")).unwrap_or_default()).into_owned();
        let descriptor = process.as_ref().map(AsFd::as_fd);
        let ready = until(self.folder(), descriptor, Deadline::after(PATIENCE), || log().contains("ready in ").then_some(()));
        if ready.is_ok() {
            return Ok(Host::of_child(self.folder, child, self.expected, Vec::new()).stop());
        }
        assert_eq!(ready, Err(Missed::Ended), "{arguments:?} neither gets ready nor ends\n{}", log());
        let code = wait_for(&mut child, PATIENCE).expect("an end");
        assert!(processes::running_from(self.folder()).is_empty(), "processes are left\n{}", log());
        assert_eq!(self.files(), before, "other files are left\n{}", log());
        Err(Outcome { code, output: String::new(), errors: log() }.complaints())
    }

    /// Starts a host and waits until it is ready.
    #[track_caller]
    pub fn start(self, arguments: &[&str]) -> Host {
        let child = self.command(arguments).spawn().expect("the host can be started");
        let host = Host::of_child(self.folder, child, self.expected, Vec::new());
        host.wait_for_log("ready in ");
        host
    }

    fn kill_all(&self) {
        for pid in processes::running_from(self.folder()) {
            processes::signal_process(pid, rustix::process::Signal::KILL);
        }
        processes::wait_for_none_from(self.folder(), Deadline::after(PATIENCE));
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.folder().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path.clone());
                }
                let ours = OURS.iter().any(|name| path == self.folder().join(name));
                if !ours {
                    files.insert(path);
                }
            }
        }
        files
    }
}

impl Outcome {
    /// The errors, each in its three parts. Every line must belong to one.
    #[track_caller]
    pub fn complaints(&self) -> Vec<Complaint> {
        let mut complaints: Vec<Complaint> = Vec::new();
        for line in self.errors.lines() {
            if let Some(what) = line.strip_prefix("modhost: ") {
                complaints.push(Complaint { what: what.to_owned(), ..Complaint::default() });
                continue;
            }
            // Lines that the log has before the start fails.
            if line.contains(" info ") && line.contains("Z ") {
                continue;
            }
            let complaint = complaints.last_mut().unwrap_or_else(|| panic!("a stray line {line:?} in\n{}", self.errors));
            match (line.strip_prefix("  hint: "), line.strip_prefix("  ")) {
                (Some(hint), _) if complaint.hint.is_empty() => hint.clone_into(&mut complaint.hint),
                (_, Some(detail)) if complaint.hint.is_empty() => {
                    if !complaint.detail.is_empty() {
                        complaint.detail.push('\n');
                    }
                    complaint.detail.push_str(detail);
                }
                _ => panic!("a stray line {line:?} in\n{}", self.errors),
            }
        }
        complaints.iter().for_each(Complaint::assert_style);
        complaints
    }
}

impl Complaint {
    /// Each string must be contained in its part. An empty string means an empty part.
    #[track_caller]
    pub fn assert(&self, what: &str, detail: &str, hint: &str) {
        for (name, found, want) in [("what", &self.what, what), ("detail", &self.detail, detail), ("hint", &self.hint, hint)] {
            let fits = if want.is_empty() { found.is_empty() } else { found.contains(want) };
            assert!(fits, "the {name} is not {want:?} in {self:#?}");
        }
    }

    /// Lower case, no final full stop, nothing repeated.
    fn assert_style(&self) {
        for part in [&self.what, &self.detail, &self.hint] {
            // A detail may quote the author of a module.
            let stop = part.ends_with('.') && !part.ends_with("..") && part != &self.detail;
            assert!(!stop, "a final full stop in {self:#?}");
            assert!(!part.contains("(os error"), "a bare number in {self:#?}");
        }
        assert!(!self.what.is_empty() && !self.what.starts_with(char::is_uppercase), "{self:#?}");
        assert!(self.detail.is_empty() || !self.what.contains(&self.detail), "said twice: {self:#?}");
    }
}
