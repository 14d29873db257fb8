//! The cost of a call from the host into a module: through the trampoline, the C function of a real
//! module, its guard, and back.
//!
//! `cargo bench -p modhost --bench call -- ROUNDS MODULE` loads a module (an absolute path) and
//! calls its first handler, which should do nothing, with empty batches. Prints one line of JSON:
//! nanoseconds per call, one number per round, without the cost of the loop. *direct* is a plain
//! call through a pointer to a function that does nothing.

#[path = "../tests/as_main/mod.rs"]
mod as_main;

use std::hint::black_box;
use std::path::Path;

use as_main::per_call;
use modhost::module::Module;
use modhost::module::call::CallSite;
use modhost::process::phase::Phase;
use modhost::sys::udp::datagrams::Datagrams;
use module_api::abi;

const CALLS: u32 = 10_000_000;

fn main() {
    // cargo adds an option.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds: u32 = arguments.first().map_or(7, |rounds| rounds.parse().expect("a number of rounds"));
    let path = Path::new(arguments.get(1).expect("a module"));

    as_main::state(1 << 20);
    let module = as_main::load(path);
    let handler = module.handler(abi::HANDLER_UDP, None).and_then(|handler| handler.on_datagrams).expect("a handler");
    let datagrams = Datagrams::new().expect("buffers");
    let batch = datagrams.batch();

    let plain: Handler = nothing;
    let (mut guarded, mut direct) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let empty_ns = per_call(CALLS, || black_box(0));
        let direct_ns = direct_ns(plain, batch) - empty_ns;
        let guarded_ns = guarded_ns(module, handler, batch) - empty_ns;
        if round > 0 {
            guarded.push(format!("{guarded_ns:.3}"));
            direct.push(format!("{direct_ns:.3}"));
        }
    }
    println!("{{\"guarded_ns\": [{}], \"direct_ns\": [{}]}}", guarded.join(", "), direct.join(", "));
}

type Handler = extern "C" fn(*mut abi::UdpBatch) -> i32;

// Separate functions, as in the host: other inlined code must not decide which values are in
// registers.
#[inline(never)]
fn direct_ns(plain: Handler, batch: *mut abi::UdpBatch) -> f64 {
    per_call(CALLS, || black_box(plain)(black_box(batch)))
}

#[inline(never)]
fn guarded_ns(module: &Module, handler: Handler, batch: *mut abi::UdpBatch) -> f64 {
    let site = CallSite::here();
    per_call(CALLS, || site.enter(module, Phase::Handler, || black_box(handler)(black_box(batch))))
}

extern "C" fn nothing(_batch: *mut abi::UdpBatch) -> i32 {
    abi::OK
}
