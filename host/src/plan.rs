//! Steps 1 and 2 of the sequence: the operator's configuration, checked as far as possible without
//! running a module.
//!
//! *Runs in:* the starting command and the supervisor; main gets the result. *Never:* runs any code
//! of a module.

use std::path::Path;

use crate::config::address::UNIX_PATH_MAX_BYTES;
use crate::config::{self, Config, Overrides, Position, TlsOptions};
use crate::error::{Error, Result, io_text};
use crate::log::{self, LogSettings, Severity};
use crate::module::{Resolved, resolve};
use crate::net::resolve::PlannedListener;
use crate::sys::process::credentials::{self, Identity};

/// Everything that is decided before anything starts.
#[derive(Debug)]
pub struct Plan {
    /// The merged configuration.
    pub config: Config,
    /// The modules in load order.
    pub modules: Vec<Resolved>,
    /// The listeners whose module is in `modules`.
    pub listeners: Vec<PlannedListener>,
    /// The user and group of main after every `init_f`. None: they stay.
    pub identity: Option<Identity>,
    /// Logged once there is a log.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The TLS settings of the listeners that have some.
    pub fn tls(&self) -> Vec<TlsOptions> {
        self.listeners.iter().filter_map(|listener| listener.config.options.tls.clone()).collect()
    }
}

/// Merges file and command line into one configuration. Reports all errors at once.
pub fn configuration(file: Option<&Path>, overrides: Overrides) -> Result<Config, Vec<Error>> {
    let config = match file {
        None => Config::default(),
        Some(file) => config::parse(&config::read(file).map_err(|error| vec![error])?, file)?,
    };
    config::merge(config, overrides)
}

/// Checks a configuration: modules, parameters, handlers, users. Reports all errors at once.
pub fn plan(mut config: Config) -> Result<Plan, Vec<Error>> {
    let mut errors = Vec::new();
    match std::env::current_dir() {
        Ok(folder) => config.anchor(&folder),
        Err(error) => errors
            .push(Error::config("cannot find the working directory").detail(io_text(&error)).hint("it was removed; change to another one")),
    }
    let mut warnings = Vec::new();
    let identity = identity(&config, &mut warnings).unwrap_or_else(|more| {
        errors.extend(more);
        None
    });
    let planned: Vec<_> = config.listeners.iter().cloned().map(PlannedListener::of).collect();
    let planned = planned.into_iter().filter_map(|listener| listener.map_err(|more| errors.extend(more)).ok()).collect::<Vec<_>>();
    errors.extend(config.host.control.as_deref().and_then(too_long));
    match resolve(&config) {
        Ok(resolution) if errors.is_empty() => {
            warnings.extend(resolution.skipped.iter().map(|skipped| format!("left out: {}: {}", skipped.what, skipped.reason)));
            if config.host.daemon && config.host.fork == config::Fork::Processes && config.log.target == config::LogTarget::Stderr {
                warnings.push("a daemon has no standard error: log records are lost, set log.target".into());
            }
            if resolution.modules.is_empty() {
                warnings.push("no module is configured, nothing will be served".into());
            }
            let listeners = planned.into_iter().filter(|planned| resolution.listeners.contains(&planned.config)).collect();
            Ok(Plan { config, modules: resolution.modules, listeners, identity, warnings })
        }
        Ok(_) => Err(errors),
        Err(more) => {
            errors.extend(more);
            Err(errors)
        }
    }
}

/// The kernel limits the path of a socket more than other paths.
fn too_long(control: &Path) -> Option<Error> {
    let bytes = control.as_os_str().len();
    (bytes > UNIX_PATH_MAX_BYTES).then(|| {
        Error::config(format!("the path of the control socket is too long: {}", control.display()))
            .detail(format_args!("{bytes} bytes, the system's limit is {UNIX_PATH_MAX_BYTES}"))
            .hint("choose a shorter path for host.control")
    })
}

/// The user and group that main changes to. Only root can; for other users the setting has no
/// effect.
fn identity(config: &Config, warnings: &mut Vec<String>) -> Result<Option<Identity>, Vec<Error>> {
    let [user_position, group_position] = &config.host.identity_positions;
    let at = |position: &Option<Position>, error: Error| match position {
        Some(position) => Error { what: format!("{position}: {}", error.what), ..error },
        None => error,
    };
    let user = config.host.user.as_deref().map(|user| credentials::identity(user).map_err(|error| at(user_position, error)));
    let group = config.host.group.as_deref().map(|group| credentials::group_id(group).map_err(|error| at(group_position, error)));
    let identity = match (user, group) {
        (None, None) => return Ok(None),
        (Some(identity), None) => identity.map_err(|error| vec![error])?,
        (None, Some(gid)) => credentials::own_identity(gid.map_err(|error| vec![error])?),
        (Some(identity), Some(gid)) => match (identity, gid) {
            (Ok(identity), Ok(gid)) => Identity { gid, ..identity },
            (identity, gid) => return Err(identity.err().into_iter().chain(gid.err()).collect()),
        },
    };
    if credentials::is_root() {
        return Ok(Some(identity));
    }
    if identity.uid != nix::unistd::Uid::current() || identity.gid != nix::unistd::Gid::current() {
        warnings.push("host.user and host.group are ignored: only root can become somebody else".into());
    }
    Ok(None)
}

pub fn log_settings(config: &Config) -> LogSettings {
    let severity = |level: config::Level| Severity::from_number(level.0);
    LogSettings {
        target: match &config.log.target {
            config::LogTarget::Stderr => log::SinkTarget::Stderr,
            config::LogTarget::File(path) => log::SinkTarget::File(path.clone()),
            config::LogTarget::Syslog => log::SinkTarget::Syslog,
            config::LogTarget::Journald => log::SinkTarget::Journald,
        },
        format: match config.log.format {
            config::LogFormat::Text => log::RecordFormat::Text,
            config::LogFormat::Json => log::RecordFormat::Json,
        },
        level: severity(config.log.level),
        modules: config.log.modules.iter().map(|(module, level)| (module.clone(), severity(*level))).collect(),
    }
}
