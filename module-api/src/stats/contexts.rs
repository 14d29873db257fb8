//! Which contexts can register, and which can read.
//!
//! Registering: `init` and `proc_init`, in main. Reading: every context from `proc_init` on.

use crate::abi;
use crate::stats::read;
use crate::stats::{Counter, Gauge, Histogram, Stats, Unit};
use crate::{Batch, ChildInit, Destroy, ModInit, Module, PostChildInit, ProcInit, ProcMain, Process, Result, TimerCx};

macro_rules! impl_register {
    ($($context:ident),*) => {$(
        /// Counters. A name has 1 to 47 of `a-z`, `0-9` and `_` and begins with a letter; the module's name is put before it. `help` is one
        /// sentence of at most 200 bytes.
        impl<M: Module> $context<'_, M> {
            /// A number that only grows.
            ///
            /// # Errors
            /// If the module has that name already, or it is no name.
            pub fn counter(&mut self, name: &str, help: &str) -> Result<Counter> {
                read::counter(name, Unit::One, help)
            }

            /// A number of bytes or of nanoseconds that only grows.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn counter_in(&mut self, name: &str, unit: Unit, help: &str) -> Result<Counter> {
                read::counter(name, unit, help)
            }

            /// A number that goes up and down, made of what each process has; a part ends with its process.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn gauge(&mut self, name: &str, unit: Unit, help: &str) -> Result<Gauge> {
                read::gauge(name, 0, unit, help)
            }

            /// A number that goes up and down, for what processes share: a process may take away what another one has added, and what
            /// a process has added remains when it ends.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn shared_gauge(&mut self, name: &str, unit: Unit, help: &str) -> Result<Gauge> {
                read::gauge(name, abi::STAT_SHARED, unit, help)
            }

            /// How often values of which size are seen, in buckets that are at most a quarter as wide as the values in them. 2 KiB per
            /// process, of which only what is written to is used.
            ///
            /// # Errors
            /// As [`counter`](Self::counter).
            pub fn histogram(&mut self, name: &str, unit: Unit, help: &str) -> Result<Histogram> {
                read::histogram(name, unit, &[], help)
            }

            /// The same with buckets of your own: `bounds` has the largest value of each but the last, ascending, 1 to 64 of them.
            ///
            /// # Errors
            /// As [`counter`](Self::counter), and for bounds that do not ascend.
            pub fn histogram_with(&mut self, name: &str, unit: Unit, bounds: &'static [u64], help: &str) -> Result<Histogram> {
                if bounds.is_empty() {
                    return Err("a histogram with bounds of its own needs at least one".into());
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
            /// The counters of all modules and of the host, to be read.
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
