//! A host for this crate's own tests: every function of the table, with state per test thread.
//!
//! Never part of a build for use.

pub mod processes;
pub mod stream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Lock, Once, PoisonError};

use crate::abi::*;
use crate::host::SLOT;
use crate::sockaddr::RawAddress;

/// Records up to this level are wanted.
pub static LOG_LEVEL: AtomicU32 = AtomicU32::new(LEVEL_DEBUG);

/// Where this process counts; see `stats/tests.rs`.
pub static STAT_HOME: StatHome = StatHome { thread: AtomicUsize::new(0), own: AtomicUsize::new(0), threads: AtomicUsize::new(0) };
/// Words of each of the three places of one counter.
const STAT_WORDS: usize = 1024;

/// What the host has been told and will answer, in the thread of one test.
#[derive(Default)]
pub struct Fake {
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
    pub listens: Vec<(String, Option<String>, u32)>,
    pub replies: Vec<(u32, Vec<u8>, Reply)>,
    pub sent: Vec<(u32, Vec<u8>, Vec<u8>)>,
    pub sent_from: Vec<SentFrom>,
    /// What the next calls about counters return, if not 0.
    pub stat_code: i32,
    stats: Vec<FakeStat>,
    buffer: Vec<u8>,
    /// The process table.
    pub processes: Vec<crate::ProcessRow>,
    /// Names that go with `timers` and `forks`.
    pub timer_names: Vec<String>,
    pub fork_names: Vec<String>,
    /// Random bytes begin with this.
    pub seed: u64,
    /// The listeners by their numbers; none: as a few tests of this crate expect it.
    pub listeners: Option<Vec<SocketAddr>>,
    /// The connections that are not over, by their ids.
    pub connections: HashMap<u64, stream::Connection>,
    /// Address and id of the connection about which a handler is running.
    pub stream_call: Option<(usize, u64)>,
    /// How many connections there have been.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "connections are opened by authors' tests"))]
    pub connected: u64,
}

// SAFETY: the pointers in it are values that are handed back to the module; what they lead to is the module's, for good.
unsafe impl Send for Fake {}

/// A counter with its places: outside, own thread, other threads.
struct FakeStat {
    name: CString,
    help: CString,
    kind: u32,
    unit: u32,
    bounds: &'static [u64],
    words: &'static [AtomicU64; 3 * STAT_WORDS],
}

impl Fake {
    /// What stands in the first words of the `index`-th counter.
    #[cfg(test)]
    pub fn stat_words(&self, index: usize, skip: usize, count: usize) -> Vec<u64> {
        self.stats[index].words[STAT_WORDS + skip..][..count].iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

/// By `udp_send_from`: listener, local, peer, data.
pub type SentFrom = (u32, Vec<u8>, Vec<u8>, Vec<u8>);

#[derive(Clone, Copy)]
pub struct Fork {
    pub rank: i32,
    pub flags: u32,
    pub entry: extern "C" fn(*mut c_void) -> i32,
    pub data: *mut c_void,
}

#[derive(Clone, Copy)]
pub struct FakeTimer {
    pub process: u32,
    pub first_ns: u64,
    pub period_ns: u64,
    pub function: extern "C" fn(*mut c_void, u64) -> i32,
    pub data: *mut c_void,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeMutex {
    Free,
    Held,
    OwnerDied,
    HeldDamaged,
    NotRecoverable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Copied,
    Borrowed,
    Buffer,
}

impl Fake {
    pub fn new() -> Fake {
        Fake { max_procs: E_PHASE, memory: 1 << 20, ..Fake::default() }
    }
}

/// A state that a thread uses, and maybe others.
pub type Shared = Arc<Lock<Fake>>;

thread_local! {
    /// The host of this thread.
    static OWN: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// The host of the threads that have none of their own: those that a module started under [`testing`](crate::testing).
static CURRENT: Lock<Option<Shared>> = Lock::new(None);

/// Reads or changes the state of this thread's host. Calls nothing that calls the host.
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

/// Makes a state that of this thread and of all that have none, or nobody's.
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
            *SLOT.as_ptr() = HostSlot {
                api: &raw const API,
                module: std::ptr::null_mut(),
                log_level: &raw const LOG_LEVEL,
                stat_home: &raw const STAT_HOME,
            }
        }
    });
}

static API: HostApi = HostApi {
    magic: HOST_MAGIC,
    abi_major: ABI_MAJOR,
    abi_minor: ABI_MINOR,
    size: size_of::<HostApi>() as u32,
    log,
    set_error,
    random,
    process_info,
    max_procs,
    register_procs,
    fork_process,
    fork_process_entry,
    interface_enter,
    interface_leave,
    error_text,
    shm_alloc,
    shm_malloc,
    shm_realloc,
    shm_free,
    mutex_init,
    mutex_lock,
    mutex_trylock,
    mutex_repaired,
    mutex_unlock,
    timer_add,
    listen,
    listener_find,
    listener_address,
    udp_reply,
    udp_reply_borrowed,
    udp_reply_buffer,
    udp_reply_commit,
    udp_send,
    stream_write: stream::stream_write,
    stream_buffer: stream::stream_buffer,
    stream_commit: stream::stream_commit,
    stream_write_file: stream::stream_write_file,
    stream_queued: stream::stream_queued,
    stream_read: stream::stream_read,
    stream_close: stream::stream_close,
    stream_send: stream::stream_send,
    listener_address_at,
    udp_send_from,
    stat_register,
    stat_info,
    stat_read,
    process_at: processes::process_at,
    host_info: processes::host_info,
};

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
    // SAFETY: as above.
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
        // A counter, scattered: the same with each run, and with each seed another one.
        let next = fake(|fake| {
            fake.random_calls += 1;
            let mixed = (fake.seed ^ fake.random_calls.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
        });
        // SAFETY: as above.
        unsafe { buffer.add(at).write((next >> 56) as u8) };
    }
    OK
}

extern "C" fn process_info(_: *mut c_void, info: *mut ProcessInfo) -> i32 {
    // SAFETY: as above.
    unsafe { *info = ProcessInfo { size: (*info).size, ..fake(|fake| fake.process) } };
    OK
}

extern "C" fn max_procs(_: *mut c_void) -> i32 {
    fake(|fake| fake.max_procs)
}

extern "C" fn register_procs(_: *mut c_void, count: i32) -> i32 {
    if count < 1 {
        return E_INVALID;
    }
    fake(|fake| fake.registered += count);
    OK
}

extern "C" fn fork_process(_: *mut c_void, _: i32, _: *const c_char, _: u32) -> i32 {
    E_FAILED
}

extern "C" fn fork_process_entry(_: *mut c_void, spec: *const ForkSpec) -> i32 {
    // SAFETY: as above.
    let spec = unsafe { &*spec };
    fake(|fake| {
        if fake.forks.len() as i32 == fake.registered {
            return E_LIMIT;
        }
        fake.fork_names.push(c_text(spec.name));
        fake.forks.push(Fork { rank: spec.rank, flags: spec.flags, entry: spec.entry.unwrap(), data: spec.data });
        1000 + fake.forks.len() as i32
    })
}

extern "C" fn interface_enter(_: *mut c_void) -> u64 {
    0
}

extern "C" fn interface_leave(_: *mut c_void, _: u64, _: i32) {}

extern "C" fn error_text(_: *mut c_void, buffer: *mut u8, size: usize) -> usize {
    let text = fake(|fake| fake.error.take()).unwrap_or_default();
    let len = text.len().min(size);
    // SAFETY: as above.
    unsafe { buffer.copy_from_nonoverlapping(text.as_ptr(), len) };
    len
}

extern "C" fn shm_alloc(_: *mut c_void, size: usize, align: usize) -> *mut c_void {
    let layout = std::alloc::Layout::from_size_align(size, align).unwrap();
    fake(|fake| match fake.memory.checked_sub(size) {
        Some(left) => {
            fake.memory = left;
            // SAFETY: the size is not zero.
            unsafe { std::alloc::alloc_zeroed(layout) }.cast()
        }
        None => std::ptr::null_mut(),
    })
}

extern "C" fn shm_malloc(module: *mut c_void, size: usize, align: usize, _: u32, into: *mut *mut c_void) -> *mut c_void {
    let block = shm_alloc(module, size, align);
    if !block.is_null() {
        fake(|fake| fake.blocks.insert(block.addr(), (size, align)));
        if !into.is_null() {
            // SAFETY: as above.
            unsafe { *into = block };
        }
    }
    block
}

extern "C" fn shm_realloc(module: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void {
    let Some((old, align)) = fake(|fake| fake.blocks.get(&block.addr()).copied()) else { return std::ptr::null_mut() };
    let new = shm_malloc(module, size, align, 0, std::ptr::null_mut());
    if !new.is_null() {
        // SAFETY: both are blocks of at least that size.
        unsafe { block.cast::<u8>().copy_to_nonoverlapping(new.cast(), old.min(size)) };
        shm_free(module, block, std::ptr::null_mut());
    }
    new
}

extern "C" fn shm_free(_: *mut c_void, block: *mut c_void, from: *mut *mut c_void) -> i32 {
    let Some((size, align)) = fake(|fake| fake.blocks.remove(&block.addr())) else { return E_INVALID };
    fake(|fake| fake.memory += size);
    if !from.is_null() {
        // SAFETY: as above.
        unsafe { *from = std::ptr::null_mut() };
    }
    // SAFETY: `shm_alloc` made it with this layout.
    unsafe { std::alloc::dealloc(block.cast(), std::alloc::Layout::from_size_align(size, align).unwrap()) };
    OK
}

extern "C" fn mutex_init(_: *mut c_void, mutex: *mut Mutex) -> i32 {
    fake(|fake| fake.mutexes.insert(mutex.addr(), FakeMutex::Free));
    OK
}

extern "C" fn mutex_lock(_: *mut c_void, mutex: *mut Mutex, dead: *mut DeadOwner) -> i32 {
    fake(|fake| {
        let state = fake.mutexes.get_mut(&mutex.addr()).unwrap();
        let (next, code) = match *state {
            FakeMutex::Free => (FakeMutex::Held, OK),
            FakeMutex::OwnerDied => (FakeMutex::HeldDamaged, OWNER_DIED),
            FakeMutex::NotRecoverable => (FakeMutex::NotRecoverable, E_NOT_RECOVERABLE),
            held => (held, E_DEADLOCK),
        };
        *state = next;
        if code == OWNER_DIED {
            // SAFETY: as above.
            unsafe { *dead = DeadOwner { pid: 4711, process_no: 3 } };
        }
        code
    })
}

extern "C" fn mutex_trylock(module: *mut c_void, mutex: *mut Mutex, dead: *mut DeadOwner) -> i32 {
    match mutex_lock(module, mutex, dead) {
        E_DEADLOCK => E_BUSY,
        code => code,
    }
}

extern "C" fn mutex_repaired(_: *mut c_void, mutex: *mut Mutex) -> i32 {
    fake(|fake| fake.mutexes.insert(mutex.addr(), FakeMutex::Held));
    OK
}

extern "C" fn mutex_unlock(_: *mut c_void, mutex: *mut Mutex) -> i32 {
    fake(|fake| {
        let state = fake.mutexes.get_mut(&mutex.addr()).unwrap();
        *state = if *state == FakeMutex::HeldDamaged { FakeMutex::NotRecoverable } else { FakeMutex::Free };
    });
    OK
}

extern "C" fn timer_add(_: *mut c_void, spec: *const TimerSpec) -> i32 {
    // SAFETY: as above.
    let spec = unsafe { &*spec };
    let TimerSpec { process, first_ns, period_ns, data, .. } = *spec;
    fake(|fake| {
        fake.timer_names.push(c_text(spec.name));
        fake.timers.push(FakeTimer { process, first_ns, period_ns, function: spec.function.unwrap(), data });
    });
    OK
}

extern "C" fn listen(_: *mut c_void, spec: *const ListenSpec) -> i32 {
    // SAFETY: as above.
    let spec = unsafe { &*spec };
    let handler = (!spec.handler.is_null()).then(|| c_text(spec.handler));
    fake(|fake| {
        let address = c_text(spec.address);
        fake.listens.push((address.clone(), handler, spec.workers));
        let Some(listeners) = &mut fake.listeners else { return fake.listens.len() as i32 - 1 };
        let Ok(address) = address.parse() else { return E_INVALID };
        listeners.push(address);
        listeners.len() as i32 - 1
    })
}

extern "C" fn listener_find(_: *mut c_void, index: u32) -> i32 {
    fake(|fake| match &fake.listeners {
        Some(listeners) if (index as usize) < listeners.len() => index as i32,
        None if index == 0 => 5,
        _ => E_INVALID,
    })
}

extern "C" fn listener_address(_: *mut c_void, listener: u32, address: *mut c_void, size: u32) -> i32 {
    if let Some(listeners) = fake(|fake| fake.listeners.clone()) {
        let Some(bound) = listeners.get(listener as usize) else { return E_INVALID };
        let raw = RawAddress::inet(*bound);
        assert!(size >= raw.len());
        // SAFETY: as above; there is room for it.
        unsafe { address.cast::<u8>().copy_from_nonoverlapping(raw.as_ptr(), raw.len() as usize) };
        return raw.len() as i32;
    }
    let bound = [2, 0, 0x13, 0xc4, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0_u8];
    assert!(size as usize >= bound.len());
    // SAFETY: as above.
    unsafe { address.cast::<[u8; 16]>().write(bound) };
    bound.len() as i32
}

fn reply(index: u32, data: Vec<u8>, kind: Reply) -> i32 {
    if data.len() > 65_507 {
        return E_INVALID;
    }
    fake(|fake| fake.replies.push((index, data, kind)));
    OK
}

extern "C" fn udp_reply(_: *mut c_void, _: *mut UdpBatch, index: u32, data: *const u8, len: usize) -> i32 {
    reply(index, bytes(data, len), Reply::Copied)
}

extern "C" fn udp_reply_borrowed(_: *mut c_void, _: *mut UdpBatch, index: u32, data: *const u8, len: usize) -> i32 {
    reply(index, bytes(data, len), Reply::Borrowed)
}

extern "C" fn udp_reply_buffer(_: *mut c_void, _: *mut UdpBatch, size: usize) -> *mut u8 {
    if size > 65_507 {
        return std::ptr::null_mut();
    }
    fake(|fake| {
        fake.buffer = vec![b'.'; size];
        fake.buffer.as_mut_ptr()
    })
}

extern "C" fn udp_reply_commit(_: *mut c_void, _: *mut UdpBatch, index: u32, len: usize) -> i32 {
    let data = fake(|fake| fake.buffer[..len].to_vec());
    reply(index, data, Reply::Buffer)
}

extern "C" fn udp_send(_: *mut c_void, listener: u32, peer: *const c_void, peer_len: u32, data: *const u8, len: usize) -> i32 {
    fake(|fake| fake.sent.push((listener, bytes(peer.cast(), peer_len as usize), bytes(data, len))));
    OK
}

extern "C" fn listener_address_at(module: *mut c_void, listener: u32, nth: u32, address: *mut c_void, size: u32) -> i32 {
    match nth {
        0 => listener_address(module, listener, address, size),
        1 => {
            let bound = *b"\x01\0/run/x\0";
            assert!(size as usize >= bound.len());
            // SAFETY: as above.
            unsafe { address.cast::<[u8; 9]>().write(bound) };
            bound.len() as i32
        }
        _ => E_INVALID,
    }
}

extern "C" fn udp_send_from(
    _: *mut c_void,
    listener: u32,
    local: *const c_void,
    local_len: u32,
    peer: *const c_void,
    peer_len: u32,
    data: *const u8,
    len: usize,
) -> i32 {
    let (local, peer) = (bytes(local.cast(), local_len as usize), bytes(peer.cast(), peer_len as usize));
    fake(|fake| fake.sent_from.push((listener, local, peer, bytes(data, len))));
    OK
}

extern "C" fn stat_register(_: *mut c_void, spec: *const StatSpec, first: *mut *mut c_void) -> i32 {
    // SAFETY: as above.
    let spec = unsafe { &*spec };
    fake(|fake| {
        if fake.stat_code != OK {
            return fake.stat_code;
        }
        let words: &'static [AtomicU64; 3 * STAT_WORDS] = Box::leak(Box::new([const { AtomicU64::new(0) }; 3 * STAT_WORDS]));
        let bounds: &[u64] = if spec.bounds.is_null() {
            &[]
        } else {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts(spec.bounds, spec.bound_count as usize) }
        };
        let (name, help) = (CString::new(c_text(spec.name)).unwrap(), CString::new(c_text(spec.help)).unwrap());
        fake.stats.push(FakeStat { name, help, kind: spec.kind, unit: spec.unit, bounds: bounds.to_vec().leak(), words });
        // SAFETY: as above.
        unsafe { first.write(std::ptr::from_ref(words).cast_mut().cast()) };
        OK
    })
}

extern "C" fn stat_info(_: *mut c_void, index: u32, info: *mut StatInfo) -> i32 {
    fake(|fake| {
        let Some(stat) = fake.stats.get(index as usize).filter(|_| fake.stat_code == OK) else { return E_INVALID };
        let (kind, unit, bounds) = (stat.kind, stat.unit, stat.bounds);
        // SAFETY: as above.
        unsafe {
            info.write(StatInfo {
                size: size_of::<StatInfo>() as u32,
                kind,
                flags: 0,
                unit,
                module: c"fake".as_ptr(),
                name: stat.name.as_ptr(),
                help: stat.help.as_ptr(),
                bounds: if bounds.is_empty() { std::ptr::null() } else { bounds.as_ptr() },
                bound_count: bounds.len() as u32,
                words: 0,
            });
        }
        OK
    })
}

extern "C" fn stat_read(_: *mut c_void, index: u32, process_no: i32, words: *mut u64, count: u32) -> i32 {
    fake(|fake| {
        let places = match process_no {
            STAT_ALL => 0..3,
            STAT_OUTSIDE => 0..1,
            _ => 1..3,
        };
        for word in 0..count as usize {
            let sum = places.clone().map(|place| fake.stats[index as usize].words[place * STAT_WORDS + word].load(Ordering::Relaxed));
            // SAFETY: as above.
            unsafe { words.add(word).write(sum.fold(0, u64::wrapping_add)) };
        }
        count as i32
    })
}
