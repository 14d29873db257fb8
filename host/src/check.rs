//! `modhost check`: everything that can go wrong before the first `init_f`, without a start.
//!
//! *Runs in:* the command of that name. *Never:* calls a function of a module, binds, or writes a
//! file. The constructors of the modules' files do run, because a module is really loaded: its
//! symbols, and its table in memory, cannot be checked otherwise.

mod loading;
mod report;

use crate::cli::SourceArgs;
use crate::config::{ListenAddress, ListenConfig};
use crate::error::{EXIT_CONFIG, EXIT_OK, Error};
use crate::log;
use crate::net::stream::directory::MAX_WORKERS;
use crate::output::OutputFormat;
use crate::plan::{self, Plan};
use crate::process::slots;
use crate::supervise::pid_file::PidFile;
use crate::sys::time;
use crate::tls::{Files, judge};

/// The output and the exit code of the command.
#[derive(Debug)]
pub struct CheckReport {
    /// For standard output. In JSON it contains errors and warnings.
    pub text: String,
    /// Everything that prevents a start, for standard error.
    pub errors: Vec<Error>,
    /// What a start would log as a warning, for standard error.
    pub warnings: Vec<String>,
    /// 0, or 2 if there are errors.
    pub exit: u8,
}

/// Checks a configuration and the files that it names.
pub fn run(source: SourceArgs, format: OutputFormat) -> CheckReport {
    let file = source.config.clone();
    let planned = plan::configuration(file.as_deref(), source.into_overrides()).and_then(plan::plan);
    let (plan, warnings, errors) = match planned {
        Ok(mut plan) => {
            let mut warnings = std::mem::take(&mut plan.warnings);
            // In a child first: a constructor may end its process, even with success.
            let errors = loading::load_in_child(&plan).map_or_else(|error| vec![error], |()| loading::load(&plan, &mut warnings));
            let errors = [errors, certificates(&plan, &mut warnings), resources(&plan)].concat();
            (Some(plan), warnings, errors)
        }
        Err(errors) => (None, Vec::new(), errors),
    };
    let exit = if errors.is_empty() { EXIT_OK } else { EXIT_CONFIG };
    match format {
        OutputFormat::Json => {
            let text = report::json(plan.as_ref(), &errors, &warnings);
            CheckReport { text, errors: Vec::new(), warnings: Vec::new(), exit }
        }
        OutputFormat::Text => {
            let text = plan.filter(|_| errors.is_empty()).map_or_else(String::new, |plan| report::text(&plan));
            CheckReport { text, errors, warnings, exit }
        }
    }
}

/// Reads and judges the certificates of all listeners.
fn certificates(plan: &Plan, warnings: &mut Vec<String>) -> Vec<Error> {
    let listeners = plan.tls();
    let files = Files::of(listeners.iter());
    match files.read().map_err(|error| vec![error]).and_then(|contents| judge::judge(&listeners, &files, &contents, time::wall_s())) {
        Ok(found) => {
            warnings.extend(found);
            Vec::new()
        }
        Err(errors) => errors,
    }
}

/// Whether there are slots for all processes, and whether pid file and log file can be made.
fn resources(plan: &Plan) -> Vec<Error> {
    let pid_file = plan.config.host.pid_file.as_deref().map_or(Ok(()), PidFile::check);
    let outcomes = [slots::check_count(process_count(plan)), pid_file, log::check_file(&plan::log_settings(&plan.config))];
    outcomes.into_iter().filter_map(Result::err).collect()
}

/// The least number of processes: modules may add listeners, and register processes.
fn process_count(plan: &Plan) -> usize {
    let host = &plan.config.host;
    let (streams, datagrams): (Vec<&ListenConfig>, _) =
        plan.listeners.iter().map(|listener| &listener.config).partition(|listener| takes_connections(listener));
    let workers: usize = datagrams.iter().map(|listener| listener.workers.unwrap_or(host.workers) as usize).sum();
    let tcp = if streams.is_empty() { 0 } else { (host.workers as usize).min(MAX_WORKERS) + 1 };
    let (main, timers) = (1, 2);
    main + workers + timers + usize::from(host.control.is_some()) + tcp
}

fn takes_connections(listener: &ListenConfig) -> bool {
    matches!(listener.addresses.first(), Some(ListenAddress::Tcp(_) | ListenAddress::Unix(_)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;

    fn source() -> SourceArgs {
        SourceArgs { config: None, modules: Vec::new(), module_dirs: Vec::new(), load_all: Vec::new(), listen: Vec::new(), set: Vec::new() }
    }

    #[test]
    fn all_errors_are_reported_in_both_formats() {
        let wrong =
            || SourceArgs { modules: vec!["/nonexistent/libx.so".into()], listen: vec!["udp://127.0.0.1:7007=nobody".into()], ..source() };
        let report = run(wrong(), OutputFormat::Text);
        assert_eq!((report.exit, report.errors.len(), report.text.as_str()), (EXIT_CONFIG, 2, ""));
        let report: Value = serde_json::from_str(&run(wrong(), OutputFormat::Json).text).unwrap();
        assert_eq!((&report["ok"], report["errors"].as_array().unwrap().len()), (&Value::from(false), 2));
        assert!(report["errors"][0]["what"].as_str().unwrap().contains("/nonexistent/libx.so"));
    }

    #[test]
    fn a_missing_file_is_an_error_and_an_empty_configuration_a_warning() {
        let missing = run(SourceArgs { config: Some(PathBuf::from("/nonexistent/x.toml")), ..source() }, OutputFormat::Text);
        assert!(missing.exit != EXIT_OK && missing.errors.len() == 1);
        let nothing = run(source(), OutputFormat::Text);
        assert_eq!((nothing.exit, nothing.warnings.len()), (EXIT_OK, 1));
        assert!(nothing.text.starts_with("no errors in the command line\n"));
    }
}
