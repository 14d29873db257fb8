//! What main knows and every child inherits: one value, reached from the calls that modules make.
//!
//! *Runs in:* made in main before the first module is loaded. *Never:* locked while a module is being called.

use std::sync::{Mutex, OnceLock};

use crate::config::{ListenAddress, ListenOptions};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::net::listener::Listener;
use crate::net::stream::StreamListener;
use crate::net::stream::directory::Directory;
use crate::process::family::Family;
use crate::process::slots::Slots;
use crate::shm::arena::Arena;
use crate::stats::registry::{OUTSIDE_BYTES, Registry};
use crate::sys::mapping::Mapping;
use crate::sys::wide::Socket;
use crate::timer::TimerFunction;
use crate::tls::{Current, Source};

/// A listener that a module asked for in `init_f`.
#[derive(Debug)]
pub struct Wanted {
    /// Where; at least one.
    pub addresses: Vec<ListenAddress>,
    /// How its sockets are made.
    pub options: ListenOptions,
    /// Who asked and serves.
    pub module: &'static Module,
    /// Name of its handler; none: its first.
    pub handler: Option<String>,
    /// Number of workers; none: the configured default.
    pub workers: Option<u32>,
}

/// What the processes that serve connections have in common.
#[derive(Debug)]
pub struct Streams {
    /// Which connections exist.
    pub directory: Directory,
    /// The bound listeners.
    pub listeners: Vec<StreamListener>,
}

impl Streams {
    /// The certificates of the listeners that have some, if one does.
    pub fn certificates(&'static self, source: Option<&'static Source>) -> Result<Option<Current>> {
        let options: Vec<_> = self.listeners.iter().map(|listener| listener.tls.as_ref()).collect();
        match source {
            Some(source) if options.iter().any(Option::is_some) => Current::load(source, options).map(Some),
            _ => Ok(None),
        }
    }
}

/// Shared memory for what is made later and known only then: the counters' words of each process, the directory of connections. What does not
/// fit has mappings of its own.
const LATER_BYTES: usize = 2 << 20;

/// The state.
#[derive(Debug)]
pub struct State {
    /// The process that the operator knows: the supervisor, or main without one.
    pub pid: i32,
    /// The processes.
    pub family: Family,
    /// The modules' shared memory.
    pub arena: Arena,
    /// How many listeners are configured: those that modules ask for are numbered from there.
    pub configured_listeners: usize,
    /// Listeners that modules asked for, until they are bound.
    pub wanted: Mutex<Vec<Wanted>>,
    /// The bound listeners, by number.
    pub listeners: OnceLock<Vec<Listener>>,
    /// What serves connections; none if no listener takes any.
    pub streams: OnceLock<Streams>,
    /// Timer functions in the order of registration.
    pub timers: Mutex<Vec<TimerFunction>>,
    /// What is counted.
    pub stats: Registry,
    /// Where the certificates lie; none if no listener has some.
    pub tls: Option<Source>,
}

static STATE: OnceLock<State> = OnceLock::new();

impl State {
    /// For a main that has loaded nothing yet. `pid`: the one that the operator knows.
    pub fn new(pid: i32, slots: Slots, arena_bytes: usize, configured_listeners: usize, tls: Option<Source>) -> Result<Self> {
        Mapping::reserve_shared(&[arena_bytes, Arena::tables_bytes(arena_bytes), OUTSIDE_BYTES, LATER_BYTES])?;
        Ok(Self {
            pid,
            family: Family::new(slots)?,
            arena: Arena::new(arena_bytes)?,
            configured_listeners,
            wanted: Mutex::default(),
            listeners: OnceLock::new(),
            streams: OnceLock::new(),
            timers: Mutex::default(),
            stats: Registry::new()?,
            tls,
        })
    }

    /// Makes it the state of this process and its children.
    pub fn install(self) -> Result<&'static Self> {
        let mut fresh = false;
        let state = STATE.get_or_init(|| {
            fresh = true;
            self
        });
        if fresh { Ok(state) } else { Err(Error::fault("the state was made twice")) }
    }

    /// The state. None in a process that is no main nor child of one.
    pub fn current() -> Option<&'static Self> {
        STATE.get()
    }

    /// A module's name.
    pub fn module_name(&self, index: u32) -> Option<&str> {
        self.family.modules().iter().find(|module| module.index == index).map(|module| module.name.as_str())
    }

    /// A bound listener for datagrams.
    pub fn listener(&self, index: u32) -> Option<&Listener> {
        // Listeners for connections have numbers of the same row.
        self.listeners.get()?.iter().find(|listener| listener.index == index)
    }

    /// Who serves a bound listener of either kind, and its sockets.
    pub fn any_listener(&self, index: u32) -> Option<(&'static Module, &[Socket])> {
        let streams = self.streams.get().map_or(&[][..], |streams| &streams.listeners);
        let stream = || streams.iter().find(|listener| listener.index == index).map(|listener| (listener.module, &listener.sockets[..]));
        self.listener(index).map(|listener| (listener.module, &listener.sockets[..])).or_else(stream)
    }
}
