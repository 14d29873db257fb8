//! What a call from the host into a module costs: through the trampoline, the C function of a real module, its guard, and back.
//!
//! `cargo bench -p modhost --bench call -- ROUNDS MODULE` loads a module (an absolute path) and calls its first handler with empty batches; one that does
//! nothing leaves the way there and back. Prints one line of JSON: nanoseconds per call, one number for each round, less what the
//! loop costs. *direct* is a plain call through a pointer to a function that does nothing.

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

const CALLS: u32 = 10_000_000;

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
    let module = opened.into_module(0, &HOST_API, modhost::log::module_level("nothing")).expect("its table");
    call::init(module).expect("init_f");
    call::init_child(module, abi::PROC_INIT).expect("PROC_INIT");
    state.stats.complete(1).expect("counters");
    call::init_child(module, 1).expect("rank 1");
    let handler = module.handler(abi::HANDLER_UDP, None).and_then(|handler| handler.on_datagrams).expect("a handler");
    let datagrams = Datagrams::new().expect("buffers");
    let batch = datagrams.batch();

    let plain: extern "C" fn(*mut abi::UdpBatch) -> i32 = nothing;
    let (mut guarded, mut direct) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let empty_ns = per_call(|| black_box(0));
        let direct_ns = per_call(|| black_box(plain)(black_box(batch))) - empty_ns;
        let guarded_ns = per_call(|| call::enter(module, Phase::Handler, || black_box(handler)(black_box(batch)))) - empty_ns;
        if round > 0 {
            guarded.push(format!("{guarded_ns:.3}"));
            direct.push(format!("{direct_ns:.3}"));
        }
    }
    println!("{{\"guarded_ns\": [{}], \"direct_ns\": [{}]}}", guarded.join(", "), direct.join(", "));
}

extern "C" fn nothing(_batch: *mut abi::UdpBatch) -> i32 {
    abi::OK
}

/// Nanoseconds of processor time per call, the loop included.
fn per_call(mut call: impl FnMut() -> i32) -> f64 {
    let used_ns =
        || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(|time| time.tv_sec() * 1_000_000_000 + time.tv_nsec()).expect("a clock");
    let before_ns = used_ns();
    for _ in 0..CALLS {
        assert!(call() >= 0);
    }
    (used_ns() - before_ns) as f64 / f64::from(CALLS)
}
