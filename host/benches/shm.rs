//! The cost of shared memory: `shm_malloc` and `shm_free` of mixed sizes through the host's table
//! of functions, compared with `malloc` and `free` of the C library in the same pattern; and the
//! operations of a map.
//!
//! `cargo bench -p modhost --bench shm -- ROUNDS` prints one line of JSON: nanoseconds per
//! allocation and free, by number of processes (not pinned, all at once), and nanoseconds per
//! operation of a map, by number of entries. One number per round. Each forked process measures
//! itself, and the slowest counts.

#[path = "../tests/as_main/mod.rs"]
mod as_main;

use std::ffi::c_void;
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use modhost::hostapi::HOST_API;
use modhost::state::State;
use modhost::sys::fast_fork::process_identity::this_process;
use module_api::export::{ModuleCell, SLOT};
use module_api::prelude::*;

/// Number of blocks that each process holds.
const ALIVE: usize = 1000;
const PAIRS: u64 = 1_000_000;

static MAP: OnceLock<ShmMap<[u8], [u8]>> = OnceLock::new();
static TIMES: OnceLock<Shm<[AtomicU64]>> = OnceLock::new();
static CELL: ModuleCell<Probe> = ModuleCell::new();

struct Probe;

impl module_api::Module for Probe {
    type Params = ();
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        MAP.set(cx.shm_map(MapOptions::default())?).map_err(|_| "twice")?;
        TIMES.set(cx.shm_slice(64)?).map_err(|_| "twice")?;
        Ok(Probe)
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

/// 70 % up to 256 bytes, 25 % up to 2 KiB, 5 % up to 16 KiB.
fn size(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let bits = (*state >> 20) as usize;
    match *state % 100 {
        0..70 => 16 + bits % 240,
        70..95 => 256 + bits % 1792,
        _ => 2048 + bits % 14_336,
    }
}

/// Nanoseconds per allocation and free, without the cost of the loop. Each pair replaces a random
/// block.
fn pairs(allocate: impl Fn(usize) -> *mut c_void, free: impl Fn(*mut c_void)) -> f64 {
    let mut blocks = [null_mut(); ALIVE];
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for block in &mut blocks {
        *block = allocate(size(&mut state));
    }
    let begun = Instant::now();
    for _ in 0..PAIRS {
        let size = size(&mut state);
        let block = &mut blocks[(state >> 33) as usize % ALIVE];
        free(*block);
        *block = allocate(size);
        assert!(!block.is_null());
    }
    let spent_ns = begun.elapsed().as_nanos() as f64;
    blocks.into_iter().for_each(free);
    let begun = Instant::now();
    for _ in 0..PAIRS {
        black_box(size(&mut state));
        black_box(&mut blocks[(state >> 33) as usize % ALIVE]);
    }
    (spent_ns - begun.elapsed().as_nanos() as f64) / PAIRS as f64
}

fn module() -> *mut c_void {
    // SAFETY: `become_module` has filled in the slot.
    unsafe { (*SLOT.as_ptr()).module }
}

fn ours() -> f64 {
    pairs(
        |size| (HOST_API.shm_malloc)(module(), size, 16, 0, null_mut()),
        |block| {
            (HOST_API.shm_free)(module(), block, null_mut());
        },
    )
}

/// The time of the slowest of that many processes at once.
fn at_once(processes: usize) -> f64 {
    let times = TIMES.get().expect("the cells").as_static();
    let children: Vec<libc::pid_t> = (1..=processes)
        .map(|process_no| {
            // SAFETY: this program has one thread.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let trail = State::current().expect("the state").family.slots.slot(process_no).expect("a slot").trail();
                this_process().become_process(std::process::id() as i32, process_no as i32, 1, trail);
                times[process_no].store((ours() * 1000.0) as u64, SeqCst);
                // SAFETY: ends this process, which has nothing to clean up.
                unsafe { libc::_exit(0) };
            }
            assert!(pid > 0, "fork");
            pid
        })
        .collect();
    for pid in children {
        let mut status = 0;
        // SAFETY: waits for a child of this process.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "a process failed");
    }
    times[1..=processes].iter().map(|time| time.load(SeqCst)).max().unwrap_or_default() as f64 / 1000.0
}

fn each(count: u64, mut operation: impl FnMut(u64)) -> f64 {
    let begun = Instant::now();
    (0..count).for_each(&mut operation);
    begun.elapsed().as_nanos() as f64 / count as f64
}

/// Nanoseconds per get, insertion, replacement and removal, with keys of 16 bytes in random order
/// and values of 100 bytes.
fn map_of(entries: u64) -> [f64; 4] {
    let map = MAP.get().expect("the map");
    let key = |number: u64| {
        let mut key = [b'k'; 16];
        key[..8].copy_from_slice(&(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % entries).to_le_bytes());
        key
    };
    let value = [7_u8; 100];
    let insert = each(entries, |number| {
        map.insert(&number.to_le_bytes().repeat(2), &value).expect("room");
    });
    map.scan(|_, _| Scan::Remove).expect("a scan");
    (0..entries).for_each(|number| {
        let mut key = [b'k'; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        map.insert(&key, &value).expect("room");
    });
    let get = each(entries, |number| assert!(map.get(&key(number), |value| value.is_some()).expect("a map")));
    let replace = each(entries, |number| {
        map.insert(&key(number), &value).expect("room");
    });
    let remove = each(entries, |number| {
        let mut key = [b'k'; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        assert!(map.remove(&key).expect("a map"));
    });
    [get, insert, replace, remove]
}

fn main() {
    // cargo adds an option.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let rounds: u32 = arguments.next().map_or(5, |rounds| rounds.parse().expect("a number of rounds"));
    as_main::become_module(as_main::state(1 << 30), &CELL);
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    let mut note = |name: String, value: f64| match rows.iter_mut().find(|row| row.0 == name) {
        Some(row) => row.1.push(value),
        None => rows.push((name, vec![value])),
    };
    for _ in 0..rounds {
        // SAFETY: sizes are above 0, and the freed blocks were allocated by the first closure.
        note("glibc_1_ns".into(), pairs(|size| unsafe { libc::malloc(size) }, |block| unsafe { libc::free(block) }));
        for processes in [1, 2, 8] {
            note(format!("shm_{processes}_ns"), at_once(processes));
        }
        for entries in [100_000, 1_000_000] {
            for (name, value) in ["get", "insert", "replace", "remove"].into_iter().zip(map_of(entries)) {
                note(format!("map_{name}_{entries}_ns"), value);
            }
        }
    }
    let row = |(name, values): &(String, Vec<f64>)| {
        format!("\"{name}\": [{}]", values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(", "))
    };
    println!("{{{}}}", rows.iter().map(row).collect::<Vec<_>>().join(", "));
}
