//! The family: which processes exist, and the one path by which each of them is forked, at the
//! start and after every death.
//!
//! *Runs in:* main (forking), every child (its prologue). *Never:* lets a child skip the prologue.
//!
//! ```text
//! main                                child
//! note the fork in its slot
//! fork ─────────────────────────────► identity, tie to main, fresh signals
//! note the pid                        close guarded descriptors, title
//!                                     init_child_f(rank) of every module
//!                                     tell main
//!                                     run the entry ─► leave
//! ```

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{Pid, getpid};

use super::kinds::{Guarded, Kind};
use super::phase::{Breadcrumb, Phase};
use super::slots::{Slot, SlotState, Slots};
use crate::error::{EXIT_FAILED, Error, Result};
use crate::log::ProcessName;
use crate::module::{Module, call};
use crate::state::{MainMemory, State};
use crate::sys::fast_fork::child_calls;
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::process::fork::{self, Alone, Side};
use crate::sys::process::title::{self, Comm};
use crate::sys::process::{counts, exit, signal};
use crate::sys::socket::seqpacket::Link;
use crate::sys::{descriptor, time};

/// Asked of the kernel for each direction of a link: room for a few of the longest messages.
const LINK_BUFFER_BYTES: usize = 1 << 20;

/// What a process does once it is initialised. Returns its exit code.
pub type Work = Arc<dyn Fn(&'static State) -> u8 + Send + Sync>;

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

/// One process of the table.
pub struct Spec {
    /// What it is.
    pub kind: Kind,
    /// Passed to `init_child_f`.
    pub rank: i32,
    /// In the process table and the log.
    pub name: String,
    /// What `ps` shows. Made before the fork, so that the child need not allocate.
    title: String,
    /// What `top` shows.
    comm: Comm,
    /// What its log records begin with.
    in_log: ProcessName,
    /// The module that forked it.
    pub owner: Option<&'static Module>,
    /// Whether modules get `init_child_f(rank)` in it.
    pub child_init: ChildInit,
    /// What it does.
    pub entry: Entry,
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
        let (title, comm, in_log) = (format!("modhost: {name}"), Comm::new(kind.row().short_name), ProcessName::new(&name));
        Self { kind, rank, name, title, comm, in_log, owner, child_init, entry }
    }
}

/// One row of the table.
enum Row {
    /// Known from the start.
    Fixed(Spec),
    /// Registered by a module; empty until the module forks it.
    Registered(Mutex<Option<&'static Spec>>),
}

/// The links between TCP main and other processes, by the number of the other process. A module's
/// process gets its link when it is forked.
struct Links(Vec<OnceLock<LinkEnds>>);

/// Whether processes can have links to TCP main, or to main in its place (no-fork mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// Connections are served.
    ToTcpMain,
    /// They are not, so there are no links.
    Nowhere,
}

/// Both ends of one link. Main keeps them, for the successors of either process.
#[derive(Debug)]
pub struct LinkEnds {
    /// TCP main's.
    pub hub: Link,
    /// The other process's.
    pub own: Link,
}

/// Everything that forking needs to know. Made in main; children inherit it.
pub struct Family {
    /// The process table in shared memory.
    pub slots: Slots,
    main_pid: Pid,
    modules: &'static [&'static Module],
    /// By process number. A fork only reads it: a page that main writes between two forks is copied
    /// for each child.
    rows: Vec<Row>,
    guarded: Vec<(RawFd, Guarded)>,
    /// Without listeners for connections there are none.
    links: Option<Links>,
    /// Written by the child that completes a start.
    done: EventFd,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("main_pid", &self.main_pid).finish_non_exhaustive()
    }
}

/// Makes the calling process main, in slot 0 of the table. Before anything else of main.
pub fn become_main(slots: Slots) -> Result<()> {
    let main = slots.slot(0).ok_or_else(|| Error::fault("the process table has no slot for main"))?;
    let pid = getpid().as_raw();
    main.note_fork(0, 0, time::now_ns());
    main.set_pid(pid);
    main.set_name("main");
    this_process().become_process(pid, 0, 0, main.trail());
    Ok(())
}

impl Family {
    /// Fixes the table for good: these processes, in this order, main first. `None` is one that a
    /// module registered. `guarded` lists the descriptors that not every child keeps.
    pub fn new(
        slots: Slots,
        modules: &'static [&'static Module],
        specs: Vec<Option<Spec>>,
        linked: Linked,
        guarded: Vec<(RawFd, Guarded)>,
    ) -> Result<Self> {
        slots.fix_count(specs.len())?;
        for (process_no, spec) in specs.iter().enumerate() {
            if let (Some(spec), Some(slot)) = (spec, slots.slot(process_no)) {
                slot.set_name(&spec.name);
            }
        }
        let links = (linked == Linked::ToTcpMain).then(|| Links(specs.iter().map(|_| OnceLock::new()).collect()));
        for (process_no, spec) in specs.iter().enumerate() {
            if let (Some(links), Some(Spec { kind: Kind::TcpWorker, .. })) = (&links, spec) {
                links.open(process_no)?;
            }
        }
        let done = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::failed("cannot prepare to wait for processes").detail(format!("eventfd: {errno}")))?;
        let rows = specs.into_iter().map(|spec| spec.map_or_else(|| Row::Registered(Mutex::new(None)), Row::Fixed)).collect();
        Ok(Self { slots, main_pid: getpid(), modules, rows, guarded, links, done })
    }

    /// The modules in load order.
    pub fn modules(&self) -> &'static [&'static Module] {
        self.modules
    }

    /// Links a process to TCP main, and its successors. In main, before TCP main is forked.
    pub fn open_link(&self, process_no: usize) -> Result<()> {
        self.links.as_ref().map_or(Ok(()), |links| links.open(process_no))
    }

    /// The links, with the number of the process at the other end.
    pub fn links(&self) -> impl Iterator<Item = (usize, &LinkEnds)> {
        let links = self.links.iter().flat_map(|links| links.0.iter().enumerate());
        links.filter_map(|(process_no, link)| Some((process_no, link.get()?)))
    }

    /// A process's own end of its link.
    pub fn own_end(&self, process_no: usize) -> Option<&Link> {
        Some(&self.links.as_ref()?.0.get(process_no)?.get()?.own)
    }

    /// Readable when the awaited children are done.
    pub fn done(&self) -> &EventFd {
        &self.done
    }

    /// Main's pid.
    pub fn main_pid(&self) -> Pid {
        self.main_pid
    }

    /// A row of the table. `None`: the process does not exist, or its module has not forked it.
    pub fn spec(&self, process_no: usize) -> Option<&Spec> {
        match self.rows.get(process_no)? {
            Row::Fixed(spec) => Some(spec),
            Row::Registered(spec) => *lock(spec),
        }
    }

    /// Takes the first free registered row for that process.
    pub fn claim(&self, spec: Spec) -> Result<usize> {
        for (process_no, row) in self.rows.iter().enumerate() {
            let Row::Registered(registered) = row else { continue };
            let mut registered = lock(registered);
            if registered.is_none() {
                if let Some(slot) = self.slots.slot(process_no) {
                    slot.set_name(&spec.name);
                }
                // Leaked: a row is taken once in main's life.
                *registered = Some(Box::leak(Box::new(spec)));
                return Ok(process_no);
            }
        }
        Err(Error::failed("no registered process is left"))
    }

    /// Frees a row whose fork failed.
    pub fn release(&self, process_no: usize) {
        if let Some(Row::Registered(spec)) = self.rows.get(process_no) {
            *lock(spec) = None;
        }
    }

    /// Forks the process of a row, with its prologue. In the child the process is initialised when
    /// this returns. First start and restart are this one path.
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

    /// Forks a process that never comes back here.
    pub fn start(&self, alone: &Alone, process_no: usize, restarts: u32) -> Result<Pid> {
        match self.fork(alone, process_no, restarts)? {
            Side::Parent(pid) => Ok(pid),
            Side::Child => match (self.spec(process_no).map(|spec| &spec.entry), State::current()) {
                (Some(Entry::Run(work)), Some(state)) => exit::leave(work(state)),
                _ => exit::leave(EXIT_FAILED),
            },
        }
    }

    /// What every child does first, in this order; none can skip it.
    fn prologue(&self, process_no: usize, spec: &Spec, slot: Slot) {
        let pid = child_calls::own_pid().as_raw();
        // Identity first: from here on a module call of this process is blamed on this process.
        this_process().become_process(pid, process_no as i32, spec.rank, slot.trail());
        // Main notes the pid, too, maybe later. Read before writing: a read fault maps up to 16
        // neighbouring pages, a write fault maps one.
        if slot.pid() != pid {
            slot.set_pid(pid);
        }
        if let Some(memory) = MainMemory::current() {
            memory.stats.settle(process_no);
        }
        // Then the tie to main, so that nothing below can outlive it.
        if let Err(error) = fork::die_with_parent(self.main_pid).and_then(|()| signal::fresh()) {
            fail(&error);
        }
        self.close_guarded(process_no, spec.kind);
        title::set_title(&spec.title);
        if let Err(error) = spec.comm.show() {
            tracing::debug!("{error}");
        }
        crate::log::set_process(&spec.in_log);
        if spec.child_init == ChildInit::Call {
            for module in self.modules {
                if let Err(error) = call::init_child(module, spec.rank) {
                    call::ends_after(module, Phase::ChildInit);
                    fail(&error);
                }
            }
        }
        if let Some(owner) = spec.owner {
            slot.trail().store(Breadcrumb::word(owner.index, Phase::Process), Relaxed);
        }
        slot.set_state(SlotState::Serving);
        if self.slots.child_done()
            && let Err(errno) = self.done.write(1)
        {
            fail(&Error::failed("cannot tell main that the start is complete").detail(format!("eventfd: {errno}")));
        }
        child_calls::close(self.done.as_fd().as_raw_fd());
    }

    /// Closes what main has and a process of that kind does not keep.
    fn close_guarded(&self, process_no: usize, kind: Kind) {
        for (descriptor, guarded) in &self.guarded {
            if !kind.keeps(*guarded) {
                child_calls::close(*descriptor);
            }
        }
        descriptor::close_private();
        counts::leave_to_parent();
        for (other_no, ends) in self.links() {
            if !kind.keeps(Guarded::TcpMainLinks) {
                child_calls::close(ends.hub.as_fd().as_raw_fd());
            }
            if other_no != process_no {
                child_calls::close(ends.own.as_fd().as_raw_fd());
            }
        }
    }
}

impl Links {
    fn open(&self, process_no: usize) -> Result<()> {
        let Some(link) = self.0.get(process_no) else { return Ok(()) };
        if link.get().is_none() {
            let (hub, own) = Link::pair_with_buffers(LINK_BUFFER_BYTES)?;
            link.get_or_init(|| LinkEnds { hub, own });
        }
        Ok(())
    }
}

/// A child that cannot be initialised ends; main sees it and decides.
fn fail(error: &Error) -> ! {
    tracing::error!("{error}");
    exit::leave(EXIT_FAILED)
}

/// Only main's one thread takes these locks; a panic elsewhere must not poison them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
