//! One main with everything that belongs to it alone. Several can live at once.
//!
//! *Runs in:* the supervisor. *Never:* believes a number that it reads from main's process table.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::protocol::{MainLink, SupervisorLink};
use super::sockets::SocketId;
use super::stage::{GRACE, KillReason, KilledWhile, Stage, TimeLimits};
use crate::error::{Error, Result};
use crate::process::phase::{Breadcrumb, Phase};
use crate::process::restart::End;
use crate::process::slots::Slots;
use crate::sys::process::exit;
use crate::sys::process::fork::{self, Side};
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;
use crate::tls::CertificateSource;

/// How often remaining processes are killed again, until none is left.
const KILL_AGAIN_NS: u64 = 200_000;

/// What main inherits from its supervisor.
#[derive(Debug)]
pub struct Inheritance {
    /// The link to the supervisor.
    pub link: SupervisorLink,
    /// The process table, which the supervisor can still read when main is gone.
    pub slots: Slots,
    /// The supervisor's pid.
    pub supervisor: Pid,
    /// Descriptors of the supervisor that main must close.
    pub supervisors_own: Vec<RawFd>,
    /// Where the TCP workers find certificates; without: no listener has one.
    pub tls: Option<CertificateSource>,
}

/// One main.
#[derive(Debug)]
pub struct Generation {
    /// Its pid, and the id of its process group.
    pub pid: Pid,
    /// The link to it.
    pub link: MainLink,
    /// Its process table.
    pub slots: Slots,
    /// What it is doing.
    pub stage: Stage,
    /// Why it failed, as it said itself or as the supervisor knows.
    pub failure: Option<Error>,
    /// The sockets that it was given.
    pub given: Vec<SocketId>,
    /// When it was forked.
    pub forked_ns: u64,
    /// How it ended, once it has.
    pub ended: Option<WaitStatus>,
}

/// How a main ended.
#[derive(Debug)]
pub enum Outcome {
    /// In an orderly way, as asked.
    Stopped,
    /// When it was asked to stop, but not in an orderly way.
    StoppedBadly(Error),
    /// Before it was ready.
    NeverReady {
        /// Why.
        error: Error,
        /// How it ended.
        end: End,
    },
    /// While it was serving.
    Died {
        /// Why.
        error: Error,
        /// How it ended.
        end: End,
    },
}

/// What a new main needs from the supervisor.
pub struct Birth<'s> {
    /// Its process table, empty.
    pub slots: Slots,
    /// The supervisor's pid.
    pub supervisor: Pid,
    /// Descriptors that it must close.
    pub supervisors_own: Vec<RawFd>,
    /// Where its TCP workers find certificates.
    pub tls: Option<CertificateSource>,
    /// The service's time limits.
    pub limits: TimeLimits,
    /// What the forked main does; its return is main's exit code.
    pub main: &'s dyn Fn(Inheritance) -> u8,
}

impl Generation {
    /// Forks a main.
    pub fn fork(birth: Birth<'_>) -> Result<Self> {
        let Birth { slots, supervisor, supervisors_own, tls, limits, main } = birth;
        let (ours, theirs) = Link::pair()?;
        let forked_ns = time::now_ns();
        match fork::fork(&fork::alone_so_far()?)? {
            Side::Parent(pid) => Ok(Self {
                pid,
                link: MainLink(ours),
                slots,
                stage: Stage::starting(limits, forked_ns),
                failure: None,
                given: Vec::new(),
                forked_ns,
                ended: None,
            }),
            Side::Child => {
                drop(ours);
                exit::leave(main(Inheritance { link: SupervisorLink(theirs), slots, supervisor, supervisors_own, tls }))
            }
        }
    }

    /// What main was last doing. Numbers from shared memory: they may be anything.
    pub fn blame(&self, modules: &[String]) -> String {
        let word = self.slots.slot(0).map_or(0, |slot| slot.trail().load(Relaxed));
        let crumb = Breadcrumb::from_word(word);
        match crumb.module.and_then(|index| modules.get(index as usize)) {
            Some(module) => format!("in {} of module \"{module}\"", crumb.phase),
            None if crumb.phase == Phase::None => "outside any module".to_owned(),
            None => format!("in {}", crumb.phase),
        }
    }

    /// Kills main, and with it everything below: its children die with their parent. Records why.
    pub fn kill(&mut self, reason: KillReason, limits: TimeLimits, modules: &[String]) {
        let blame = self.blame(modules);
        self.failure = Some(match reason {
            KillReason::AskedTwice => Error::failed("stopped by force, as asked").detail(format!("main was {blame}")),
            KillReason::StartTooLong => Error::failed("the start did not finish in time")
                .detail(format!("after {} s main was {blame}", limits.start.as_secs()))
                .hint("raise host.start_timeout, or make that call return sooner"),
            KillReason::StopTooLong => Error::failed("the stop did not finish in time, main was killed")
                .detail(format!("it was {blame}"))
                .hint("raise host.stop_timeout, or make that call return sooner"),
        });
        if reason == KillReason::AskedTwice {
            // Nobody waits for its children either.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        // It may have ended just now; its status is read later.
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// What its end means, once it has ended.
    pub fn outcome(&mut self, status: WaitStatus, modules: &[String]) -> Outcome {
        let blame = self.blame(modules);
        let (end, how) = match status {
            // A main that ends in a module's call has not ended by itself: the module has called
            // exit.
            WaitStatus::Exited(_, code) => (End::Exit(code), format!("exited with status {code} {blame}")),
            WaitStatus::Signaled(_, signal, _) => (End::Signal(signal as i32), format!("was killed by {signal} {blame}")),
            other => (End::Exit(-1), format!("ended: {other:?}")),
        };
        let failure = self.failure.take();
        let or = |otherwise: Error| failure.unwrap_or(otherwise);
        match self.stage {
            Stage::Stopping { .. } if end == End::Exit(0) => Outcome::Stopped,
            Stage::Stopping { .. } | Stage::Killed(KilledWhile::Stopping) => {
                Outcome::StoppedBadly(or(Error::failed(format!("main {how} while stopping"))))
            }
            Stage::Starting { .. } | Stage::Undoing { .. } | Stage::Killed(KilledWhile::Starting) => {
                Outcome::NeverReady { error: or(Error::failed(format!("main {how} while starting"))), end }
            }
            Stage::Serving { since_ns } => {
                let served_s = time::now_ns().saturating_sub(since_ns) / 1_000_000_000;
                Outcome::Died { error: or(Error::failed(format!("main {how}")).detail(format!("it had served for {served_s} s"))), end }
            }
        }
    }

    /// Main is gone, so everything below it must go, before another main starts or the supervisor
    /// ends.
    pub fn kill_remaining(&self) {
        let limit_ns = time::now_ns() + GRACE.as_nanos() as u64;
        while killpg(self.pid, Signal::SIGKILL) != Err(Errno::ESRCH) {
            // The supervisor is the subreaper: their statuses arrive here.
            while matches!(waitpid(Pid::from_raw(-self.pid.as_raw()), Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
            {
            }
            if time::now_ns() > limit_ns {
                tracing::warn!("some processes of the last main are still ending group={}", self.pid);
                return;
            }
            time::sleep_until_ns(time::now_ns() + KILL_AGAIN_NS);
        }
    }
}
