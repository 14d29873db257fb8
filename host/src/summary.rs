//! The summary in the log when the service is ready: duration of the start, modules, listeners,
//! processes.
//!
//! *Runs in:* main, after it reported readiness. *Never:* delays readiness; writes a line per
//! process.

use crate::net::listener::Service;
use crate::process::slots::Slot;
use crate::state::State;

/// `took_ns`: from the start of the command to readiness.
pub(crate) fn log(state: &State, took_ns: u64) {
    let modules = state.family.modules();
    tracing::info!(
        "ready in {}.{:03} ms modules={} listeners={} processes={}",
        took_ns / 1_000_000,
        took_ns / 1_000 % 1_000,
        modules.len(),
        state.listeners.len(),
        state.family.slots.count()
    );
    for module in modules {
        tracing::info!("  module {} {} path={}", module.name, module.version, module.path.display());
    }
    for listener in &state.listeners {
        let (addresses, module, handler) = (listener.addresses(), &listener.module.name, &listener.handler);
        match &listener.service {
            Service::Datagrams(service) => tracing::info!("  listener {addresses} handler={module}:{handler} workers={}", service.workers),
            Service::Connections(service) => {
                tracing::info!("  listener {addresses} handler={module}:{handler} accept={}", service.options.accept);
            }
        }
    }
    let rows: Vec<(usize, Slot)> = state.family.slots.iter().filter(|(_, slot)| slot.pid() > 0).collect();
    // Processes of one kind are neighbours in the table: one line for each run of them.
    for run in rows.chunk_by(|(_, one), (_, next)| kind(&one.name()) == kind(&next.name()) && one.rank() >= 0 && next.rank() > one.rank()) {
        let [(first_no, first), .., (last_no, last)] = run else {
            if let [(process_no, slot)] = run {
                tracing::info!("  process {process_no} {} rank={} pid={}", slot.name(), slot.rank(), slot.pid());
            }
            continue;
        };
        tracing::info!(
            "  processes {first_no}-{last_no} {} rank={}-{} pid={}-{}",
            kind(&first.name()),
            first.rank(),
            last.rank(),
            first.pid(),
            last.pid()
        );
    }
}

/// A worker's name without its rank.
fn kind(name: &str) -> String {
    name.split(' ').filter(|word| word.parse::<u32>().is_err()).collect::<Vec<_>>().join(" ")
}
