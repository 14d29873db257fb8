//! What main watches: deaths of children, orders from the supervisor and the control process, its
//! own signals.
//!
//! *Runs in:* main. *Never:* waits without a deadline during a start; never misses a death.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::family::{Entry, Family};
use super::order::MainOrder;
use super::phase::Breadcrumb;
use super::slots::SlotState;
use crate::error::{Error, Result};
use crate::process::restart::{Death, End, History, Reached, Restart};
use crate::state::MainMemory;
use crate::supervise::protocol::{FromSupervisor, SupervisorLink};
use crate::sys::process::fork;
use crate::sys::process::signal::Signals;
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;

/// How often the stop signal is repeated until a process is gone: it may arrive between a process's
/// check of its stop flag and its next blocking call.
const STOP_AGAIN: Duration = Duration::from_millis(10);

const SIGTERM: i32 = Signal::SIGTERM as i32;

/// How long main waits before retrying a failed fork.
const RETRY_FORK_NS: u64 = 1_000_000_000;

/// Something that main must act on.
#[derive(Debug)]
pub enum Event {
    /// A child has ended.
    Died {
        /// Its slot.
        process_no: usize,
        /// How it ended.
        end: End,
        /// How far it had come.
        reached: Reached,
    },
    Stop,
    /// The awaited children are done.
    ChildrenDone,
    /// The deadline has passed.
    Deadline,
    /// SIGHUP, in no-fork mode; the log has been opened again.
    ReadAgain,
    /// Something else woke main.
    Other,
}

/// Main's descriptors to wait for, and what it remembers of its children.
#[derive(Debug)]
pub struct Watch {
    signals: Signals,
    supervisor: Option<SupervisorLink>,
    control: Option<Link>,
    records: Vec<RestartRecord>,
}

/// What main remembers of one slot.
#[derive(Debug, Default)]
struct RestartRecord {
    restarts: u32,
    history: History,
    /// When its delayed restart is due.
    due_ns: Option<u64>,
}

impl Watch {
    /// With the supervisor, or without one in no-fork mode.
    pub fn new(signals: Signals, supervisor: Option<SupervisorLink>) -> Self {
        Self { signals, supervisor, control: None, records: Vec::new() }
    }

    /// Adds main's end of the link to the control process.
    pub fn hear_control(&mut self, link: Link) {
        self.control = Some(link);
    }

    /// The link to the supervisor, if there is one.
    pub fn supervisor(&self) -> Option<&SupervisorLink> {
        self.supervisor.as_ref()
    }

    /// The descriptors that only main may have.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut descriptors = vec![self.signals.as_fd().as_raw_fd()];
        descriptors.extend(self.supervisor.iter().map(|link| link.as_fd().as_raw_fd()));
        descriptors.extend(self.control.iter().map(|link| link.as_fd().as_raw_fd()));
        descriptors
    }

    /// Whether a stop is asked for right now. Does not wait. Between the steps of a start.
    pub fn stop_asked(&mut self) -> Result<bool> {
        // One poll of both descriptors; nearly always nothing is there. Deaths are left for `next`,
        // which must see all of them.
        let supervisor = self.supervisor.as_ref().map_or(self.signals.as_fd(), |link| link.as_fd());
        let mut orders = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(supervisor, PollFlags::POLLIN)];
        if poll(&mut orders, PollTimeout::ZERO) == Ok(0) {
            return Ok(false);
        }
        Ok(matches!(self.poll_orders()?, Some(Event::Stop)))
    }

    /// The next event, or the deadline (monotonic nanoseconds).
    pub fn next(&mut self, family: &Family, deadline_ns: Option<u64>) -> Result<Event> {
        self.wait(family, deadline_ns, std::iter::empty())
    }

    /// As `next`, until the next restart or that moment. Returns `Event::Other` when one of the
    /// other descriptors is readable.
    pub fn next_or_readable<'a>(
        &mut self,
        family: &Family,
        others: impl Iterator<Item = BorrowedFd<'a>>,
        until_ns: Option<u64>,
    ) -> Result<Event> {
        let deadline_ns = self.next_restart_ns().into_iter().chain(until_ns).min();
        self.wait(family, deadline_ns, others)
    }

    fn wait<'a>(&mut self, family: &Family, deadline_ns: Option<u64>, others: impl Iterator<Item = BorrowedFd<'a>>) -> Result<Event> {
        if let Some(event) = self.reap(family) {
            return Ok(event);
        }
        let left_ms = deadline_ns.map(|deadline_ns| deadline_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000).min(1_000_000));
        let timeout = left_ms.map_or(PollTimeout::NONE, |left_ms| PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX));
        {
            let mut watched =
                vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(family.done().as_fd(), PollFlags::POLLIN)];
            watched.extend(self.supervisor.iter().map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
            watched.extend(self.control.iter().map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
            watched.extend(others.map(|other| PollFd::new(other, PollFlags::POLLIN)));
            match poll(&mut watched, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::failed("main cannot wait").detail(format!("poll: {errno}"))),
            }
        }
        if family.done().read().is_ok() {
            return Ok(Event::ChildrenDone);
        }
        if let Some(event) = self.poll_orders()? {
            return Ok(event);
        }
        if let Some(event) = self.reap(family) {
            return Ok(event);
        }
        let over = deadline_ns.is_some_and(|deadline_ns| time::now_ns() >= deadline_ns);
        Ok(if over { Event::Deadline } else { Event::Other })
    }

    fn poll_orders(&mut self) -> Result<Option<Event>> {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => return Ok(Some(Event::Stop)),
                Signal::SIGHUP if self.supervisor.is_none() => {
                    if let Err(error) = crate::log::reopen(None) {
                        tracing::error!("{error}");
                    }
                    return Ok(Some(Event::ReadAgain));
                }
                _ => {}
            }
        }
        if let Some(link) = &self.supervisor {
            match link.poll()? {
                Some(FromSupervisor::Stop) => return Ok(Some(Event::Stop)),
                Some(other) => tracing::error!(target: "fault", "unexpected message from the supervisor: {other:?}"),
                None => {}
            }
        }
        if let Some(link) = &self.control {
            match MainOrder::receive(link) {
                Some(Ok(MainOrder::Stop)) => return Ok(Some(Event::Stop)),
                Some(Err(byte)) => tracing::warn!("the control process sent an unknown order {byte}"),
                None => {}
            }
        }
        Ok(None)
    }

    /// Reaps one dead child.
    fn reap(&mut self, family: &Family) -> Option<Event> {
        loop {
            let status = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return None,
                Ok(status) => status,
            };
            let end = match status {
                WaitStatus::Exited(_, code) => End::Exit(code),
                WaitStatus::Signaled(_, signal, _) => End::Signal(signal as i32),
                _ => continue,
            };
            let Some(pid) = status.pid() else { continue };
            let Some((process_no, slot)) = family.slots.iter().find(|(no, slot)| *no > 0 && slot.pid() == pid.as_raw()) else {
                // A module forked it with its own `fork`.
                tracing::debug!("a process that is not in the table ended pid={pid}");
                continue;
            };
            let reached = if slot.state() == SlotState::Serving { Reached::Serving } else { Reached::Init };
            // Before another process takes its slot.
            if let Some(Err(errno)) = MainMemory::current().map(|memory| memory.arena.recover(process_no, pid.as_raw())) {
                tracing::error!(target: "fault", "cannot put the allocator in order after a death process_no={process_no}: {errno}");
            }
            slot.set_pid(0);
            slot.set_state(SlotState::Ended);
            return Some(Event::Died { process_no, end, reached });
        }
    }

    /// What a process was doing when it died, in words.
    pub fn blame(family: &Family, process_no: usize) -> String {
        let crumb = family.slots.slot(process_no).map(|slot| slot.trail().load(std::sync::atomic::Ordering::Relaxed));
        let crumb = Breadcrumb::from_word(crumb.unwrap_or(0));
        match crumb.module.and_then(|index| family.modules().iter().find(|module| module.index == index)) {
            Some(module) => format!("in {} of module \"{}\"", crumb.phase, module.name),
            None => "outside any module".to_owned(),
        }
    }

    /// Replaces a dead process as its restart policy says.
    pub fn after_death(&mut self, family: &Family, process_no: usize, end: End, reached: Reached) {
        let Some(spec) = family.spec(process_no) else { return };
        if let Some(memory) = MainMemory::current() {
            memory.stats.process_ended(process_no);
        }
        if self.records.len() <= process_no {
            self.records.resize_with(process_no + 1, RestartRecord::default);
        }
        let who =
            format!("process_no={process_no} name=\"{}\" how=\"{}\" last={:?}", spec.name, describe(end), Self::blame(family, process_no));
        if matches!(spec.entry, Entry::Return) {
            if end == End::Exit(0) {
                tracing::info!("a module's process has finished {who}");
            } else {
                tracing::warn!("a module's process died and is not restarted, it has no entry function {who}");
            }
            return;
        }
        let record = &mut self.records[process_no];
        let now_ns = time::now_ns();
        let forked_ns = family.slots.slot(process_no).map_or(now_ns, |slot| slot.forked_ns());
        let policy = spec.kind.row().restart;
        match record.history.died(policy, Death { now_ns, forked_ns, reached, end }) {
            Restart::Now => {
                // Fork before logging: clients may be waiting for the replacement.
                self.restart(family, process_no);
                tracing::warn!("a process died and is replaced {who}");
            }
            Restart::After(delay) => {
                record.due_ns = Some(now_ns.saturating_add(delay.as_nanos() as u64));
                if let Some(slot) = family.slots.slot(process_no) {
                    slot.set_state(SlotState::Waiting);
                }
                tracing::warn!("a process keeps dying, its replacement waits {who} delay_ms={}", delay.as_millis());
            }
            Restart::Done => tracing::info!("a module's process has finished {who}"),
            Restart::GiveUp => tracing::error!("a process keeps dying and is given up {who}"),
        }
    }

    fn restart(&mut self, family: &Family, process_no: usize) {
        let record = &mut self.records[process_no];
        record.due_ns = None;
        record.restarts += 1;
        crate::stats::count(crate::stats::HostCounter::Restarts, 1);
        if let Err(error) = fork::alone().and_then(|alone| family.start(&alone, process_no, record.restarts)) {
            tracing::error!("{error}");
            // The machine lacks memory or processes: retry later, not in a loop.
            record.due_ns = Some(time::now_ns() + RETRY_FORK_NS);
        }
    }

    /// When the next delayed restart is due.
    pub fn next_restart_ns(&self) -> Option<u64> {
        self.records.iter().filter_map(|record| record.due_ns).min()
    }

    /// Forks what is due.
    pub fn restart_due(&mut self, family: &Family) {
        let now_ns = time::now_ns();
        for process_no in 0..self.records.len() {
            if self.records[process_no].due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
                self.restart(family, process_no);
            }
        }
    }

    /// Stops every child: SIGTERM, repeated, and after the limit SIGKILL, naming what each process
    /// was doing.
    pub fn stop_children(&mut self, family: &Family, limit: Duration) -> Result<()> {
        let limit_ns = time::now_ns() + limit.as_nanos() as u64;
        let mut killed = false;
        loop {
            // Read once a round: if the limit passed within a round, its processes would be killed
            // unnamed.
            let over = time::now_ns() >= limit_ns;
            let mut alive = 0;
            for (process_no, slot) in family.slots.iter().skip(1) {
                let pid = slot.pid();
                if pid <= 0 {
                    continue;
                }
                alive += 1;
                let signal = if over { Signal::SIGKILL } else { Signal::SIGTERM };
                if over && !killed {
                    let (name, where_) = (slot.name(), Self::blame(family, process_no));
                    tracing::warn!(
                        "a process did not stop in time and is killed process_no={process_no} name=\"{name}\" pid={pid} last={where_:?}"
                    );
                }
                if let Err(errno) = kill(Pid::from_raw(pid), signal)
                    && errno != Errno::ESRCH
                {
                    tracing::error!("cannot signal a process pid={pid}: kill: {errno}");
                }
            }
            if alive == 0 {
                return Ok(());
            }
            killed |= over;
            let again_ns = time::now_ns() + STOP_AGAIN.as_nanos() as u64;
            while time::now_ns() < again_ns && family.slots.iter().skip(1).any(|(_, slot)| slot.pid() > 0) {
                match self.next(family, Some(again_ns))? {
                    Event::Deadline => break,
                    Event::Died { process_no, end, .. } if !killed && !matches!(end, End::Exit(0) | End::Signal(SIGTERM)) => {
                        tracing::warn!("a process ended badly while stopping process_no={process_no} how=\"{}\"", describe(end));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// How a process ended, in words.
pub fn describe(end: End) -> String {
    match end {
        End::Exit(code) => format!("exited with status {code}"),
        End::Signal(number) => match Signal::try_from(number) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {number}"),
        },
    }
}
