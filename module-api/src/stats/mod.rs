//! Counting, and reading what was counted.
//!
//! A module registers its [`Counter`]s, [`Gauge`]s and [`Histogram`]s in `init` or `proc_init`, and
//! counts wherever its code runs. Each process counts in its own memory. A reader adds the memory
//! of all processes up: `modhost stats`, the `stats` module, or any module through [`Stats`].
//!
//! ```
//! # use module_api::prelude::*;
//! struct Answers {
//!     answered: Counter,
//!     took: Histogram,
//! }
//!
//! # impl Answers {
//! fn make(cx: &mut ModInit<'_, Self>) -> Result<Self> {
//!     Ok(Answers {
//!         answered: cx.counter("answered", "datagrams answered")?,
//!         took: cx.histogram("took", Unit::Nanoseconds, "time to answer a batch")?,
//!     })
//! }
//!
//! fn serve(&self, _: &mut (), batch: &Batch<'_>) -> Result<()> {
//!     let started = std::time::Instant::now();
//!     for datagram in batch {
//!         datagram.reply_borrowed(datagram.data())?;
//!         self.answered.increment();
//!     }
//!     self.took.record_duration(started.elapsed());
//!     Ok(())
//! }
//! # }
//! # impl Module for Answers {
//! #     type Params = (); type Child = ();
//! #     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Self::make(cx) }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> { Ok(()) }
//! # }
//! ```

#[doc(hidden)]
pub mod buckets;
#[doc(hidden)]
pub mod cells;
mod contexts;
pub(crate) mod read;
mod render;
mod sample;
#[cfg(test)]
mod tests;

pub use cells::{Counter, Gauge, Histogram};
pub use read::{Part, Samples, Stats};
pub use render::QUANTILES;
pub(crate) use render::quoted;
pub use sample::{Description, Distribution, Kind, Sample, Unit, Value};
