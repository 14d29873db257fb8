//! Write a module for modhost, the pre-fork module host.
//!
//! A module is a shared object that the host loads, drives through a documented sequence of phases
//! across forked processes, and feeds with traffic. This crate is the safe way to write one: a
//! module can say `#![forbid(unsafe_code)]`.
//!
//! ```standalone_crate
//! #![forbid(unsafe_code)]
//! use module_api::prelude::*;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! params! {
//!     pub struct Params {
//!         /// Text put before each answer.
//!         prefix: String = "",
//!     }
//! }
//!
//! /// Made in main; every process has the same value.
//! struct Shout {
//!     params: Params,
//!     seen: Shm<AtomicU64>,
//! }
//!
//! impl Module for Shout {
//!     type Params = Params;
//!     /// Each process has its own generator.
//!     type Child = Rng;
//!
//!     fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
//!         Ok(Shout { params, seen: cx.shm(AtomicU64::new(0))? })
//!     }
//!
//!     fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Rng> {
//!         info!(rank = cx.rank().number(), "ready");
//!         cx.rng()
//!     }
//! }
//!
//! impl Shout {
//!     fn serve(&self, _rng: &mut Rng, batch: &Batch<'_>) -> Result<()> {
//!         self.seen.fetch_add(batch.len() as u64, Ordering::Relaxed);
//!         for datagram in batch {
//!             let answer = [self.params.prefix.as_bytes(), &datagram.data().to_ascii_uppercase()].concat();
//!             datagram.reply(&answer)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_module! {
//!     Shout,
//!     name: "shout",
//!     summary: "answers in capital letters",
//!     udp: { "shout" => Shout::serve },
//! }
//! # fn main() {}
//! ```
//!
//! # Phases
//! [`Module`] has one function per phase. Each gets a context whose methods are what the phase
//! allows:
//!
//! | function | process | context | allows |
//! | --- | --- | --- | --- |
//! | `init` | main, before any fork, as the starting user | [`ModInit`] | `register_procs`, `listen_udp`, shared memory, timers, counters |
//! | `proc_init` | main, before any fork | [`ProcInit`] | `max_procs`, shared memory per process, timers, counters; the last `&mut self` |
//! | `proc_main` | main, workers already run | [`ProcMain`] | `fork_process` |
//! | `child_init` | every forked process | [`ChildInit`] | connections, threads; makes the child state |
//! | handlers | workers | [`Batch`] | answers |
//! | timer functions | the timer processes | [`TimerCx`] | |
//! | entry functions | processes of `fork_process` | [`Process`] | |
//! | `post_child_init` | main, when all children are ready | [`PostChildInit`] | |
//! | `destroy` | main, at the end | [`Destroy`] | |
//!
//! [`rules`] shows that what a phase does not allow does not compile.
//!
//! # Counting
//! [`Counter`], [`Gauge`] and [`Histogram`] count; one increment takes about a nanosecond. See
//! [`stats`].
//!
//! # Logging
//! Records of [`info!`], [`warn!`] and the others (which are `tracing`'s), and those of the `log`
//! crate, go to the host's log with the module's name. The host sets the level and can change it
//! while running. Spans are not recorded.

#![deny(missing_docs)]

#[macro_use]
pub mod abi;
mod address;
mod bound;
#[cfg(feature = "check")]
#[doc(hidden)]
pub mod check;
pub mod date;
mod error;
#[doc(hidden)]
pub mod export;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod guard;
mod host;
pub mod interface;
pub mod interfaces;
#[cfg(feature = "layout")]
pub mod layout;
mod listener;
#[doc(hidden)]
pub mod logging;
mod module;
mod mutex;
#[doc(hidden)]
pub mod params;
mod phase;
mod process;
mod processes;
mod rng;
pub mod rules;
mod shm;
mod sockaddr;
pub mod stats;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;
mod timer;
mod udp;

pub use std::time::Duration;

pub use address::Address;
pub use error::{Context, Error, Result};
pub use listener::{Listener, SendError, UdpListen};
pub use module::Module;
pub use mutex::{Dead, LockError, LockFailure, OwnerDied, ShmGuard, ShmMutex};
pub use params::{ParamEnum, ParamSet, ParamType, Size};
pub use phase::{ModInit, ProcInit, ProcMain};
pub use process::{ChildInit, Destroy, MakeSock, Pid, PostChildInit, Process, Rank, TimerCx};
pub use processes::{HostInfo, LastCall, ProcessRow, ProcessRows, ProcessState, Processes};
pub use rng::Rng;
pub use shm::{MapError, MapKey, MapOptions, MapValue, PerProcess, Scan, Shm, ShmBox, ShmMap, ShmSafe, ShmString, ShmVec, Tagged, Update};
pub use stats::{Counter, Gauge, Histogram, Stats, Unit};
pub use stream::{CloseReason, Stream, StreamError, StreamHandler, StreamId, TlsInfo};
pub use timer::Timer;
pub use udp::{Batch, Datagram, Datagrams};

/// Everything that most modules use.
pub mod prelude {
    pub use crate::{
        Address, Batch, ChildInit, Context, Datagram, Destroy, Duration, Error, Listener, LockError, MakeSock, MapOptions, ModInit, Module,
        PerProcess, Pid, PostChildInit, ProcInit, ProcMain, Process, Rank, Result, Rng, Scan, Shm, ShmBox, ShmMap, ShmMutex, ShmString,
        ShmVec, Size, Stream, StreamError, StreamHandler, StreamId, Timer, TimerCx, UdpListen, Update,
    };
    pub use crate::{Counter, Gauge, Histogram, Processes, Stats, Unit};
    pub use crate::{debug, error, export_module, info, param_enum, params, shm_struct, trace, warn};
}
