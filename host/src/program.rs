//! The `modhost` program: dispatches the command line, and sets up the process that
//! supervises.
//!
//! *Runs in:* the starting command, the supervisor. *Never:* carries out a command itself.
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::{self, Command};
use crate::config::{Fork, LogTarget};
use crate::error::{EXIT_FAULT, EXIT_OK, Error, ErrorList};
use crate::log::{self, ProcessName};
use crate::output::{self, OutputFormat};
use crate::plan::{self, Plan};
use crate::process::slots;
use crate::supervise::daemon::{self, Detached};
use crate::supervise::stage::TimeLimits;
use crate::supervise::supervisor::{ServiceSpec, Supervisor};
use crate::sys::memory::mapping::Mapping;
use crate::sys::notify::ServiceManager;
use crate::sys::process::signal::{self, Signals};
use crate::sys::process::title;
use crate::sys::time;
use crate::{check, inspect, start};

/// Runs the command that the arguments name. Returns the exit code of the process.
pub fn main() -> ExitCode {
    let started_ns = time::now_ns();
    // A panic here is our own fault, whatever process it is in; children leave by `_exit` and never
    // come back here.
    let code = std::panic::catch_unwind(|| dispatch(started_ns).unwrap_or_else(|error| output::complain(&error)));
    ExitCode::from(code.unwrap_or(EXIT_FAULT))
}

/// Returns the exit code, or why the command failed.
fn dispatch(started_ns: u64) -> anyhow::Result<u8> {
    // First: titles need the environment where the kernel put it.
    signal::restore_fault_signals().and_then(|()| title::prepare())?;
    // Taken by every command, needed by one.
    let manager = ServiceManager::take_from_environment();
    match cli::parse().command {
        Command::Run(args) => {
            let (file, overrides) = args.into_overrides();
            let plan = plan::configuration(file.as_deref(), overrides).and_then(plan::plan).map_err(ErrorList)?;
            Ok(serve(plan, manager?, started_ns)?)
        }
        Command::Check(args) => {
            let report = check::run(args.source, args.format);
            output::warn(&report.warnings);
            output::complain_of_all(&report.errors);
            output::print(&report.text)?;
            Ok(report.exit)
        }
        Command::Inspect(args) => {
            let (report, exit) = inspect::run(&args.files, args.format);
            output::print(&report)?;
            Ok(exit)
        }
        Command::Client(command) => match command.run() {
            Err(error) if command.format() == OutputFormat::Json => {
                let error = Error::of_chain(&error);
                output::print(&output::json(&serde_json::json!({ "error": error })))?;
                Ok(error.exit)
            }
            answer => {
                output::print(&answer?)?;
                Ok(EXIT_OK)
            }
        },
    }
}

/// Starts the service and supervises it. In daemon mode the starting command returns from here when
/// the service is ready.
fn serve(plan: Plan, manager: Option<ServiceManager>, started_ns: u64) -> Result<u8, Error> {
    let no_fork = plan.config.host.fork == Fork::NoFork;
    if plan.config.host.daemon {
        // The terminal is still there; the log may be elsewhere, or nowhere.
        plan.warnings.iter().for_each(|warning| eprintln!("modhost: {warning}"));
    }
    let starter = if plan.config.host.daemon && !no_fork {
        match daemon::detach()? {
            Detached::Starter(outcome) => return outcome.map(|()| EXIT_OK),
            Detached::Supervisor(starter) => Some(starter),
        }
    } else {
        None
    };
    let signals = Signals::watch()?;
    // One mapping for the log's shared memory and the process table. Main makes another one, which
    // ends with it.
    let [log_words, log_lost] = log::SHARED_BYTES;
    Mapping::reserve_shared(&[log_words, log_lost, slots::TABLE_BYTES])?;
    let prepared = log::init(&plan::log_settings(&plan.config));
    log::set_process(&ProcessName::new(if no_fork { "main" } else { "supervisor" }));
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    if no_fork {
        prepared?;
        return start::no_fork(Arc::new(plan), signals, started_ns);
    }
    let log_owner = plan.identity.as_ref().map(|identity| (identity.uid, identity.gid));
    let prepared = prepared.and_then(|()| if log_owner.is_some() { log::reopen(log_owner) } else { Ok(()) });
    title::set_title("modhost: supervisor");
    let host = &plan.config.host;
    let spec = ServiceSpec {
        limits: TimeLimits { start: host.start_timeout, stop: host.stop_timeout },
        pid_file: host.pid_file.clone(),
        control: host.control.clone(),
        listeners: plan.listeners.clone(),
        log_owner,
        modules: plan.modules.iter().map(|module| module.name.clone()).collect(),
        tls: plan.tls(),
    };
    let supervisor = Supervisor::new(spec, signals, manager, starter);
    let plan = Arc::new(plan);
    let outcome = supervisor.run(prepared, |inheritance| start::main_process(inheritance, plan.clone(), started_ns));
    if let Err(error) = &outcome
        && plan.config.log.target != LogTarget::Stderr
    {
        tracing::error!("{error}");
    }
    outcome.map(|()| EXIT_OK)
}
