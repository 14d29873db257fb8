//! The timer queue: which timer is due next, and how many of its deadlines have passed.
//!
//! *Runs in:* the timer processes, each with its own queue. *Never:* calls a timer function.
//!
//! *Pure:* no clock, no environment, no system call.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Timers by deadline. All times are nanoseconds on one clock of the caller's choice.
///
/// The timer that is overdue longest comes first, and is then scheduled after `now`. So every due
/// timer gets its turn before any gets a second one, however late the caller and however short a
/// period.
#[derive(Debug, Clone)]
pub struct TimerQueue<Id> {
    heap: BinaryHeap<Reverse<QueuedTimer<Id>>>,
    added: u64,
}

/// One timer's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due<Id> {
    pub id: Id,
    /// Number of deadlines that have passed since the last turn: 1 if none was missed.
    pub expirations: u64,
    /// The first of these deadlines.
    pub scheduled_for_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct QueuedTimer<Id> {
    deadline_ns: u64,
    /// Equal deadlines are served in the order of `add`.
    order: u64,
    period_ns: u64,
    id: Id,
}

impl<Id> Default for TimerQueue<Id> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }
}

impl<Id: Copy> TimerQueue<Id> {
    /// Adds a timer, due at `first_ns` and then every `period_ns`, or only once if that is 0.
    pub fn add(&mut self, id: Id, first_ns: u64, period_ns: u64) {
        self.heap.push(Reverse(QueuedTimer { deadline_ns: first_ns, order: self.added, period_ns, id }));
        self.added += 1;
    }

    /// The next deadline, until which the caller may sleep.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.deadline_ns)
    }

    /// Takes the next timer whose deadline is not after `now_ns`, if any. A periodic one is
    /// scheduled again, at a multiple of its period after its first deadline: neither a late call
    /// nor a slow timer function shifts it.
    pub fn due(&mut self, now_ns: u64) -> Option<Due<Id>> {
        let mut first = self.heap.peek_mut()?;
        let QueuedTimer { deadline_ns, period_ns, id, .. } = first.0;
        if deadline_ns > now_ns {
            return None;
        }
        let expirations = (now_ns - deadline_ns).checked_div(period_ns).map_or(1, |missed| missed.saturating_add(1));
        match period_ns.checked_mul(expirations).and_then(|span| deadline_ns.checked_add(span)) {
            Some(next_ns) if period_ns > 0 => first.0.deadline_ns = next_ns,
            // A timer that is called once, or whose next deadline does not fit into 64 bits.
            _ => drop(PeekMut::pop(first)),
        }
        Some(Due { id, expirations, scheduled_for_ns: deadline_ns })
    }
}

impl<Id> QueuedTimer<Id> {
    const fn key(&self) -> (u64, u64) {
        (self.deadline_ns, self.order)
    }
}

impl<Id> PartialEq for QueuedTimer<Id> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<Id> Eq for QueuedTimer<Id> {}

impl<Id> PartialOrd for QueuedTimer<Id> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<Id> Ord for QueuedTimer<Id> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue(timers: &[(u32, u64, u64)]) -> TimerQueue<u32> {
        let mut queue = TimerQueue::default();
        timers.iter().for_each(|&(id, first_ns, period_ns)| queue.add(id, first_ns, period_ns));
        queue
    }

    fn all_due(queue: &mut TimerQueue<u32>, now_ns: u64) -> Vec<(u32, u64, u64)> {
        std::iter::from_fn(|| queue.due(now_ns)).map(|due| (due.id, due.expirations, due.scheduled_for_ns)).collect()
    }

    #[test]
    fn timers_are_due_once_or_periodically() {
        let mut queue = queue(&[(1, 100, 0), (2, 50, 20)]);
        assert_eq!((queue.next_deadline_ns(), all_due(&mut queue, 49)), (Some(50), vec![]));
        assert_eq!(all_due(&mut queue, 50), [(2, 1, 50)]);
        assert_eq!(all_due(&mut queue, 115), [(2, 3, 70), (1, 1, 100)]);
        assert_eq!(queue.next_deadline_ns(), Some(130));
    }

    #[test]
    fn equal_deadlines_keep_the_order_of_adding_every_time() {
        let mut queue = queue(&[(3, 10, 10), (1, 10, 10), (2, 10, 10)]);
        for now_ns in [10, 20, 55, 60] {
            assert_eq!(all_due(&mut queue, now_ns).iter().map(|due| due.0).collect::<Vec<_>>(), [3, 1, 2]);
        }
    }

    #[test]
    fn a_timer_that_is_always_overdue_starves_no_other() {
        let mut queue = queue(&[(1, 0, 1), (2, 1000, 0), (3, 1000, 1000)]);
        // Each turn takes longer than the period of the first.
        let turns: Vec<u32> = (100..).step_by(100).map_while(|now_ns| queue.due(now_ns)).take(40).map(|due| due.id).collect();
        assert!(turns.contains(&2));
        assert_eq!(turns.iter().filter(|&&id| id == 3).count(), 3);
    }

    #[test]
    fn a_timer_ends_when_its_next_deadline_overflows() {
        let mut queue = queue(&[(1, u64::MAX - 5, 10), (2, 0, 1)]);
        assert_eq!(all_due(&mut queue, u64::MAX), [(2, u64::MAX, 0), (1, 1, u64::MAX - 5), (2, 1, u64::MAX)]);
        assert_eq!(queue.next_deadline_ns(), None);
    }

    proptest! {
        /// Compares with the definition: deadlines are first, first + period, and so on. Each is
        /// counted once, and not before it has passed.
        #[test]
        fn every_deadline_is_counted_exactly_once(
            timers in prop::collection::vec((0..2000_u64, 0..300_u64), 1..20), steps in prop::collection::vec(0..700_u64, 1..40)
        ) {
            let timers: Vec<_> = timers.into_iter().zip(0..).map(|((first, period), id)| (id, first, period)).collect();
            let mut queue = queue(&timers);
            let (mut counted, mut now_ns) = (vec![0; timers.len()], 0);
            for step in steps {
                now_ns += step;
                let turns = all_due(&mut queue, now_ns);
                prop_assert!(turns.is_sorted_by_key(|&(id, _, scheduled_ns)| (scheduled_ns, id)), "{turns:?}");
                for (id, expirations, scheduled_ns) in turns {
                    let (_, first, period) = timers[id as usize];
                    prop_assert_eq!(scheduled_ns, first + counted[id as usize] * period);
                    counted[id as usize] += expirations;
                }
                for &(id, first, period) in &timers {
                    let passed = if now_ns < first { 0 } else { (now_ns - first).checked_div(period).unwrap_or(0) + 1 };
                    prop_assert_eq!(counted[id as usize], passed);
                }
                prop_assert!(queue.next_deadline_ns().is_none_or(|next| next > now_ns));
            }
        }
    }
}
