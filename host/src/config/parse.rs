//! Parses a configuration file: text in, [`Config`] or every error out.
//!
//! *Runs in:* the supervisor, before anything is forked. *Never:* stops at the first wrong value.
//!
//! *Pure:* no clock, no environment, no system call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::address::check_name;
use super::check::check_duplicates;
use super::document::Document;
use super::listen::read_listen;
use super::reader::Section;
use super::{Config, HostConfig, Level, LogConfig, LogFormat, LogTarget, ModuleConfig, ModuleSource, ParamSetting, WORKERS_MAX, nearest};
use crate::error::Error;

/// Less holds nothing useful beside the host's own part.
const SHARED_MEMORY_MIN_BYTES: u64 = 1 << 20;
const SHARED_MEMORY_MAX_BYTES: u64 = 1 << 40;
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
/// More syntax errors mean that it is the wrong file.
const SYNTAX_ERRORS_MAX: usize = 20;

/// Parses the text of `file`, whose path is in positions and whose folder relative paths of modules
/// and certificates are relative to.
///
/// # Errors
/// In the order of the file. If the text is not TOML, only its syntax errors.
pub fn parse(text: &str, file: &Path) -> Result<Config, Vec<Error>> {
    let document = Document::new(text, file);
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        for error in syntax_errors.iter().take(SYNTAX_ERRORS_MAX) {
            let offset = error.span().map_or(0, |span| span.start);
            document.report(offset, explain_syntax(error.message()));
        }
        return Err(document.into_errors());
    }
    let root = Section::root(&document, root.get_ref());
    root.only(&["host", "log", "module", "listen"]);
    let mut config = Config { file: Some(file.to_path_buf()), ..Config::default() };
    if let Some(section) = root.table("host", "[host]") {
        read_host(&section, &mut config.host);
    }
    if let Some(section) = root.table("log", "[log]") {
        read_log(&section, &mut config.log);
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    config.modules = root.tables("module").iter().filter_map(|section| read_module(section, folder)).collect();
    config.listeners = root.tables("listen").iter().filter_map(|section| read_listen(section, folder)).collect();
    let mut errors = document.into_errors();
    errors.extend(check_duplicates(&config));
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

fn explain_syntax(message: &str) -> Error {
    let mut reason = message.lines().collect::<Vec<_>>().join(", ");
    if let Some(short) = reason.strip_suffix(", expected nothing") {
        reason.truncate(short.len());
    }
    // How the parser takes an address or a word without quotes.
    let unquoted = ["invalid float", "invalid integer", "string values must be quoted"].iter().any(|start| reason.starts_with(start));
    let hint = if unquoted { "a value that is no number needs quotes" } else { "" };
    Error::config("this is not valid TOML").detail(reason).hint(hint)
}

fn read_host(section: &Section<'_, '_>, host: &mut HostConfig) {
    section.only(&[
        "workers",
        "user",
        "group",
        "daemon",
        "pid_file",
        "control",
        "module_path",
        "shared_memory",
        "start_timeout",
        "stop_timeout",
    ]);
    set(&mut host.workers, section.integer("workers", 1..=WORKERS_MAX));
    host.user = section.text("user");
    host.group = section.text("group");
    host.identity_positions = ["user", "group"].map(|key| section.value_position(key));
    set(&mut host.daemon, section.boolean("daemon"));
    host.pid_file = section.text("pid_file").map(PathBuf::from);
    host.control = section.text("control").map(PathBuf::from);
    set(&mut host.module_path, section.texts("module_path").map(|texts| texts.into_iter().map(PathBuf::from).collect()));
    set(&mut host.shared_memory_bytes, section.size("shared_memory", SHARED_MEMORY_MIN_BYTES..=SHARED_MEMORY_MAX_BYTES));
    set(&mut host.start_timeout, section.duration("start_timeout", TIMEOUT_MIN..=TIMEOUT_MAX));
    set(&mut host.stop_timeout, section.duration("stop_timeout", TIMEOUT_MIN..=TIMEOUT_MAX));
}

fn read_log(section: &Section<'_, '_>, log: &mut LogConfig) {
    section.only(&["target", "format", "level", "modules"]);
    set(&mut log.target, section.parsed("target", parse_log_target));
    set(&mut log.format, section.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]));
    set(&mut log.level, section.choice("level", &levels()));
    if let Some(modules) = section.table("modules", "[log.modules]") {
        log.modules = read_log_modules(&modules);
    }
}

fn read_log_modules(section: &Section<'_, '_>) -> BTreeMap<String, Level> {
    let mut modules = BTreeMap::new();
    for (name, _, _) in section.settings() {
        if let Err(error) = check_name(&name) {
            section.report(section.key_offset(&name), error);
        } else if let Some(level) = section.choice(&name, &levels()) {
            modules.insert(name, level);
        }
    }
    modules
}

/// Reads `log.target`. A path must have a slash or a dot, so that no misspelt word becomes a file.
fn parse_log_target(text: &str) -> Result<LogTarget, Error> {
    match text {
        "stderr" => Ok(LogTarget::Stderr),
        "syslog" => Ok(LogTarget::Syslog),
        "journald" => Ok(LogTarget::Journald),
        path if path.contains(['/', '.']) && !path.contains('\0') => Ok(LogTarget::File(PathBuf::from(path))),
        _ => Err(Error::config(format!("\"{}\" is no log target", text.escape_debug()))
            .detail("expected stderr, syslog, journald, or the path of a file")
            .hint(match nearest::nearest(text, ["stderr", "syslog", "journald"]) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("a file in the working directory: \"./{}\"", text.escape_debug()),
            })),
    }
}

fn levels() -> Vec<(&'static str, Level)> {
    Level::NAMES.into_iter().zip((0..).map(Level)).collect()
}

fn read_module(section: &Section<'_, '_>, folder: &Path) -> Option<ModuleConfig> {
    section.only(&["name", "path", "optional", "params"]);
    let name = section.string("name");
    let path = section.text("path");
    let optional = section.boolean("optional").unwrap_or(false);
    let params = section.table("params", "[module.params]").map_or_else(Vec::new, |params| read_params(&params));
    let source = match (name, path) {
        (Some(_), Some(_)) => {
            let error = Error::config("a [[module]] has both \"name\" and \"path\"").hint("keep one of them: a file says its own name");
            section.report(section.key_offset("path"), error);
            return None;
        }
        (Some(found), None) => match check_name(&found.value) {
            Ok(()) => ModuleSource::Name(found.value),
            Err(error) => {
                let hint = if found.value.contains(['/', '.']) { "for a file write path = \"...\"" } else { "" };
                section.report(found.offset, error.hint(hint));
                return None;
            }
        },
        (None, Some(path)) => ModuleSource::Path(folder.join(path)),
        (None, None) => {
            // A key of the wrong type was reported already.
            if !section.has("name") && !section.has("path") {
                let error = Error::config("a [[module]] names no module").hint("add name = \"...\" or path = \"...\"");
                section.report(section.offset, error);
            }
            return None;
        }
    };
    Some(ModuleConfig { source, optional, params, position: section.position(section.offset) })
}

fn read_params(section: &Section<'_, '_>) -> Vec<ParamSetting> {
    let setting = |(name, value, offset)| ParamSetting { name, value, position: section.position(offset) };
    section.settings().into_iter().map(setting).collect()
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}
