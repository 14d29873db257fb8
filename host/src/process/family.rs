//! The family: which processes exist, and the one path by which each of them comes to life, at the start and after every death.
//!
//! *Runs in:* main (forking), every child (its prologue). *Never:* lets a child skip the prologue.
//!
//! ```text
//! main                                child
//! note the fork in its slot
//! fork ─────────────────────────────► identity, tie to main, fresh signals
//! note the pid                        close what is main's alone, title
//!                                     init_child_f(rank) of every module
//!                                     tell main
//!                                     run the entry ─► leave
//! ```

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{Pid, getpid};

use super::phase::{Breadcrumb, Phase};
use super::slots::{Slot, Slots, State as SlotState};
use crate::error::{EXIT_FAILED, Error, Result};
use crate::log::ProcessName;
use crate::module::{Module, call};
use crate::state::State;
use crate::sys::fork::{Alone, Side};
use crate::sys::text::among_first_steps;
use crate::sys::title::{self, Comm};
use crate::sys::{census, descriptor, exit, first, fork, handing, local::local, signal, time};

/// What a process does once it is initialised. Returns its exit code.
#[derive(Clone)]
pub enum Work {
    /// A function, and the number of what it works on: nothing on the heap, and the function's place in the program can be chosen (`sys::text`).
    Numbered(fn(usize) -> u8, usize),
    /// Anything else.
    Made(Arc<dyn Fn() -> u8 + Send + Sync>),
}

impl Work {
    /// Of a closure.
    pub fn of(work: impl Fn() -> u8 + Send + Sync + 'static) -> Self {
        Self::Made(Arc::new(work))
    }

    #[inline(always)]
    fn run(&self) -> u8 {
        match self {
            Self::Numbered(work, number) => work(*number),
            Self::Made(work) => work(),
        }
    }
}

/// How a process goes on after its prologue.
#[derive(Clone)]
pub enum Entry {
    /// It runs this and leaves. Can be forked again.
    Run(Work),
    /// It returns into the module that forked it. Cannot be forked again.
    Return,
}

/// Whether `init_child_f(rank)` is called in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildInit {
    /// As for every process.
    Call,
    /// `PROC_NOCHLDINIT`.
    Skip,
}

/// Kinds of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Loads the modules, forks the others.
    Main,
    /// Serves a datagram listener.
    Worker,
    /// A timer process.
    Timer,
    /// Serves the control socket.
    Control,
    /// Serves connections.
    TcpWorker,
    /// Accepts connections and hands them to the TCP workers.
    TcpMain,
    /// Registered by a module.
    Module,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Worker => "worker",
            Self::Timer => "timer",
            Self::Control => "control",
            Self::TcpWorker => "TCP worker",
            Self::TcpMain => "TCP main",
            Self::Module => "module process",
        })
    }
}

impl Spec {
    /// A process of the host.
    pub fn new(kind: Kind, rank: i32, name: String, work: Work) -> Self {
        Self::with(kind, rank, name, None, ChildInit::Call, Entry::Run(work))
    }

    /// A process of a module.
    pub fn of_module(owner: &'static Module, rank: i32, name: String, child_init: ChildInit, entry: Entry) -> Self {
        Self::with(Kind::Module, rank, name, Some(owner), child_init, entry)
    }

    fn with(kind: Kind, rank: i32, name: String, owner: Option<&'static Module>, child_init: ChildInit, entry: Entry) -> Self {
        let (title, comm, in_log) = (format!("modhost: {name}"), Comm::new(kind.comm()), ProcessName::new(&name));
        Self { kind, rank, name, title, comm, in_log, owner, child_init, entry }
    }
}

impl Kind {
    /// What `top` shows; at most 15 bytes.
    pub fn comm(self) -> &'static str {
        match self {
            Self::Main => "modhost-main",
            Self::Worker => "modhost-worker",
            Self::Timer => "modhost-timer",
            Self::Control => "modhost-control",
            Self::TcpWorker => "modhost-tcp",
            Self::TcpMain => "modhost-tcpmain",
            Self::Module => "modhost-module",
        }
    }
}

/// One row of the table of what exists.
pub struct Spec {
    /// What it is.
    pub kind: Kind,
    /// Passed to `init_child_f`.
    pub rank: i32,
    /// In the process table and the log.
    pub name: String,
    /// What `ps` shows; made before the fork, so that the child need not allocate.
    title: String,
    /// What `top` shows.
    comm: Comm,
    /// What its records begin with.
    in_log: ProcessName,
    /// The module that forked it.
    pub owner: Option<&'static Module>,
    /// Whether modules get `init_child_f(rank)` in it.
    pub child_init: ChildInit,
    /// What it does.
    pub entry: Entry,
}

/// Everything that forking needs to know. Made in main; children inherit it.
pub struct Family {
    /// The shared table.
    pub slots: Slots,
    main_pid: Pid,
    modules: OnceLock<Vec<&'static Module>>,
    /// By process number. Read on every fork, so reading must not write: a page that main writes between two forks is copied for each child.
    rows: OnceLock<Vec<Row>>,
    /// Descriptors that are not for everybody.
    reserved: OnceLock<Vec<Reserved>>,
    /// The links to TCP main, by the number of the process that has the other end. Empty without listeners for connections.
    links: OnceLock<Vec<OnceLock<Ends>>>,
    /// Written by the child that completes a start.
    done: EventFd,
}

/// A descriptor that main has open for itself, or for one kind of child.
#[derive(Debug, Clone, Copy)]
pub struct Reserved {
    /// Its number.
    pub descriptor: RawFd,
    /// Whose it is: every other child closes it.
    pub kind: Kind,
}

/// Both ends of a link between TCP main and another process. Main keeps them, for the successors of either.
#[derive(Debug)]
pub struct Ends {
    /// TCP main's.
    pub hub: OwnedFd,
    /// The other process's.
    pub own: OwnedFd,
}

/// One row of the table.
enum Row {
    /// Known from the start.
    Fixed(Spec),
    /// Registered by a module; none until it is forked.
    Registered(Mutex<Option<&'static Spec>>),
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("main_pid", &self.main_pid).finish_non_exhaustive()
    }
}

impl Family {
    /// In main, before anything else of it.
    pub fn new(slots: Slots) -> Result<Self> {
        let done = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::failed("cannot prepare to wait for processes").detail(format!("eventfd: {errno}")))?;
        let main = slots.slot(0).ok_or_else(|| Error::fault("the process table has no slot for main"))?;
        let main_pid = getpid();
        main.note_fork(0, 0, time::now_ns());
        main.set_pid(main_pid.as_raw());
        main.set_name("main");
        local().become_process(main_pid.as_raw(), 0, 0, main.trail());
        Ok(Self {
            slots,
            main_pid,
            modules: OnceLock::new(),
            rows: OnceLock::new(),
            reserved: OnceLock::new(),
            links: OnceLock::new(),
            done,
        })
    }

    /// The modules in load order, once they are all loaded.
    pub fn adopt_modules(&self, modules: Vec<&'static Module>) -> Result<()> {
        self.modules.set(modules).map_err(|_| Error::fault("the modules were loaded twice"))
    }

    /// The modules in load order.
    pub fn modules(&self) -> &[&'static Module] {
        self.modules.get().map_or(&[], Vec::as_slice)
    }

    /// The descriptors that all children close, or all but one. Before the first fork, once.
    pub fn reserve(&self, descriptors: Vec<Reserved>) -> Result<()> {
        self.reserved.set(descriptors).map_err(|_| Error::fault("the reserved descriptors were listed twice"))
    }

    /// Processes may have links to TCP main from now on. After `fix`, once.
    pub fn allow_links(&self) -> Result<()> {
        let none = (0..self.slots.count()).map(|_| OnceLock::new()).collect();
        self.links.set(none).map_err(|_| Error::fault("the links were prepared twice"))
    }

    /// Whether there is a TCP main process to be linked to.
    pub fn has_links(&self) -> bool {
        self.links.get().is_some()
    }

    /// Links a process to TCP main; its successors too. In main, before TCP main is forked.
    pub fn link(&self, process_no: usize) -> Result<()> {
        let Some(link) = self.links.get().and_then(|links| links.get(process_no)) else { return Ok(()) };
        if link.get().is_none() {
            let (hub, own) = handing::pair()?;
            // It was empty, and main has one thread.
            let _ = link.set(Ends { hub, own });
        }
        Ok(())
    }

    /// The links, with the number of the process at the other end.
    pub fn links(&self) -> impl Iterator<Item = (usize, &Ends)> {
        self.links.get().into_iter().flatten().enumerate().filter_map(|(process_no, link)| Some((process_no, link.get()?)))
    }

    /// A process's own end of its link.
    pub fn own_end(&self, process_no: usize) -> Option<BorrowedFd<'_>> {
        Some(self.links.get()?.get(process_no)?.get()?.own.as_fd())
    }

    /// Readable when the awaited children are done.
    pub fn done(&self) -> &EventFd {
        &self.done
    }

    /// Main's pid.
    pub fn main_pid(&self) -> Pid {
        self.main_pid
    }

    /// Fixes the table: these processes, in this order, main first; none stands for one that a module registered.
    pub fn fix(&self, specs: Vec<Option<Spec>>) -> Result<()> {
        self.slots.fix_count(specs.len())?;
        for (process_no, spec) in specs.iter().enumerate() {
            if let (Some(spec), Some(slot)) = (spec, self.slots.slot(process_no)) {
                slot.set_name(&spec.name);
            }
        }
        let rows = specs.into_iter().map(|spec| spec.map_or_else(|| Row::Registered(Mutex::new(None)), Row::Fixed)).collect();
        self.rows.set(rows).map_err(|_| Error::fault("the process table was fixed twice"))
    }

    /// A row of the table; none if there is no such process, or none yet.
    pub fn spec(&self, process_no: usize) -> Option<&Spec> {
        match self.rows.get()?.get(process_no)? {
            Row::Fixed(spec) => Some(spec),
            Row::Registered(spec) => *lock(spec),
        }
    }

    /// Takes the first free registered row for that process.
    pub fn claim(&self, spec: Spec) -> Result<usize> {
        for (process_no, row) in self.rows.get().into_iter().flatten().enumerate() {
            let Row::Registered(registered) = row else { continue };
            let mut registered = lock(registered);
            if registered.is_none() {
                if let Some(slot) = self.slots.slot(process_no) {
                    slot.set_name(&spec.name);
                }
                // A row is taken once in main's life.
                *registered = Some(Box::leak(Box::new(spec)));
                return Ok(process_no);
            }
        }
        Err(Error::failed("no registered process is left"))
    }

    /// Gives a row back whose fork failed.
    pub fn release(&self, process_no: usize) {
        if let Some(Row::Registered(spec)) = self.rows.get().and_then(|rows| rows.get(process_no)) {
            *lock(spec) = None;
        }
    }

    among_first_steps! {
    /// Forks the process of a row, with its prologue. In the child the process is initialised when this returns.
    /// First start and restart are this one path.
    #[inline(never)]
    pub fn fork(&self, alone: &Alone, process_no: usize, restarts: u32) -> Result<Side> {
        let spec = self.spec(process_no).ok_or_else(|| Error::fault(format!("process {process_no} does not exist")))?;
        let slot = self.slots.slot(process_no).ok_or_else(|| Error::fault(format!("process {process_no} has no slot")))?;
        slot.note_fork(spec.rank, restarts, time::now_ns());
        match fork::fork(alone) {
            Ok(Side::Parent(pid)) => {
                slot.set_pid(pid.as_raw());
                Ok(Side::Parent(pid))
            }
            Ok(Side::Child) => {
                self.prologue(process_no, spec, slot);
                Ok(Side::Child)
            }
            Err(error) => {
                slot.set_state(SlotState::Ended);
                Err(error)
            }
        }
    }
    }

    among_first_steps! {
    /// Forks a process that never comes back here.
    #[inline(never)]
    pub fn start(&self, alone: &Alone, process_no: usize, restarts: u32) -> Result<Pid> {
        match self.fork(alone, process_no, restarts)? {
            Side::Parent(pid) => Ok(pid),
            Side::Child => match self.spec(process_no) {
                Some(Spec { entry: Entry::Run(work), .. }) => exit::leave(work.run()),
                _ => exit::leave(EXIT_FAILED),
            },
        }
    }
    }

    /// What every child does first, in this order; none can skip it.
    #[inline(always)]
    fn prologue(&self, process_no: usize, spec: &Spec, slot: Slot) {
        let pid = first::own_pid().as_raw();
        // Identity first: from here on a module call of this process is blamed on this process.
        local().become_process(pid, process_no as i32, spec.rank, slot.trail());
        // Main notes it, too, maybe later. Looked at first: what is read first comes into this process with its neighbours, and what is written first
        // alone, at the same price.
        if slot.pid() != pid {
            slot.set_pid(pid);
        }
        if let Some(state) = State::current() {
            state.stats.settle(process_no);
        }
        // Then the tie to main, so that nothing below can outlive it.
        if let Err(error) = fork::die_with_parent(self.main_pid).and_then(|()| signal::fresh()) {
            fail(&error);
        }
        for reserved in self.reserved.get().into_iter().flatten() {
            if reserved.kind != spec.kind {
                first::close(reserved.descriptor);
            }
        }
        descriptor::close_private();
        census::leave_to_parent();
        for (other_no, ends) in self.links() {
            if spec.kind != Kind::TcpMain {
                first::close(ends.hub.as_raw_fd());
            }
            if other_no != process_no {
                first::close(ends.own.as_raw_fd());
            }
        }
        title::set_title(&spec.title);
        if let Err(error) = spec.comm.show() {
            tracing::debug!("{error}");
        }
        crate::log::set_process(&spec.in_log);
        if spec.child_init == ChildInit::Call {
            for module in self.modules() {
                if let Err(error) = call::init_child(module, spec.rank) {
                    call::ends_after(module, Phase::ChildInit);
                    fail(&error);
                }
            }
        }
        if let Some(owner) = spec.owner {
            slot.trail().store(Breadcrumb::word(owner.index, Phase::Process), std::sync::atomic::Ordering::Relaxed);
        }
        slot.set_state(SlotState::Serving);
        if self.slots.child_done()
            && let Err(errno) = self.done.write(1)
        {
            fail(&Error::failed("cannot tell main that the start is complete").detail(format!("eventfd: {errno}")));
        }
        first::close(self.done.as_fd().as_raw_fd());
    }
}

/// A child that cannot be initialised ends; main sees it and decides.
fn fail(error: &Error) -> ! {
    tracing::error!("{error}");
    exit::leave(EXIT_FAILED)
}

/// The host is single-threaded where these locks are used, so they are never contended; a panic elsewhere must not poison them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
