//! What counting costs in the code of a real module: `tests/bench/count`, in Rust and in C.
//!
//! `cargo bench -p modhost --bench count -- ROUNDS MODULE` loads a module (an absolute path) whose handlers do something a thousand
//! times each. Prints one line of JSON: for each handler but `loops`, nanoseconds of processor time for once, one number for each
//! round, less what `loops` takes.

use std::hint::black_box;
use std::path::Path;

use modhost::hostapi::HOST_API;
use modhost::module::{call, loader};
use modhost::process::family::Family;
use modhost::process::phase::Phase;
use modhost::process::slots::Slots;
use modhost::shm::arena::Arena;
use modhost::state::State;
use modhost::stats::registry::Registry;
use modhost::sys::datagrams::Datagrams;
use modhost::sys::local;
use module_api::abi;
use nix::time::{ClockId, clock_gettime};

const CALLS: u32 = 20_000;
const TIMES_IN_CALL: u32 = 1000;

fn main() {
    // cargo adds an option of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds: u32 = arguments.first().map_or(7, |rounds| rounds.parse().expect("a number of rounds"));
    let path = Path::new(arguments.get(1).expect("a module"));

    // As main does it, without a configuration.
    local::prepare().expect("the page of this process");
    let state = State {
        pid: 0,
        family: Family::new(Slots::new().expect("the process table")).expect("a family"),
        arena: Arena::new(1 << 20).expect("an arena"),
        configured_listeners: 0,
        wanted: Default::default(),
        listeners: Default::default(),
        streams: Default::default(),
        timers: Default::default(),
        tls: Default::default(),
        stats: Registry::new().expect("counters"),
    };
    let state = state.install().expect("the state");
    let opened = loader::open(path).expect("the module");
    let module = opened.into_module(0, &HOST_API, modhost::log::module_level("count")).expect("its table");
    call::init(module).expect("init_f");
    call::init_child(module, abi::PROC_INIT).expect("PROC_INIT");
    state.stats.complete(1).expect("counters");
    call::init_child(module, 1).expect("rank 1");
    let handler = |name| module.handler(abi::HANDLER_UDP, Some(name)).and_then(|handler| handler.on_datagrams).expect("a handler");
    let batch = Datagrams::new().expect("buffers").batch();
    let run = |name| {
        let function = handler(name);
        per_time(|| call::enter(module, Phase::Handler, || black_box(function)(black_box(batch))))
    };

    const WORKS: [&str; 3] = ["count", "record", "atomic"];
    let mut results: [Vec<String>; 3] = Default::default();
    for round in 0..=rounds {
        let loops_ns = run("loops");
        for (work, results) in WORKS.iter().zip(&mut results) {
            let work_ns = run(work) - loops_ns;
            if round > 0 {
                results.push(format!("{work_ns:.3}"));
            }
        }
    }
    let fields: Vec<String> = WORKS.iter().zip(&results).map(|(work, ns)| format!("\"{work}_ns\": [{}]", ns.join(", "))).collect();
    println!("{{{}}}", fields.join(", "));
}

/// Nanoseconds of processor time for one of the times that a call does its work.
fn per_time(mut call: impl FnMut() -> i32) -> f64 {
    let used_ns =
        || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(|time| time.tv_sec() * 1_000_000_000 + time.tv_nsec()).expect("a clock");
    let before_ns = used_ns();
    for _ in 0..CALLS {
        assert!(call() >= 0);
    }
    (used_ns() - before_ns) as f64 / f64::from(CALLS) / f64::from(TIMES_IN_CALL)
}
