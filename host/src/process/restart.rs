//! The restart policy: whether a dead process is replaced at once, later, or not at all.
//!
//! *Runs in:* main for its children, the supervisor for main. *Never:* forks, logs.
//!
//! *Pure:* no clock, no environment, no system call.

use std::time::Duration;

/// How long a process must live, its own initialisation done, for its death to count as a single
/// accident.
pub const SERVED_MIN: Duration = Duration::from_secs(1);
/// This many deaths within [`BURST_WINDOW`] are replaced at once: a worker killed by hand twice is
/// no reason to wait.
pub const BURST_DEATHS: usize = 5;
/// See [`BURST_DEATHS`].
pub const BURST_WINDOW: Duration = Duration::from_secs(10);
/// The first delay; each further one is twice as long.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest delay.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// When a slot's process is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub clean_exit: CleanExit,
    /// After this many deaths in a row before serving, the slot is given up. `None`: never.
    pub failed_starts_max: Option<u32>,
}

/// What an exit with status 0 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanExit {
    /// A death like any other: the process is to run as long as the host.
    IsDeath,
    /// Its work is done (`on_failure`).
    IsDone,
}

impl Policy {
    /// Workers, timers, control, and module processes unless they say otherwise.
    pub const ALWAYS: Self = Self { clean_exit: CleanExit::IsDeath, failed_starts_max: None };
    /// Module processes that may finish.
    pub const ON_FAILURE: Self = Self { clean_exit: CleanExit::IsDone, failed_starts_max: None };
    /// Main. If it cannot start, trying more often does not help, and the service manager should
    /// know.
    pub const MAIN: Self = Self { clean_exit: CleanExit::IsDeath, failed_starts_max: Some(5) };
}

/// One death. All times are of one monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// When it was noticed.
    pub now_ns: u64,
    /// When the process was forked.
    pub forked_ns: u64,
    pub reached: Reached,
    pub end: End,
}

/// How far a process had come when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It was still initialising.
    Init,
    /// Serving.
    Serving,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exit(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// What follows a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Fork its successor at once.
    Now,
    /// Fork its successor after this time.
    After(Duration),
    /// It finished; the slot stays empty.
    Done,
    /// It cannot start; the owner of the slot decides what that means.
    GiveUp,
}

/// The deaths of one slot, across its processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// A ring of the last deaths.
    died_ns: [u64; BURST_DEATHS],
    deaths: usize,
    throttled_in_a_row: u32,
    failed_starts_in_a_row: u32,
}

impl History {
    /// Records a death and decides what follows.
    pub fn died(&mut self, policy: Policy, death: Death) -> Restart {
        if death.end == End::Exit(0) && policy.clean_exit == CleanExit::IsDone {
            return Restart::Done;
        }
        let burst = self.record(death.now_ns);
        // From the fork: an initialisation that takes longer than the minimum is slow enough by
        // itself.
        let lived = Duration::from_nanos(death.now_ns.saturating_sub(death.forked_ns));
        match death.reached {
            Reached::Init => {
                self.failed_starts_in_a_row += 1;
                if policy.failed_starts_max.is_some_and(|max| self.failed_starts_in_a_row >= max) {
                    return Restart::GiveUp;
                }
            }
            Reached::Serving => {
                self.failed_starts_in_a_row = 0;
                if lived >= SERVED_MIN {
                    self.throttled_in_a_row = 0;
                    return Restart::Now;
                }
                // Once delayed, only having served counts: the delays themselves spread the deaths.
                if self.throttled_in_a_row == 0 && !burst {
                    return Restart::Now;
                }
            }
        }
        let doubled = BACKOFF_MIN.saturating_mul(1_u32.checked_shl(self.throttled_in_a_row).unwrap_or(u32::MAX));
        self.throttled_in_a_row = self.throttled_in_a_row.saturating_add(1);
        Restart::After(doubled.min(BACKOFF_MAX))
    }

    /// Whether more than [`BURST_DEATHS`] deaths, this one included, fall into the window.
    fn record(&mut self, now_ns: u64) -> bool {
        // This place holds the death BURST_DEATHS before this one.
        let place = &mut self.died_ns[self.deaths % BURST_DEATHS];
        let burst = self.deaths >= BURST_DEATHS && Duration::from_nanos(now_ns.saturating_sub(*place)) < BURST_WINDOW;
        *place = now_ns;
        self.deaths += 1;
        burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Restart::{After, Done, GiveUp, Now};

    const CRASH: End = End::Signal(11);
    const CLEAN: End = End::Exit(0);

    const fn after_ms(ms: u64) -> Restart {
        After(Duration::from_millis(ms))
    }

    /// Each process is forked when the policy says, and lives for the given time.
    fn answers(policy: Policy, lives: &[(u64, Reached, End)]) -> Vec<Restart> {
        let (mut history, mut now_ns) = (History::default(), 7_000_000_000);
        let mut answers = Vec::new();
        for &(lived_ms, reached, end) in lives {
            let forked_ns = now_ns;
            now_ns += lived_ms * 1_000_000;
            let answer = history.died(policy, Death { now_ns, forked_ns, reached, end });
            if let After(wait) = answer {
                now_ns += wait.as_nanos() as u64;
            }
            answers.push(answer);
        }
        answers
    }

    #[test]
    fn table() {
        use Reached::{Init, Serving};
        let backoff = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000].map(after_ms);
        for (name, policy, lives, expected) in [
            ("served, then died: at once, for ever", Policy::ALWAYS, vec![(1000, Serving, CRASH); 40], vec![Now; 40]),
            ("the first deaths are forgiven", Policy::ALWAYS, vec![(10, Serving, CRASH); 5], vec![Now; 5]),
            (
                "a slot that keeps dying waits longer each time",
                Policy::ALWAYS,
                vec![(10, Serving, CRASH); 14],
                [&[Now; 5], &backoff[..]].concat(),
            ),
            ("slow enough is no burst", Policy::ALWAYS, [(900, Serving, CRASH), (4000, Serving, CRASH)].repeat(9), vec![Now; 18]),
            ("death in init waits from the first", Policy::ALWAYS, vec![(10, Init, CRASH); 9], backoff.to_vec()),
            ("a long init is no service", Policy::ALWAYS, vec![(30_000, Init, CRASH); 2], backoff[..2].to_vec()),
            (
                "having served ends the waits",
                Policy::ALWAYS,
                vec![(1, Init, CRASH), (1, Init, CRASH), (1500, Serving, CRASH), (1, Serving, CRASH), (1, Init, CRASH)],
                vec![after_ms(100), after_ms(200), Now, Now, after_ms(100)],
            ),
            (
                "serving briefly does not end them",
                Policy::ALWAYS,
                vec![(1, Init, CRASH), (1, Serving, CRASH)],
                vec![after_ms(100), after_ms(200)],
            ),
            ("a worker may not just leave", Policy::ALWAYS, vec![(5000, Serving, CLEAN)], vec![Now]),
            ("a process that may finish", Policy::ON_FAILURE, vec![(5000, Serving, CLEAN), (1, Init, CLEAN)], vec![Done; 2]),
            (
                "and fails",
                Policy::ON_FAILURE,
                vec![(5000, Serving, End::Exit(1)), (5000, Serving, CRASH), (1, Init, CRASH)],
                vec![Now, Now, after_ms(100)],
            ),
            (
                "main is given up at the fifth failed start",
                Policy::MAIN,
                vec![(500, Init, End::Exit(1)); 5],
                [&backoff[..4], &[GiveUp]].concat(),
            ),
            (
                "in a row",
                Policy::MAIN,
                [vec![(500, Init, CRASH); 4], vec![(5000, Serving, CRASH)], vec![(500, Init, CRASH)]].concat(),
                [&backoff[..4], &[Now, after_ms(100)]].concat(),
            ),
        ] {
            assert_eq!(answers(policy, &lives), expected, "{name}");
        }
    }

    #[test]
    fn waits_never_shrink_or_overflow() {
        let mut last = Duration::ZERO;
        for answer in answers(Policy::ALWAYS, &[(0, Reached::Init, CRASH); 200]) {
            let After(wait) = answer else { panic!("{answer:?}") };
            assert!(last <= wait && wait <= BACKOFF_MAX);
            last = wait;
        }
    }

    #[test]
    fn a_clock_that_seems_to_go_backwards_is_survived() {
        let mut history = History::default();
        let death = Death { now_ns: 5, forked_ns: 9, reached: Reached::Serving, end: CRASH };
        assert_eq!(history.died(Policy::ALWAYS, death), Now);
    }
}
