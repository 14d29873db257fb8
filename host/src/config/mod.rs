//! The configuration as plain data, and the one entry point of its parser.
//!
//! *Runs in:* the supervisor, before anything is forked; main only reads the result.
//! *Never:* looks at a clock, the environment or the file system: text in, values or every error out. [`read`] alone opens a file.

pub mod address;
mod check;
pub mod listen;
pub mod merge;
mod parse;
pub mod read;
mod reader;
#[cfg(test)]
mod tests;
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use check::check_duplicates;
pub use listen::{Accept, Group, ListenAddress, ListenConfig, ListenOptions, StreamOptions, UnixName};
pub use merge::{Overrides, SetParam, merge};
use module_api::check::{Folders, Setting};
pub use module_api::check::{nearest, units};
pub use parse::parse;
pub use read::read;
pub use tls::{CertificateFiles, TlsOptions, TlsVersion};

/// Most workers per listener: the process table and every scan of it stay small.
pub const WORKERS_MAX: u32 = 4000;
/// Searched, in this order, when the configuration has no `module_path`.
pub const MODULE_PATH_DEFAULT: [&str; 2] = ["/usr/local/lib/modhost", "/usr/lib/modhost"];
/// Longest module or handler name, in bytes.
pub const NAME_MAX_BYTES: usize = 31;

/// Everything the operator decided, from file and command line.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// `[host]`.
    pub host: Host,
    /// `[log]`.
    pub log: Log,
    /// `[[module]]`, in the order of the file, then those of the command line.
    pub modules: Vec<ModuleConfig>,
    /// `[[listen]]`, in the order of the file, then those of the command line.
    pub listeners: Vec<ListenConfig>,
    /// `--load-all`: folders of which every module is loaded, after `modules`.
    pub load_all: Vec<PathBuf>,
    /// `--set`: applied once the modules' names are known, over what the file says.
    pub set: Vec<SetParam>,
    /// Paths of the command line are relative to it; empty until [`Config::anchor`].
    pub working_directory: PathBuf,
}

/// `[host]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Workers per UDP listener that does not say otherwise, and number of TCP workers; 1 to [`WORKERS_MAX`].
    pub workers: u32,
    /// User that main and everything below it become; a name or a number.
    pub user: Option<String>,
    /// Group, likewise; without it the user's own.
    pub group: Option<String>,
    /// Where the user and the group are configured.
    pub identity_positions: [Option<Position>; 2],
    /// Detach from the terminal.
    pub daemon: bool,
    /// Whether there are workers at all.
    pub fork: Fork,
    /// Relative to the working directory of the command.
    pub pid_file: Option<PathBuf>,
    /// Control socket; relative to the working directory of the command.
    pub control: Option<PathBuf>,
    /// Where a module's name is looked up, in this order; relative to the working directory of the command.
    pub module_path: Vec<PathBuf>,
    /// Size of the memory that modules share.
    pub shared_memory_bytes: usize,
    /// Whether what the dynamic linker has relocated in modules and libraries becomes one for all processes, which nobody can write to.
    pub share_tables: bool,
    /// From the first module's `init_f` to readiness.
    pub start_timeout: Duration,
    /// For each stage of a stop.
    pub stop_timeout: Duration,
}

impl Default for Host {
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
            share_tables: true,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// Whether main forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fork {
    /// Supervisor, main, workers, timers.
    #[default]
    Processes,
    /// For debugging: main in the foreground serves everything itself.
    NoFork,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Log {
    /// Where records go.
    pub target: LogTarget,
    /// How they look.
    pub format: LogFormat,
    /// Highest level written.
    pub level: Level,
    /// `[log.modules]`: level by module name.
    pub modules: BTreeMap<String, Level>,
}

/// `log.target`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// Standard error.
    #[default]
    Stderr,
    /// A file, reopened on SIGHUP; relative to the working directory of the command.
    File(PathBuf),
    /// The local syslog socket.
    Syslog,
    /// The journal's native socket.
    Journald,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One readable line a record.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log level as the ABI numbers them: 0 off, 1 error ... 5 trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u32);

impl Level {
    /// Their names; the index is the number.
    pub const NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// The level of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|known| *known == name).map(|number| Self(number as u32))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self.0 as usize).copied().unwrap_or("trace")
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
    /// Where to find it.
    pub source: ModuleSource,
    /// A bad one is skipped with a warning.
    pub optional: bool,
    /// `[module.params]`, in the order of the file.
    pub params: Vec<ParamSetting>,
    /// Where it is configured.
    pub position: Position,
}

/// How a module is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModuleSource {
    /// Looked up in `module_path` as `libNAME.so`, then `NAME.so`.
    Name(String),
    /// A file. From the configuration file: relative to that file's folder (already joined). From the command line: to the working directory.
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

/// One parameter as configured; its kind is checked when the module's declaration is known.
pub type ParamSetting = Setting<Position>;

/// A configured value, before it is checked against the module's declaration.
pub type Value = module_api::check::SettingValue<Position>;

/// `handler = "module"` or `"module:handler"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerRef {
    /// Name of the module.
    pub module: String,
    /// Name of the handler; without: the module's first of the fitting kind.
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
    /// In a file; line and column count from 1, columns in characters.
    File {
        /// As the operator named it.
        file: Arc<Path>,
        /// Line.
        line: u32,
        /// Column.
        column: u32,
    },
    /// On the command line, in this option.
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
                // Without the "." of "./x.so", which would stand in every message.
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
}

impl Config {
    /// What the paths in parameters are relative to.
    pub fn folders(&self) -> Folders {
        let command = self.working_directory.clone();
        let file = self.file.as_deref().and_then(Path::parent).map_or_else(|| command.clone(), Path::to_path_buf);
        Folders { file, command }
    }
}

/// Whether a module or handler may be called that: `[a-z0-9_-]`, 1 to 31 bytes.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}
