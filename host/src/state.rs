//! What every process of one main inherits. Four values, each built whole and installed once.
//!
//! *Runs in:* made in main: [`MainMemory`] and [`InitRequests`] before the first module is loaded,
//! the list of modules when all are, [`State`] at `seal`. *Never:* locked while a module is being
//! called.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::config::{ListenAddress, ListenOptions};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::net::listener::Listener;
use crate::net::stream::directory::Directory;
use crate::process::family::Family;
use crate::shm::arena::Arena;
use crate::stats::registry::{OUTSIDE_BYTES, Registry};
use crate::sys::memory::mapping::Mapping;
use crate::timer::TimerFunction;
use crate::tls::{CertificateSource, CurrentCertificates};

/// Shared memory for what is made later and whose size is known only then: each process's counters,
/// the directory of connections. What does not fit gets its own mapping.
const LATER_BYTES: usize = 2 << 20;

static MODULES: OnceLock<Vec<&'static Module>> = OnceLock::new();
static MEMORY: OnceLock<MainMemory> = OnceLock::new();
static REQUESTS: OnceLock<InitRequests> = OnceLock::new();
static STATE: OnceLock<State> = OnceLock::new();

/// Puts a value where every process forked later finds it.
fn install<T>(place: &'static OnceLock<T>, value: T, what: &str) -> Result<&'static T> {
    let mut fresh = false;
    let installed = place.get_or_init(|| {
        fresh = true;
        value
    });
    if fresh { Ok(installed) } else { Err(Error::fault(format!("{what} was made twice"))) }
}

/// Makes these the modules of this main, in load order.
pub fn install_modules(modules: Vec<&'static Module>) -> Result<&'static [&'static Module]> {
    install(&MODULES, modules, "the list of modules").map(Vec::as_slice)
}

/// The name of the module with that index of the plan, once all are loaded.
pub fn module_name(index: u32) -> Option<&'static str> {
    MODULES.get()?.iter().find(|module| module.index == index).map(|module| module.name.as_str())
}

/// The shared memory that main makes before it loads a module.
#[derive(Debug)]
pub struct MainMemory {
    /// The modules' shared memory.
    pub arena: Arena,
    /// Counters, gauges and histograms.
    pub stats: Registry,
}

impl MainMemory {
    /// Maps it, with `arena_bytes` for the modules.
    pub fn new(arena_bytes: usize) -> Result<Self> {
        Mapping::reserve_shared(&[arena_bytes, Arena::tables_bytes(arena_bytes), OUTSIDE_BYTES, LATER_BYTES])?;
        Ok(Self { arena: Arena::new(arena_bytes)?, stats: Registry::new()? })
    }

    /// Makes it this main's.
    pub fn install(self) -> Result<&'static Self> {
        install(&MEMORY, self, "main's memory")
    }

    /// This main's. None in a process that is no main nor child of one.
    pub fn current() -> Option<&'static Self> {
        MEMORY.get()
    }
}

/// What modules ask for in `init_f`, and timer functions until `PROC_INIT` is over.
#[derive(Debug)]
pub struct InitRequests {
    /// How many listeners are planned: those that modules ask for are numbered from there.
    pub planned_listeners: usize,
    listeners: Mutex<Vec<ListenerRequest>>,
    timers: Mutex<Vec<TimerFunction>>,
}

/// A listener that is to be bound: a planned one, or one that a module asked for.
#[derive(Debug)]
pub struct ListenerRequest {
    /// At least one.
    pub addresses: Vec<ListenAddress>,
    /// Options of its sockets and connections.
    pub options: ListenOptions,
    /// The module that serves it.
    pub module: &'static Module,
    /// Name of the handler; without: the module's first for this kind of address.
    pub handler: Option<String>,
    /// Number of workers; without: `host.workers`.
    pub workers: Option<u32>,
}

impl InitRequests {
    /// No requests yet.
    pub fn new(planned_listeners: usize) -> Self {
        Self { planned_listeners, listeners: Mutex::default(), timers: Mutex::default() }
    }

    /// Makes it this main's.
    pub fn install(self) -> Result<&'static Self> {
        install(&REQUESTS, self, "the list of requests")
    }

    /// This main's. None in a process that is no main nor child of one.
    pub fn current() -> Option<&'static Self> {
        REQUESTS.get()
    }

    /// The listeners that modules have asked for.
    pub fn listeners(&self) -> MutexGuard<'_, Vec<ListenerRequest>> {
        lock(&self.listeners)
    }

    /// The timer functions in the order of registration.
    pub fn timers(&self) -> MutexGuard<'_, Vec<TimerFunction>> {
        lock(&self.timers)
    }
}

/// Main has one thread, so these locks are never contended; a panic elsewhere must not poison them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `seal` has fixed: nothing of it changes afterwards.
#[derive(Debug)]
pub struct State {
    /// The pid that the operator knows: the supervisor's, or main's in no-fork mode.
    pub operator_pid: i32,
    /// The modules in load order, and the processes.
    pub family: Family,
    /// The bound listeners, by number.
    pub listeners: Vec<Listener>,
    /// Every open connection; without: no listener takes connections.
    pub directory: Option<Directory>,
    /// Where the certificates are; without: no listener has one.
    pub tls: Option<CertificateSource>,
}

impl State {
    /// Makes it this main's, for modules from `PROC_INIT` on and for every child.
    pub fn install(self) -> Result<&'static Self> {
        install(&STATE, self, "the state")
    }

    /// This main's. None before `seal`, and in a process that is no main nor child of one.
    pub fn current() -> Option<&'static Self> {
        STATE.get()
    }

    /// The listener with that number.
    pub fn listener(&self, index: u32) -> Option<&Listener> {
        self.listeners.get(index as usize)
    }

    /// The certificates of the listeners, if one has some.
    pub fn certificates(&'static self) -> Result<Option<CurrentCertificates>> {
        let settings: Vec<_> = self.listeners.iter().map(|listener| listener.connections()?.tls.as_ref()).collect();
        match &self.tls {
            Some(source) if settings.iter().any(Option::is_some) => CurrentCertificates::load(source, settings).map(Some),
            _ => Ok(None),
        }
    }
}
