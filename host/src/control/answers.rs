//! The methods of the control socket, as a table: names, params, functions, and the structs that
//! the functions answer with.
//!
//! *Runs in:* the control process, which answers by this table; the commands, which read answers
//! into the same structs. *Never:* blocks, or does what is main's task.
//!
//! A new method is a constant, a row, a function and a struct in this file. If it has a command,
//! that is in `client/commands.rs`.

pub mod stats;

use std::sync::atomic::Ordering::Relaxed;

use module_api::abi;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::stats::StatsLayout;
use crate::config::nearest;
use crate::error::{Error, Result};
use crate::process::phase::Breadcrumb;
use crate::process::slots::{Slot, Slots};
use crate::shm::arena::Arena;
use crate::stats::registry::Registry;

pub const METHODS: &str = "methods";
pub const PING: &str = "ping";
pub const PS: &str = "ps";
pub const SHM: &str = "shm";
pub const STATS: &str = "stats";
pub const STATS_BY_PROCESS: &str = "stats_by_process";
pub const STATS_PROMETHEUS: &str = "stats_prometheus";
pub const STOP: &str = "stop";

struct Method {
    name: &'static str,
    /// For people; empty if there are none.
    params: &'static str,
    max_params: usize,
    summary: &'static str,
    answer: fn(&MethodCall<'_>) -> Result<Answered>,
}

const TABLE: [Method; 8] = [
    Method { name: METHODS, params: "", max_params: 0, summary: "what can be called", answer: methods },
    Method { name: PING, params: "", max_params: 0, summary: "answers: pids, version, module ABI, uptime", answer: ping },
    Method { name: PS, params: "", max_params: 0, summary: "the process table", answer: ps },
    Method { name: SHM, params: "", max_params: 0, summary: "who has how much shared memory", answer: shm },
    Method { name: STOP, params: "", max_params: 0, summary: "stops the host, in order; answers before that begins", answer: stop },
    Method {
        name: STATS,
        params: "[PREFIX...]",
        max_params: 64,
        summary: "what was counted, of all processes together",
        answer: |call| stats::answer(call, StatsLayout::Sums),
    },
    Method {
        name: STATS_BY_PROCESS,
        params: "[PREFIX...]",
        max_params: 64,
        summary: "the same, with the part of each process",
        answer: |call| stats::answer(call, StatsLayout::ByProcess),
    },
    Method {
        name: STATS_PROMETHEUS,
        params: "[PREFIX...]",
        max_params: 64,
        summary: "the same as text for Prometheus",
        answer: |call| stats::answer(call, StatsLayout::Prometheus),
    },
];

/// What the control process sees of the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostView<'h> {
    pub slots: Slots,
    pub stats: &'h Registry,
    pub arena: &'h Arena,
    /// Names in load order.
    pub modules: &'h [String],
    /// The pid that the operator knows.
    pub supervisor_pid: i32,
    pub main_pid: i32,
    /// The longest time that a stop can take.
    pub stop_limit_ms: u64,
}

/// One call of a method, with the number of params that it takes.
#[derive(Debug)]
pub(super) struct MethodCall<'c> {
    pub view: &'c HostView<'c>,
    pub params: &'c [Value],
    pub now_ns: u64,
}

/// A method's success.
#[derive(Debug)]
pub(super) struct Answered {
    pub json: String,
    pub then: Then,
}

/// What the server does after it has sent an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    /// Orders main to stop.
    Stop,
}

/// Answers a call of the method with that name.
pub(super) fn answer(name: &str, call: &MethodCall<'_>) -> Result<Answered> {
    let Some(method) = TABLE.iter().find(|method| method.name == name) else {
        let shown: String = name.chars().take(64).collect();
        return Err(Error::config(format!("no method \"{shown}\"")).hint(nearest::hint(name, TABLE.iter().map(|method| method.name))));
    };
    if call.params.len() > method.max_params {
        let takes = if method.params.is_empty() { "no arguments" } else { method.params };
        return Err(Error::config(format!("method \"{name}\" takes {takes}"))
            .detail(format!("{} were given", call.params.len()))
            .hint("\"modhost rpc methods\" lists what each takes"));
    }
    (method.answer)(call)
}

/// An answer after which the server goes on. Writing a tree of our own values cannot fail.
fn answered(value: &impl Serialize) -> Result<Answered> {
    Ok(Answered { json: serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()), then: Then::GoOn })
}

fn methods(_: &MethodCall<'_>) -> Result<Answered> {
    #[derive(Serialize)]
    struct MethodRow {
        method: &'static str,
        params: &'static str,
        summary: &'static str,
    }
    let row = |method: &Method| MethodRow { method: method.name, params: method.params, summary: method.summary };
    answered(&TABLE.iter().map(row).collect::<Vec<_>>())
}

fn ping(call: &MethodCall<'_>) -> Result<Answered> {
    #[derive(Serialize)]
    struct Pong {
        answer: &'static str,
        /// The supervisor's: the one to send signals to.
        pid: i32,
        main_pid: i32,
        version: &'static str,
        abi: String,
        uptime_ms: u64,
    }
    answered(&Pong {
        answer: "pong",
        pid: call.view.supervisor_pid,
        main_pid: call.view.main_pid,
        version: env!("CARGO_PKG_VERSION"),
        abi: format!("{}.{}", abi::ABI_MAJOR, abi::ABI_MINOR),
        uptime_ms: call.view.slots.slot(0).map_or(0, |main| since_ms(main.forked_ns(), call.now_ns)),
    })
}

/// A slot of the process table, in the answer of `ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// The `process_no`.
    pub slot: usize,
    /// None: the slot has no process now.
    pub pid: Option<i32>,
    pub rank: i32,
    /// As in the process title.
    pub name: String,
    /// `free`, `starting`, `serving`, `waiting`, `ended`.
    pub state: String,
    /// Since this process was forked. None: the slot has no process now.
    pub uptime_ms: Option<u64>,
    pub restarts: u32,
    /// The call into a module that the process is in, or died in.
    pub last: Option<LastCall>,
}

/// A call into a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCall {
    /// As the log names it.
    pub phase: String,
    pub module: String,
}

fn ps(call: &MethodCall<'_>) -> Result<Answered> {
    answered(&call.view.slots.iter().map(|(process_no, slot)| process_row(call, process_no, slot)).collect::<Vec<_>>())
}

fn process_row(call: &MethodCall<'_>, process_no: usize, slot: Slot) -> ProcessRow {
    let pid = Some(slot.pid()).filter(|pid| *pid > 0);
    let crumb = Breadcrumb::from_word(slot.trail().load(Relaxed));
    let module = crumb.module.and_then(|index| call.view.modules.get(index as usize));
    ProcessRow {
        slot: process_no,
        pid,
        rank: slot.rank(),
        name: slot.name(),
        state: slot.state().name().to_owned(),
        uptime_ms: pid.map(|_| since_ms(slot.forked_ns(), call.now_ns)),
        restarts: slot.restarts(),
        last: module.map(|module| LastCall { phase: crumb.phase.to_string(), module: module.clone() }),
    }
}

fn since_ms(begin_ns: u64, now_ns: u64) -> u64 {
    now_ns.saturating_sub(begin_ns) / 1_000_000
}

/// The answer of `shm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// The modules that have at least one block.
    pub modules: Vec<ModuleShare>,
    /// Size of the arena.
    pub total_bytes: u64,
    /// In blocks.
    pub used_bytes: u64,
    /// In pages that belong to nothing.
    pub free_bytes: u64,
    /// Free blocks among used ones, available for blocks of the same sizes.
    pub spare_bytes: u64,
    /// The largest block that fits.
    pub largest_free_bytes: u64,
}

/// What a module has of the arena.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleShare {
    pub module: String,
    pub blocks: u64,
    /// As rounded up by the allocator.
    pub bytes: u64,
}

fn shm(call: &MethodCall<'_>) -> Result<Answered> {
    let usage = call.view.arena.usage();
    let named = |index: &Option<u32>| index.and_then(|index| call.view.modules.get(index as usize)).map_or("?", String::as_str).to_owned();
    let shares = usage.shares.iter().map(|(index, share)| ModuleShare { module: named(index), blocks: share.blocks, bytes: share.bytes });
    answered(&MemoryUsage {
        modules: shares.collect(),
        total_bytes: usage.total_bytes,
        used_bytes: usage.sum().bytes,
        free_bytes: usage.free_bytes,
        spare_bytes: usage.spare_bytes,
        largest_free_bytes: usage.largest_free_bytes,
    })
}

/// The answer of `stop`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stopping {
    stopping: bool,
    /// The supervisor's: when it has ended, every process has.
    pub pid: i32,
    /// The longest time that the stop can take.
    pub limit_ms: u64,
}

fn stop(call: &MethodCall<'_>) -> Result<Answered> {
    let stopping = Stopping { stopping: true, pid: call.view.supervisor_pid, limit_ms: call.view.stop_limit_ms };
    Ok(Answered { then: Then::Stop, ..answered(&stopping)? })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::process::phase::Phase;
    use crate::process::slots::SlotState;

    /// Main, a worker in its handler, a worker that waits for its restart. Nothing was counted.
    pub(in crate::control) fn sample_host() -> HostView<'static> {
        static MEMORY: OnceLock<(Registry, Arena, Vec<String>)> = OnceLock::new();
        let (stats, arena, modules) =
            MEMORY.get_or_init(|| (Registry::new().unwrap(), Arena::new(1 << 20).unwrap(), vec!["echo".to_owned()]));
        let slots = Slots::new().unwrap();
        slots.fix_count(3).unwrap();
        for (process_no, name, pid) in [(0, "main", 100), (1, "worker 1 udp 127.0.0.1:7007", 101), (2, "worker 2 udp 127.0.0.1:7007", 0)] {
            let slot = slots.slot(process_no).unwrap();
            slot.note_fork(process_no as i32, process_no as u32, 1_000_000_000);
            slot.set_name(name);
            slot.set_pid(pid);
            slot.set_state(if pid > 0 { SlotState::Serving } else { SlotState::Waiting });
        }
        slots.slot(1).unwrap().trail().store(Breadcrumb::word(0, Phase::Handler), Relaxed);
        HostView { slots, stats, arena, modules, supervisor_pid: 99, main_pid: 100, stop_limit_ms: 21_000 }
    }

    fn call(view: &HostView<'_>, name: &str) -> (Value, Then) {
        let answered = answer(name, &MethodCall { view, params: &[], now_ns: 3_500_000_000 }).unwrap();
        (serde_json::from_str(&answered.json).unwrap(), answered.then)
    }

    fn process_rows(view: &HostView<'_>) -> Vec<ProcessRow> {
        serde_json::from_value(call(view, PS).0).unwrap()
    }

    #[test]
    fn ps_shows_every_slot() {
        let rows = process_rows(&sample_host());
        let last = Some(LastCall { phase: "a datagram handler".into(), module: "echo".into() });
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].pid, rows[0].uptime_ms, &rows[0].last), (Some(100), Some(2500), &None));
        assert_eq!((rows[1].rank, rows[1].restarts, &rows[1].last), (1, 1, &last));
        assert_eq!((rows[2].pid, rows[2].uptime_ms, rows[2].state.as_str()), (None, None, "waiting"));
    }

    #[test]
    fn ping_stop_and_the_list_of_methods() {
        let view = sample_host();
        let pong = serde_json::json!({
            "answer": "pong", "pid": 99, "main_pid": 100, "version": env!("CARGO_PKG_VERSION"), "abi": "1.0", "uptime_ms": 2500
        });
        assert_eq!(call(&view, PING), (pong, Then::GoOn));
        assert_eq!(call(&view, STOP), (serde_json::json!({ "stopping": true, "pid": 99, "limit_ms": 21_000 }), Then::Stop));
        let names: Vec<Value> = call(&view, METHODS).0.as_array().unwrap().iter().map(|row| row["method"].clone()).collect();
        assert_eq!(names, ["methods", "ping", "ps", "shm", "stop", "stats", "stats_by_process", "stats_prometheus"]);
    }

    #[test]
    fn shm_names_the_modules_that_have_memory() {
        let (arena, modules) = (Arena::new(1 << 20).unwrap(), ["a", "b"].map(str::to_owned));
        let tables = arena.tables();
        for (module, size_bytes) in [(1, 100), (1, 100), (1, 20_000), (7, 64)] {
            let tag = crate::shm::usage::tag(module);
            let content = crate::shm::heap::Content::Undefined;
            tables.allocate(&crate::shm::heap::AllocRequest { tag, size_bytes, align_bytes: 16, content, cell: 0 }).unwrap();
        }
        let view = HostView { arena: &arena, modules: &modules, ..sample_host() };
        let usage: MemoryUsage = serde_json::from_value(call(&view, SHM).0).unwrap();
        let share = |module: &str, blocks, bytes| ModuleShare { module: module.into(), blocks, bytes };
        assert_eq!(usage.modules, [share("b", 3, 2 * 112 + 20_480), share("?", 1, 64)]);
        assert_eq!((usage.total_bytes, usage.used_bytes), (1 << 20, 2 * 112 + 20_480 + 64));
        // Two spans and five pages; what the spans have left.
        assert_eq!(usage.free_bytes, (1 << 20) - 2 * 16_384 - 20_480);
        assert_eq!(usage.spare_bytes, 144 * 112 + 255 * 64);
        // A span starts at a multiple of its length: three pages before the second one are free.
        assert_eq!(usage.largest_free_bytes, usage.free_bytes - 3 * 4096);
    }

    #[test]
    fn garbage_in_the_process_table_is_shown_as_numbers_only() {
        let view = sample_host();
        view.slots.slot(1).unwrap().trail().store(u64::MAX, Relaxed);
        view.slots.slot(2).unwrap().set_pid(-5);
        let answered = answer(PS, &MethodCall { view: &view, params: &[], now_ns: 0 }).unwrap();
        let rows: Vec<ProcessRow> = serde_json::from_str(&answered.json).unwrap();
        assert_eq!((&rows[1].last, rows[1].uptime_ms, rows[2].pid), (&None, Some(0), None));
    }
}
