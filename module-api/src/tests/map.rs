//! Maps in shared memory.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::LockFailure;
use crate::fake::{FakeMutex, fake, install};
use crate::prelude::*;
use crate::rng::Rng;
use crate::shm::{self, MapError, MapKey, MapValue, Tagged};

fn map<K: MapKey + ?Sized, V: MapValue + ?Sized>(shards: usize) -> ShmMap<K, V> {
    install();
    fake(|fake| fake.memory = 64 << 20);
    shm::new_map(MapOptions { shards }).unwrap()
}

/// Number of allocated blocks, of entries and of the table.
fn blocks() -> usize {
    fake(|fake| fake.blocks.len())
}

#[test]
fn an_entry_is_inserted_replaced_and_removed() {
    let map = map::<str, [u8]>(3);
    assert_eq!((map.shards(), map.len(), map.is_empty()), (4, 0, true));
    assert_eq!(map.get("a", |value| value.map(<[u8]>::to_vec)), Ok(None));
    assert_eq!(map.insert("a", b"one"), Ok(false));
    assert_eq!(map.insert("a", b"another"), Ok(true));
    assert_eq!(map.insert("", b""), Ok(false));
    assert_eq!(map.get("a", |value| value.map(<[u8]>::to_vec)), Ok(Some(b"another".to_vec())));
    assert_eq!(map.get("", |value| value.map(<[u8]>::len)), Ok(Some(0)));
    assert_eq!((map.len(), map.contains("a"), map.contains("b")), (2, Ok(true), Ok(false)));
    assert_eq!((map.remove("a"), map.remove("a"), map.len()), (Ok(true), Ok(false), 1));
}

#[test]
fn values_of_a_fixed_type_are_aligned_and_can_be_atomic() {
    let map = map::<[u8], AtomicU64>(1);
    for length in 0..20 {
        map.insert(&vec![b'x'; length], AtomicU64::new(7)).unwrap();
        let sum = map.get(&vec![b'x'; length], |value| value.unwrap().fetch_add(length as u64, Relaxed)).unwrap();
        assert_eq!(sum, 7);
        assert_eq!(map.get(&vec![b'x'; length], |value| value.unwrap().load(Relaxed)), Ok(7 + length as u64));
    }
    let wide = self::map::<u128, u128>(1);
    wide.insert(&(1 << 100), 1 << 90).unwrap();
    assert_eq!(wide.get(&(1 << 100), |value| value.copied()), Ok(Some(1 << 90)));
    wide.scan(|key, value| {
        assert_eq!((*key, *value), (1 << 100, 1 << 90));
        Scan::Keep
    })
    .unwrap();
}

#[test]
fn an_update_depends_on_the_old_value() {
    let map = map::<u32, u64>(1);
    let add = |key: u32| map.update(&key, |old| (Update::Replace(old.map_or(1, |old| old + 1)), old.copied())).unwrap();
    assert_eq!((add(1), add(1), add(2)), (None, Some(1), None));
    assert_eq!(map.update(&1, |old| (Update::Keep, old.copied())), Ok(Some(2)));
    assert_eq!(map.update(&1, |old| (Update::Remove, old.copied())), Ok(Some(2)));
    assert_eq!(map.update(&1, |old| (Update::Remove, old.copied())), Ok(None));
    assert_eq!(map.len(), 1);

    let bytes = self::map::<u32, [u8]>(1);
    let mut out = Vec::new();
    for round in 0..5_usize {
        let length = bytes.update_with(&9, &mut out, |old, out| {
            out.extend_from_slice(old.unwrap_or_default());
            out.push(b'+');
            (Update::Replace(()), out.len())
        });
        assert_eq!(length, Ok(round + 1));
    }
    assert_eq!(bytes.update_with(&9, &mut out, |_, _| (Update::Remove, ())), Ok(()));
    assert!(bytes.is_empty());
}

#[test]
fn does_what_a_map_of_the_standard_library_does() {
    let map = map::<[u8], [u8]>(2);
    let mut expected: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut rng = Rng::from_host().unwrap();
    let empty = blocks();
    for step in 0..60_000 {
        let mut key = vec![0; 1 + rng.below(3) as usize];
        rng.fill(&mut key);
        let mut value = vec![0; rng.below(60) as usize];
        rng.fill(&mut value);
        match rng.below(10) {
            0..5 => assert_eq!(map.insert(&key, &value).unwrap(), expected.insert(key, value).is_some()),
            5..8 => assert_eq!(map.get(&key, |value| value.map(<[u8]>::to_vec)).unwrap(), expected.get(&key).cloned()),
            _ => assert_eq!(map.remove(&key).unwrap(), expected.remove(&key).is_some()),
        }
        assert_eq!(map.len(), expected.len());
        if step % 20_000 == 0 {
            let mut seen = HashMap::new();
            map.scan(|key, value| {
                assert!(seen.insert(key.to_vec(), value.to_vec()).is_none(), "an entry was seen twice");
                Scan::Keep
            })
            .unwrap();
            assert_eq!(seen, expected);
        }
    }
    assert!(map.len() > 1000, "too few to make the table grow: {}", map.len());
    map.scan(|key, _| if key.len() == 1 { Scan::Keep } else { Scan::Remove }).unwrap();
    expected.retain(|key, _| key.len() == 1);
    assert_eq!(map.len(), expected.len());
    map.scan(|_, _| Scan::Remove).unwrap();
    assert!(map.is_empty());
    let table = blocks() - empty;
    assert!(table < 200, "entries were not freed: {table} blocks");
}

#[test]
fn without_memory_nothing_changes() {
    let map = map::<u64, [u8]>(1);
    map.insert(&1, b"old").unwrap();
    fake(|fake| fake.memory = 100);
    assert_eq!(map.insert(&1, &[0; 200]), Err(MapError::NoMemory));
    assert_eq!(map.insert(&2, &[0; 200]), Err(MapError::NoMemory));
    assert_eq!(map.get(&1, |value| value.map(<[u8]>::to_vec)), Ok(Some(b"old".to_vec())));
    assert_eq!(map.len(), 1);
    // Entries that fit are still inserted when the table can no longer grow.
    fake(|fake| fake.memory = 40 * 200);
    let fitting = (10..300).take_while(|key| map.insert(key, b"").is_ok()).count();
    assert_eq!(fitting, (200 * 40 - 1024) / 32, "as many as there is memory for after one more segment");
    assert!((10..10 + fitting as u64).all(|key| map.contains(&key).unwrap()));
}

#[test]
fn a_nested_use_is_refused_and_a_panic_leaves_the_map_usable() {
    let map = map::<u8, u8>(1);
    map.insert(&1, 1).unwrap();
    assert_eq!(map.get(&1, |_| map.get(&1, |_| ())), Ok(Err(MapError::Lock(LockFailure::Deadlock))));
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| map.update(&1, |_| -> (Update<u8>, ()) { panic!("in the middle") })));
    assert!(panicked.is_err());
    assert_eq!(map.get(&1, |value| value.copied()), Ok(Some(1)));
}

#[test]
fn the_death_of_an_owner_is_repaired() {
    let map = map::<u8, u8>(1);
    map.insert(&1, 1).unwrap();
    fake(|fake| fake.mutexes.values_mut().for_each(|state| *state = FakeMutex::OwnerDied));
    assert_eq!(map.get(&1, |value| value.copied()), Ok(Some(1)));
    assert!(fake(|fake| fake.mutexes.values().all(|state| *state == FakeMutex::Free)));
}

#[test]
fn impossible_maps_are_refused() {
    install();
    for shards in [0, 65_537, usize::MAX] {
        assert!(shm::new_map::<u8, u8>(MapOptions { shards }).unwrap_err().to_string().contains("1 to 65536"));
    }
}

#[test]
fn a_scan_with_pauses_misses_nothing_that_stays() {
    let map = map::<u64, u64>(4);
    (0..500).for_each(|key| assert_eq!(map.insert(&key, key), Ok(false)));
    let (mut cursor, mut seen, mut new) = (0, std::collections::BTreeSet::new(), 500);
    loop {
        cursor = map
            .scan_from(cursor, 7, |key, value| {
                assert_eq!(key, value);
                seen.insert(*key);
                Scan::Keep
            })
            .unwrap();
        // The map grows to ten times its size, which splits buckets before and after the cursor.
        if new < 5000 {
            (new..new + 100).for_each(|key| assert_eq!(map.insert(&key, key), Ok(false)));
            new += 100;
        }
        if cursor == 0 {
            break;
        }
    }
    assert!((0..500).all(|key| seen.contains(&key)));
    for strange in [1 << 43, 4 << 44, u64::MAX] {
        let count = std::cell::Cell::new(0);
        let next = map.scan_from(strange, 1, |_, _| {
            count.set(count.get() + 1);
            Scan::Keep
        });
        assert!(next.is_ok() && count.get() == 0, "{strange:x}");
    }
    // A scan can remove entries.
    let mut cursor = 0;
    while let next @ 1.. = map.scan_from(cursor, 100, |_, _| Scan::Remove).unwrap() {
        cursor = next;
    }
    assert!(map.is_empty() && map.bytes() == 0);
}

#[test]
fn a_tag_is_changed_in_place_and_the_bytes_are_counted() {
    let map = map::<[u8], Tagged<AtomicU64>>(1);
    for length in 0..40_u64 {
        let text = vec![length as u8; length as usize];
        map.insert(&text, (AtomicU64::new(length), &text)).unwrap();
        map.get(&text, |value| value.unwrap().tag.fetch_add(1, Relaxed)).unwrap();
        assert_eq!(
            map.get(&text, |value| value.map(|value| (value.tag.load(Relaxed), value.bytes.to_vec()))),
            Ok(Some((length + 1, text)))
        );
    }
    let bytes = |key: u64, value: u64| (24 + key).next_multiple_of(8) + 8 + value;
    let all: u64 = (0..40).map(|length| bytes(length, length)).sum();
    assert_eq!(map.bytes(), all);
    map.insert(&[], (AtomicU64::new(0), b"more")).unwrap();
    map.insert(&[1], (AtomicU64::new(0), b"")).unwrap();
    map.remove(&[2, 2]).unwrap();
    assert_eq!(map.bytes(), all + 4 - 1 - bytes(2, 2));
    map.scan(|_, _| Scan::Remove).unwrap();
    assert_eq!(map.bytes(), 0);
}
