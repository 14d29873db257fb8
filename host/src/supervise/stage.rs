//! The stages of one main as its supervisor sees them: (stage, event) -> (stage, actions).
//!
//! *Runs in:* the supervisor. *Never:* reads a clock, sends a signal, logs: the supervisor does
//! what the actions say.
//!
//! *Pure:* no clock, no environment, no system call.
//!
//! ```text
//! Starting ─Ready─► Serving ─StopAsked, MainStopping─► Stopping ─deadline, second StopAsked─► Killed
//!    │ └──────────────StopAsked, MainStopping──────────────┘
//!    ├─StartFailed─► Undoing ─StopAsked─► Stopping
//!    └─deadline─► Killed ◄─deadline─ Undoing
//! ```

use std::time::Duration;

/// How much longer than main's own limits the supervisor waits before it kills.
pub const GRACE: Duration = Duration::from_secs(1);
/// A second request to stop means force only this long after the first: some tools signal a process
/// and its group in one go.
const INSIST_NS: u64 = 500_000_000;

/// What one main is doing. All times are monotonic nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Forked and not ready yet.
    Starting {
        /// When the start is given up.
        deadline_ns: u64,
    },
    /// Its start has failed and it undoes what it did.
    Undoing {
        /// When it is killed.
        deadline_ns: u64,
    },
    /// Ready.
    Serving {
        /// Since when.
        since_ns: u64,
    },
    /// Asked to stop.
    Stopping {
        /// Since when.
        since_ns: u64,
        /// When it is killed.
        deadline_ns: u64,
    },
    /// Killed by the supervisor; only its end is awaited.
    Killed(KilledWhile),
}

/// What a main was doing when the supervisor killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KilledWhile {
    /// Before it was ready.
    Starting,
    /// During a stop that was asked for.
    Stopping,
}

/// Something that happens to a main.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageEvent {
    /// Main says that everything runs.
    Ready,
    /// Main says that its start has failed.
    StartFailed,
    /// Main says that it stops: as asked, on its own, or to undo a start.
    MainStopping,
    /// A signal asks the service to stop.
    StopAsked,
    /// Time has passed.
    Tick,
}

/// What the supervisor does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Close the sockets that no main was given, such as one at an address that is gone.
    CloseUnusedSockets,
    /// Tell the waiting starter and the service manager.
    AnnounceReady,
    /// Tell the service manager.
    AnnounceStopping,
    /// Send the order over the link.
    TellMainToStop,
    /// Kill it, for this reason.
    Kill(KillReason),
}

/// Why the supervisor kills a main.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// The operator asked twice.
    AskedTwice,
    /// The start took too long.
    StartTooLong,
    /// The stop, or undoing a failed start, took too long.
    StopTooLong,
}

/// The time limits of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// `host.start_timeout`.
    pub start: Duration,
    /// `host.stop_timeout`: limit of each of the two parts of a stop, the children first, then
    /// `destroy_f`.
    pub stop: Duration,
}

impl TimeLimits {
    fn after_start(self, now_ns: u64) -> u64 {
        add(now_ns, self.start + GRACE)
    }

    fn after_stop(self, now_ns: u64) -> u64 {
        add(now_ns, self.stop * 2 + GRACE)
    }
}

fn add(now_ns: u64, duration: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

impl Stage {
    /// Of a main that is about to be forked.
    pub fn starting(limits: TimeLimits, now_ns: u64) -> Self {
        Self::Starting { deadline_ns: limits.after_start(now_ns) }
    }

    /// When [`StageEvent::Tick`] has something to do.
    pub fn deadline_ns(self) -> Option<u64> {
        match self {
            Self::Starting { deadline_ns } | Self::Undoing { deadline_ns } | Self::Stopping { deadline_ns, .. } => Some(deadline_ns),
            Self::Serving { .. } | Self::Killed(_) => None,
        }
    }

    /// Whether main may ask for sockets. It binds everything during its start; a main that asks
    /// later does not run the code that was started.
    pub fn may_bind(self) -> bool {
        matches!(self, Self::Starting { .. })
    }

    /// The next stage, and what is to be done for it.
    #[must_use]
    pub fn on(self, event: StageEvent, now_ns: u64, limits: TimeLimits) -> (Self, &'static [Action]) {
        use Action::{AnnounceReady, AnnounceStopping, CloseUnusedSockets, Kill, TellMainToStop};
        let stopping = Self::Stopping { since_ns: now_ns, deadline_ns: limits.after_stop(now_ns) };
        let is_over = self.deadline_ns().is_some_and(|deadline_ns| now_ns >= deadline_ns);
        match (self, event) {
            (Self::Starting { .. }, StageEvent::Ready) => (Self::Serving { since_ns: now_ns }, &[CloseUnusedSockets, AnnounceReady]),
            (Self::Starting { deadline_ns }, StageEvent::StartFailed) => (Self::Undoing { deadline_ns }, &[]),
            // Undoing a failed start is no stop that somebody asked for.
            (Self::Undoing { .. }, StageEvent::MainStopping) => (Self::Undoing { deadline_ns: limits.after_stop(now_ns) }, &[]),
            (Self::Starting { .. } | Self::Serving { .. }, StageEvent::MainStopping) => (stopping, &[AnnounceStopping]),
            (Self::Starting { .. } | Self::Undoing { .. } | Self::Serving { .. }, StageEvent::StopAsked) => {
                (stopping, &[AnnounceStopping, TellMainToStop])
            }
            (Self::Stopping { since_ns, .. }, StageEvent::StopAsked) if now_ns >= since_ns.saturating_add(INSIST_NS) => {
                (Self::Killed(KilledWhile::Stopping), &[Kill(KillReason::AskedTwice)])
            }
            (Self::Starting { .. }, StageEvent::Tick) if is_over => {
                (Self::Killed(KilledWhile::Starting), &[Kill(KillReason::StartTooLong)])
            }
            (Self::Undoing { .. }, StageEvent::Tick) if is_over => (Self::Killed(KilledWhile::Starting), &[Kill(KillReason::StopTooLong)]),
            (Self::Stopping { .. }, StageEvent::Tick) if is_over => (Self::Killed(KilledWhile::Stopping), &[Kill(KillReason::StopTooLong)]),
            (unchanged, _) => (unchanged, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Action::{AnnounceReady, AnnounceStopping, CloseUnusedSockets, Kill, TellMainToStop};
    use super::StageEvent::{MainStopping, Ready, StartFailed, StopAsked, Tick};
    use super::*;

    const LIMITS: TimeLimits = TimeLimits { start: Duration::from_secs(60), stop: Duration::from_secs(10) };
    const S: u64 = 1_000_000_000;

    /// The last stage and all actions, for events with the second at which they come.
    fn actions(events: &[(u64, StageEvent)]) -> (Stage, Vec<Action>) {
        let mut stage = Stage::starting(LIMITS, 0);
        let mut done = Vec::new();
        for (second, event) in events {
            let (next, actions) = stage.on(*event, second * S, LIMITS);
            stage = next;
            done.extend_from_slice(actions);
        }
        (stage, done)
    }

    #[test]
    fn table() {
        let serving = Stage::Serving { since_ns: S };
        let stopping = |second| Stage::Stopping { since_ns: second * S, deadline_ns: (second + 21) * S };
        let killed = Stage::Killed;
        for (name, events, stage, expected) in [
            ("a start", vec![(1, Ready)], serving, vec![CloseUnusedSockets, AnnounceReady]),
            ("ready is said once", vec![(1, Ready), (2, Ready)], serving, vec![CloseUnusedSockets, AnnounceReady]),
            ("a start within its limit", vec![(60, Tick)], Stage::Starting { deadline_ns: 61 * S }, vec![]),
            ("a start that hangs", vec![(61, Tick), (62, Tick)], killed(KilledWhile::Starting), vec![Kill(KillReason::StartTooLong)]),
            ("a failed start", vec![(1, StartFailed), (2, MainStopping)], Stage::Undoing { deadline_ns: 23 * S }, vec![]),
            (
                "a failed start whose undoing hangs",
                vec![(1, StartFailed), (2, MainStopping), (23, Tick)],
                killed(KilledWhile::Starting),
                vec![Kill(KillReason::StopTooLong)],
            ),
            ("a stop during a start", vec![(1, StopAsked)], stopping(1), vec![AnnounceStopping, TellMainToStop]),
            ("a stop while a start is undone", vec![(1, StartFailed), (2, StopAsked)], stopping(2), vec![AnnounceStopping, TellMainToStop]),
            ("ready too late", vec![(1, StopAsked), (2, Ready)], stopping(1), vec![AnnounceStopping, TellMainToStop]),
            (
                "main stops by itself",
                vec![(1, Ready), (5, MainStopping)],
                stopping(5),
                vec![CloseUnusedSockets, AnnounceReady, AnnounceStopping],
            ),
            (
                "main's answer does not move the clock",
                vec![(1, StopAsked), (9, MainStopping)],
                stopping(1),
                vec![AnnounceStopping, TellMainToStop],
            ),
            (
                "two signals at one moment are one request",
                vec![(1, StopAsked), (1, StopAsked)],
                stopping(1),
                vec![AnnounceStopping, TellMainToStop],
            ),
            (
                "the second request means force",
                vec![(1, StopAsked), (2, StopAsked), (3, StopAsked)],
                killed(KilledWhile::Stopping),
                vec![AnnounceStopping, TellMainToStop, Kill(KillReason::AskedTwice)],
            ),
            (
                "a stop that hangs",
                vec![(1, StopAsked), (21, Tick), (22, Tick), (23, Tick)],
                killed(KilledWhile::Stopping),
                vec![AnnounceStopping, TellMainToStop, Kill(KillReason::StopTooLong)],
            ),
            ("serving has no limit", vec![(1, Ready), (1_000_000, Tick)], serving, vec![CloseUnusedSockets, AnnounceReady]),
        ] {
            assert_eq!(actions(&events), (stage, expected), "{name}");
        }
    }

    #[test]
    fn sockets_are_bound_during_the_start_only() {
        assert!(Stage::starting(LIMITS, 0).may_bind());
        for event in [Ready, StartFailed, StopAsked, MainStopping] {
            assert!(!Stage::starting(LIMITS, 0).on(event, 1, LIMITS).0.may_bind(), "{event:?}");
        }
    }
}
