//! The allocator compared with a list of its blocks, within one process. Deaths are in
//! `host/tests/killed_anywhere.rs`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::arena::{Arena, Tables};
use super::class::{PAGE_BYTES, SHAPES, class_of};
use super::heap::{AllocError, AllocRequest, BlockError, Content};

fn request(size_bytes: usize) -> AllocRequest {
    AllocRequest { tag: 1, size_bytes, align_bytes: 16, content: Content::Undefined, cell: 0 }
}

fn allocate(tables: &Tables, size_bytes: usize) -> Result<usize, AllocError> {
    tables.allocate(&request(size_bytes))
}

fn free(tables: &Tables, offset: usize) -> Result<(), BlockError> {
    tables.free(tables.address(offset) as usize, 0)
}

/// The memory that a block of that size takes.
fn rounded(size_bytes: usize, align_bytes: usize) -> usize {
    class_of(size_bytes, align_bytes).map_or_else(|| size_bytes.next_multiple_of(PAGE_BYTES), |class| SHAPES[class].size_bytes as usize)
}

/// Pseudo-random numbers (xorshift).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[derive(Debug, Clone)]
enum HeapStep {
    Allocate { size: usize, align: usize, zeros: bool },
    Free(usize),
    Resize(usize, usize),
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 1_usize..600, 3 => 600_usize..17_000, 1 => 17_000_usize..150_000]
}

fn steps() -> impl Strategy<Value = HeapStep> {
    prop_oneof![
        4 => (sizes(), 0_u32..13, any::<bool>()).prop_map(|(size, align, zeros)| HeapStep::Allocate { size, align: 1 << align, zeros }),
        3 => any::<usize>().prop_map(HeapStep::Free),
        1 => (any::<usize>(), sizes()).prop_map(|(index, size)| HeapStep::Resize(index, size)),
    ]
}

/// Writes a pattern to a block, or checks that it is there.
fn pattern(tables: &Tables, offset: usize, size: usize, number: u64, write: bool) {
    for word in 0..size / 8 {
        let cell = tables.cell(offset + word * 8 + 1).unwrap();
        if write {
            cell.store(number ^ word as u64, std::sync::atomic::Ordering::Relaxed);
        } else {
            assert_eq!(cell.load(std::sync::atomic::Ordering::Relaxed), number ^ word as u64, "a block was overwritten");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_are_disjoint_aligned_and_keep_their_contents(steps in prop::collection::vec(steps(), 1..400)) {
        let arena = Arena::new(1 << 20).unwrap();
        let tables = arena.tables();
        // By offset: size, and the number in its pattern.
        let mut blocks: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let pick = |index: usize| (!blocks.is_empty()).then(|| *blocks.keys().nth(index % blocks.len()).unwrap());
            match step {
                HeapStep::Allocate { size, align, zeros } => {
                    let content = if zeros { Content::Zeros } else { Content::Undefined };
                    let Ok(offset) = tables.allocate(&AllocRequest { align_bytes: align, content, ..request(size) }) else { continue };
                    prop_assert_eq!((tables.address(offset) as usize) % align, 0);
                    let before = blocks.range(..offset).next_back();
                    prop_assert!(before.is_none_or(|(start, (length, _))| start + length <= offset), "it overlaps the one before");
                    prop_assert!(blocks.range(offset..).next().is_none_or(|(start, _)| offset + size <= *start), "it overlaps the next");
                    prop_assert!(offset + size <= 1 << 20);
                    if zeros {
                        for word in 0..size / 8 {
                            prop_assert_eq!(tables.cell(offset + word * 8 + 1).unwrap().load(std::sync::atomic::Ordering::Relaxed), 0);
                        }
                    }
                    pattern(tables, offset, size, number as u64, true);
                    blocks.insert(offset, (size, number as u64));
                }
                HeapStep::Free(index) => {
                    let Some(offset) = pick(index) else { continue };
                    let (size, number) = blocks.remove(&offset).unwrap();
                    pattern(tables, offset, size, number, false);
                    prop_assert_eq!(tables.free(tables.address(offset) as usize + 8, 0).is_err(), true, "in the middle of it");
                    prop_assert_eq!(free(tables, offset), Ok(()));
                    prop_assert!(free(tables, offset).is_err(), "it was freed twice");
                }
                HeapStep::Resize(index, size) => {
                    let Some(offset) = pick(index) else { continue };
                    let (old, number) = blocks[&offset];
                    let Ok(Ok(moved)) = tables.resize(tables.address(offset) as usize, &request(size)) else { continue };
                    blocks.remove(&offset);
                    pattern(tables, moved, old.min(size), number, false);
                    pattern(tables, moved, size, number, true);
                    let before = blocks.range(..moved).next_back();
                    prop_assert!(before.is_none_or(|(start, (length, _))| start + length <= moved), "it overlaps the one before");
                    prop_assert!(blocks.range(moved..).next().is_none_or(|(start, _)| moved + size <= *start), "it overlaps the next");
                    blocks.insert(moved, (size, number));
                }
            }
        }
        prop_assert_eq!(tables.usage().sum().blocks, blocks.len() as u64);
        prop_assert_eq!(tables.check(), Vec::<String>::new());
        for (offset, (size, number)) in blocks {
            pattern(tables, offset, size, number, false);
            prop_assert_eq!(free(tables, offset), Ok(()));
        }
        prop_assert_eq!(tables.usage().sum().blocks, 0);
        prop_assert_eq!(tables.check(), Vec::<String>::new());
    }
}

#[test]
fn a_refused_large_block_leaves_no_entry_open() {
    let arena = Arena::new(1 << 20).unwrap();
    let tables = arena.tables();
    let large = allocate(tables, 600 << 10).unwrap();
    assert!(allocate(tables, 600 << 10).is_err());
    assert_eq!(tables.check(), Vec::<String>::new());
    assert_eq!(free(tables, large), Ok(()));
    assert!(allocate(tables, 600 << 10).is_ok());
}

#[test]
fn addresses_that_are_no_block_are_refused() {
    let arena = Arena::new(1 << 20).unwrap();
    let tables = arena.tables();
    let (small, large) = (allocate(tables, 100).unwrap(), allocate(tables, 50_000).unwrap());
    for (offset, wrong) in [
        (small + 1, BlockError::Inside),
        (small + 16, BlockError::Inside),
        (small + 112, BlockError::Free),
        (large + 4096, BlockError::NotABlock),
        (large + 16, BlockError::NotABlock),
        (1 << 19, BlockError::NotABlock),
    ] {
        assert_eq!(free(tables, offset), Err(wrong), "{offset}");
        assert_eq!(tables.resize(tables.address(offset) as usize, &request(10)), Err(wrong), "{offset}");
    }
    for address in [0, 8, usize::MAX, tables.start - 1, tables.start + (1 << 20)] {
        assert_eq!(tables.free(address, 0), Err(BlockError::NotABlock), "{address:#x}");
    }
    assert_eq!(tables.free(tables.address(large) as usize, small + 1), Err(BlockError::Cell));
    assert_eq!((free(tables, small), free(tables, large)), (Ok(()), Ok(())));
    assert_eq!((free(tables, small), free(tables, large)), (Err(BlockError::Free), Err(BlockError::NotABlock)));
}

#[test]
fn a_full_arena_is_an_error_and_recovers() {
    let arena = Arena::new(1 << 20).unwrap();
    let tables = arena.tables();
    assert_eq!(allocate(tables, usize::MAX), Err(AllocError::Exhausted));
    assert_eq!(allocate(tables, (1 << 20) + 1), Err(AllocError::Exhausted));
    for size in [48, 1000, 5000, 16_384, 40_000, 1 << 20] {
        let blocks: Vec<usize> = std::iter::from_fn(|| allocate(tables, size).ok()).collect();
        let used = blocks.len() * rounded(size, 16);
        assert!(used > (1 << 20) * 80 / 100, "{size}: {used} bytes only");
        assert_eq!(allocate(tables, size), Err(AllocError::Exhausted));
        assert_eq!(tables.usage().sum().bytes, used as u64);
        for block in blocks {
            free(tables, block).unwrap();
        }
        // The last span of each class stays with its slot until the memory is needed.
        assert_eq!(tables.check(), Vec::<String>::new());
    }
}

/// Imitates hours of a service: blocks of all sizes come and go, and the favoured sizes change. The
/// used blocks must not need ever more memory.
#[test]
fn mixed_sizes_do_not_fragment_the_arena() {
    let arena = Arena::new(32 << 20).unwrap();
    let tables = arena.tables();
    let (mut blocks, mut wanted, mut seed) = (Vec::new(), 0_usize, 0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut worst) = (0_u32, 0.0_f64);
    // 60 % of the arena, in requested bytes.
    let limit = (32 << 20) * 60 / 100;
    for round in 0..3_000_000_u64 {
        let favour = round / 250_000;
        if wanted < limit {
            let size = match (random(&mut seed) + favour) % 12 {
                0..7 => 16 + random(&mut seed) as usize % (64 << (favour % 5)),
                7..11 => 16 + random(&mut seed) as usize % 4000,
                _ => 4000 + random(&mut seed) as usize % 40_000,
            };
            match allocate(tables, size) {
                Ok(offset) => {
                    blocks.push((offset, size));
                    wanted += size;
                }
                Err(_) => refused += 1,
            }
        }
        // Now and then half of the blocks are freed at once, which leaves holes everywhere.
        let freed = if round % 200_000 == 0 { blocks.len() / 2 } else { usize::from(wanted >= limit) * 2 };
        for _ in 0..freed.min(blocks.len()) {
            let (offset, size) = blocks.swap_remove(random(&mut seed) as usize % blocks.len());
            free(tables, offset).unwrap();
            wanted -= size;
        }
        if round % 100_000 == 99_999 && wanted > limit / 2 {
            let usage = tables.usage();
            let taken = usage.total_bytes - usage.free_bytes;
            worst = worst.max(taken as f64 / wanted as f64);
        }
    }
    assert_eq!(tables.check(), Vec::<String>::new());
    assert_eq!(refused, 0, "60 % of the arena was too much");
    assert!(worst < 1.5, "{worst:.2} bytes of the arena for each byte in use");
}

/// The threads act as processes that the host did not fork, and so share a slot.
#[test]
fn threads_do_not_get_each_others_blocks() {
    let arena: &'static Arena = Box::leak(Box::new(Arena::new(8 << 20).unwrap()));
    let (send, receive) = std::sync::mpsc::sync_channel::<(usize, usize, u64)>(500);
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let send = send.clone();
            std::thread::spawn(move || {
                let (tables, mut seed) = (arena.tables(), thread + 1);
                for number in 0..20_000 {
                    let size = 8 + random(&mut seed) as usize % 3000;
                    let offset = allocate(tables, size).expect("room");
                    pattern(tables, offset, size, number ^ thread << 32, true);
                    if number % 2 == 0 {
                        pattern(tables, offset, size, number ^ thread << 32, false);
                        free(tables, offset).unwrap();
                    } else {
                        // Another thread frees it.
                        send.send((offset, size, number ^ thread << 32)).unwrap();
                    }
                }
            })
        })
        .collect();
    drop(send);
    for (offset, size, number) in receive {
        pattern(arena.tables(), offset, size, number, false);
        free(arena.tables(), offset).unwrap();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(arena.usage().sum().blocks, 0);
    assert_eq!(arena.tables().check(), Vec::<String>::new());
}
