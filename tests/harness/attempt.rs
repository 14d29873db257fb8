//! One command after another in a folder of its own, with whatever files, arguments and surroundings: for what must be refused. Each
//! must end in time, and leave no process and no file behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::processes::{self, Process};
use crate::running::{Ended, Host, wait_for};
use crate::watch::{Deadline, Missed, PATIENCE, until};

/// A folder with the host's program and what a test put there.
#[derive(Debug)]
pub struct Attempt {
    folder: TempDir,
    through: Vec<String>,
    environment: Vec<(String, String)>,
    expected: Vec<String>,
}

/// What a command has said, its end checked.
#[derive(Debug, Clone)]
pub struct Said {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

/// One error as it stands on a terminal: what failed, detail, hint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaint {
    pub what: String,
    pub detail: String,
    pub hint: String,
}

/// What the tests' own files are called; all others are looked at.
const OURS: [&str; 4] = ["modhost", "out", "log", "record"];

impl Attempt {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let folder = crate::setup::folder();
        Self { folder, through: Vec::new(), environment: Vec::new(), expected: Vec::new() }
    }

    /// With this configuration as `modhost.toml`.
    pub fn with(configuration: &str) -> Self {
        let this = Self::new();
        this.write("modhost.toml", configuration);
        this
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the folder. Returns its path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A copy of a file. Returns its path.
    pub fn copy(&self, file: &Path, name: &str) -> PathBuf {
        self.write(name, fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
    }

    /// A module of `tests/modules/malformed/table.c` with these options, as this file. Returns its path.
    pub fn table(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.folder().join(name);
        crate::built::table(&path, options);
        path
    }

    /// Another program starts the host; its words come first, as in `sh -c 'ulimit -n 9; exec "$@"' sh`.
    #[must_use]
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A shell does something before it becomes the host.
    #[must_use]
    pub fn after(self, script: &str) -> Self {
        self.through(&["sh", "-c", &format!("{script}; exec \"$@\""), "sh"])
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A warning or error with this text must be in the log of a host that is started.
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
        let stream = |name: &str| File::create(self.folder().join(name)).expect("a file for output");
        command.args(arguments).current_dir(self.folder());
        command.stdin(Stdio::null()).stdout(stream("out"));
        // Appending, as a log is.
        stream("log");
        command.stderr(File::options().append(true).open(self.folder().join("log")).expect("a file for output"));
        command.env_remove("NOTIFY_SOCKET").env_remove("RUST_BACKTRACE");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Said {
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
        Said { code, output, errors }
    }

    /// Runs a command that must be refused with this exit code.
    #[track_caller]
    pub fn refused(&self, code: i32, arguments: &[&str]) -> Vec<Complaint> {
        let said = self.run(arguments);
        assert_eq!(said.code, code, "{arguments:?}\n--- stdout\n{}\n--- stderr\n{}", said.output, said.errors);
        assert_eq!(said.output, "", "errors belong to stderr");
        said.complaints()
    }

    /// Runs `run -c modhost.toml`, which must be refused with this exit code and one error of which these are parts. An empty one stands
    /// for an empty part.
    #[track_caller]
    pub fn refuses(&self, code: i32, what: &str, detail: &str, hint: &str) {
        let complaints = self.refused(code, &["run", "-c", "modhost.toml"]);
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        complaints[0].assert(what, detail, hint);
    }

    /// Starts a host that may or may not come up: one that does is stopped, one that does not has said why.
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
        assert_eq!(ready, Err(Missed::Ended), "{arguments:?} neither starts nor ends\n{}", log());
        let code = wait_for(&mut child, PATIENCE).expect("an end");
        assert!(processes::running_from(self.folder()).is_empty(), "processes are left\n{}", log());
        assert_eq!(self.files(), before, "other files are left\n{}", log());
        Err(Said { code, output: String::new(), errors: log() }.complaints())
    }

    /// Starts a host, and waits until it is ready.
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

impl Said {
    /// The errors, each in its three parts. Every line must belong to one.
    #[track_caller]
    pub fn complaints(&self) -> Vec<Complaint> {
        let mut complaints: Vec<Complaint> = Vec::new();
        for line in self.errors.lines() {
            if let Some(what) = line.strip_prefix("modhost: ") {
                complaints.push(Complaint { what: what.to_owned(), ..Complaint::default() });
                continue;
            }
            // What the log says of a start on its way to its failure.
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
    /// These must be parts of the three; an empty one stands for an empty part.
    #[track_caller]
    pub fn assert(&self, what: &str, detail: &str, hint: &str) {
        for (name, found, want) in [("what", &self.what, what), ("detail", &self.detail, detail), ("hint", &self.hint, hint)] {
            let fits = if want.is_empty() { found.is_empty() } else { found.contains(want) };
            assert!(fits, "the {name} is not {want:?} in {self:#?}");
        }
    }

    /// Lower case, no final full stop, each thing said once.
    fn assert_style(&self) {
        for part in [&self.what, &self.detail, &self.hint] {
            // A detail may be what the author of a module wrote.
            let stop = part.ends_with('.') && !part.ends_with("..") && part != &self.detail;
            assert!(!stop, "a final full stop in {self:#?}");
            assert!(!part.contains("(os error"), "a bare number in {self:#?}");
        }
        assert!(!self.what.is_empty() && !self.what.starts_with(char::is_uppercase), "{self:#?}");
        assert!(self.detail.is_empty() || !self.what.contains(&self.detail), "said twice: {self:#?}");
    }
}
