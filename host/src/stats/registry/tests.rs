//! Registering, laying out and reading counters.
//!
//! *Runs in:* tests. *Never:* forks.

use module_api::stats::Value;

use super::*;

fn request(name: &str, kind: Kind) -> StatRequest {
    StatRequest { name: name.into(), help: "help".into(), kind, unit: Unit::One, flags: 0, bounds: Vec::new() }
}

fn registry() -> Registry {
    let registry = Registry::new().unwrap();
    registry.register("m", request("counter", Kind::Counter)).unwrap();
    registry.register("m", request("gauge", Kind::Gauge)).unwrap();
    registry.register("m", StatRequest { flags: abi::STAT_SHARED, ..request("shared", Kind::Gauge) }).unwrap();
    registry.register("m", request("histogram", Kind::Histogram)).unwrap();
    registry
}

fn word(registry: &Registry, name: &str, block: usize) -> &'static AtomicU64 {
    let entry = registry.matching(&[name])[0];
    &registry.complete.get().unwrap().block(block)[entry.first]
}

fn value(registry: &Registry, name: &str, part: Part) -> Value {
    registry.sample(registry.matching(&[name])[0], part).value
}

#[test]
fn blocks_are_summed_and_main_keeps_what_it_counted_before() {
    let registry = registry();
    let entry = registry.matching(&["m.counter"])[0];
    registry.outside[entry.first].store(100, Relaxed);
    assert!(!registry.read(entry, Part::Process(0), &mut [0]));
    assert_eq!(value(&registry, "m.counter", Part::All), Value::Counter(100));
    registry.complete(3).unwrap();
    for block in 0..6 {
        word(&registry, "m.counter", block).fetch_add(1 << block, Relaxed);
    }
    registry.outside[entry.first].fetch_add(1000, Relaxed);
    let parts = [Part::All, Part::Outside, Part::Process(0), Part::Process(1), Part::Process(2), Part::Process(3)];
    let sums = [1163, 1000, 103, 12, 48, 0];
    assert_eq!(parts.map(|part| value(&registry, "m.counter", part)), sums.map(Value::Counter));
    assert!(registry.complete(3).is_err());
    assert!(registry.register("m", request("late", Kind::Counter)).is_err());
}

#[test]
fn blocks_share_no_cache_line() {
    let registry = registry();
    registry.complete(2).unwrap();
    let complete = registry.complete.get().unwrap();
    for block in 0..4 {
        assert_eq!(complete.block(block).as_ptr() as usize % BLOCK_BYTES, 0);
    }
    assert_eq!(complete.block(4).len(), 0);
    let used: usize = complete.entries.iter().map(|entry| entry.what.words()).sum();
    assert!(complete.block(0).len() >= used && complete.block(0).len() < used + BLOCK_BYTES);
}

#[test]
fn a_dead_process_loses_its_part_of_gauges_and_nothing_else() {
    let registry = registry();
    registry.complete(3).unwrap();
    for name in ["m.counter", "m.gauge", "m.shared", "m.histogram"] {
        for process_no in 0..3 {
            word(&registry, name, 2 * process_no).store(5, Relaxed);
        }
    }
    [1, 1, 7].into_iter().for_each(|process_no| registry.process_ended(process_no));
    assert_eq!(value(&registry, "m.counter", Part::All), Value::Counter(15));
    assert_eq!(value(&registry, "m.gauge", Part::All), Value::Gauge(10));
    assert_eq!(value(&registry, "m.shared", Part::All), Value::Gauge(15));
    assert_eq!(word(&registry, "m.histogram", 2).load(Relaxed), 5);
}

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    let registry = registry();
    let long = "x".repeat(48);
    for name in ["", "Upper", "1st", "_x", "a-b", "a.b", "ä", &long] {
        let error = registry.register("m", request(name, Kind::Counter)).unwrap_err();
        assert_eq!(error.detail, "it is not a valid name", "{name}");
    }
    let twice = registry.register("m", request("counter", Kind::Gauge)).unwrap_err();
    assert_eq!(twice.what, "module \"m\" cannot count as \"counter\"");
    assert_eq!(twice.detail, "it has that name already");
    registry.register("other", request("counter", Kind::Counter)).unwrap();
    // modhost_m_histogram_sum belongs to the histogram; modhost_a_b_c could be of two modules.
    assert!(registry.register("m", request("histogram_sum", Kind::Gauge)).unwrap_err().detail.contains("m.histogram"));
    registry.register("a_b", request("c", Kind::Counter)).unwrap();
    assert!(registry.register("a-b", request("c", Kind::Counter)).is_err());
    assert!(registry.register("m", StatRequest { help: "two\nlines".into(), ..request("x", Kind::Counter) }).is_err());
    assert!(registry.register("m", StatRequest { flags: 1, ..request("x", Kind::Counter) }).is_err());
    assert!(registry.register("m", StatRequest { flags: 2, ..request("x", Kind::Gauge) }).is_err());
    for bounds in [vec![1, 1], vec![2, 1], (0..65).collect()] {
        assert!(registry.register("m", StatRequest { bounds, ..request("x", Kind::Histogram) }).is_err());
    }
    assert!(registry.register("m", StatRequest { bounds: vec![1], ..request("x", Kind::Counter) }).is_err());
    assert!(registry.register("m", StatRequest { bounds: (0..64).collect(), ..request("x", Kind::Histogram) }).is_ok());
}

#[test]
fn the_number_of_words_is_limited() {
    let registry = registry();
    let failed = (0..1000).find_map(|number| registry.register("m", request(&format!("h{number}"), Kind::Histogram)).err());
    assert!(failed.is_some_and(|error| error.detail.contains("65536 words")));
    registry.register("m", request("small", Kind::Counter)).unwrap();
    assert_eq!(registry.matching(&["host.re", "m.small"]).len(), 4);
    assert_eq!(
        registry.matching(&["host.re"]).iter().map(|entry| entry.what.name).collect::<Vec<_>>(),
        ["received", "refused", "restarts"]
    );
}
