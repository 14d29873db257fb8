//! The contexts' methods about counters.
//!
//! `init` and `proc_init`, in main, can register. Every context from `proc_init` on can read.

use crate::abi;
use crate::stats::read;
use crate::stats::{Counter, Gauge, Histogram, Stats, Unit};
use crate::{Batch, ChildInit, Destroy, ModInit, Module, PostChildInit, ProcInit, ProcMain, Process, Result, TimerCx};

macro_rules! impl_register {
    ($($context:ident),*) => {$(
        /// Counters. A name has 1 to 47 of `a-z`, `0-9` and `_` and begins with a letter; the host
        /// puts the module's name before it. `help` is one sentence of at most 200 bytes.
        impl<M: Module> $context<'_, M> {
            /// A number that only grows.
            ///
            /// # Errors
            /// If the module has used the name already, or it is not a valid name.
            pub fn counter(&mut self, name: &str, help: &str) -> Result<Counter> {
                read::counter(name, Unit::One, help)
            }

            /// A number that only grows, in bytes or nanoseconds.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn counter_in(&mut self, name: &str, unit: Unit, help: &str) -> Result<Counter> {
                read::counter(name, unit, help)
            }

            /// A number that goes up and down: the sum of the processes' parts. A part ends with
            /// its process.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn gauge(&mut self, name: &str, unit: Unit, help: &str) -> Result<Gauge> {
                read::gauge(name, 0, unit, help)
            }

            /// A number that goes up and down, for something that processes share: one process may
            /// subtract what another has added, and the part of a process that ends is kept.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn shared_gauge(&mut self, name: &str, unit: Unit, help: &str) -> Result<Gauge> {
                read::gauge(name, abi::STAT_SHARED, unit, help)
            }

            /// Counts values by their size, in buckets at most a quarter as wide as the values in
            /// them. Takes 2 KiB per process, of which only pages that are written to use memory.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn histogram(&mut self, name: &str, unit: Unit, help: &str) -> Result<Histogram> {
                read::histogram(name, unit, &[], help)
            }

            /// A histogram with the given buckets: `bounds` has the largest value of each bucket
            /// but the last, ascending, 1 to 64 of them.
            ///
            /// # Errors
            /// As [`counter`](Self::counter); if the bounds do not ascend.
            pub fn histogram_with(&mut self, name: &str, unit: Unit, bounds: &'static [u64], help: &str) -> Result<Histogram> {
                if bounds.is_empty() {
                    return Err("a histogram with its own bounds needs at least one".into());
                }
                read::histogram(name, unit, bounds, help)
            }
        }
    )*};
}
impl_register!(ModInit, ProcInit);

macro_rules! impl_read {
    ($($context:ident [$($generics:tt)*] [$($arguments:tt)*]),* $(,)?) => {$(
        impl<$($generics)*> $context<$($arguments)*> {
            /// Reads the counters of all modules and of the host.
            pub fn stats(&self) -> Stats {
                Stats::new()
            }
        }
    )*};
}
impl_read!(
    ProcInit[M: Module] ['_, M], ProcMain[M: Module] ['_, M], ChildInit[] ['_], Process[] ['_], TimerCx[] ['_], PostChildInit[] ['_],
    Destroy[] ['_], Batch[] ['_],
);
