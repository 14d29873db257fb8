//! Handlers that count a thousand times: the cost of a count in a Rust module. `count.c` is the
//! same in C.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use module_api::prelude::*;

const TIMES: u64 = 1000;

struct Count {
    counter: Counter,
    histogram: Histogram,
    shared: Shm<AtomicU64>,
}

impl Module for Count {
    type Params = ();
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(Count {
            counter: cx.counter("counted", "what is measured")?,
            histogram: cx.histogram("recorded", Unit::One, "what is measured")?,
            shared: cx.shm(AtomicU64::new(0))?,
        })
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

/// The loop around each. The compiler must reload the module's state each time, as at the start of
/// a handler.
fn repeat<'m>(module: &'m Count, work: impl Fn(&'m Count, u64)) -> Result<()> {
    for time in 0..TIMES {
        work(black_box(module), time);
    }
    Ok(())
}

impl Count {
    fn loops(&self, _: &mut (), _: &Batch<'_>) -> Result<()> {
        repeat(self, |_, _| ())
    }

    fn count(&self, _: &mut (), _: &Batch<'_>) -> Result<()> {
        repeat(self, |module, _| module.counter.increment())
    }

    fn record(&self, _: &mut (), _: &Batch<'_>) -> Result<()> {
        repeat(self, |module, time| module.histogram.record(black_box(time)))
    }

    fn atomic(&self, _: &mut (), _: &Batch<'_>) -> Result<()> {
        repeat(self, |module, _| {
            module.shared.fetch_add(1, Ordering::Relaxed);
        })
    }
}

export_module! {
    Count,
    name: "count",
    summary: "counts a thousand times",
    udp: {
        /// The loop alone.
        "loops" => Count::loops,
        /// A counter.
        "count" => Count::count,
        /// A histogram.
        "record" => Count::record,
        /// An atomic addition to one number for all processes, for comparison.
        "atomic" => Count::atomic,
    },
}
