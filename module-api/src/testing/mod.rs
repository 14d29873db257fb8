//! A fake host, so that a module's own unit tests need no real one.
//!
//! A module enables the feature `testing` in its `[dev-dependencies]`, and has its tests in a
//! `#[cfg(test)] mod tests`:
//!
//! ```ignore
//! #[cfg(test)]
//! mod tests {
//!     use module_api::testing::Host;
//!
//!     #[test]
//!     fn answers() {
//!         let peer = "192.0.2.1:5060".parse().unwrap();
//!         let host = Host::new().param("prefix", "> ").workers(2).start::<super::Shout>().unwrap();
//!         let mut worker = host.worker(1).unwrap();
//!         let answers = worker.datagrams("shout", &[(peer, "hello")]).unwrap();
//!         assert_eq!(answers[0].data(), b"> HELLO");
//!         assert!(host.logs().contains("ready"));
//!     }
//! }
//! ```
//!
//! The module's type must be declared in the crate that exports it. A crate that exports another
//! crate's type says `test = false` in its `[lib]`.
//!
//! [`Host::start`] does what a host does in main: it checks and writes the parameters by the same
//! rules, and calls `init`, `proc_init` and `proc_main` through the exports table. A [`Child`] is a
//! process with its own child state; there may be several. Nothing is forked: all of them run in
//! the thread of the test.
//!
//! # What differs from a real host
//! - **One fake host at a time.** A program has one value of the module, so tests with a fake host
//!   wait for each other, however many threads the test program has. Starting a second one in the
//!   same thread panics.
//! - Changes that a module makes to a `static` or, through `&self`, to a cell are visible in every
//!   [`Child`]: all share one memory. In a real host each process has its own.
//! - The destructor of a child state runs when the [`Child`] is dropped; a real process ends
//!   without it.
//! - Timers do not run by themselves: see [`Child::fire_timer`].
//! - Locking a held lock fails as a deadlock, whichever process holds it, and `try_lock` as busy:
//!   nothing else runs that could release it.
//! - Random numbers are the same in each run; see [`Host::seed`].
//! - Dropping a [`FakeStream`] while its connection is open does not drop the handler's value, as
//!   when a process is killed. Every process has a link: [`StreamId::send`](crate::StreamId::send)
//!   never fails with `NoLink`. Time limits expire when a test says so.
//! - Threads that the module starts use the same fake host. End them before the host is dropped.

mod child;
mod processes;
mod stream;
pub(crate) mod table;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use log::Level;

pub use child::{Answer, Child};
pub use stream::{Dial, FakeStream};

use crate::abi::{self, ModuleExports, ProcessInfo};
use crate::check::{Folders, Setting};
use crate::export::Exported;
use crate::fake::{self, Fake, FakeMutex, Shared};
use crate::process::{MakeSock, Rank};
use crate::shm::ShmSafe;
use crate::{ShmMutex, sockaddr};

/// Held by the test that has a host: a test program has one module.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    static HAS_HOST: Cell<bool> = const { Cell::new(false) };
}

/// The configuration of a fake host, which is not started yet.
#[derive(Debug, Clone)]
pub struct Host {
    workers: u32,
    settings: Vec<Setting<()>>,
    folder: Option<PathBuf>,
    shared_memory_bytes: usize,
    seed: u64,
    listeners: Vec<SocketAddr>,
    level: Level,
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Host {
    /// Two workers, one listener at 127.0.0.1:5060, 1 MiB of shared memory, records up to level
    /// debug, and no parameters.
    pub fn new() -> Host {
        Host {
            workers: 2,
            settings: Vec::new(),
            folder: None,
            shared_memory_bytes: 1 << 20,
            seed: 0,
            listeners: vec![SocketAddr::from(([127, 0, 0, 1], 5060))],
            level: Level::Debug,
        }
    }

    /// Sets a parameter, with text as after `--set`: `"3"`, `"1s"`, `"a, b"`, `"key = value"`. A
    /// later setting wins.
    #[must_use]
    pub fn param(mut self, name: &str, text: &str) -> Host {
        self.settings.push(table::setting(name, text));
        self
    }

    /// Sets the number of workers, and thereby the size of the process table.
    #[must_use]
    pub fn workers(mut self, count: u32) -> Host {
        self.workers = count;
        self
    }

    /// Sets the folder that relative paths in parameters start from. Without it: the working
    /// directory of the test.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Host {
        self.folder = Some(folder.into());
        self
    }

    /// Sets the size of the shared memory in bytes. A small one tests how the module copes when it
    /// is exhausted.
    #[must_use]
    pub fn shared_memory(mut self, bytes: usize) -> Host {
        self.shared_memory_bytes = bytes;
        self
    }

    /// Sets the seed of the random numbers.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Host {
        self.seed = seed;
        self
    }

    /// Sets the addresses of the listeners that the module serves. Listeners that `init` asks for
    /// come after them.
    #[must_use]
    pub fn listeners(mut self, addresses: &[SocketAddr]) -> Host {
        self.listeners = addresses.to_vec();
        self
    }

    /// Sets the highest level of the records that are kept.
    #[must_use]
    pub fn log_level(mut self, level: Level) -> Host {
        self.level = level;
        self
    }

    /// Writes the parameters and runs `init`, `proc_init` and `proc_main` in the calling thread.
    ///
    /// # Errors
    /// Where a real host would refuse to start: wrong parameters, or a phase that fails or panics.
    ///
    /// # Panics
    /// If this thread already has a fake host.
    #[track_caller]
    pub fn start<M: Exported>(self) -> Result<Running<M>, Failure> {
        assert!(!HAS_HOST.get(), "this thread already has a fake host; drop it before you start another one");
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        HAS_HOST.set(true);
        let main = ProcessInfo { size: size_of::<ProcessInfo>() as u32, pid: MAIN_PID, ..ProcessInfo::EMPTY };
        let mut state = Fake::new();
        (state.memory, state.seed, state.process) = (self.shared_memory_bytes, self.seed, main);
        state.listeners = Some(self.listeners.clone());
        let state: Shared = Arc::new(Mutex::new(state));
        fake::install();
        fake::LOG_LEVEL.store(self.level as u32, Ordering::Relaxed);
        fake::become_current(Some(Arc::clone(&state)));
        let mut running = Running {
            exports: M::exports(),
            state,
            workers: self.workers,
            initialised: false,
            main,
            turn: Some(turn),
            module: PhantomData,
        };
        running.start(&self)?;
        Ok(running)
    }
}

const MAIN_PID: i32 = 1000;
/// Number of processes after the workers: slow timer, timer, control.
const SERVICES: i32 = 3;

/// A started fake host with its module. Dropping it destroys the module.
pub struct Running<M: Exported> {
    exports: &'static ModuleExports,
    state: Shared,
    workers: u32,
    initialised: bool,
    main: ProcessInfo,
    turn: Option<MutexGuard<'static, ()>>,
    /// A module belongs to one thread.
    module: PhantomData<*const M>,
}

impl<M: Exported> Running<M> {
    fn start(&mut self, host: &Host) -> Result<(), Failure> {
        let folder = match &host.folder {
            Some(folder) => folder.clone(),
            None => std::env::current_dir().map_err(|error| self.failure("parameters", error.to_string()))?,
        };
        let folders = Folders { file: folder.clone(), command: folder };
        table::apply(self.exports, &host.settings, &folders).map_err(|text| self.failure("parameters", text))?;
        let init_f = self.exports.init_f.ok_or_else(|| self.failure("init", "the module has no init_f".into()))?;
        // The module replaces the panic hook with its own, which writes to the host's log only. A
        // test must show its panics.
        let before = std::panic::take_hook();
        let code = init_f();
        let of_module = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            of_module(info);
            before(info);
        }));
        self.outcome("init", code)?;
        self.initialised = true;
        let registered = self.registered_procs();
        let procs = 1 + i64::from(self.workers) + i64::from(SERVICES) + i64::from(registered);
        self.fake(|fake| fake.max_procs = i32::try_from(procs).unwrap_or(i32::MAX));
        self.fill_processes();
        self.main_step("proc_init", abi::PROC_INIT)?;
        self.main_step("proc_main", abi::PROC_MAIN)?;
        self.fill_forked();
        Ok(())
    }

    fn main_step(&self, step: &str, rank: i32) -> Result<(), Failure> {
        let init_child_f = self.exports.init_child_f.ok_or_else(|| self.failure(step, "the module has no init_child_f".into()))?;
        self.outcome(step, init_child_f(rank))
    }

    /// Calls `post_child_init`, as a host does when every child is ready, if the module wants it.
    ///
    /// # Errors
    /// If it fails or panics.
    pub fn ready(&self) -> Result<(), Failure> {
        match self.exports.header.flags & abi::FLAG_WANTS_POSTCHILDINIT {
            0 => Ok(()),
            _ => self.main_step("post_child_init", abi::PROC_POSTCHILDINIT),
        }
    }

    /// The module, as every process sees it.
    pub fn module(&self) -> &M {
        M::cell().module().expect("a module that went through proc_init")
    }

    /// The worker with that rank, from 1 on, after its `child_init`.
    ///
    /// # Errors
    /// If `child_init` fails or panics, or there is no such worker.
    pub fn worker(&self, number: u32) -> Result<Child<'_, M>, Failure> {
        self.child(Rank::new(i32::try_from(number).unwrap_or(i32::MAX)))
    }

    /// The timer process, after its `child_init`.
    ///
    /// # Errors
    /// If `child_init` fails or panics.
    pub fn timer(&self) -> Result<Child<'_, M>, Failure> {
        self.child(Rank::TIMER)
    }

    /// A process with that rank, after its `child_init`: a worker, the timer process, or the
    /// control process.
    ///
    /// # Errors
    /// If `child_init` fails or panics, or there is no such process.
    pub fn child(&self, rank: Rank) -> Result<Child<'_, M>, Failure> {
        let workers = self.workers.cast_signed();
        let process_no = match rank {
            Rank::TIMER => workers + 2,
            Rank::RPC => workers + SERVICES,
            rank if (1..=workers).contains(&rank.number()) => rank.number(),
            rank => return Err(self.failure("child_init", format!("there is no process of rank {rank}, with {workers} workers"))),
        };
        Child::new(self, self.identity(process_no, rank))
    }

    /// Runs a process that `proc_main` forked: its `child_init`, if it has one, then its entry
    /// function to the end.
    ///
    /// # Errors
    /// If one of the two fails or panics, or no process of that name was forked.
    pub fn run_process(&self, name: &str) -> Result<(), Failure> {
        let found = self.fake(|fake| fake.fork_names.iter().position(|fork| fork == name).map(|index| (index, fake.forks[index])));
        let Some((index, fork)) = found else {
            let names: Vec<String> = self.forked().into_iter().map(|forked| forked.name).collect();
            return Err(self.failure("fork_process", format!("no process \"{name}\" was forked, only {names:?}")));
        };
        let rank = Rank::new(fork.rank);
        let info = self.identity(self.workers.cast_signed() + SERVICES + 1 + index as i32, rank);
        let mut child = if fork.rank == abi::PROC_NOCHLDINIT { Child::bare(self, info) } else { Child::new(self, info)? };
        child.run(name, || (fork.entry)(fork.data))
    }

    fn identity(&self, process_no: i32, rank: Rank) -> ProcessInfo {
        ProcessInfo { process_no, rank: rank.number(), pid: MAIN_PID + process_no, ..self.main }
    }

    /// The processes that `proc_main` forked, in that order.
    pub fn forked(&self) -> Vec<Forked> {
        self.fake(|fake| {
            let forked = |(fork, name): (&fake::Fork, &String)| Forked {
                name: name.clone(),
                rank: Rank::new(fork.rank),
                make_sock: if fork.flags & abi::FORK_MAKE_SOCK == 0 { MakeSock::No } else { MakeSock::Yes },
            };
            fake.forks.iter().zip(&fake.fork_names).map(forked).collect()
        })
    }

    /// Number of processes that `init` registered.
    pub fn registered_procs(&self) -> u32 {
        self.fake(|fake| fake.registered).cast_unsigned()
    }

    /// The timers that were added, in that order.
    pub fn timers(&self) -> Vec<AddedTimer> {
        self.fake(|fake| {
            let timer = |(timer, name): (&fake::FakeTimer, &String)| AddedTimer {
                name: name.clone(),
                first: Duration::from_nanos(timer.first_ns),
                period: (timer.period_ns != 0).then(|| Duration::from_nanos(timer.period_ns)),
                slow: timer.process == abi::TIMER_SLOW,
            };
            fake.timers.iter().zip(&fake.timer_names).map(timer).collect()
        })
    }

    /// The listeners that `init` asked for: address, handler (none: the first one) and workers (0:
    /// as configured).
    pub fn listens(&self) -> Vec<(String, Option<String>, u32)> {
        self.fake(|fake| fake.listens.clone())
    }

    /// The records logged so far.
    pub fn logs(&self) -> Logs {
        self.fake(|fake| {
            let record = |(level, target, text): &(u32, String, String)| Record {
                level: Level::iter().nth((*level as usize).saturating_sub(1)).unwrap_or(Level::Trace),
                target: target.clone(),
                text: text.clone(),
            };
            Logs(fake.log.iter().map(record).collect())
        })
    }

    /// The datagrams sent so far with [`Listener::send_to`](crate::Listener::send_to): the
    /// listener's number, the peer, the data.
    pub fn sent(&self) -> Vec<(u32, SocketAddr, Vec<u8>)> {
        self.fake(|fake| {
            let sent = |(listener, peer, data): &(u32, Vec<u8>, Vec<u8>)| Some((*listener, sockaddr::decode(peer)?.inet()?, data.clone()));
            fake.sent.iter().filter_map(sent).collect()
        })
    }

    /// Number of bytes of shared memory that are left.
    pub fn shared_memory_left(&self) -> usize {
        self.fake(|fake| fake.memory)
    }

    /// Makes this lock look as if another process had died while it held it: the next one to lock
    /// it is told.
    pub fn owner_died<T: ShmSafe + Send>(&self, lock: &ShmMutex<T>) {
        self.fake(|fake| fake.mutexes.insert(lock.address(), FakeMutex::OwnerDied));
    }

    /// Calls `destroy`, as a host does at its end, and returns all records.
    pub fn stop(mut self) -> Logs {
        self.destroy();
        self.logs()
    }

    fn destroy(&mut self) {
        if std::mem::take(&mut self.initialised)
            && let Some(destroy_f) = self.exports.destroy_f
        {
            destroy_f();
        }
    }

    pub(super) fn fake<R>(&self, change: impl FnOnce(&mut Fake) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn outcome(&self, step: &str, code: i32) -> Result<(), Failure> {
        let text = self.fake(|fake| fake.error.take());
        if code >= 0 {
            return Ok(());
        }
        Err(self.failure(step, text.unwrap_or_else(|| format!("it returned {code}"))))
    }

    pub(super) fn failure(&self, step: &str, text: String) -> Failure {
        Failure { step: step.to_owned(), text, logs: self.logs() }
    }
}

impl<M: Exported> Drop for Running<M> {
    fn drop(&mut self) {
        self.destroy();
        fake::become_current(None);
        HAS_HOST.set(false);
        drop(self.turn.take());
    }
}

/// A phase, a handler or a timer function that failed, or something missing that a test asked for.
#[derive(Debug, Clone)]
pub struct Failure {
    step: String,
    text: String,
    logs: Logs,
}

impl Failure {
    /// The step that failed: `parameters`, `init`, `proc_init`, `proc_main`, `child_init`,
    /// `post_child_init`, or the name of the handler, timer or process.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// The reason: the text of the module's error, or of its panic, which begins with `panicked: `.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The records logged up to the failure.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.text)
    }
}

impl std::error::Error for Failure {}

/// A process that `proc_main` forked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forked {
    /// Name for the process table.
    pub name: String,
    /// The rank that its `child_init` gets.
    pub rank: Rank,
    /// Whether it has a link to the TCP main process.
    pub make_sock: MakeSock,
}

/// A timer that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddedTimer {
    /// Name for the log.
    pub name: String,
    /// Time from the start of its process to the first call.
    pub first: Duration,
    /// Time between two calls; none: one call only.
    pub period: Option<Duration>,
    /// Whether it runs in the slow timer process.
    pub slow: bool,
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Severity.
    pub level: Level,
    /// The Rust module that logged it, or the target that it named.
    pub target: String,
    /// Message and fields: `counted report=1`.
    pub text: String,
}

/// Log records, in the order in which they were logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logs(Vec<Record>);

impl Logs {
    /// Whether any record contains this text.
    pub fn contains(&self, text: &str) -> bool {
        self.0.iter().any(|record| record.text.contains(text))
    }

    /// All records.
    pub fn records(&self) -> &[Record] {
        &self.0
    }
}
