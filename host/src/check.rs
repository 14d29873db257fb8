//! `modhost check`: everything that can go wrong before the first `init_f`, without starting anything.
//!
//! *Runs in:* the command of that name. *Never:* calls a function of a module, binds, or writes a file. The constructors of the
//! modules' files do run: a module is really loaded, or its symbols and its table in memory would not be known.

use std::fs::File;
use std::io::{Read, Write};

use module_api::abi;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::pipe2;
use serde_json::{Value, json};

use crate::cli::SourceArgs;
use crate::config::{Config, Fork, ListenAddress, ListenConfig};
use crate::error::{EXIT_CONFIG, EXIT_FAILED, EXIT_OK, Error};
use crate::inspect::Form;
use crate::log;
use crate::module::{Resolved, loader};
use crate::net::stream::directory::MAX_WORKERS;
use crate::output::{table, visible};
use crate::plan::{self, Plan};
use crate::process::slots;
use crate::supervise::pid_file::PidFile;
use crate::sys::process::exit;
use crate::sys::process::fork::{self, Side};
use crate::sys::time;
use crate::tls::{Files, judge};

/// What is printed, and how the command ends.
#[derive(Debug)]
pub struct Report {
    /// For standard output.
    pub text: String,
    /// Whatever keeps the host from starting, all of it.
    pub errors: Vec<Error>,
    /// What would be logged as a warning; part of the text in JSON.
    pub warnings: Vec<String>,
    /// 0, or 2 if there are errors.
    pub code: u8,
}

/// Checks a configuration and what it names.
pub fn run(source: SourceArgs, form: Form) -> Report {
    let file = source.config.clone();
    let planned = plan::configuration(file.as_deref(), source.into_overrides()).and_then(plan::plan);
    let (plan, warnings, errors) = match planned {
        Ok(mut plan) => {
            let mut warnings = std::mem::take(&mut plan.warnings);
            // First where it does no harm: a constructor may end the process it runs in, and that must not pass for a verdict.
            let errors = rehearse(&plan).map_or_else(|error| vec![error], |()| load(&plan, &mut warnings));
            let errors = [errors, certificates(&plan, &mut warnings), places(&plan)].concat();
            (Some(plan), warnings, errors)
        }
        Err(errors) => (None, Vec::new(), errors),
    };
    let code = if errors.is_empty() { EXIT_OK } else { EXIT_CONFIG };
    match form {
        Form::Json => Report { text: report(plan.as_ref(), &errors, &warnings), errors, warnings: Vec::new(), code },
        Form::Text => {
            let text = plan.filter(|_| errors.is_empty()).map_or_else(String::new, |plan| summary(&plan));
            Report { text, errors, warnings, code }
        }
    }
}

/// Loads every module in a process of its own, which must live to its end.
fn rehearse(plan: &Plan) -> Result<(), Error> {
    if plan.modules.is_empty() {
        return Ok(());
    }
    let failed = |call: &str, detail: String| Error::failed("cannot try the modules out").detail(format!("{call}: {detail}"));
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("pipe", errno.to_string()))?;
    match fork::fork(&fork::alone()?)? {
        Side::Child => {
            drop(reader);
            let mut progress = File::from(writer);
            // One byte for each module that has been loaded, good or not.
            for module in &plan.modules {
                drop(load_one(module));
                if progress.write_all(&[1]).is_err() {
                    exit::leave_now(EXIT_FAILED);
                }
            }
            exit::leave_now(EXIT_OK)
        }
        Side::Parent(pid) => {
            drop(writer);
            let mut loaded = Vec::new();
            File::from(reader).read_to_end(&mut loaded).map_err(|error| failed("read", error.to_string()))?;
            let status = waitpid(pid, None).map_err(|errno| failed("waitpid", errno.to_string()))?;
            let Some(culprit) = plan.modules.get(loaded.len()) else { return Ok(()) };
            let how = match status {
                WaitStatus::Exited(_, code) => format!("its constructors exited with status {code}"),
                WaitStatus::Signaled(_, signal, _) => format!("its constructors died of {signal}"),
                other => format!("{other:?}"),
            };
            Err(Error::config(format!("{}: module \"{}\" ends the process that loads it", culprit.position, culprit.name))
                .detail(format!("{}: {how}", culprit.path.display()))
                .hint("a module does its work in init_f, not in constructors"))
        }
    }
}

/// Loads every module as main would, up to its parameters.
fn load(plan: &Plan, warnings: &mut Vec<String>) -> Vec<Error> {
    let mut errors = Vec::new();
    for module in &plan.modules {
        let position = &module.position;
        match load_one(module) {
            Ok(()) => {}
            Err(found) if module.optional => {
                warnings.extend(found.iter().map(|error| format!("{position}: optional module is left out: {error}")));
            }
            Err(found) => {
                errors.extend(found.into_iter().map(|error| Error { what: format!("{position}: {}", error.what), ..error }));
            }
        }
        if let Err(error) = loader::one_thread(&module.name) {
            errors.push(Error { what: format!("{position}: {}", error.what), ..error });
            // It stays, and would be blamed on every module behind this one.
            break;
        }
    }
    errors
}

/// With the same calls and in the same order as main.
fn load_one(module: &Resolved) -> Result<(), Vec<Error>> {
    let one = |error| vec![error];
    let opened = loader::open(&module.path).map_err(one)?;
    opened.apply(&module.settings, &module.folders)?;
    let name = opened.name();
    if name == module.name {
        return Ok(());
    }
    Err(one(Error::config(format!("module \"{}\" calls itself \"{name}\" once it is loaded", module.name)).detail(module.path.display())))
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

/// What a start needs beside modules: room for its processes, and for the files that it makes.
fn places(plan: &Plan) -> Vec<Error> {
    let pid_file = plan.config.host.pid_file.as_deref().map_or(Ok(()), PidFile::check);
    let outcomes = [slots::check_count(processes(plan)), pid_file, log::check_file(&plan::log_settings(&plan.config))];
    outcomes.into_iter().filter_map(Result::err).collect()
}

/// How many processes there are at least: modules may add listeners, and processes of their own.
fn processes(plan: &Plan) -> usize {
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

struct Listener {
    address: String,
    handler: String,
    workers: u32,
}

fn listeners(plan: &Plan) -> impl Iterator<Item = Listener> {
    let name_of_first = |module: &str, kind: u32| {
        let found = plan.modules.iter().find(|found| found.name == module);
        found.and_then(|found| found.table.handlers.iter().find(|handler| handler.kind == kind)).map(|handler| handler.name.clone())
    };
    plan.listeners.iter().map(move |planned| {
        let listener = &planned.config;
        let module = &listener.handler.module;
        let kind = if takes_connections(listener) { abi::HANDLER_STREAM } else { abi::HANDLER_UDP };
        let handler = listener.handler.handler.clone().or_else(|| name_of_first(module, kind)).unwrap_or_default();
        Listener {
            address: listener.to_string(),
            handler: format!("{module}:{handler}"),
            workers: listener.workers.unwrap_or(plan.config.host.workers),
        }
    })
}

/// Who the processes will be; none: who starts them.
fn identity(plan: &Plan) -> Option<(u32, u32)> {
    plan.identity.as_ref().map(|identity| (identity.uid.as_raw(), identity.gid.as_raw()))
}

/// For people.
fn summary(plan: &Plan) -> String {
    let config: &Config = &plan.config;
    let source = config.file.as_ref().map_or_else(|| "the command line".to_owned(), |file| file.display().to_string());
    let mut rows = Vec::new();
    for module in &plan.modules {
        let cells = ["  module", &module.name, &module.table.version, &module.path.display().to_string()];
        rows.push(cells.map(visible).to_vec());
    }
    for Listener { address, handler, workers } in listeners(plan) {
        rows.push(["  listener", &address, &handler, &format!("workers={workers}")].map(visible).to_vec());
    }
    if let Some((uid, gid)) = identity(plan) {
        let names = (config.host.user.as_deref().unwrap_or("-"), config.host.group.as_deref().unwrap_or("-"));
        rows.push(vec!["  user".into(), visible(names.0), format!("uid={uid}")]);
        rows.push(vec!["  group".into(), visible(names.1), format!("gid={gid}")]);
    }
    if let (Some(control), Fork::Processes) = (&config.host.control, config.host.fork) {
        rows.push(vec!["  control".into(), visible(&control.display().to_string())]);
    }
    format!("no errors in {}\n{}", visible(&source), table(&rows))
}

/// For programs. Keys are always there.
fn report(plan: Option<&Plan>, errors: &[Error], warnings: &[String]) -> String {
    let error = |error: &Error| json!({ "what": error.what, "detail": error.detail, "hint": error.hint });
    let modules: Vec<Value> = plan.iter().flat_map(|plan| &plan.modules).map(module).collect();
    let listeners: Vec<Value> = plan
        .into_iter()
        .flat_map(listeners)
        .map(|Listener { address, handler, workers }| json!({ "address": address, "handler": handler, "workers": workers }))
        .collect();
    let identity = plan.and_then(identity);
    let report = json!({
        "ok": errors.is_empty(),
        "errors": errors.iter().map(error).collect::<Vec<_>>(),
        "warnings": warnings,
        "modules": modules,
        "listeners": listeners,
        "uid": identity.map(|(uid, _)| uid),
        "gid": identity.map(|(_, gid)| gid),
    });
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

fn module(module: &Resolved) -> Value {
    json!({
        "name": module.name,
        "version": module.table.version,
        "path": module.path.display().to_string(),
        "optional": module.optional,
        "position": module.position.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn source() -> SourceArgs {
        SourceArgs { config: None, modules: Vec::new(), module_dirs: Vec::new(), load_all: Vec::new(), listen: Vec::new(), set: Vec::new() }
    }

    #[test]
    fn all_errors_in_either_form() {
        let wrong =
            || SourceArgs { modules: vec!["/nonexistent/libx.so".into()], listen: vec!["udp://127.0.0.1:7007=nobody".into()], ..source() };
        let report = run(wrong(), Form::Text);
        assert_eq!((report.code, report.errors.len(), report.text.as_str()), (EXIT_CONFIG, 2, ""));
        let report: Value = serde_json::from_str(&run(wrong(), Form::Json).text).unwrap();
        assert_eq!((&report["ok"], report["errors"].as_array().unwrap().len()), (&json!(false), 2));
        assert!(report["errors"][0]["what"].as_str().unwrap().contains("/nonexistent/libx.so"));
    }

    #[test]
    fn a_missing_file_is_an_error_and_nothing_at_all_a_warning() {
        let missing = run(SourceArgs { config: Some(PathBuf::from("/nonexistent/x.toml")), ..source() }, Form::Text);
        assert!(missing.code != EXIT_OK && missing.errors.len() == 1);
        let nothing = run(source(), Form::Text);
        assert_eq!((nothing.code, nothing.warnings.len()), (EXIT_OK, 1));
        assert!(nothing.text.starts_with("no errors in the command line\n"));
    }
}
