//! What a call from the host into a module costs: through the trampoline, the C function of a real module, its guard, and back.
//!
//! `cargo bench -p modhost --bench call -- ROUNDS FOLDER` loads `libecho.so` from the folder and hands its handler empty batches, so that
//! there is nothing to do but to get there and back. Prints one line of JSON: nanoseconds per call, one number for each round, less
//! what the loop costs. *direct* is the same function without trampoline: the guard is in the module and cannot be left out.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use modhost::hostapi::HOST_API;
use modhost::module::{call, loader};
use modhost::process::family::Family;
use modhost::process::phase::Phase;
use modhost::process::slots::Slots;
use modhost::shm::arena::Arena;
use modhost::state::State;
use modhost::sys::datagrams::Datagrams;
use modhost::sys::local;
use module_api::abi;

const CALLS: u32 = 20_000_000;

fn main() {
    // cargo adds an option of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds: u32 = arguments.first().map_or(7, |rounds| rounds.parse().expect("a number of rounds"));
    let folder = arguments.get(1).map_or("target/release", String::as_str);

    // As main does it, without a configuration.
    local::prepare().expect("the page of this process");
    let state = State {
        family: Family::new(Slots::new().expect("the process table")).expect("a family"),
        arena: Arena::new(1 << 20).expect("an arena"),
        configured_listeners: 0,
        wanted: Default::default(),
        listeners: Default::default(),
        timers: Default::default(),
    };
    state.install().expect("the state");
    let opened = loader::open(&Path::new(folder).join("libecho.so")).expect("the echo module; cargo build --release makes it");
    let module = opened.into_module(0, &HOST_API, modhost::log::module_level("echo")).expect("its table");
    call::init(module).expect("init_f");
    call::init_child(module, abi::PROC_INIT).expect("PROC_INIT");
    call::init_child(module, 1).expect("rank 1");
    let handler = module.handler(abi::HANDLER_UDP, None).and_then(|handler| handler.on_datagrams).expect("a handler");
    let datagrams = Datagrams::new().expect("buffers");
    let batch = datagrams.batch();

    let (mut guarded, mut direct) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let empty_ns = per_call(|| black_box(0));
        let direct_ns = per_call(|| black_box(handler)(black_box(batch))) - empty_ns;
        let guarded_ns = per_call(|| call::enter(black_box(module), Phase::Handler, || black_box(handler)(black_box(batch)))) - empty_ns;
        if round > 0 {
            guarded.push(format!("{guarded_ns:.3}"));
            direct.push(format!("{direct_ns:.3}"));
        }
    }
    println!("{{\"guarded_ns\": [{}], \"direct_ns\": [{}]}}", guarded.join(", "), direct.join(", "));
}

/// Nanoseconds per call, the loop included.
fn per_call(mut call: impl FnMut() -> i32) -> f64 {
    let started = Instant::now();
    for _ in 0..CALLS {
        assert!(call() >= 0);
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}
