//! The cost of counting in the code of a real module: `tests/bench/count`, in Rust and in C.
//!
//! `cargo bench -p modhost --bench count -- ROUNDS MODULE` loads a module (an absolute path) whose
//! handlers each repeat an operation a thousand times. Prints one line of JSON: for each handler
//! except `loops`, nanoseconds of processor time per operation, one number per round, without the
//! time of `loops`.

#[path = "../tests/as_main/mod.rs"]
mod as_main;

use std::hint::black_box;
use std::path::Path;

use as_main::per_call;
use modhost::module::call::CallSite;
use modhost::process::phase::Phase;
use modhost::sys::udp::datagrams::Datagrams;
use module_api::abi;

const CALLS: u32 = 20_000;
const TIMES_IN_CALL: u32 = 1000;

fn main() {
    // cargo adds an option.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds: u32 = arguments.first().map_or(7, |rounds| rounds.parse().expect("a number of rounds"));
    let path = Path::new(arguments.get(1).expect("a module"));

    as_main::state(1 << 20);
    let module = as_main::load(path);
    let handler = |name| module.handler(abi::HANDLER_UDP, Some(name)).and_then(|handler| handler.on_datagrams).expect("a handler");
    let batch = Datagrams::new().expect("buffers").batch();
    let site = CallSite::here();
    let run = |name| {
        let function = handler(name);
        per_call(CALLS, || site.enter(module, Phase::Handler, || black_box(function)(black_box(batch)))) / f64::from(TIMES_IN_CALL)
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
