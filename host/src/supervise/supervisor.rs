//! The supervisor's life: start a main, watch over it, start another if it dies, clean up.
//!
//! *Runs in:* the supervisor. *Never:* parses anything after the start; main's messages are fixed-size and few.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getpid};

use super::certificates::{Certificates, Judge};
use super::daemon::Starter;
use super::pid_file::PidFile;
use super::policy::{Death, End, History, Policy, Reached, Restart};
use super::protocol::{FromMain, MainLink, SupervisorLink};
use crate::config::TlsOptions;
use crate::error::{Error, Result, io_text};
use crate::net::address::{Address, UnixBind};
use crate::net::bind;
use crate::process::phase::{Breadcrumb, Phase};
use crate::process::slots::Slots;
use crate::sys::fork::Side;
use crate::sys::notify::ServiceManager;
use crate::sys::passing::Link;
use crate::sys::signal::Signals;
use crate::sys::{fork, time};
use crate::tls::Source;

/// How much longer than main's own limits the supervisor waits before it uses force.
const GRACE: Duration = Duration::from_secs(1);

/// A second request to stop means force, if it comes so long after the first.
const INSIST: Duration = Duration::from_millis(500);

/// What the supervisor is told about its service.
#[derive(Debug)]
pub struct Charge {
    /// Limit of a start.
    pub start_timeout: Duration,
    /// Limit of each stage of a stop.
    pub stop_timeout: Duration,
    /// Written before main exists, removed at the end.
    pub pid_file: Option<PathBuf>,
    /// Where the control socket is bound.
    pub control: Option<PathBuf>,
    /// The other Unix sockets that may be bound, and how.
    pub unix: Vec<UnixBind>,
    /// Who must be able to reopen the log file.
    pub log_owner: Option<(Uid, Gid)>,
    /// Names of the modules in load order, for blame.
    pub modules: Vec<String>,
    /// Of the listeners with certificates.
    pub tls: Vec<TlsOptions>,
}

/// What main gets from the supervisor.
#[derive(Debug)]
pub struct Cradle {
    /// The link back.
    pub link: SupervisorLink,
    /// The process table, which the supervisor can still read when main is gone.
    pub slots: Slots,
    /// The supervisor's pid.
    pub supervisor: Pid,
    /// Descriptors that main must close.
    pub supervisors_own: Vec<RawFd>,
    /// Where its TCP workers find certificates.
    pub tls: Option<Source>,
}

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    charge: Charge,
    signals: Signals,
    manager: Option<ServiceManager>,
    starter: Option<Starter>,
    pid_file: Option<PidFile>,
    /// What is bound, for this main and the next.
    bound: Vec<Bound>,
    announced: bool,
    /// The process table: one mapping for all mains, one after the other.
    slots: Option<Slots>,
    certificates: Option<Certificates>,
}

/// Something bound.
#[derive(Debug)]
struct Bound {
    address: Address,
    descriptor: OwnedFd,
    /// Given to the main that runs now. With port 0 an address may be asked for more than once, each time for a socket of its own.
    given: bool,
}

/// How one main ended.
#[derive(Debug)]
enum Ended {
    /// As it was asked to.
    Stopped,
    /// When it was asked to, but not in an orderly way.
    StoppedBadly(Error),
    /// Before it was ready.
    NeverReady { error: Error, end: End },
    /// While it was serving.
    Died { error: Error, end: End },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Serving,
    Stopping,
}

impl Supervisor {
    /// The supervisor of a service that is not started yet.
    pub fn new(charge: Charge, signals: Signals, manager: Option<ServiceManager>, starter: Option<Starter>) -> Self {
        Self { charge, signals, manager, starter, pid_file: None, bound: Vec::new(), announced: false, slots: None, certificates: None }
    }

    /// Runs the service until it is stopped or cannot go on; whatever happens, the starting command hears of it and nothing stays behind.
    /// `main` is what the forked main does; its return is main's exit code.
    pub fn run(mut self, prepared: Result<()>, main: impl Fn(Cradle) -> u8) -> Result<()> {
        let outcome = prepared.and_then(|()| self.settle()).and_then(|()| self.generations(&main));
        self.clean_up();
        if outcome.is_ok() {
            tracing::info!("stopped");
        }
        if let (Some(starter), Err(error)) = (self.starter.take(), &outcome) {
            starter.report(Err(error));
        }
        outcome
    }

    /// Takes over the pid file, and becomes the parent of whatever main leaves behind.
    fn settle(&mut self) -> Result<()> {
        self.pid_file = self.charge.pid_file.as_deref().map(PidFile::claim).transpose()?;
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!("orphaned processes will not be seen here: prctl(PR_SET_CHILD_SUBREAPER): {errno}");
        }
        self.certificates = Certificates::of(std::mem::take(&mut self.charge.tls), Judge::Child)?;
        Ok(())
    }

    fn generations(&mut self, main: &impl Fn(Cradle) -> u8) -> Result<()> {
        let mut history = History::default();
        loop {
            let forked_ns = time::now_ns();
            let (error, end, reached) = match self.generation(main)? {
                Ended::Stopped => return Ok(()),
                Ended::StoppedBadly(error) => return Err(error),
                Ended::NeverReady { error, .. } if !self.announced => return Err(error),
                Ended::NeverReady { error, end } => (error, end, Reached::Init),
                Ended::Died { error, end } => (error, end, Reached::Serving),
            };
            match history.died(Policy::MAIN, Death { now_ns: time::now_ns(), forked_ns, reached, end }) {
                Restart::Now => tracing::error!("{error}; starting a new main"),
                Restart::After(delay) => {
                    tracing::error!("{error}; starting a new main delay_ms={}", delay.as_millis());
                    if self.stopped_within(delay)? {
                        return Ok(());
                    }
                }
                Restart::Done | Restart::GiveUp => return Err(error.hint("main keeps dying; the log names what it was in")),
            }
        }
    }

    /// One main, from its fork to its end.
    fn generation(&mut self, main: &impl Fn(Cradle) -> u8) -> Result<Ended> {
        for bound in &mut self.bound {
            bound.given = false;
        }
        let slots = match self.slots {
            Some(slots) => slots.cleared(),
            None => *self.slots.insert(Slots::new()?),
        };
        let (ours, theirs) = Link::pair()?;
        let supervisor = getpid();
        let source = |of: &Certificates| Ok(Source { reader: of.vault().reader().try_clone()?, files: of.files().clone() });
        let tls = self.certificates.as_ref().map(source).transpose()?;
        let pid = match fork::fork(&fork::alone_so_far()?)? {
            Side::Parent(pid) => {
                drop((theirs, tls));
                pid
            }
            Side::Child => {
                let mut supervisors_own = vec![ours.as_fd().as_raw_fd(), self.signals.as_fd().as_raw_fd()];
                supervisors_own.extend(self.pid_file.iter().map(|pid_file| pid_file.file().as_raw_fd()));
                supervisors_own.extend(self.starter.iter().map(|starter| starter.pipe().as_raw_fd()));
                supervisors_own.extend(self.bound.iter().map(|bound| bound.descriptor.as_raw_fd()));
                supervisors_own.extend(self.certificates.iter().flat_map(|of| of.vault().descriptors()));
                let cradle = Cradle { link: SupervisorLink(theirs), slots, supervisor, supervisors_own, tls };
                crate::sys::exit::leave(main(cradle))
            }
        };
        let link = MainLink(ours);
        let ended = self.watch(pid, &link, slots);
        self.bury(pid);
        ended
    }

    fn watch(&mut self, main: Pid, link: &MainLink, slots: Slots) -> Result<Ended> {
        let started_ns = time::now_ns();
        let mut stage = Stage::Starting;
        let mut deadline_ns = Some(started_ns + (self.charge.start_timeout + GRACE).as_nanos() as u64);
        let mut failure: Option<Error> = None;
        let mut served_from_ns = started_ns;
        let mut stopping_from_ns = started_ns;
        let mut forced = false;
        loop {
            self.wait(link, deadline_ns)?;
            // Before what it said is read: once main has ended, all that it ever said is there.
            let ended = reap(main);
            while let Some(message) = link.poll().unwrap_or_else(|error| {
                tracing::error!(target: "fault", "{error}");
                None
            }) {
                match message {
                    // Everything is bound during a start. A main that asks later is not the one that was forked.
                    FromMain::Bind(address) if stage != Stage::Starting => {
                        tracing::error!("main asked for a listener after its start, and gets none address=\"{address:?}\"");
                    }
                    FromMain::Bind(address) => {
                        let outcome = self.bind(&address);
                        let answered = match &outcome {
                            Ok(descriptor) => link.bound(Ok(descriptor.as_fd())),
                            Err(error) => link.bound(Err(error)),
                        };
                        if let Err(error) = answered {
                            // Main has just died; its end is seen below.
                            tracing::debug!("{error}");
                        }
                    }
                    FromMain::Failed(error) => failure = Some(error),
                    FromMain::Ready if stage == Stage::Starting => {
                        stage = Stage::Serving;
                        deadline_ns = None;
                        served_from_ns = time::now_ns();
                        self.close_unused();
                        self.announce_ready();
                    }
                    FromMain::Ready => {}
                    // The start has failed and is being undone: that is still no stop that somebody asked for.
                    FromMain::Stopping if failure.is_some() && stage == Stage::Starting => {
                        deadline_ns = Some(self.stop_deadline_ns());
                    }
                    // An answer to our own wish; the clock runs since then.
                    FromMain::Stopping if stage == Stage::Stopping => {}
                    FromMain::Stopping => {
                        if stage != Stage::Stopping {
                            self.announce_stopping();
                        }
                        stage = Stage::Stopping;
                        stopping_from_ns = time::now_ns();
                        deadline_ns = Some(self.stop_deadline_ns());
                    }
                }
            }
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT if stage == Stage::Stopping => {
                        // Two at one moment are one wish: some tools signal a process and its group.
                        if ended.is_some() || time::now_ns() < stopping_from_ns + INSIST.as_nanos() as u64 {
                            continue;
                        }
                        failure = Some(Error::failed("stopped by force, as asked").detail(format!("main was {}", self.blame(slots))));
                        let _ = killpg(main, Signal::SIGKILL);
                        let _ = kill(main, Signal::SIGKILL);
                    }
                    Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => {
                        tracing::info!("stopping signal={signal}");
                        self.announce_stopping();
                        stage = Stage::Stopping;
                        stopping_from_ns = time::now_ns();
                        deadline_ns = Some(self.stop_deadline_ns());
                        if let Err(error) = link.stop() {
                            tracing::debug!("{error}");
                        }
                    }
                    Signal::SIGHUP => self.read_again(),
                    _ => {}
                }
            }
            if let Some(status) = ended {
                return Ok(self.ended(stage, status, failure, slots, served_from_ns));
            }
            if deadline_ns.is_some_and(|deadline_ns| time::now_ns() >= deadline_ns) && !forced {
                forced = true;
                let blame = self.blame(slots);
                if stage == Stage::Starting && failure.is_none() {
                    failure = Some(
                        Error::failed("the start did not finish in time")
                            .detail(format!("after {} s main was {blame}", self.charge.start_timeout.as_secs()))
                            .hint("raise host.start_timeout, or make that call return sooner"),
                    );
                } else {
                    failure = Some(
                        Error::failed("the stop did not finish in time, main was killed")
                            .detail(format!("it was {blame}"))
                            .hint("raise host.stop_timeout, or make that call return sooner"),
                    );
                }
                let _ = kill(main, Signal::SIGKILL);
                deadline_ns = None;
            }
        }
    }

    /// Children first, then `destroy_f`: two stages of a stop.
    fn stop_deadline_ns(&self) -> u64 {
        time::now_ns() + (self.charge.stop_timeout * 2 + GRACE).as_nanos() as u64
    }

    fn wait(&self, link: &MainLink, deadline_ns: Option<u64>) -> Result<()> {
        let timeout = deadline_ns.map_or(PollTimeout::NONE, |deadline_ns| {
            let left_ms = deadline_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000).min(1_000_000);
            PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)
        });
        let mut watched = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(link.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::failed("the supervisor cannot wait").detail(format!("poll: {errno}"))),
        }
        if watched[1].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            // Main has closed its end, and its death is all that is left to wait for: a closed end stays readable, which would make this
            // loop spin. What main said last is read when it is dead.
            let mut dying = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            if let Err(errno) = poll(&mut dying, PollTimeout::from(100_u8))
                && errno != Errno::EINTR
            {
                return Err(Error::failed("the supervisor cannot wait").detail(format!("poll: {errno}")));
            }
        }
        Ok(())
    }

    /// SIGHUP: the log, and the certificates.
    fn read_again(&mut self) {
        match crate::log::reopen(self.charge.log_owner) {
            Ok(()) => tracing::info!("log reopened"),
            Err(error) => tracing::error!("{error}"),
        }
        if let Some(certificates) = &mut self.certificates {
            certificates.read_again();
        }
    }

    /// Waits before the next main. Says whether a stop was asked for meanwhile.
    fn stopped_within(&mut self, delay: Duration) -> Result<bool> {
        let until_ns = time::now_ns() + delay.as_nanos() as u64;
        loop {
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => return Ok(true),
                    Signal::SIGHUP => self.read_again(),
                    _ => {}
                }
            }
            let left_ns = until_ns.saturating_sub(time::now_ns());
            if left_ns == 0 {
                return Ok(false);
            }
            let mut watched = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, PollTimeout::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::failed("the supervisor cannot wait").detail(format!("poll: {errno}"))),
            }
        }
    }

    /// Binds, or hands out what an earlier main had bound: nothing that is queued there is lost.
    fn bind(&mut self, address: &Address) -> Result<OwnedFd> {
        let duplicate = |descriptor: &OwnedFd| {
            descriptor.try_clone().map_err(|error| {
                Error::failed("cannot pass a listener on")
                    .detail(format!("dup: {}", io_text(&error)))
                    .hint("raise the limit on open files (ulimit -n)")
            })
        };
        if let Some(kept) = self.bound.iter_mut().find(|kept| kept.address == *address && !kept.given) {
            kept.given = true;
            return duplicate(&kept.descriptor);
        }
        // Ports are the modules' to ask for; a path in the file system is the operator's to choose.
        if let Address::Control(path) = address
            && self.charge.control.as_ref() != Some(path)
        {
            return Err(Error::failed("main asked for a socket that is not configured").detail(path.display()));
        }
        // Kept before anything else can fail: what is kept is also cleaned up.
        self.bound.push(Bound { address: address.clone(), descriptor: bind::bind(address, &self.charge.unix)?, given: true });
        self.bound.last().map_or_else(|| Err(Error::fault("a listener is gone")), |kept| duplicate(&kept.descriptor))
    }

    /// What an earlier main had and this one has not asked for, such as an address that its interface has lost: nobody would read what
    /// arrives there.
    fn close_unused(&mut self) {
        for Bound { address, descriptor, given } in std::mem::take(&mut self.bound) {
            if given {
                self.bound.push(Bound { address, descriptor, given });
            } else {
                drop(descriptor);
                bind::unbind(&address);
            }
        }
    }

    fn announce_ready(&mut self) {
        self.announced = true;
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

    /// What main was last doing. Numbers from shared memory: anything may stand there.
    fn blame(&self, slots: Slots) -> String {
        let word = slots.slot(0).map_or(0, |slot| slot.trail().load(std::sync::atomic::Ordering::Relaxed));
        let crumb = Breadcrumb::from_word(word);
        match crumb.module.and_then(|index| self.charge.modules.get(index as usize)) {
            Some(module) => format!("in {} of module \"{module}\"", crumb.phase),
            None if crumb.phase == Phase::None => "outside any module".to_owned(),
            None => format!("in {}", crumb.phase),
        }
    }

    fn ended(&self, stage: Stage, status: WaitStatus, failure: Option<Error>, slots: Slots, served_from_ns: u64) -> Ended {
        let (end, how) = match status {
            // A main that ends in a module's call has not ended by itself: the module has called exit.
            WaitStatus::Exited(_, code) => (End::Exit(code), format!("exited with status {code} {}", self.blame(slots))),
            WaitStatus::Signaled(_, signal, _) => (End::Signal(signal as i32), format!("was killed by {signal} {}", self.blame(slots))),
            other => (End::Exit(-1), format!("ended: {other:?}")),
        };
        match stage {
            Stage::Stopping if end == End::Exit(0) => Ended::Stopped,
            Stage::Stopping => Ended::StoppedBadly(failure.unwrap_or_else(|| Error::failed(format!("main {how} while stopping")))),
            Stage::Starting => {
                Ended::NeverReady { error: failure.unwrap_or_else(|| Error::failed(format!("main {how} while starting"))), end }
            }
            Stage::Serving => {
                let served_s = time::now_ns().saturating_sub(served_from_ns) / 1_000_000_000;
                let error =
                    failure.unwrap_or_else(|| Error::failed(format!("main {how}")).detail(format!("it had served for {served_s} s")));
                Ended::Died { error, end }
            }
        }
    }

    /// Main is gone: so must be everything below it, before another main starts or this process ends.
    fn bury(&self, main: Pid) {
        let limit_ns = time::now_ns() + GRACE.as_nanos() as u64;
        loop {
            if killpg(main, Signal::SIGKILL) == Err(Errno::ESRCH) {
                break;
            }
            while matches!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
            if time::now_ns() > limit_ns {
                tracing::warn!("some processes of the last main are still ending group={main}");
                break;
            }
            time::sleep_until_ns(time::now_ns() + 200_000);
        }
    }

    fn clean_up(&mut self) {
        for Bound { address, descriptor, .. } in self.bound.drain(..) {
            drop(descriptor);
            bind::unbind(&address);
        }
        if let Some(pid_file) = self.pid_file.take() {
            pid_file.remove();
        }
    }
}

/// Main's end, if it has ended. Everything else that ended is reaped on the way: as PID 1 of a container there may be strangers.
fn reap(main: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(status) if status.pid() == Some(main) => return Some(status),
            Ok(_) => {}
        }
    }
}
