//! A host for tests: the table of functions, over state per test thread. It serves this crate's own
//! tests and [`testing`](crate::testing).
//!
//! Each file fills in the functions of one topic; every other function is refused (`refusals`).
//! Never part of a build for use.

mod counting;
mod datagrams;
mod memory;
mod processes;
mod refusals;
pub mod stream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex as Lock, Once, PoisonError};

use crate::abi::*;
use crate::host::SLOT;

pub use counting::STAT_HOME;
pub use datagrams::{Reply, SentFrom};
pub use memory::FakeMutex;
pub use processes::{FakeTimer, Fork};

/// Highest level of the records that are kept.
pub static LOG_LEVEL: AtomicU32 = AtomicU32::new(LEVEL_DEBUG);

/// What the module has told its host, and what the host will answer, in the thread of one test.
#[derive(Default)]
pub struct Fake {
    /// Level, target and text of each record.
    pub log: Vec<(u32, String, String)>,
    pub error: Option<String>,
    pub random_calls: u64,
    pub process: ProcessInfo,
    pub max_procs: i32,
    pub registered: i32,
    pub forks: Vec<Fork>,
    pub timers: Vec<FakeTimer>,
    /// Bytes of shared memory left.
    pub memory: usize,
    /// Blocks that may be freed: size and alignment by address.
    pub blocks: HashMap<usize, (usize, usize)>,
    pub mutexes: HashMap<usize, FakeMutex>,
    /// Address, handler and workers of each listener that the module asked for.
    pub listens: Vec<(String, Option<String>, u32)>,
    pub replies: Vec<(u32, Vec<u8>, Reply)>,
    /// Listener, peer and data of each `udp_send`.
    pub sent: Vec<(u32, Vec<u8>, Vec<u8>)>,
    pub sent_from: Vec<SentFrom>,
    /// What the next calls about counters return, if not 0.
    pub stat_code: i32,
    stats: Vec<counting::FakeStat>,
    /// The last `udp_reply_buffer`.
    buffer: Vec<u8>,
    /// The process table.
    pub processes: Vec<crate::ProcessRow>,
    /// Names of `timers`, in their order.
    pub timer_names: Vec<String>,
    /// Names of `forks`, in their order.
    pub fork_names: Vec<String>,
    /// Seed of `random`.
    pub seed: u64,
    /// Addresses of the listeners by their numbers; none: the fixed listener that a few tests of
    /// this crate expect.
    pub listeners: Option<Vec<SocketAddr>>,
    /// The connections that are not over, by their ids.
    pub connections: HashMap<u64, stream::Connection>,
    /// Address and id of the connection about which a handler is running.
    pub stream_call: Option<(usize, u64)>,
    /// How many connections there have been.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "connections are opened by authors' tests"))]
    pub connected: u64,
}

// SAFETY: its pointers are values that the host only passes back to the module. They lead to data
// that the module keeps for good.
unsafe impl Send for Fake {}

impl Fake {
    pub fn new() -> Fake {
        Fake { max_procs: E_PHASE, memory: 1 << 20, ..Fake::default() }
    }
}

/// A state that one thread uses, and perhaps others.
pub type Shared = Arc<Lock<Fake>>;

thread_local! {
    /// The host of this thread.
    static OWN: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// The host of the threads without their own: those that a module started under
/// [`testing`](crate::testing).
static CURRENT: Lock<Option<Shared>> = Lock::new(None);

/// Reads or changes the state of this thread's host. `change` must not call the host.
pub fn fake<R>(change: impl FnOnce(&mut Fake) -> R) -> R {
    // A thread that ends may still log.
    let own = OWN.try_with(|own| own.borrow().clone()).ok().flatten();
    let shared = own.or_else(|| CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_else(|| {
        let new: Shared = Arc::new(Lock::new(Fake::new()));
        let _ = OWN.try_with(|own| own.replace(Some(Arc::clone(&new))));
        new
    });
    change(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Makes `state` the host of this thread and of all threads without their own; none: there is no
/// such host any more.
#[cfg(feature = "testing")]
pub fn become_current(state: Option<Shared>) {
    OWN.set(state.clone());
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = state;
}

/// Fills the slot, as the loader does.
pub fn install() {
    static FILL: Once = Once::new();
    FILL.call_once(|| {
        // SAFETY: every test that reads the slot has called this function first.
        unsafe {
            *SLOT.as_ptr() =
                HostSlot { api: &raw const API, log_level: &raw const LOG_LEVEL, stat_home: &raw const STAT_HOME, ..HostSlot::EMPTY }
        }
    });
}

static API: HostApi = calls(counting::fill(datagrams::fill(memory::fill(processes::fill(stream::fill(refusals::TABLE))))));

/// The functions of this file.
const fn calls(mut api: HostApi) -> HostApi {
    api.log = log;
    api.set_error = set_error;
    api.random = random;
    api.interface_enter = interface_enter;
    api.interface_leave = interface_leave;
    api.error_text = error_text;
    api
}

fn bytes(data: *const u8, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    // SAFETY: the crate under test passes valid pointers.
    unsafe { std::slice::from_raw_parts(data, len) }.to_vec()
}

fn text(data: *const u8, len: usize) -> String {
    String::from_utf8(bytes(data, len)).unwrap()
}

fn c_text(text: *const c_char) -> String {
    // SAFETY: the crate under test passes text that ends with a NUL.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
}

extern "C" fn log(_: *mut c_void, level: u32, target: *const u8, target_len: usize, line: *const u8, len: usize) {
    fake(|fake| fake.log.push((level, text(target, target_len), text(line, len))));
}

extern "C" fn set_error(_: *mut c_void, line: *const u8, len: usize) {
    fake(|fake| fake.error = Some(text(line, len)));
}

extern "C" fn random(_: *mut c_void, buffer: *mut u8, len: usize) -> i32 {
    for at in 0..len {
        // A scrambled counter: the same in each run, different for each seed.
        let next = fake(|fake| {
            fake.random_calls += 1;
            let mixed = (fake.seed ^ fake.random_calls.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
        });
        // SAFETY: the crate under test passes `len` writable bytes.
        unsafe { buffer.add(at).write((next >> 56) as u8) };
    }
    OK
}

extern "C" fn interface_enter(_: *mut c_void) -> u64 {
    0
}

extern "C" fn interface_leave(_: *mut c_void, _: u64, _: i32) {}

extern "C" fn error_text(_: *mut c_void, buffer: *mut u8, size: usize) -> usize {
    let text = fake(|fake| fake.error.take()).unwrap_or_default();
    let len = text.len().min(size);
    // SAFETY: the crate under test passes `size` writable bytes.
    unsafe { buffer.copy_from_nonoverlapping(text.as_ptr(), len) };
    len
}
