//! The methods: what the control process can be asked, as a table.
//!
//! *Runs in:* the control process; pure. *Never:* blocks, or does by itself what main must do.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::Relaxed;

use module_api::abi;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stats;
use crate::config::nearest;
use crate::error::{Error, Result};
use crate::process::phase::Breadcrumb;
use crate::process::slots::{Slot, Slots};
use crate::shm::arena::Arena;
use crate::stats::registry::Registry;

/// What can be seen of the host from the control process.
#[derive(Debug)]
pub struct View<'h> {
    /// The process table.
    pub slots: Slots,
    /// What is counted.
    pub stats: &'h Registry,
    /// Names of the modules in load order.
    pub modules: &'h [String],
    /// The pid that the operator knows.
    pub supervisor_pid: i32,
    /// Main's pid.
    pub main_pid: i32,
    /// So long a stop takes at most.
    pub stop_limit_ms: u64,
    /// The modules' shared memory.
    pub arena: Option<&'h Arena>,
}

/// What is to be done after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// Main is told to stop.
    Stop,
}

/// A method's success.
#[derive(Debug)]
pub struct Reply {
    /// The result.
    pub json: String,
    /// What follows.
    pub then: Then,
}

/// A row of the table.
struct Method {
    name: &'static str,
    /// Its params, for people.
    params: &'static str,
    count: RangeInclusive<usize>,
    summary: &'static str,
    call: fn(&View<'_>, &[Value], u64) -> Result<Reply>,
}

const METHODS: [Method; 8] = [
    Method { name: "methods", params: "", count: 0..=0, summary: "what can be called", call: methods },
    Method { name: "ping", params: "", count: 0..=0, summary: "answers: pids, version, module ABI, uptime", call: ping },
    Method { name: "ps", params: "", count: 0..=0, summary: "the process table", call: ps },
    Method { name: "shm", params: "", count: 0..=0, summary: "who has how much shared memory", call: shm },
    Method { name: "stop", params: "", count: 0..=0, summary: "stops the host, in order; answers before that begins", call: stop },
    Method {
        name: "stats",
        params: "[PREFIX...]",
        count: 0..=64,
        summary: "what was counted, of all processes together",
        call: stats::all,
    },
    Method {
        name: "stats_by_process",
        params: "[PREFIX...]",
        count: 0..=64,
        summary: "the same, with the part of each process",
        call: stats::by_process,
    },
    Method {
        name: "stats_prometheus",
        params: "[PREFIX...]",
        count: 0..=64,
        summary: "the same as text for Prometheus",
        call: stats::prometheus,
    },
];

/// Calls a method by its name.
pub(super) fn call(name: &str, params: &[Value], view: &View<'_>, now_ns: u64) -> Result<Reply> {
    let Some(method) = METHODS.iter().find(|method| method.name == name) else {
        let shown: String = name.chars().take(64).collect();
        return Err(Error::config(format!("no method \"{shown}\"")).hint(nearest::hint(name, METHODS.iter().map(|method| method.name))));
    };
    if !method.count.contains(&params.len()) {
        let takes = if method.params.is_empty() { "no arguments" } else { method.params };
        return Err(Error::config(format!("method \"{name}\" takes {takes}"))
            .detail(format!("{} were given", params.len()))
            .hint("\"modhost rpc methods\" lists what each takes"));
    }
    (method.call)(view, params, now_ns)
}

/// A tree of our own values: writing it cannot fail.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

pub(super) fn reply(value: &impl Serialize) -> Result<Reply> {
    Ok(Reply { json: json(value), then: Then::Nothing })
}

/// `methods`.
fn methods(_: &View<'_>, _: &[Value], _: u64) -> Result<Reply> {
    #[derive(Serialize)]
    struct Row {
        method: &'static str,
        params: &'static str,
        summary: &'static str,
    }
    let row = |method: &Method| Row { method: method.name, params: method.params, summary: method.summary };
    reply(&METHODS.iter().map(row).collect::<Vec<_>>())
}

/// Answer of `ping`.
#[derive(Debug, Serialize, Deserialize)]
struct Pong {
    answer: String,
    /// The supervisor's: the one to send signals to.
    pid: i32,
    main_pid: i32,
    version: String,
    abi: String,
    uptime_ms: u64,
}

fn ping(view: &View<'_>, _: &[Value], now_ns: u64) -> Result<Reply> {
    reply(&Pong {
        answer: "pong".into(),
        pid: view.supervisor_pid,
        main_pid: view.main_pid,
        version: env!("CARGO_PKG_VERSION").into(),
        abi: format!("{}.{}", abi::ABI_MAJOR, abi::ABI_MINOR),
        uptime_ms: view.slots.slot(0).map_or(0, |main| since_ms(main.forked_ns(), now_ns)),
    })
}

/// A process in the answer of `ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its `process_no`.
    pub slot: usize,
    /// None: there is no process now.
    pub pid: Option<i32>,
    /// What `init_child_f` got.
    pub rank: i32,
    /// As in its title.
    pub name: String,
    /// `free`, `starting`, `serving`, `waiting`, `ended`.
    pub state: String,
    /// Since this process was forked. None: there is no process now.
    pub uptime_ms: Option<u64>,
    /// How often the slot was forked again.
    pub restarts: u32,
    /// The call into a module that it is in, or died in.
    pub last: Option<Last>,
}

/// A call into a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// As the log names it.
    pub phase: String,
    /// The module's name.
    pub module: String,
}

fn ps(view: &View<'_>, _: &[Value], now_ns: u64) -> Result<Reply> {
    reply(&view.slots.iter().map(|(process_no, slot)| process(view, process_no, slot, now_ns)).collect::<Vec<_>>())
}

fn process(view: &View<'_>, process_no: usize, slot: Slot, now_ns: u64) -> Process {
    let pid = Some(slot.pid()).filter(|pid| *pid > 0);
    let crumb = Breadcrumb::from_word(slot.trail().load(Relaxed));
    let module = crumb.module.and_then(|index| view.modules.get(index as usize));
    Process {
        slot: process_no,
        pid,
        rank: slot.rank(),
        name: slot.name(),
        state: slot.state().name().to_owned(),
        uptime_ms: pid.map(|_| since_ms(slot.forked_ns(), now_ns)),
        restarts: slot.restarts(),
        last: module.map(|module| Last { phase: crumb.phase.to_string(), module: module.clone() }),
    }
}

fn since_ms(begin_ns: u64, now_ns: u64) -> u64 {
    now_ns.saturating_sub(begin_ns) / 1_000_000
}

/// Answer of `shm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Those that have some.
    pub modules: Vec<Share>,
    /// Size of the arena.
    pub total_bytes: u64,
    /// In blocks.
    pub used_bytes: u64,
    /// In pages that belong to nothing.
    pub free_bytes: u64,
    /// Between the blocks, for more of their sizes.
    pub spare_bytes: u64,
    /// The largest block that there is room for.
    pub largest_free_bytes: u64,
}

/// What a module has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its name.
    pub module: String,
    /// Number of its blocks.
    pub blocks: u64,
    /// Their bytes, as the allocator rounded them up.
    pub bytes: u64,
}

fn shm(view: &View<'_>, _: &[Value], _: u64) -> Result<Reply> {
    let arena = view.arena.ok_or_else(|| Error::fault("there is no shared memory"))?;
    let usage = arena.usage();
    let named = |index: &Option<u32>| index.and_then(|index| view.modules.get(index as usize)).map_or("?", String::as_str).to_owned();
    let shares = usage.shares.iter().map(|(index, share)| Share { module: named(index), blocks: share.blocks, bytes: share.bytes });
    reply(&Memory {
        modules: shares.collect(),
        total_bytes: usage.total_bytes,
        used_bytes: usage.sum().bytes,
        free_bytes: usage.free_bytes,
        spare_bytes: usage.spare_bytes,
        largest_free_bytes: usage.largest_free_bytes,
    })
}

/// Answer of `stop`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stopping {
    stopping: bool,
    /// The supervisor's: when it is gone, everything is.
    pub pid: i32,
    /// So long it takes at most.
    pub limit_ms: u64,
}

fn stop(view: &View<'_>, _: &[Value], _: u64) -> Result<Reply> {
    let stopping = Stopping { stopping: true, pid: view.supervisor_pid, limit_ms: view.stop_limit_ms };
    Ok(Reply { json: json(&stopping), then: Then::Stop })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::process::phase::Phase;
    use crate::process::slots::SlotState;

    /// Main, a worker in its handler, a worker that waits for its restart.
    pub(in crate::control) fn table() -> Slots {
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
        slots
    }

    /// The host's own counters, all zero.
    fn none() -> &'static Registry {
        static NONE: OnceLock<Registry> = OnceLock::new();
        NONE.get_or_init(|| Registry::new().unwrap())
    }

    impl<'h> View<'h> {
        pub(in crate::control) fn of(slots: Slots, modules: &'h [String]) -> Self {
            Self { slots, stats: none(), modules, supervisor_pid: 99, main_pid: 100, stop_limit_ms: 21_000, arena: None }
        }
    }

    fn called(name: &str) -> (Value, Then) {
        let modules = vec!["echo".to_owned()];
        let reply = call(name, &[], &View::of(table(), &modules), 3_500_000_000).unwrap();
        (serde_json::from_str(&reply.json).unwrap(), reply.then)
    }

    #[test]
    fn ps_shows_every_slot() {
        let (rows, then) = called("ps");
        assert_eq!(then, Then::Nothing);
        let rows: Vec<Process> = serde_json::from_value(rows).unwrap();
        let last = Some(Last { phase: "a datagram handler".into(), module: "echo".into() });
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].pid, rows[0].uptime_ms, &rows[0].last), (Some(100), Some(2500), &None));
        assert_eq!((rows[1].rank, rows[1].restarts, &rows[1].last), (1, 1, &last));
        assert_eq!((rows[2].pid, rows[2].uptime_ms, rows[2].state.as_str()), (None, None, "waiting"));
    }

    #[test]
    fn ping_stop_and_the_list() {
        assert_eq!(
            called("ping").0,
            serde_json::json!({ "answer": "pong", "pid": 99, "main_pid": 100, "version": env!("CARGO_PKG_VERSION"), "abi": "1.0", "uptime_ms": 2500 })
        );
        assert_eq!(called("stop"), (serde_json::json!({ "stopping": true, "pid": 99, "limit_ms": 21_000 }), Then::Stop));
        let names: Vec<Value> = called("methods").0.as_array().unwrap().iter().map(|row| row["method"].clone()).collect();
        assert_eq!(names, ["methods", "ping", "ps", "shm", "stop", "stats", "stats_by_process", "stats_prometheus"]);
    }

    #[test]
    fn shm_names_who_has_something() {
        let (arena, modules) = (Arena::new(1 << 20).unwrap(), ["a", "b"].map(str::to_owned));
        let tables = arena.tables();
        for (module, size_bytes) in [(1, 100), (1, 100), (1, 20_000), (7, 64)] {
            let tag = crate::shm::usage::tag(module);
            let content = crate::shm::heap::Content::Undefined;
            tables.allocate(&crate::shm::heap::AllocRequest { tag, size_bytes, align_bytes: 16, content, cell: 0 }).unwrap();
        }
        let view = View { arena: Some(&arena), ..View::of(table(), &modules) };
        let memory: Memory = serde_json::from_str(&call("shm", &[], &view, 0).unwrap().json).unwrap();
        let share = |module: &str, blocks, bytes| Share { module: module.into(), blocks, bytes };
        assert_eq!(memory.modules, [share("b", 3, 2 * 112 + 20_480), share("?", 1, 64)]);
        assert_eq!((memory.total_bytes, memory.used_bytes), (1 << 20, 2 * 112 + 20_480 + 64));
        // Two spans and five pages; what the spans have left.
        assert_eq!(memory.free_bytes, (1 << 20) - 2 * 16_384 - 20_480);
        assert_eq!(memory.spare_bytes, 144 * 112 + 255 * 64);
        // A span starts at a multiple of its length: three pages before the second one are for others.
        assert_eq!(memory.largest_free_bytes, memory.free_bytes - 3 * 4096);
    }

    #[test]
    fn garbage_in_the_table_is_shown_as_numbers_only() {
        let slots = table();
        slots.slot(1).unwrap().trail().store(u64::MAX, Relaxed);
        slots.slot(2).unwrap().set_pid(-5);
        let reply = ps(&View::of(slots, &[]), &[], 0).unwrap();
        let rows: Vec<Process> = serde_json::from_str(&reply.json).unwrap();
        assert_eq!((&rows[1].last, rows[1].uptime_ms, rows[2].pid), (&None, Some(0), None));
    }
}
