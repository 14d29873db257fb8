//! Main's life around the sequence: what it begins with, how a start is undone, supervising its
//! children, the stop.
//!
//! *Runs in:* main. *Never:* decides the order of the start, which is `sequence.rs`.

use std::os::fd::RawFd;
use std::sync::Arc;

use nix::unistd::{Pid, getppid, setpgid};

use super::sequence::{Begun, Ready};
use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::hostapi::HOST_API;
use crate::log::ProcessName;
use crate::module::{Module, call, loader};
use crate::net::address::Address;
use crate::plan::Plan;
use crate::process::family;
use crate::process::kinds::Kind;
use crate::process::slots::{SlotState, Slots};
use crate::process::watch::{Event, Watch};
use crate::state::{InitRequests, MainMemory, State};
use crate::supervise::certificates::Certificates;
use crate::supervise::generation::Inheritance;
use crate::supervise::protocol::FromMain;
use crate::sys::fast_fork::process_identity;
use crate::sys::process::fork;
use crate::sys::process::signal::Signals;
use crate::sys::process::title::{self, Comm};
use crate::sys::time;
use crate::sys::udp::buffers;
use crate::tls::CertificateSource;

/// Main at one step of its start: its life, and what the step made.
pub struct Main<'l, S> {
    /// What main has from its first to its last moment.
    pub life: &'l mut Life,
    /// What the step made.
    pub made: S,
}

/// What main has from its first to its last moment.
pub struct Life {
    /// What the operator asked for.
    pub plan: Arc<Plan>,
    /// Signals, messages and deaths.
    pub watch: Watch,
    /// The process table.
    pub slots: Slots,
    /// The shared memory that main made.
    pub memory: &'static MainMemory,
    /// What modules ask for in `init_f`.
    pub requests: &'static InitRequests,
    /// Where the certificates are, until `seal` puts it into the state.
    pub tls: Option<CertificateSource>,
    /// The parent that main must not outlive.
    pub supervisor: Pid,
    /// When the command was started, for the time to ready.
    pub started_ns: u64,
    /// When the start is given up.
    pub deadline_ns: u64,
    /// Descriptors that are main's alone, beside those of `watch`.
    pub own: Vec<RawFd>,
    /// The modules whose `init_f` has succeeded, in load order: `destroy_f` is owed to them.
    pub initialised: Vec<&'static Module>,
    /// What `seal` has made, once it has: from then on there may be children.
    pub state: Option<&'static State>,
    /// Without a supervisor: the sockets whose files main removes at its end.
    pub files: Vec<Address>,
    /// Without a supervisor: the certificates, if there are some.
    pub certificates: Option<Certificates>,
}

/// Why a start does not go on.
#[derive(Debug)]
pub enum Halt {
    /// A step failed.
    Failed(Error),
    /// A stop was asked for.
    Stopped,
}

/// What a step returns.
pub type Step<T> = std::result::Result<T, Halt>;

/// What the supervisor's forked main does. Returns its exit code.
pub fn main_process(inheritance: Inheritance, plan: Arc<Plan>, started_ns: u64) -> u8 {
    let Inheritance { link, slots, supervisor, supervisors_own, tls } = inheritance;
    let begun = settle(supervisor, &supervisors_own).and_then(|signals| Ok((signals, Foundation::make(&plan, slots)?)));
    let (signals, foundation) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let code = error.exit;
            if let Err(unheard) = link.tell(&FromMain::Failed(error)) {
                tracing::debug!("{unheard}");
            }
            return code;
        }
    };
    let mut life = Life::new(plan, Watch::new(signals, Some(link)), foundation, tls, started_ns);
    let code = match life.start() {
        Ok(ready) => life.supervise(&ready),
        Err(Halt::Stopped) => EXIT_OK,
        Err(Halt::Failed(error)) => {
            let code = error.exit;
            life.tell(&FromMain::Failed(error));
            code
        }
    };
    life.stop();
    code
}

/// Main becomes a process apart: tied to its supervisor, in its own process group, its signals as a
/// descriptor.
fn settle(supervisor: Pid, supervisors_own: &[RawFd]) -> Result<Signals> {
    fork::die_with_parent(supervisor)?;
    // Ctrl-C is for the supervisor alone.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .map_err(|errno| Error::failed("main cannot have a process group of its own").detail(format!("setpgid: {errno}")))?;
    for descriptor in supervisors_own {
        // They were open a moment ago, in the supervisor.
        let _ = nix::unistd::close(*descriptor);
    }
    title::set_title("modhost: main");
    if let Err(error) = Comm::new(Kind::Main.row().short_name).show() {
        tracing::debug!("{error}");
    }
    crate::log::set_process(&ProcessName::new("main"));
    Signals::watch()
}

/// What exists before the first module is loaded.
pub struct Foundation {
    slots: Slots,
    memory: &'static MainMemory,
    requests: &'static InitRequests,
}

impl Foundation {
    /// Makes it, once.
    pub fn make(plan: &Plan, slots: Slots) -> Result<Self> {
        process_identity::prepare()?;
        buffers::reserve()?;
        family::become_main(slots)?;
        let memory = MainMemory::new(plan.config.host.shared_memory_bytes)?.install()?;
        let requests = InitRequests::new(plan.listeners.len()).install()?;
        Ok(Self { slots, memory, requests })
    }
}

impl Life {
    /// A main that has loaded nothing yet.
    pub fn new(plan: Arc<Plan>, watch: Watch, foundation: Foundation, tls: Option<CertificateSource>, started_ns: u64) -> Self {
        let deadline_ns = time::now_ns() + plan.config.host.start_timeout.as_nanos() as u64;
        let Foundation { slots, memory, requests } = foundation;
        Self {
            plan,
            watch,
            slots,
            memory,
            requests,
            tls,
            supervisor: getppid(),
            started_ns,
            deadline_ns,
            own: Vec::new(),
            initialised: Vec::new(),
            state: None,
            files: Vec::new(),
            certificates: None,
        }
    }

    /// The whole start.
    pub fn start(&mut self) -> Step<Ready> {
        Main { life: self, made: Begun }.start()
    }

    /// Loads the plan's modules. An optional one that cannot be loaded is left out.
    pub fn load_modules(&self) -> Step<Vec<&'static Module>> {
        let mut modules = Vec::with_capacity(self.plan.modules.len());
        // The index is that of the plan, which the supervisor has, too, also when an optional
        // module before it is left out.
        for (index, resolved) in (0_u32..).zip(&self.plan.modules) {
            let level = crate::log::module_level(&resolved.name);
            let opened = call::load(index, || loader::open(&resolved.path)).and_then(|opened| {
                opened.apply(&resolved.settings, &resolved.folders).map_err(|errors| first_of(errors, "parameters"))?;
                Ok(opened.into_module(index, &HOST_API, level))
            });
            match opened {
                Ok(module) if module.name == resolved.name => modules.push(module),
                Ok(module) => {
                    let what = format!("module \"{}\" has changed while it was being loaded", resolved.name);
                    let detail = format!("{} now calls itself \"{}\"", resolved.path.display(), module.name);
                    return Err(Halt::Failed(Error::failed(what).detail(detail)));
                }
                Err(error) if resolved.optional => tracing::warn!("optional module is left out: {error}"),
                Err(error) => return Err(Halt::Failed(error)),
            }
            loader::one_thread(&resolved.name)?;
        }
        Ok(modules)
    }

    /// Main supervises its children until it is told to stop. Returns its exit code.
    pub fn supervise(&mut self, ready: &Ready) -> u8 {
        let family = &ready.state.family;
        loop {
            let event = match self.watch.next(family, self.watch.next_restart_ns()) {
                Ok(event) => event,
                Err(error) => {
                    tracing::error!("{error}");
                    return EXIT_FAILED;
                }
            };
            match event {
                Event::Stop => return EXIT_OK,
                Event::Died { process_no, end, reached } => self.watch.after_death(family, process_no, end, reached),
                Event::ReadAgain => self.read_again(),
                Event::ChildrenDone | Event::Deadline | Event::Other => {}
            }
            self.watch.restart_due(family);
        }
    }

    /// SIGHUP in no-fork mode. Main may have dropped privileges and be unable to read the key.
    pub fn read_again(&mut self) {
        if let Some(certificates) = &mut self.certificates {
            certificates.read_again();
        }
    }

    /// Step 13: the children first, then `destroy_f` of every module whose `init_f` has succeeded,
    /// in reverse load order. Also undoes a start that failed at any step.
    pub fn stop(&mut self) {
        self.tell(&FromMain::Stopping);
        let stop_timeout = self.plan.config.host.stop_timeout;
        if let Some(main) = self.slots.slot(0) {
            main.set_state(SlotState::Ended);
        }
        if let Some(state) = self.state
            && let Err(error) = self.watch.stop_children(&state.family, stop_timeout)
        {
            tracing::error!("{error}");
        }
        if self.watch.supervisor().is_none() {
            // No supervisor watches this process: the kernel ends it if `destroy_f` hangs.
            nix::unistd::alarm::set(stop_timeout.as_secs().clamp(1, 86_400) as u32);
        }
        for module in self.initialised.iter().rev() {
            call::destroy(module);
        }
    }

    /// Between two calls of a start: has somebody asked to stop?
    pub fn check_for_stop(&mut self) -> Step<()> {
        if self.watch.stop_asked()? { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// Tells the supervisor, if there is one. If it is gone, main will be in a moment.
    pub fn tell(&self, message: &FromMain) {
        if let Some(supervisor) = self.watch.supervisor()
            && let Err(error) = supervisor.tell(message)
        {
            tracing::debug!("{error}");
        }
    }
}

/// Several errors as one, for a message of fixed size.
fn first_of(mut errors: Vec<Error>, what: &str) -> Error {
    let more = errors.len().saturating_sub(1);
    let mut error = if errors.is_empty() { Error::config(what) } else { errors.remove(0) };
    if more > 0 {
        error.detail.push_str(&format!(" (and {more} more)"));
    }
    error
}
