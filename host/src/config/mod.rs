//! The configuration as plain data, and its parser: text in, values or every error out.
//!
//! *Runs in:* the supervisor, before anything is forked; main only reads the result. *Never:* opens
//! a file, except in [`mod@read`].

pub(crate) mod address;
mod check;
mod document;
mod listen;
mod merge;
mod parse;
mod read;
mod reader;
mod stream_options;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use address::{ListenAddress, MulticastGroup, UnixName};
pub use listen::{ListenConfig, ListenOptions, SocketOptions};
pub use merge::{Overrides, SetParam, merge};
use module_api::check::{Folders, Setting};
pub use module_api::check::{nearest, units};
pub use parse::parse;
pub use read::read;
pub use stream_options::{Accept, StreamOptions};
pub use tls::{CertificateFiles, TlsOptions, TlsVersion};

/// Most workers per listener, so that scans of the process table stay short.
pub const WORKERS_MAX: u32 = 4000;
/// Used if the configuration has no `module_path`.
pub const MODULE_PATH_DEFAULT: [&str; 2] = ["/usr/local/lib/modhost", "/usr/lib/modhost"];
/// Longest module or handler name, in bytes.
pub const NAME_MAX_BYTES: usize = 31;

/// What the operator has configured, in the file and on the command line.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// None: everything is from the command line.
    pub file: Option<PathBuf>,
    pub host: HostConfig,
    pub log: LogConfig,
    /// `[[module]]`, in the order of the file, then those of the command line.
    pub modules: Vec<ModuleConfig>,
    /// `[[listen]]`, in the order of the file, then those of the command line.
    pub listeners: Vec<ListenConfig>,
    /// `--load-all`: folders whose modules are all loaded, after `modules`.
    pub load_all: Vec<PathBuf>,
    /// `--set`: applied when the modules' names are known; overrides the file.
    pub set: Vec<SetParam>,
    /// Of the command. Empty until [`Config::anchor`].
    pub working_directory: PathBuf,
}

/// `[host]`. Relative paths are relative to the working directory of the command.
#[derive(Debug, Clone, PartialEq)]
pub struct HostConfig {
    /// Default for UDP listeners, and number of TCP workers; 1 to [`WORKERS_MAX`].
    pub workers: u32,
    /// The user that main and its children become; a name or a number.
    pub user: Option<String>,
    /// Likewise; none: the user's group.
    pub group: Option<String>,
    /// Of `user` and `group`.
    pub identity_positions: [Option<Position>; 2],
    pub daemon: bool,
    pub fork: Fork,
    pub pid_file: Option<PathBuf>,
    /// Path of the control socket.
    pub control: Option<PathBuf>,
    /// Folders where a module's name is looked up, in this order.
    pub module_path: Vec<PathBuf>,
    pub shared_memory_bytes: usize,
    /// From the first module's `init_f` to readiness.
    pub start_timeout: Duration,
    /// For each stage of a stop.
    pub stop_timeout: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            user: None,
            group: None,
            identity_positions: [None, None],
            daemon: false,
            fork: Fork::Processes,
            pid_file: None,
            control: None,
            module_path: MODULE_PATH_DEFAULT.map(PathBuf::from).to_vec(),
            shared_memory_bytes: 64 << 20,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// Whether main forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fork {
    #[default]
    Processes,
    /// For debugging: main serves every listener itself, in the foreground.
    NoFork,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogConfig {
    pub target: LogTarget,
    pub format: LogFormat,
    /// The most detailed level that is written.
    pub level: Level,
    /// `[log.modules]`: level by module name.
    pub modules: BTreeMap<String, Level>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogTarget {
    #[default]
    Stderr,
    /// Reopened on SIGHUP. A relative path is relative to the working directory of the command.
    File(PathBuf),
    /// The local syslog socket.
    Syslog,
    /// The journal's native socket.
    Journald,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One readable line for each record.
    #[default]
    Text,
    /// One JSON object for each record, on one line.
    Json,
}

/// A log level as the ABI numbers them: 0 off, 1 error ... 5 trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u32);

impl Level {
    /// By number.
    pub const NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|known| *known == name).map(|number| Self(number as u32))
    }
}

impl Default for Level {
    fn default() -> Self {
        Self(module_api::abi::LEVEL_INFO)
    }
}

/// One `[[module]]`, or one module of the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleConfig {
    pub source: ModuleSource,
    /// If the module is bad, it is skipped with a warning.
    pub optional: bool,
    /// `[module.params]`, in the order of the file.
    pub params: Vec<ParamSetting>,
    pub position: Position,
}

/// How a module is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModuleSource {
    /// Looked up in `module_path` as `libNAME.so`, then `NAME.so`.
    Name(String),
    /// A file. From the configuration file: already joined with that file's folder. From the
    /// command line: relative to the working directory.
    Path(PathBuf),
}

impl fmt::Display for ModuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A parameter, whose kind is checked when the module's declaration is known.
pub type ParamSetting = Setting<Position>;

/// A configured value, before it is checked against the module's declaration.
pub type Value = module_api::check::SettingValue<Position>;

/// `handler = "module"` or `"module:handler"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerRef {
    pub module: String,
    /// None: the module's first handler of the fitting kind.
    pub handler: Option<String>,
}

impl fmt::Display for HandlerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.handler {
            Some(handler) => write!(f, "{}:{handler}", self.module),
            None => f.write_str(&self.module),
        }
    }
}

/// Where something was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Line and column count from 1; a column is a character.
    File { file: Arc<Path>, line: u32, column: u32 },
    /// An option of the command line, or "".
    CommandLine(&'static str),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::CommandLine("") => f.write_str("command line"),
            Self::CommandLine(option) => write!(f, "command line, {option}"),
        }
    }
}

impl Config {
    /// Makes every path absolute, for a process that changes its working directory (daemon mode).
    pub fn anchor(&mut self, working_directory: &Path) {
        self.working_directory = working_directory.to_path_buf();
        let anchor = |path: &mut PathBuf| {
            if path.is_relative() {
                // `components` removes the "." of "./x.so", which would be in every message.
                *path = working_directory.join(&*path).components().collect();
            }
        };
        let host = &mut self.host;
        self.file.iter_mut().chain(&mut host.pid_file).chain(&mut host.control).for_each(anchor);
        host.module_path.iter_mut().chain(&mut self.load_all).for_each(anchor);
        if let LogTarget::File(path) = &mut self.log.target {
            anchor(path);
        }
        for module in &mut self.modules {
            if let ModuleSource::Path(path) = &mut module.source {
                anchor(path);
            }
        }
        for address in self.listeners.iter_mut().flat_map(|listener| &mut listener.addresses) {
            if let ListenAddress::Unix(path) | ListenAddress::Unixgram(UnixName::Path(path)) = address {
                anchor(path);
            }
        }
        self.listeners.iter_mut().filter_map(|listener| listener.options.tls.as_mut()).flat_map(TlsOptions::files_mut).for_each(anchor);
    }

    /// What the paths in parameters are relative to.
    pub fn folders(&self) -> Folders {
        let command = self.working_directory.clone();
        let file = self.file.as_deref().and_then(Path::parent).map_or_else(|| command.clone(), Path::to_path_buf);
        Folders { file, command }
    }
}

/// Whether a module or handler can have this name: `[a-z0-9_-]`, 1 to 31 bytes.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}
