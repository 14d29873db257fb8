//! The `modhost` command: dispatch, and what a terminal gets to see.
//!
//! *Runs in:* the starting command, the supervisor. *Never:* knows how a thing is done.
#![deny(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use modhost::cli::{self, Command};
use modhost::config::{Fork, LogTarget};
use modhost::control::command;
use modhost::error::{EXIT_FAULT, EXIT_OK, Error};
use modhost::inspect::Form;
use modhost::log::{self, ProcessName};
use modhost::output::{self, complain};
use modhost::plan::{self, Plan};
use modhost::process::slots;
use modhost::supervise::daemon::{self, Detached};
use modhost::supervise::stage::TimeLimits;
use modhost::supervise::supervisor::{ServiceSpec, Supervisor};
use modhost::sys::memory::mapping::Mapping;
use modhost::sys::notify::ServiceManager;
use modhost::sys::process::signal::{self, Signals};
use modhost::sys::process::title;
use modhost::sys::time;
use modhost::{check, inspect, start};

fn main() -> ExitCode {
    let started_ns = time::now_ns();
    // A panic here is our own fault, whatever process it is in; children leave by `_exit` and never
    // come back here.
    ExitCode::from(std::panic::catch_unwind(|| dispatch(started_ns)).unwrap_or(EXIT_FAULT))
}

fn dispatch(started_ns: u64) -> u8 {
    // First: titles need the environment where the kernel put it.
    if let Err(error) = signal::restore_fault_signals().and_then(|()| title::prepare()) {
        return complain(&[error]);
    }
    // Taken by every command, needed by one.
    let manager = ServiceManager::take_from_environment();
    match cli::parse().command {
        Command::Run(args) => {
            let (file, overrides) = args.into_overrides();
            match (plan::configuration(file.as_deref(), overrides).and_then(plan::plan), manager) {
                (Ok(plan), Ok(manager)) => run(plan, manager, started_ns),
                (Ok(_), Err(error)) => complain(&[error]),
                (Err(errors), _) => complain(&errors),
            }
        }
        Command::Check(args) => {
            let form = form(args.json);
            let report = check::run(args.source, form);
            output::warn(&report.warnings);
            // In JSON the errors are part of the report.
            if form == Form::Text {
                complain(&report.errors);
            }
            output::print(&report.text, report.code)
        }
        Command::Inspect(args) => {
            let (report, code) = inspect::run(&args.files, form(args.json));
            output::print(&report, code)
        }
        Command::Ps(args) => answered(form(args.json), |form| command::ps(&args.socket, form)),
        Command::Stats(args) => {
            let shape = args.shape();
            answered(form(args.control.json), |form| command::stats(&args.control.socket, &args.prefixes, shape, form))
        }
        Command::Shm(args) => answered(form(args.json), |form| command::shm(&args.socket, form)),
        Command::Stop(args) => answered(form(args.json), |form| command::stop(&args.socket, form)),
        Command::Ping(args) => answered(form(args.json), |form| command::rpc(&args.socket, "ping", &[], form)),
        Command::Rpc(args) => answered(form(args.control.json), |form| command::rpc(&args.control.socket, &args.method, &args.args, form)),
    }
}

fn form(json: bool) -> Form {
    if json { Form::Json } else { Form::Text }
}

/// Prints what a running host has answered, or why there is no answer.
fn answered(form: Form, ask: impl FnOnce(Form) -> Result<String, Error>) -> u8 {
    match ask(form) {
        Ok(text) => output::print(&text, EXIT_OK),
        Err(error) if form == Form::Json => output::print(&command::error_json(&error), error.exit),
        Err(error) => complain(&[error]),
    }
}

/// Starts the service. In daemon mode the starting command comes back here when it is ready.
fn run(plan: Plan, manager: Option<ServiceManager>, started_ns: u64) -> u8 {
    match serve(plan, manager, started_ns) {
        Ok(code) => code,
        Err(error) => complain(&[error]),
    }
}

fn serve(plan: Plan, manager: Option<ServiceManager>, started_ns: u64) -> Result<u8, Error> {
    let no_fork = plan.config.host.fork == Fork::NoFork;
    if plan.config.host.daemon {
        // There is a terminal now; the log may be elsewhere, or nowhere.
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
