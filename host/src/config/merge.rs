//! Merges the command line into the configuration of the file.
//!
//! *Runs in:* the supervisor, before anything is forked. *Never:* stops at the first error.
//!
//! *Pure:* no clock, no environment, no system call.

use std::path::PathBuf;

use super::address::{check_name, parse_listen};
use super::check::check_duplicates;
use super::{Config, Fork, Level, ListenConfig, ListenOptions, LogFormat, ModuleConfig, ModuleSource, Position, WORKERS_MAX, nearest};
use crate::error::Error;

/// The options of the command line, some of them still to be parsed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Positional arguments: a path if it has a slash or ends in `.so`, a name otherwise.
    pub modules: Vec<String>,
    /// Searched before `host.module_path`.
    pub module_dirs: Vec<PathBuf>,
    pub load_all: Vec<PathBuf>,
    /// Added to the file's.
    pub listen: Vec<String>,
    pub workers: Option<u32>,
    pub fork: Option<Fork>,
    pub daemon: Option<bool>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub pid_file: Option<PathBuf>,
    pub control: Option<PathBuf>,
    /// `MODULE.PARAM=VALUE`.
    pub set: Vec<String>,
    pub log_format: Option<LogFormat>,
    /// A level, or `MODULE=LEVEL`.
    pub log_level: Vec<String>,
}

/// One `--set MODULE.PARAM=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetParam {
    pub module: String,
    pub name: String,
    /// Parsed when the parameter's kind is known.
    pub text: String,
}

/// The command line overrides values and adds to lists. All errors at once.
pub fn merge(mut config: Config, overrides: Overrides) -> Result<Config, Vec<Error>> {
    let mut errors = Vec::new();
    let host = &mut config.host;
    if let Some(workers) = overrides.workers {
        if !(1..=WORKERS_MAX).contains(&workers) {
            errors.push(Error::config(format!("--workers {workers} is out of range")).detail(format_args!("from 1 to {WORKERS_MAX}")));
        }
        host.workers = workers;
    }
    let by_command = [(&mut host.user, overrides.user, "--user"), (&mut host.group, overrides.group, "--group")];
    for ((target, value, option), position) in by_command.into_iter().zip(&mut host.identity_positions) {
        replace(position, value.is_some().then_some(Position::CommandLine(option)));
        replace(target, value);
    }
    replace(&mut host.pid_file, overrides.pid_file);
    replace(&mut host.control, overrides.control);
    host.daemon = overrides.daemon.unwrap_or(host.daemon);
    host.fork = overrides.fork.unwrap_or(host.fork);
    host.module_path.splice(0..0, overrides.module_dirs);
    config.log.format = overrides.log_format.unwrap_or(config.log.format);
    config.load_all.extend(overrides.load_all);
    for text in &overrides.log_level {
        keep(&mut errors, merge_log_level(&mut config, text));
    }
    config.modules.extend(overrides.modules.into_iter().filter_map(|text| keep(&mut errors, parse_module(text))));
    config.listeners.extend(overrides.listen.iter().filter_map(|text| keep(&mut errors, parse_listener(text))));
    config.set.extend(overrides.set.iter().filter_map(|text| keep(&mut errors, parse_set(text))));
    if config.host.fork == Fork::NoFork && config.host.daemon {
        errors.push(
            Error::config("no-fork mode cannot be a daemon").hint("leave out one of --no-fork and --daemon (or daemon = true in the file)"),
        );
    }
    errors.extend(check_duplicates(&config));
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

fn parse_module(text: String) -> Result<ModuleConfig, Error> {
    let source = if text.contains('/') || text.ends_with(".so") {
        ModuleSource::Path(PathBuf::from(text))
    } else {
        check_name(&text).map_err(|error| error.hint("a file is given with a slash, as in ./FILE"))?;
        ModuleSource::Name(text)
    };
    Ok(ModuleConfig { source, optional: false, params: Vec::new(), position: Position::CommandLine("") })
}

fn parse_listener(text: &str) -> Result<ListenConfig, Error> {
    let (address, handler) = parse_listen(text).map_err(|error| Error { what: format!("--listen: {}", error.what), ..error })?;
    let position = Position::CommandLine("--listen");
    Ok(ListenConfig { addresses: vec![address], options: ListenOptions::default(), handler, workers: None, position })
}

fn parse_set(text: &str) -> Result<SetParam, Error> {
    let bad = |detail: &str| Error::config(format!("--set \"{text}\" sets nothing")).detail(detail).hint("write --set MODULE.PARAM=VALUE");
    let (target, value) = text.split_once('=').ok_or_else(|| bad("it has no \"=\""))?;
    let (module, name) = target.split_once('.').ok_or_else(|| bad("it has no \".\" between module and parameter"))?;
    if name.is_empty() {
        return Err(bad("it names no parameter"));
    }
    check_name(module).map_err(|error| bad(&error.what))?;
    Ok(SetParam { module: module.to_string(), name: name.to_string(), text: value.to_string() })
}

fn merge_log_level(config: &mut Config, text: &str) -> Result<(), Error> {
    let (module, name) = match text.split_once('=') {
        Some((module, name)) => (Some(module), name),
        None => (None, text),
    };
    let level = Level::parse(name)
        .ok_or_else(|| Error::config(format!("--log-level: \"{name}\" is no level")).hint(nearest::hint(name, Level::NAMES)))?;
    match module {
        None => config.log.level = level,
        Some(module) => {
            check_name(module).map_err(|error| Error { what: format!("--log-level: {}", error.what), ..error })?;
            config.log.modules.insert(module.to_string(), level);
        }
    }
    Ok(())
}

fn replace<T>(target: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *target = value;
    }
}

fn keep<T>(errors: &mut Vec<Error>, result: Result<T, Error>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}
