//! Step 6: the table of processes, as the configuration and the modules ask for it, and the work of
//! each of the host's processes.
//!
//! *Runs in:* main (`fix`, `fork_each`); the works in their processes. *Never:* says what is known
//! of a kind: that is `process/kinds.rs`.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::life::{Life, Step};
use crate::config::Fork;
use crate::control::ControlServer;
use crate::error::{EXIT_FAILED, Result};
use crate::module::Module;
use crate::net::listener::Listener;
use crate::net::stream::directory::{Directory, MAX_WORKERS};
use crate::net::stream::tcp_main::ProcessLink;
use crate::net::{stream, udp};
use crate::process::family::{Family, Linked, Spec, Work};
use crate::process::kinds::{Forked, Guarded, Kind, Rank};
use crate::state::{InitRequests, State};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::process::fork;
use crate::sys::{descriptor, random};
use crate::timer::{self, TimerProcess};

/// Forks between two checks whether the start is to stop: about two milliseconds.
const FORKS_BETWEEN_CHECKS: usize = 16;

/// Fixes the table of processes and builds the state that all of them inherit.
pub fn fix(
    life: &mut Life,
    modules: &'static [&'static Module],
    listeners: Vec<Listener>,
    control: Option<ControlServer>,
) -> Result<&'static State> {
    let forks = life.plan.config.host.fork == Fork::Processes;
    let tls = life.tls.take();
    let mut guarded = guard(life, Guarded::Main);
    guarded.extend(control.iter().flat_map(ControlServer::descriptors).map(|descriptor| (descriptor, Guarded::Control)));
    guarded.extend(tls.iter().map(|source| (source.reader.as_fd().as_raw_fd(), Guarded::Certificates)));
    let directory = directory(life, &listeners)?;
    let tcp_workers = directory.as_ref().filter(|_| forks).map(Directory::worker_count);
    let datagram_listeners = if forks { &listeners[..] } else { &[] };
    let specs = specs(modules, datagram_listeners, control, tcp_workers);
    let linked = if directory.is_some() { Linked::ToTcpMain } else { Linked::Nowhere };
    let family = Family::new(life.slots, modules, specs, linked, guarded)?;
    let operator_pid = if forks { life.supervisor } else { nix::unistd::getpid() }.as_raw();
    State { operator_pid, family, listeners, directory, tls }.install()
}

fn guard(life: &mut Life, guarded: Guarded) -> Vec<(RawFd, Guarded)> {
    let own = std::mem::take(&mut life.own);
    own.into_iter().chain(life.watch.descriptors()).map(|descriptor| (descriptor, guarded)).collect()
}

/// What the processes that serve connections share, if there are any.
fn directory(life: &Life, listeners: &[Listener]) -> Result<Option<Directory>> {
    if !listeners.iter().any(|listener| listener.connections().is_some()) {
        return Ok(None);
    }
    descriptor::raise_limit();
    let host = &life.plan.config.host;
    let workers = if host.fork == Fork::Processes { (host.workers as usize).min(MAX_WORKERS) } else { 1 };
    Directory::new(workers, listeners.len(), random::word()?).map(Some)
}

/// Every process in the order of process numbers. `None`: a module registered it and will fork it.
fn specs(
    modules: &[&'static Module],
    listeners: &[Listener],
    control: Option<ControlServer>,
    tcp_workers: Option<usize>,
) -> Vec<Option<Spec>> {
    let mut roster = Roster { specs: Vec::new(), workers: 0 };
    roster.add(Kind::Main, |_| "main".into(), Arc::new(|_| EXIT_FAILED));
    for listener in listeners {
        let index = listener.index;
        for _ in 0..listener.datagrams().map_or(0, |service| service.workers) {
            roster.add(Kind::Worker, |rank| format!("worker {rank} {listener}"), Arc::new(move |state| udp_worker(state, index)));
        }
    }
    for which in [TimerProcess::Slow, TimerProcess::Fast] {
        roster.add(Kind::Timer, |_| which.to_string(), Arc::new(move |_| timer_process(which)));
    }
    if let Some(server) = control {
        roster.add(Kind::Control, |_| "control".into(), Arc::new(move |state| server.work(state.family.slots)));
    }
    let registered: u32 = modules.iter().map(|module| module.registered.load(Relaxed)).sum();
    roster.specs.extend((0..registered).map(|_| None));
    if let Some(count) = tcp_workers {
        for worker in 0..count {
            roster.add(Kind::TcpWorker, |rank| format!("TCP worker {rank}"), Arc::new(move |state| tcp_worker(state, worker)));
        }
        roster.add(Kind::TcpMain, |_| "TCP main".into(), Arc::new(tcp_main));
    }
    roster.specs
}

/// The table while it is written.
struct Roster {
    specs: Vec<Option<Spec>>,
    /// The highest rank of a worker.
    workers: i32,
}

impl Roster {
    fn add(&mut self, kind: Kind, name: impl FnOnce(i32) -> String, work: Work) {
        let rank = match kind.row().rank {
            Rank::Fixed(rank) => rank,
            Rank::Counted | Rank::Chosen => {
                self.workers += 1;
                self.workers
            }
        };
        self.specs.push(Some(Spec::new(kind, rank, name(rank), work)));
    }
}

/// Forks the processes whose kind is due, in the order of the table. No module runs in main
/// meanwhile, so that it keeps having one thread.
pub fn fork_each(life: &mut Life, state: &State, due: Forked) -> Step<()> {
    let alone = fork::alone()?;
    for (forked, process_no) in (1..state.family.slots.count()).enumerate() {
        if forked % FORKS_BETWEEN_CHECKS == 0 {
            life.check_for_stop()?;
        }
        if state.family.spec(process_no).is_some_and(|spec| spec.kind.row().forked == due) {
            state.family.start(&alone, process_no, 0)?;
        }
    }
    Ok(())
}

fn udp_worker(state: &'static State, listener: u32) -> u8 {
    match state.listener(listener).and_then(|listener| Some((listener, listener.datagrams()?))) {
        Some((listener, service)) => udp::work(listener, service),
        None => fault("a worker has no listener"),
    }
}

fn timer_process(which: TimerProcess) -> u8 {
    // As registered until now: `PROC_INIT` is over.
    let functions: Vec<_> = InitRequests::current()
        .map(|requests| requests.timers().iter().filter(|function| function.which == which).cloned().collect())
        .unwrap_or_default();
    timer::run::work(&functions)
}

fn tcp_worker(state: &'static State, worker: usize) -> u8 {
    let link = usize::try_from(this_process().process_no()).ok().and_then(|process_no| state.family.own_end(process_no));
    match (state.directory, link) {
        (Some(directory), Some(link)) => stream::server::work(directory, worker, &state.listeners, link, state.certificates()),
        _ => fault("a TCP worker has no link"),
    }
}

fn tcp_main(state: &'static State) -> u8 {
    let Some(directory) = state.directory else { return fault("TCP main has no directory of connections") };
    let mut worker = 0..;
    let links = state.family.links().map(|(process_no, ends)| {
        let is_worker = state.family.spec(process_no).is_some_and(|spec| spec.kind == Kind::TcpWorker);
        ProcessLink { process_no: process_no as u32, worker: if is_worker { worker.next() } else { None }, end: &ends.hub }
    });
    stream::tcp_main::work(directory, &state.listeners, links.collect())
}

fn fault(what: &str) -> u8 {
    tracing::error!(target: "fault", "{what}");
    EXIT_FAILED
}
