//! The supervisor's life: start a main, watch it, start another if it dies, clean up.
//!
//! *Runs in:* the supervisor. *Never:* parses anything after the start; main's messages are few and
//! of fixed size.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getpid};

use super::certificates::{Certificates, Judge};
use super::daemon::Starter;
use super::generation::{Birth, Generation, Inheritance, Outcome};
use super::pid_file::PidFile;
use super::protocol::FromMain;
use super::sockets::Sockets;
use super::stage::{Action, Stage, StageEvent, TimeLimits};
use crate::config::TlsOptions;
use crate::error::{Error, Result, io_text};
use crate::net::address::Address;
use crate::net::resolve::PlannedListener;
use crate::process::restart::{Death, History, Policy, Reached, Restart};
use crate::process::slots::Slots;
use crate::sys::notify::ServiceManager;
use crate::sys::process::signal::Signals;
use crate::sys::time;
use crate::tls::CertificateSource;

/// How long the supervisor waits for the death of a main that has closed its end of the link.
const DYING_MS: u8 = 100;

/// What the supervisor is told about its service.
#[derive(Debug)]
pub struct ServiceSpec {
    /// Limits of a start and of a stop.
    pub limits: TimeLimits,
    /// Written before main exists, removed at the end.
    pub pid_file: Option<PathBuf>,
    /// Where the control socket is bound.
    pub control: Option<PathBuf>,
    /// The listeners of the configuration, in the order of the plan.
    pub listeners: Vec<PlannedListener>,
    /// The user and group that must be able to reopen the log file.
    pub log_owner: Option<(Uid, Gid)>,
    /// Names of the modules in load order, for blame.
    pub modules: Vec<String>,
    /// The TLS settings of the listeners that have some.
    pub tls: Vec<TlsOptions>,
}

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    spec: ServiceSpec,
    signals: Signals,
    manager: Option<ServiceManager>,
    starter: Option<Starter>,
    pid_file: Option<PidFile>,
    certificates: Option<Certificates>,
    sockets: Sockets,
    /// The mains that live.
    generations: Vec<Generation>,
    /// Process tables of mains that are gone, to be used again: mappings are never unmapped.
    spare_tables: Vec<Slots>,
    /// Whether a main was ever ready.
    was_ready: bool,
    history: History,
    /// When the next main is due.
    start_due_ns: Option<u64>,
}

impl Supervisor {
    /// The supervisor of a service that is not started yet.
    pub fn new(spec: ServiceSpec, signals: Signals, manager: Option<ServiceManager>, starter: Option<Starter>) -> Self {
        Self {
            spec,
            signals,
            manager,
            starter,
            pid_file: None,
            certificates: None,
            sockets: Sockets::default(),
            generations: Vec::new(),
            spare_tables: Vec::new(),
            was_ready: false,
            history: History::default(),
            start_due_ns: None,
        }
    }

    /// Runs the service until it is stopped or cannot go on. The starting command hears of either,
    /// and nothing is left. `main` is what the forked main does; its return is main's exit code.
    pub fn run(mut self, prepared: Result<()>, main: impl Fn(Inheritance) -> u8) -> Result<()> {
        let outcome = prepared.and_then(|()| self.settle()).and_then(|()| self.run_mains(&main));
        self.sockets.close_all();
        if let Some(pid_file) = self.pid_file.take() {
            pid_file.remove();
        }
        if outcome.is_ok() {
            tracing::info!("stopped");
        }
        if let (Some(starter), Err(error)) = (self.starter.take(), &outcome) {
            starter.report(Err(error));
        }
        outcome
    }

    /// Takes over the pid file, and becomes the parent of whatever main leaves.
    fn settle(&mut self) -> Result<()> {
        self.pid_file = self.spec.pid_file.as_deref().map(PidFile::claim).transpose()?;
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!("orphaned processes will not be seen here: prctl(PR_SET_CHILD_SUBREAPER): {errno}");
        }
        self.certificates = Certificates::of(std::mem::take(&mut self.spec.tls), Judge::Child)?;
        Ok(())
    }

    /// Starts the first main and serves all of them until the service is over.
    fn run_mains(&mut self, main: &dyn Fn(Inheritance) -> u8) -> Result<()> {
        self.start_due_ns = Some(0);
        loop {
            if self.start_due_ns.is_some_and(|due_ns| due_ns <= time::now_ns()) {
                self.start_due_ns = None;
                self.start_main(main)?;
            }
            self.wait()?;
            // Before messages are read: once a main has ended, all that it ever said is there.
            self.reap_mains();
            for index in 0..self.generations.len() {
                self.read_messages(index);
            }
            if self.read_signals() && self.generations.is_empty() {
                return Ok(());
            }
            while let Some(index) = self.generations.iter().position(|generation| generation.ended.is_some()) {
                let generation = self.generations.swap_remove(index);
                if let Some(outcome) = self.finish(generation) {
                    return outcome;
                }
            }
            for index in 0..self.generations.len() {
                self.apply(index, StageEvent::Tick);
            }
        }
    }

    fn start_main(&mut self, main: &dyn Fn(Inheritance) -> u8) -> Result<()> {
        let slots = match self.spare_tables.pop() {
            Some(table) => table.cleared(),
            None => Slots::new()?,
        };
        let source = |of: &Certificates| Ok(CertificateSource { reader: of.vault().reader().try_clone()?, files: of.files().clone() });
        let tls = self.certificates.as_ref().map(source).transpose()?;
        let mut supervisors_own = vec![self.signals.as_fd().as_raw_fd()];
        supervisors_own.extend(self.pid_file.iter().map(|pid_file| pid_file.file().as_raw_fd()));
        supervisors_own.extend(self.starter.iter().map(|starter| starter.pipe().as_raw_fd()));
        supervisors_own.extend(self.sockets.descriptors());
        supervisors_own.extend(self.generations.iter().map(|other| other.link.as_fd().as_raw_fd()));
        supervisors_own.extend(self.certificates.iter().flat_map(|of| of.vault().descriptors()));
        let birth = Birth { slots, supervisor: getpid(), supervisors_own, tls, limits: self.spec.limits, main };
        self.generations.push(Generation::fork(birth)?);
        Ok(())
    }

    /// Waits for a signal, a message, a deadline, or the moment of the next start.
    fn wait(&self) -> Result<()> {
        let cannot_wait = |errno: Errno| Error::failed("the supervisor cannot wait").detail(format!("poll: {errno}"));
        let deadlines = self.generations.iter().filter_map(|generation| generation.stage.deadline_ns());
        let timeout = deadlines.chain(self.start_due_ns).min().map_or(PollTimeout::NONE, |deadline_ns| {
            let left_ms = deadline_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000).min(1_000_000);
            PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)
        });
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.generations.iter().map(|generation| PollFd::new(generation.link.as_fd(), PollFlags::POLLIN)));
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(cannot_wait(errno)),
        }
        let is_closed = |link: &PollFd<'_>| link.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
        if watched[1..].iter().any(is_closed) {
            // A closed link stays readable, which would make this loop spin until the death of that
            // main arrives as a signal.
            match poll(&mut watched[..1], PollTimeout::from(DYING_MS)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(cannot_wait(errno)),
            }
        }
        Ok(())
    }

    /// Notes which mains have ended. Everything else that ended is reaped on the way: as PID 1 of a
    /// container the supervisor inherits strangers.
    fn reap_mains(&mut self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => {
                    if let Some(generation) = self.generations.iter_mut().find(|generation| status.pid() == Some(generation.pid)) {
                        generation.ended = Some(status);
                    }
                }
            }
        }
    }

    fn read_messages(&mut self, index: usize) {
        loop {
            let generation = &mut self.generations[index];
            match generation.link.poll() {
                Ok(None) => return,
                Err(error) => tracing::error!(target: "fault", "{error}"),
                Ok(Some(FromMain::Ready)) => self.apply(index, StageEvent::Ready),
                Ok(Some(FromMain::Stopping)) => self.apply(index, StageEvent::MainStopping),
                Ok(Some(FromMain::Failed(error))) => {
                    generation.failure = Some(error);
                    self.apply(index, StageEvent::StartFailed);
                }
                Ok(Some(request)) if generation.stage.may_bind() => {
                    let answer = self.open_socket(index, &request);
                    if let Err(error) = self.generations[index].link.answer(&answer) {
                        // Main has just died; its end is seen in a moment.
                        tracing::debug!("{error}");
                    }
                }
                Ok(Some(request)) => tracing::error!("main asked for a listener after its start, and gets none request=\"{request:?}\""),
            }
        }
    }

    /// Opens what main asks for, and says how many more sockets the listener has.
    fn open_socket(&mut self, index: usize, request: &FromMain) -> Result<(OwnedFd, u32)> {
        let (address, left) = match request {
            FromMain::Listen { listener, nth } => {
                let Some(listener) = self.spec.listeners.get(*listener as usize) else {
                    return Err(Error::failed("main asked for a listener that is not configured").detail(listener));
                };
                let mut addresses = listener.sockets()?;
                let nth = *nth as usize;
                if nth >= addresses.len() {
                    return Err(Error::failed("the addresses of a listener have changed while it was being bound").detail(&listener.config));
                }
                let left = addresses.len() - nth - 1;
                (addresses.swap_remove(nth), left as u32)
            }
            FromMain::ListenForModule(address) => (address.clone(), 0),
            FromMain::ListenForControl => match &self.spec.control {
                Some(path) => (Address::Control(path.clone()), 0),
                None => return Err(Error::failed("main asked for a control socket, and none is configured")),
            },
            FromMain::Failed(_) | FromMain::Ready | FromMain::Stopping => return Err(Error::fault("this message asks for no socket")),
        };
        Ok((self.sockets.open(&address, &mut self.generations[index].given)?, left))
    }

    /// Acts on pending signals. Says whether one of them asks the service to stop.
    fn read_signals(&mut self) -> bool {
        let mut stop_asked = false;
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => {
                    let is_stopping = |generation: &Generation| matches!(generation.stage, Stage::Stopping { .. } | Stage::Killed(_));
                    if !self.generations.iter().all(is_stopping) {
                        tracing::info!("stopping signal={signal}");
                    }
                    stop_asked = true;
                    for index in 0..self.generations.len() {
                        self.apply(index, StageEvent::StopAsked);
                    }
                }
                Signal::SIGHUP => self.read_again(),
                _ => {}
            }
        }
        stop_asked
    }

    /// Takes a main to its next stage and does what that asks for.
    fn apply(&mut self, index: usize, event: StageEvent) {
        let generation = &mut self.generations[index];
        if generation.ended.is_some() && matches!(generation.stage, Stage::Stopping { .. }) {
            return;
        }
        let (stage, actions) = generation.stage.on(event, time::now_ns(), self.spec.limits);
        generation.stage = stage;
        for action in actions {
            match action {
                Action::CloseUnusedSockets => {
                    let in_use: Vec<_> = self.generations.iter().flat_map(|generation| generation.given.iter().copied()).collect();
                    self.sockets.close_unused(&in_use);
                }
                Action::AnnounceReady => self.announce_ready(),
                Action::AnnounceStopping => self.announce_stopping(),
                Action::TellMainToStop => {
                    if let Err(error) = self.generations[index].link.stop() {
                        tracing::debug!("{error}");
                    }
                }
                Action::Kill(reason) if self.generations[index].ended.is_none() => {
                    self.generations[index].kill(*reason, self.spec.limits, &self.spec.modules);
                }
                Action::Kill(_) => {}
            }
        }
    }

    /// A main has ended: what is left of it goes. Returns the service's outcome, or nothing if
    /// another main follows.
    fn finish(&mut self, mut generation: Generation) -> Option<Result<()>> {
        generation.kill_remaining();
        let status = generation.ended?;
        let (error, end, reached) = match generation.outcome(status, &self.spec.modules) {
            Outcome::Stopped => return Some(Ok(())),
            Outcome::StoppedBadly(error) => return Some(Err(error)),
            Outcome::NeverReady { error, .. } if !self.was_ready => return Some(Err(error)),
            Outcome::NeverReady { error, end } => (error, end, Reached::Init),
            Outcome::Died { error, end } => (error, end, Reached::Serving),
        };
        self.spare_tables.push(generation.slots);
        let now_ns = time::now_ns();
        match self.history.died(Policy::MAIN, Death { now_ns, forked_ns: generation.forked_ns, reached, end }) {
            Restart::Now => {
                tracing::error!("{error}; starting a new main");
                self.start_due_ns = Some(now_ns);
            }
            Restart::After(delay) => {
                tracing::error!("{error}; starting a new main delay_ms={}", delay.as_millis());
                self.start_due_ns = Some(now_ns.saturating_add(delay.as_nanos() as u64));
            }
            Restart::Done | Restart::GiveUp => return Some(Err(error.hint("main keeps dying; the log names what it was in"))),
        }
        None
    }

    /// SIGHUP: reopens the log and reads the certificates again.
    fn read_again(&mut self) {
        match crate::log::reopen(self.spec.log_owner) {
            Ok(()) => tracing::info!("log reopened"),
            Err(error) => tracing::error!("{error}"),
        }
        if let Some(certificates) = &mut self.certificates {
            certificates.read_again();
        }
    }

    fn announce_ready(&mut self) {
        self.was_ready = true;
        if let Some(manager) = &self.manager
            && let Err(error) = manager.ready(getpid(), "serving")
        {
            tracing::warn!("cannot tell the service manager that the service is ready: {}", io_text(&error));
        }
        if let Some(starter) = self.starter.take() {
            starter.report(Ok(()));
        }
    }

    fn announce_stopping(&self) {
        if let Some(manager) = &self.manager
            && let Err(error) = manager.stopping("stopping")
        {
            tracing::warn!("cannot tell the service manager that the service stops: {}", io_text(&error));
        }
    }
}

#[cfg(test)]
mod tests;
