//! The promise that shared memory survives a death anywhere. A process is killed after each single
//! instruction of an operation of the allocator or of a map, and after each death the state is
//! consistent.
//!
//! A separate program, because it forks: it has one thread and no test harness. Recovery is done as
//! in the host: in half of the cases by main, which hears of deaths, in the other half by the next
//! process that takes the dead one's lock. `SCENARIO=name` runs one scenario only.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    eprintln!("not run: single-stepping is written for x86_64");
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() {
    stepping::main();
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod as_main;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod steps;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod stepping {
    use std::collections::{BTreeMap, HashSet};
    use std::ffi::c_void;
    use std::mem::size_of_val;
    use std::ptr::null_mut;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::time::Instant;

    use modhost::hostapi::HOST_API;
    use modhost::shm::arena::Arena;
    use modhost::shm::tables::FOREIGN_SLOT;
    use modhost::state::State;
    use modhost::sys::fast_fork::process_identity::this_process;
    use module_api::export::{ModuleCell, SLOT};
    use module_api::prelude::*;

    use super::{as_main, steps};

    /// The slot of the processes that are killed.
    const VICTIM: i32 = 1;
    const ARENA_BYTES: usize = 512 << 10;
    /// Number of cells in shared memory that hold addresses of blocks.
    const CELLS: usize = 256;

    static MAP: OnceLock<ShmMap<[u8], [u8]>> = OnceLock::new();
    static HELD: OnceLock<Shm<[AtomicU64]>> = OnceLock::new();
    static CELL: ModuleCell<Probe> = ModuleCell::new();

    /// Makes the map and the cells, as a module does.
    struct Probe;

    impl module_api::Module for Probe {
        type Params = ();
        type Child = ();

        fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
            MAP.set(cx.shm_map(MapOptions { shards: 1 })?).map_err(|_| "twice")?;
            HELD.set(cx.shm_slice(CELLS)?).map_err(|_| "twice")?;
            Ok(Probe)
        }

        fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
            Ok(())
        }
    }

    fn arena() -> &'static Arena {
        &as_main::memory().arena
    }

    fn map() -> ShmMap<[u8], [u8]> {
        *MAP.get().expect("the map")
    }

    fn cell(index: usize) -> &'static AtomicU64 {
        &HELD.get().expect("the cells").as_static()[index]
    }

    fn module() -> *mut c_void {
        // SAFETY: `become_module` has filled in the slot.
        unsafe { (*SLOT.as_ptr()).module }
    }

    /// Allocates a block whose address goes to a cell.
    fn take(index: usize, size: usize) {
        assert!(!(HOST_API.shm_malloc)(module(), size, 16, 0, cell(index).as_ptr().cast()).is_null(), "{size} bytes");
    }

    fn take_zeroed(index: usize, size: usize) {
        let flags = module_api::abi::SHM_ZEROED;
        assert!(!(HOST_API.shm_malloc)(module(), size, 16, flags, cell(index).as_ptr().cast()).is_null(), "{size} bytes");
    }

    /// Frees the block of a cell.
    fn release(index: usize) {
        let block = cell(index).load(SeqCst) as usize as *mut c_void;
        assert_eq!((HOST_API.shm_free)(module(), block, cell(index).as_ptr().cast()), 0);
    }

    /// Resizes as a module without cells does: it stores the address when the call has returned.
    fn resize(index: usize, size: usize) {
        let block = cell(index).load(SeqCst) as usize as *mut c_void;
        let block = (HOST_API.shm_realloc)(module(), block, size);
        assert!(!block.is_null());
        cell(index).store(block as u64, SeqCst);
    }

    fn key(number: u32) -> [u8; 5] {
        let [a, b, c, d] = number.to_le_bytes();
        [b'k', a, b, c, d]
    }

    fn put(key: &[u8], value: &[u8]) {
        map().insert(key, value).expect("room");
    }

    fn fill(numbers: std::ops::Range<u32>) {
        numbers.for_each(|number| put(&key(number), &number.to_le_bytes()));
    }

    struct Scenario {
        name: &'static str,
        set_up: fn(),
        operation: fn(),
        /// Number of blocks that may be without owner after a death: the result of a call may be
        /// lost with the process.
        may_lose: u64,
    }

    fn scenarios() -> Vec<Scenario> {
        let scenario = |name, set_up, operation| Scenario { name, set_up, operation, may_lose: 0 };
        let loses = |name, set_up, operation| Scenario { name, set_up, operation, may_lose: 1 };
        vec![
            scenario("allocate from the slot's span", || as_victim(|| take(0, 100)), || take(1, 100)),
            scenario("allocate zeroed", || as_victim(|| take(0, 300)), || take_zeroed(1, 300)),
            scenario("allocate the first of a class", || {}, || take(0, 100)),
            scenario("allocate when the span is full", || as_victim(|| (0..4).for_each(|index| take(index, 16_384))), || take(4, 16_384)),
            scenario(
                "allocate from a listed span",
                || {
                    // Main's spans have four blocks. The first becomes full, then loses a block.
                    (0..5).for_each(|index| take(index, 16_384));
                    release(1);
                },
                || take(6, 16_384),
            ),
            scenario("free a block of the own span", || as_victim(|| take(0, 100)), || release(0)),
            scenario("free a block of another slot", || take(0, 100), || release(0)),
            scenario("free a block of a full span", || (0..5).for_each(|index| take(index, 16_384)), || release(1)),
            scenario(
                "free the last block of a span",
                || {
                    (0..5).for_each(|index| take(index, 16_384));
                    (0..3).for_each(release);
                },
                || release(3),
            ),
            loses(
                "allocate without a cell",
                || as_victim(|| take(0, 100)),
                || {
                    assert!(!(HOST_API.shm_malloc)(module(), 100, 16, 0, null_mut()).is_null());
                },
            ),
            loses(
                "free without a cell",
                || take(0, 100),
                || {
                    // The cell is cleared first: the check after the death must not free the block
                    // again.
                    let block = cell(0).swap(0, SeqCst) as usize as *mut c_void;
                    assert_eq!((HOST_API.shm_free)(module(), block, null_mut()), 0);
                },
            ),
            scenario("allocate a large block", || take(0, 20_000), || take(1, 50_000)),
            scenario("free a large block", || (0..3).for_each(|index| take(index, 20_000)), || release(1)),
            loses("resize to another class", || as_victim(|| take(0, 100)), || resize(0, 200)),
            loses("resize a small block to a large one", || as_victim(|| take(0, 100)), || resize(0, 20_000)),
            loses("resize a large block to a small one", || take(0, 20_000), || resize(0, 100)),
            scenario("stretch a large block", || take(0, 20_000), || resize(0, 30_000)),
            scenario("shorten a large block", || take(0, 60_000), || resize(0, 20_000)),
            loses(
                "move a large block",
                || {
                    take(0, 20_000);
                    take(1, 20_000);
                },
                || resize(0, 30_000),
            ),
            scenario(
                "allocate from idle slots",
                || {
                    // All remaining memory is in empty spans of main and of a third process.
                    take(100, 16_384);
                    as_process(2, || take(101, 2000));
                    exhaust();
                    release(100);
                    as_process(2, || release(101));
                },
                || take(120, 4000),
            ),
            scenario("the first insertion", || {}, || put(b"key", b"value")),
            scenario("insert", || fill(0..20), || put(b"key", b"value")),
            scenario("replace", || fill(0..20), || put(&key(7), b"another value")),
            scenario(
                "replace by an update",
                || fill(0..20),
                || {
                    map().update(&key(7), |old| (Update::Replace(&b"12345678"[..]), assert!(old.is_some()))).expect("an update");
                },
            ),
            scenario("remove", || fill(0..20), || assert_eq!(map().remove(&key(7)), Ok(true))),
            scenario("insert and split a bucket", || fill(0..140), || put(b"key", b"value")),
            scenario("insert and make a segment", || fill(0..256), || put(b"key", b"value")),
            scenario("insert and double the directory", || fill(0..8 * 128), || put(b"key", b"value")),
            scenario(
                "scan a map with removals",
                || fill(0..6),
                || {
                    map().scan(|key, _| if key[1] % 2 == 0 { Scan::Remove } else { Scan::Keep }).expect("a scan");
                },
            ),
        ]
    }

    /// Allocates all free pages as large blocks.
    fn exhaust() {
        for index in 102.. {
            match arena().usage().largest_free_bytes as usize {
                free if free > 16_384 => take(index, free),
                _ => break,
            }
        }
    }

    fn as_victim(work: impl FnOnce()) {
        as_process(VICTIM, work);
    }

    /// Runs `work` as if in that process.
    fn as_process(process_no: i32, work: impl FnOnce()) {
        let (own, slots) = (std::process::id() as i32, State::current().expect("the state").family.slots);
        this_process().become_process(own, process_no, process_no, slots.slot(process_no as usize).expect("a slot").trail());
        work();
        this_process().become_process(own, 0, 0, slots.slot(0).expect("a slot").trail());
    }

    /// A copy of everything that outlives a process.
    struct Image(Vec<(*mut u8, Vec<u8>)>);

    impl Image {
        fn take() -> Self {
            fn of<T>(slice: &[T]) -> (*mut u8, usize) {
                (slice.as_ptr().cast_mut().cast(), size_of_val(slice))
            }
            let tables = arena().tables();
            let parts = [
                (tables.start as *mut u8, ARENA_BYTES),
                (std::ptr::from_ref(tables.global).cast_mut().cast(), size_of_val(tables.global)),
                of(&tables.slots[..4]),
                of(&tables.slots[FOREIGN_SLOT..]),
                of(tables.pages),
                of(tables.used),
                of(tables.spans),
            ];
            // SAFETY: mapped memory of that size, which no other process uses now.
            Self(parts.map(|(start, size)| (start, unsafe { std::slice::from_raw_parts(start, size) }.to_vec())).into())
        }

        fn restore(&self) {
            for (start, bytes) in &self.0 {
                // SAFETY: as above.
                unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            }
        }
    }

    /// The state as seen from outside the allocator.
    #[derive(Debug, Clone, PartialEq)]
    struct Facts {
        entries: BTreeMap<Vec<u8>, Vec<u8>>,
        held: usize,
        /// Blocks that are neither an entry nor in a cell: those of the map itself.
        others: u64,
    }

    impl Facts {
        fn look() -> Self {
            let mut entries = BTreeMap::new();
            map()
                .scan(|key, value| {
                    assert!(entries.insert(key.to_vec(), value.to_vec()).is_none(), "an entry was seen twice");
                    Scan::Keep
                })
                .expect("a scan");
            assert_eq!(map().len(), entries.len(), "the map's own count");
            let bytes: usize = entries.iter().map(|(key, value)| 24 + key.len() + value.len()).sum();
            assert_eq!(map().bytes(), bytes as u64, "the map's own count of bytes");
            let held: Vec<u64> = (0..CELLS).map(|index| cell(index).load(SeqCst)).filter(|block| *block != 0).collect();
            assert_eq!(held.iter().collect::<HashSet<_>>().len(), held.len(), "two cells hold the same block");
            let blocks = arena().usage().sum().blocks;
            Self { held: held.len(), others: blocks.checked_sub((entries.len() + held.len()) as u64).expect("a block for each"), entries }
        }
    }

    fn prepare() {
        as_main::become_module(as_main::state(ARENA_BYTES), &CELL);
    }

    fn check(scenario: &Scenario, steps: usize, before: &Facts, after: &Facts) {
        let at = format!("\"{}\" killed after {steps} instructions", scenario.name);
        let now = Facts::look();
        let wrong = arena().tables().check();
        assert!(wrong.is_empty(), "{at}: {wrong:#?}");
        assert!(
            now.entries == before.entries || now.entries == after.entries || in_between(&now, before, after),
            "{at}: {:?}",
            now.entries
        );
        let held = before.held.min(after.held)..=before.held.max(after.held);
        assert!(held.contains(&now.held), "{at}: {} cells are in use, not {held:?}", now.held);
        // A block that no cell has is without owner. After a move, a cell may still have the old
        // address, as documented for `shm_realloc`.
        let stale = if scenario.name.contains("resize") || scenario.name.contains("move") { 1 } else { 0 };
        let others = before.others.min(after.others) - stale..=before.others.max(after.others) + scenario.may_lose;
        assert!(others.contains(&now.others), "{at}: {} blocks are without owner, not {others:?}", now.others);
    }

    /// Operations on several entries change one after the other: each has its old or its new value.
    fn in_between(now: &Facts, before: &Facts, after: &Facts) -> bool {
        let keys: HashSet<_> = before.entries.keys().chain(after.entries.keys()).collect();
        now.entries.keys().all(|key| keys.contains(key))
            && keys.into_iter().all(|key| {
                let value = now.entries.get(key);
                value == before.entries.get(key) || value == after.entries.get(key)
            })
    }

    /// Checks that a successor in the slot can work.
    fn use_slot() {
        as_victim(|| {
            for size in [100, 16_384] {
                if !(HOST_API.shm_malloc)(module(), size, 16, 0, cell(CELLS - 1).as_ptr().cast()).is_null() {
                    release(CELLS - 1);
                }
            }
            map().get(&key(3), |_| ()).expect("the map");
        });
        let wrong = arena().tables().check();
        assert!(wrong.is_empty(), "after more work: {wrong:#?}");
    }

    fn run(scenario: &Scenario, empty: &Image) -> usize {
        empty.restore();
        (scenario.set_up)();
        let (image, before) = (Image::take(), Facts::look());
        // Once to the end, for the expected result.
        as_victim(scenario.operation);
        let after = Facts::look();
        steps::kill_after_each(
            become_victim,
            scenario.operation,
            || image.restore(),
            |steps, pid| {
                let recover = || arena().recover(VICTIM as usize, pid).expect("recovery");
                if steps % 2 == 0 {
                    recover();
                    drop(arena().tables().lock_arena().expect("the lock"));
                } else {
                    // The next process to take the map's lock comes before main.
                    map().get(&key(3), |_| ()).expect("the map");
                    drop(arena().tables().lock_arena().expect("the lock"));
                    recover();
                }
                check(scenario, steps, &before, &after);
                use_slot();
            },
        )
    }

    /// In a new child: makes it the process that is killed.
    fn become_victim() {
        let trail = State::current().expect("the state").family.slots.slot(VICTIM as usize).expect("a slot").trail();
        this_process().become_process(std::process::id() as i32, VICTIM, VICTIM, trail);
    }

    pub fn main() {
        // SAFETY: sets a timer, so that a hanging recovery does not hang the test run.
        unsafe { libc::alarm(900) };
        let only = std::env::var("SCENARIO").ok();
        prepare();
        // The SDK's panic hook writes to the host's log, which does not exist here.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
        let empty = Image::take();
        let (begin, mut total) = (Instant::now(), 0);
        for scenario in scenarios() {
            if only.as_ref().is_some_and(|only| only != scenario.name) {
                continue;
            }
            let started = Instant::now();
            let deaths = run(&scenario, &empty);
            total += deaths;
            println!("{:40} {deaths:7} deaths  {:6.2} s", scenario.name, started.elapsed().as_secs_f64());
        }
        assert!(total > 0, "there is no such scenario");
        println!("{total} deaths survived in {:.1} s", begin.elapsed().as_secs_f64());
    }
}
