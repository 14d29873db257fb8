//! Counting and reading against the host of this crate's tests.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::{self, E_INVALID};
use crate::fake::{STAT_HOME, fake, install};
use crate::stats::cells::thread_pointer;
use crate::stats::{Kind, Part, Sample, Stats, Unit, Value, read};

/// All test threads share the process's one `StatHome`.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    install();
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn live_in(thread: usize) {
    // As the host does on machines where threads cannot be told apart.
    STAT_HOME.thread.store(if thread == 1 { 0 } else { thread }, Relaxed);
    STAT_HOME.own.store(if thread == 0 { 0 } else { 8192 }, Relaxed);
    STAT_HOME.threads.store(if thread == 0 { 0 } else { 16_384 }, Relaxed);
}

fn values(part: Part) -> Vec<Value> {
    Stats::new().read_part(part).map(|sample| sample.value).collect()
}

#[test]
fn the_hosts_thread_and_others_count_in_different_places() {
    let _alone = alone();
    let counter = read::counter("n", Unit::Bytes, "help").unwrap();
    live_in(thread_pointer());
    (0..1000).for_each(|_| counter.increment());
    counter.add(5);
    assert_eq!(values(Part::Process(0)), [Value::Counter(1005)]);
    if thread_pointer() != 1 {
        assert_eq!(fake(|fake| fake.stat_words(0, 0, 1)), [1005], "plain additions to the thread's own word");
    }
    // Four threads at once lose nothing.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| counter.increment()));
        }
        (0..10_000).for_each(|_| counter.increment());
    });
    assert_eq!(values(Part::All), [Value::Counter(51_005)]);
    live_in(0);
    counter.add(7);
    assert_eq!(values(Part::Outside), [Value::Counter(7)]);
    let sample = Stats::new().read().next().unwrap();
    assert_eq!((sample.what.full_name().as_str(), sample.what.help, sample.what.unit), ("fake.n", "help", Unit::Bytes));
}

#[test]
fn gauges_and_histograms() {
    let _alone = alone();
    let (gauge, all) = (read::gauge("g", 0, Unit::One, "").unwrap(), read::histogram("h", Unit::Nanoseconds, &[], "").unwrap());
    let own = read::histogram("own", Unit::One, &[10, 20], "").unwrap();
    for thread in [thread_pointer(), 0] {
        live_in(thread);
        gauge.add(5);
        gauge.sub(7);
        all.record(1000);
        all.record_duration(std::time::Duration::MAX);
        [10, 11, 21].into_iter().for_each(|value| own.record(value));
    }
    gauge.set(-40);
    let read: Vec<Sample> = Stats::new().read().collect();
    assert_eq!(read.iter().map(|sample| sample.what.kind).collect::<Vec<_>>(), [Kind::Gauge, Kind::Histogram, Kind::Histogram]);
    assert_eq!(read[0].value, Value::Gauge(-42));
    let Value::Histogram(seen) = &read[1].value else { panic!() };
    assert_eq!((seen.count(), seen.count_up_to(1023)), (4, 2));
    let Value::Histogram(seen) = &read[2].value else { panic!() };
    assert_eq!((seen.sum(), seen.buckets().collect::<Vec<_>>()), (84, vec![(10, 2), (20, 2), (u64::MAX, 2)]));
}

#[test]
fn refusals_become_errors() {
    let _alone = alone();
    fake(|fake| fake.stat_code = E_INVALID);
    let error = read::counter("n", Unit::One, "").map(drop).unwrap_err();
    assert_eq!(error.to_string(), "counting as \"n\": an argument is out of its range");
    fake(|fake| fake.stat_code = abi::E_PHASE);
    assert!(read::counter("a\0b", Unit::One, "").is_err());
    assert_eq!(Stats::new().read().count(), 0);
}
