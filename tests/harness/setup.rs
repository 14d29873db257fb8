//! The configuration of a host before it starts.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::attempt::Outcome;
use crate::built;
use crate::running::{Ended, Host};
use crate::watch::PATIENCE;

/// A module in the configuration.
#[derive(Debug, Clone)]
pub struct Fixture {
    path: PathBuf,
    records: bool,
    params: Vec<(String, String)>,
    optional: bool,
}

/// A fixture module. Those called `recorder...` record their calls and run a script.
pub fn fixture(name: &str) -> Fixture {
    Fixture { path: built::fixture(name), records: name.starts_with("recorder"), params: Vec::new(), optional: false }
}

/// A shipped module.
pub fn module(name: &str) -> Fixture {
    Fixture { path: built::module(name), records: false, params: Vec::new(), optional: false }
}

/// Any file as a module.
pub fn module_file(path: &Path) -> Fixture {
    Fixture { path: path.to_owned(), records: false, params: Vec::new(), optional: false }
}

impl Fixture {
    /// A parameter, its value in TOML.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A parameter that is a string.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        let value = quoted(value);
        self.param(name, &value)
    }

    /// The script of a recorder; see `tests/modules/recorder/src/script.rs`.
    #[must_use]
    pub fn script(self, script: &str) -> Self {
        self.text("script", script)
    }

    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A host that has not started yet, with its temporary folder.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    host: Vec<(String, String)>,
    log: Vec<(String, String)>,
    modules: Vec<Fixture>,
    listeners: Vec<(String, String, Option<u32>)>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    expected: Vec<String>,
    allowed: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    pub fn new() -> Self {
        Self {
            folder: folder(),
            host: Vec::new(),
            log: Vec::new(),
            modules: Vec::new(),
            listeners: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            expected: Vec::new(),
            allowed: Vec::new(),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A key of `[host]`, its value in TOML.
    #[must_use]
    pub fn host(mut self, key: &str, value: &str) -> Self {
        self.host.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A key of `[log]`, its value in TOML.
    #[must_use]
    pub fn log(mut self, key: &str, value: &str) -> Self {
        self.log.push((key.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn module(mut self, module: Fixture) -> Self {
        self.modules.push(module);
        self
    }

    /// A listener on a port that the kernel chooses.
    #[must_use]
    pub fn listen(self, handler: &str, workers: u32) -> Self {
        self.listen_at("127.0.0.1:0", handler, Some(workers))
    }

    #[must_use]
    pub fn listen_at(self, address: &str, handler: &str, workers: Option<u32>) -> Self {
        let keys = format!("udp = {}", quoted(address));
        self.listen_with(&keys, handler, workers)
    }

    /// A listener with these lines of TOML, which include an address.
    #[must_use]
    pub fn listen_with(mut self, keys: &str, handler: &str, workers: Option<u32>) -> Self {
        self.listeners.push((keys.to_owned(), handler.to_owned(), workers));
        self
    }

    /// A TCP listener on a port that the kernel chooses.
    #[must_use]
    pub fn listen_tcp(self, handler: &str) -> Self {
        self.listen_with("tcp = \"127.0.0.1:0\"", handler, None)
    }

    /// A control socket `control` in the folder.
    #[must_use]
    pub fn control(self) -> Self {
        let path = quoted(&self.folder().join("control").display().to_string());
        self.host("control", &path)
    }

    /// A pid file `pid` in the folder.
    #[must_use]
    pub fn pid_file(mut self) -> Self {
        self.host.retain(|(key, _)| key != "pid_file");
        let path = quoted(&self.folder().join("pid").display().to_string());
        self.host("pid_file", &path)
    }

    /// A log file `log` in the folder, opened by the host. Otherwise the host's stderr is this
    /// file.
    #[must_use]
    pub fn log_file(self) -> Self {
        let path = quoted(&self.folder().join("log").display().to_string());
        self.log("target", &path)
    }

    /// One more argument of `modhost run`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The log must contain a warning or error with this text.
    #[must_use]
    pub fn expect_log(mut self, text: &str) -> Self {
        self.expected.push(text.to_owned());
        self
    }

    /// The log may contain a warning or error with this text.
    #[must_use]
    pub fn allow_log(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    fn configuration(&self) -> String {
        let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(key, value)| format!("{key} = {value}\n")).collect::<String>();
        let mut text = format!("[host]\n{}[log]\n{}", pairs(&self.host), pairs(&self.log));
        for module in &self.modules {
            text += &format!("[[module]]\npath = {}\n", quoted(&module.path.display().to_string()));
            if module.optional {
                text += "optional = true\n";
            }
            text += "[module.params]\n";
            if module.records {
                text += &format!("record = {}\n", quoted(&self.folder().join("record").display().to_string()));
            }
            text += &pairs(&module.params);
        }
        for (keys, handler, workers) in &self.listeners {
            text += &format!("[[listen]]\n{keys}\nhandler = {}\n", quoted(handler));
            if let Some(workers) = workers {
                text += &format!("workers = {workers}\n");
            }
        }
        text
    }

    fn command(&self, subcommand: &str) -> Command {
        let folder = self.folder();
        fs::write(folder.join("modhost.toml"), self.configuration()).expect("the configuration");
        let mut command = Command::new(folder.join("modhost"));
        command.arg(subcommand).arg("-c").arg(folder.join("modhost.toml")).args(&self.arguments);
        surround(&mut command, folder, &self.environment);
        command
    }

    /// The path of something in the folder, as a string in TOML.
    pub fn path(&self, name: &str) -> String {
        quoted(&self.folder().join(name).display().to_string())
    }

    /// Starts the host in the foreground. It may not be ready yet.
    #[track_caller]
    pub fn launch(self) -> Host {
        let child = self.command("run").spawn().expect("the host can be started");
        Host::of_child(self.folder, child, self.expected, self.allowed)
    }

    /// Starts the host in the foreground and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Host {
        let host = self.launch();
        host.wait_for_log("ready in ");
        host
    }

    /// As `start`, by a program that ignores these signals.
    #[track_caller]
    pub fn start_ignoring(self, signals: &str) -> Host {
        self.start_after(&format!("trap '' {signals}"))
    }

    /// As `start`, by a shell that runs this script and then executes the host.
    #[track_caller]
    pub fn start_after(self, script: &str) -> Host {
        self.start_through(&["sh", "-c", &format!("{script}; exec \"$@\""), "sh"])
    }

    /// As `start`, as this user. Needs root.
    #[track_caller]
    pub fn start_as(self, user: u32) -> Host {
        let user = user.to_string();
        self.start_through(&["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"])
    }

    #[track_caller]
    fn start_through(self, before: &[&str]) -> Host {
        let host = self.launch_through(before);
        host.wait_for_log("ready in ");
        host
    }

    /// As `launch`, by another program. Its arguments come first.
    #[track_caller]
    pub fn launch_through(self, before: &[&str]) -> Host {
        let host = self.command("run");
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).arg(host.get_program()).args(host.get_args());
        surround(&mut command, self.folder(), &self.environment);
        let child = command.spawn().expect("the host can be started");
        Host::of_child(self.folder, child, self.expected, self.allowed)
    }

    /// Starts a host that must fail to start, and waits for its end.
    #[track_caller]
    pub fn fails(self, code: i32) -> Ended {
        self.launch().ends(code, PATIENCE)
    }

    /// Starts a daemon that must fail to start.
    #[track_caller]
    pub fn daemon_that_fails(self) -> (Host, Outcome) {
        let (host, started) = self.daemon();
        assert_ne!(started.code, 0, "the daemon has started\n{}", host.report());
        (host, started)
    }

    /// Starts the host as a daemon, with a pid file and a log file. Also returns the output and
    /// exit code of the starting command.
    #[track_caller]
    pub fn daemon(self) -> (Host, Outcome) {
        self.pid_file().log_file().daemon_as_configured()
    }

    /// The same with the configured pid file and log. Its pid is read from `pid` in the folder.
    #[track_caller]
    pub fn daemon_as_configured(self) -> (Host, Outcome) {
        let this = self.host("daemon", "true");
        let mut command = this.command("run");
        let stderr = File::options().create(true).append(true).open(this.folder().join("terminal")).expect("a file for output");
        let mut child = command.stderr(stderr).spawn().expect("the host can be started");
        let code = crate::running::wait_for(&mut child, PATIENCE).unwrap_or_else(|| panic!("the starting command does not return"));
        let read = |name: &str| fs::read_to_string(this.folder().join(name)).unwrap_or_default();
        let started = Outcome { code, output: read("out"), errors: read("terminal") };
        let pid = read("pid").trim().parse().unwrap_or(0);
        (Host::of_daemon(this.folder, pid, this.expected, this.allowed), started)
    }

    /// Runs another command of the host's program with this configuration, such as `check`.
    pub fn run(&self, subcommand: &str) -> Outcome {
        let output = self.command(subcommand).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("the host's program");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command in a folder, with its output in the files `out` and `log` there, both opened for
/// appending.
pub(crate) fn surround(command: &mut Command, folder: &Path, environment: &[(String, String)]) {
    let stream = |name: &str| File::options().create(true).append(true).open(folder.join(name)).expect("a file for output");
    command.current_dir(folder).stdin(Stdio::null()).stdout(stream("out")).stderr(stream("log"));
    command.env_remove("NOTIFY_SOCKET").env_remove("RUST_BACKTRACE");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
}

/// A string in TOML.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A temporary folder with the host's program. Its name contains the test's name, and other users
/// can enter it.
pub(crate) fn folder() -> TempDir {
    let test = std::thread::current().name().unwrap_or("test").rsplit(':').next().unwrap_or("test").to_owned();
    let folder = tempfile::Builder::new().prefix(&format!("modhost-{test}-")).tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let record = folder.path().join("record");
    File::create(&record).expect("a record");
    fs::set_permissions(&record, fs::Permissions::from_mode(0o666)).expect("its mode");
    install(&built::host(), &folder.path().join("modhost"));
    folder
}

/// Each test has a copy of the program, so that its processes can be told from others. Another
/// program writes the copy: a descriptor open for writing would be inherited by processes that
/// other tests start at that moment, and a file open for writing cannot be executed.
fn install(program: &Path, place: &Path) {
    if fs::hard_link(program, place).is_err() {
        let status = Command::new("cp").arg(program).arg(place).status().expect("cp");
        assert!(status.success(), "cannot copy {} to {}", program.display(), place.display());
    }
}
