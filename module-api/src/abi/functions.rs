//! The host's functions for modules.

use core::ffi::{c_char, c_int, c_void};

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

use super::{DeadOwner, ForkSpec, HostInfo, ListenSpec, Mutex, ProcessInfo, ProcessRow, StatInfo, StatSpec, Stream, TimerSpec, UdpBatch};

/// First eight bytes of the host's table of functions: the bytes `HOSTAPI` and 1.
pub const HOST_MAGIC: u64 = u64::from_le_bytes(*b"HOSTAPI\x01");

/// The one list of the host's functions, in the order of the table, passed to another macro. The
/// struct, the host's table, the fake host's table and the tests are made from it.
///
/// A new function is added at the end. It touches this file, `include/modhost.h`, a file of
/// `host/src/hostapi` (where the function has the same name), the SDK's file for it,
/// `abi-1.0.golden` and `docs/abi.md`; and a file of `fake`, unless the fake host is to refuse it.
///
/// Each function also gets the handle of the calling module
/// ([`HostSlot::module`](super::HostSlot::module)) as its first argument. All pointers are borrowed
/// for the call.
#[doc(hidden)]
#[macro_export]
macro_rules! __host_functions {
    ($($then:tt)+) => { $($then)+! {
        /// Any process, phase and thread (a module may start threads in its children). Writes one
        /// record to the host's log. `target` may be null with a length of 0.
        fn log(level: u32, target: *const u8, target_len: usize, text: *const u8, text_len: usize);
        /// Any process and phase. The text that goes with a failing return of the current entry;
        /// the last one counts.
        fn set_error(text: *const u8, text_len: usize);
        /// Any process, phase and thread. Fills `buffer` from the kernel's random generator.
        /// Returns 0 or `E_SYSTEM`.
        fn random(buffer: *mut u8, len: usize) -> i32;
        /// Any process, phase and thread. Returns 0 or `E_INVALID`.
        fn process_info(info: *mut ProcessInfo) -> i32;
        /// From `PROC_INIT` on, the exact size of the process table; before, `E_PHASE`.
        fn max_procs() -> i32;

        /// `init_f` only. Announces `count` (at least 1) later forks. Returns 0, `E_PHASE`,
        /// `E_INVALID` or `E_LIMIT`.
        fn register_procs(count: i32) -> i32;
        /// `PROC_MAIN` only. Returns the pid in main, 0 in the child, negative on error. The child
        /// is not restarted.
        fn fork_process(rank: i32, name: *const c_char, flags: u32) -> i32;
        /// `PROC_MAIN` only. The child runs `spec.entry(spec.data)` and exits with 0, or with 1 if
        /// that returns a negative number. Returns the pid or a negative code, in main only. The
        /// child is restarted by policy.
        fn fork_process_entry(spec: *const ForkSpec) -> i32;

        // Calls from module to module.
        /// Any process and phase, in the thread in which the host calls modules. To be called first
        /// in a function that another module calls: from here on the host blames the calling
        /// handle's module. Returns the value for `interface_leave`.
        fn interface_enter() -> u64;
        /// To be called last in that function, with what it returns. After `E_PANIC` the host's
        /// call that contains this one fails.
        fn interface_leave(outer: u64, code: i32);
        /// Any process and phase. Copies the first `size` bytes of the last `set_error`'s text, of
        /// any module, and forgets it. Returns the number of bytes copied, 0 if there is no text.
        fn error_text(buffer: *mut u8, size: usize) -> usize;

        // Shared memory.
        /// `init_f` and `PROC_INIT`. Zeroed memory at one address in every process, never freed;
        /// `align` is a power of two up to 4096. Null when exhausted, out of phase or misaligned;
        /// the log says which.
        fn shm_alloc(size: usize, align: usize) -> *mut c_void;
        /// Any process, phase and thread. A block of at least `size` bytes at one address in every
        /// process; `align` is a power of two up to 4096, `flags` are `SHM_*`. Null when exhausted
        /// or impossible; the log says which. `into` is null, or an aligned pointer in shared
        /// memory to which the block's address is written too: if the process is killed at any
        /// instruction of this call, either it has written the address, or the block is free again.
        fn shm_malloc(size: usize, align: usize, flags: u32, into: *mut *mut c_void) -> *mut c_void;
        /// Any process, phase and thread. Resizes the block in place, or copies its content to a
        /// new one; for a null `block` allocates. Null when exhausted, and for a block that is not
        /// allocated: the old block is unchanged. A `size` of 0 frees.
        fn shm_realloc(block: *mut c_void, size: usize) -> *mut c_void;
        /// Any process, phase and thread, whichever process allocated the block; null does nothing.
        /// `from` is null, or an aligned pointer in shared memory that holds `block` and to which
        /// null is written: if the process is killed at any instruction of this call, either `from`
        /// is unchanged and the block allocated, or the block is free and `from` null once the slot
        /// is recovered. Returns 0, or `E_INVALID` if `block` is not an allocated block.
        fn shm_free(block: *mut c_void, from: *mut *mut c_void) -> i32;

        /// Before first use, by one process. `mutex` must be in shared memory. Returns 0 or a code.
        fn mutex_init(mutex: *mut Mutex) -> i32;
        /// Returns 0, `OWNER_DIED` (held; `dead` is filled in if not null; repair the data, then
        /// call `mutex_repaired`), or a negative code.
        fn mutex_lock(mutex: *mut Mutex, dead: *mut DeadOwner) -> i32;
        /// As `mutex_lock`, but returns `E_BUSY` instead of waiting.
        fn mutex_trylock(mutex: *mut Mutex, dead: *mut DeadOwner) -> i32;
        /// By the holder, after `OWNER_DIED`: the data is whole again.
        fn mutex_repaired(mutex: *mut Mutex) -> i32;
        /// By the holder. After `OWNER_DIED` without `mutex_repaired` the lock becomes unusable
        /// (`E_NOT_RECOVERABLE`).
        fn mutex_unlock(mutex: *mut Mutex) -> i32;

        /// `init_f` and `PROC_INIT`. Returns 0 or a negative code.
        fn timer_add(spec: *const TimerSpec) -> i32;

        // Listeners and datagrams.
        /// `init_f` only. Returns the listener's number or a negative code; it is bound after every
        /// `init_f`.
        fn listen(spec: *const ListenSpec) -> i32;
        /// From `PROC_INIT` on. Number of the `index`-th listener that this module's handlers
        /// serve, or `E_INVALID`.
        fn listener_find(index: u32) -> i32;
        /// From `PROC_INIT` on. Writes the bound address as a socket address; returns its length in
        /// bytes or a negative code.
        fn listener_address(listener: u32, address: *mut c_void, size: u32) -> i32;

        /// In a datagram handler. Queues a copy of `data` as an answer to the `index`-th datagram.
        /// Returns 0, `E_INVALID` or `E_NO_PEER`.
        fn udp_reply(batch: *mut UdpBatch, index: u32, data: *const u8, len: usize) -> i32;
        /// In a datagram handler. Queues `data` without copying: it must stay unchanged until the
        /// handler has returned and the batch is sent. The batch's own datagrams and constants do.
        fn udp_reply_borrowed(batch: *mut UdpBatch, index: u32, data: *const u8, len: usize) -> i32;
        /// In a datagram handler. A host buffer of `size` bytes (at most 65,507) for an answer,
        /// with arbitrary initialised content, valid until the next call about this batch; null if
        /// `size` is too large.
        fn udp_reply_buffer(batch: *mut UdpBatch, size: usize) -> *mut u8;
        /// In a datagram handler. Queues the first `len` bytes of the last `udp_reply_buffer` as an
        /// answer to the `index`-th datagram.
        fn udp_reply_commit(batch: *mut UdpBatch, index: u32, len: usize) -> i32;
        /// Any process and thread from `PROC_INIT` on. Sends one datagram from a listener's socket
        /// at once. Returns 0, `E_INVALID`, `E_BUSY` or `E_SYSTEM`.
        fn udp_send(listener: u32, peer: *const c_void, peer_len: u32, data: *const u8, len: usize) -> i32;

        // Connections. All but `stream_send`: in a function of the stream's handler, about its own
        // connection.
        /// Queues a copy of `data`. Returns 0, `E_BUSY` if the queue has reached its high-water
        /// mark, `E_INVALID`, or `E_GONE` after a close.
        fn stream_write(stream: *mut Stream, data: *const u8, len: usize) -> i32;
        /// A host buffer of `size` bytes (at most 16 MiB) at the end of the queue, with arbitrary
        /// initialised content, valid until the next call about this connection or the handler's
        /// return. Null where `stream_write` would fail.
        fn stream_buffer(stream: *mut Stream, size: usize) -> *mut u8;
        /// Queues the first `len` bytes of the last `stream_buffer`. Returns 0 or `E_INVALID`.
        fn stream_commit(stream: *mut Stream, len: usize) -> i32;
        /// Queues `len` bytes of a file from `offset` on. The descriptor is duplicated; the caller
        /// keeps its own. Returns what `stream_write` does, or `E_SYSTEM`.
        fn stream_write_file(stream: *mut Stream, descriptor: c_int, offset: u64, len: u64) -> i32;
        /// Bytes queued and not sent yet, including those queued during this call of the handler;
        /// negative on error.
        fn stream_queued(stream: *mut Stream) -> i64;
        /// With `on` 0, no more data is read or delivered until it is called with 1. Returns 0 or
        /// `E_INVALID`.
        fn stream_read(stream: *mut Stream, on: u32) -> i32;
        /// Ends the connection, `CLOSE_*`. Nothing can be queued afterwards. Returns 0 or
        /// `E_INVALID`.
        fn stream_close(stream: *mut Stream, how: u32) -> i32;
        /// From `PROC_MAIN` on, in a process with a link to the TCP main process
        /// (`FORK_MAKE_SOCK`), in a TCP worker, and in main in no-fork mode. Queues `data` (at most
        /// 65,536 bytes) on the connection `id` and waits, at most 100 ms, until its worker has
        /// taken it. Returns 0, `E_GONE`, `E_BUSY`, `E_INVALID`, `E_LIMIT` (no link), or `E_SYSTEM`
        /// (no answer: it is unknown whether the data was sent).
        fn stream_send(id: u64, data: *const u8, len: usize) -> i32;

        /// From `PROC_INIT` on. As `listener_address`, for the `nth` address of the listener;
        /// `E_INVALID` past the last.
        fn listener_address_at(listener: u32, nth: u32, address: *mut c_void, size: u32) -> i32;
        /// As `udp_send`, from that address of the listener: one that it is bound to, or one of
        /// this machine if it is bound to all. `E_INVALID` also if it cannot send from there.
        fn udp_send_from(
            listener: u32,
            local: *const c_void,
            local_len: u32,
            peer: *const c_void,
            peer_len: u32,
            data: *const u8,
            len: usize,
        ) -> i32;

        // Counters.
        /// `init_f` and `PROC_INIT`. Writes the address to count at, which
        /// [`StatHome`](super::StatHome) explains, to `first`. Returns 0, `E_PHASE`, `E_INVALID`
        /// (also for a name that is taken) or `E_LIMIT`.
        fn stat_register(spec: *const StatSpec, first: *mut *mut c_void) -> i32;
        /// From `PROC_INIT` on, any process and thread. Describes the `index`-th counter of all
        /// modules and the host. Returns 0, `E_PHASE`, or `E_INVALID` past the last.
        fn stat_info(index: u32, info: *mut StatInfo) -> i32;
        /// From `PROC_INIT` on, any process and thread. Writes up to `count` words: of one process,
        /// or `STAT_ALL`, or `STAT_OUTSIDE`. Returns the number of words of that counter, `E_PHASE`
        /// or `E_INVALID`.
        fn stat_read(index: u32, process_no: i32, words: *mut u64, count: u32) -> i32;

        // The host itself.
        /// From `PROC_INIT` on, any process and thread. Fills in a row of the process table, word
        /// by word while others write. Returns 0, `E_PHASE`, or `E_INVALID` past the last.
        fn process_at(process_no: u32, row: *mut ProcessRow) -> i32;
        /// From `PROC_INIT` on, any process and thread. Returns 0, `E_PHASE` or `E_INVALID`.
        fn host_info(info: *mut HostInfo) -> i32;
    } };
}

macro_rules! declare_host_api {
    ($( $(#[$meta:meta])* fn $name:ident($($args:tt)*) $(-> $ret:ty)?; )*) => {
        c_struct! {
            /// The host's functions. Each takes the module's handle
            /// ([`HostSlot::module`](super::HostSlot::module)) first. All pointers are borrowed for
            /// the call. Functions are only ever appended.
            #[repr(C)]
            #[cfg_attr(feature = "layout", derive(StableAbi))]
            #[cfg_attr(feature = "layout", sabi(kind(Prefix(prefix_ref = HostApiRef, prefix_fields = HostApiPrefix))))]
            pub struct HostApi as modhost_api without EMPTY {
                /// [`HOST_MAGIC`].
                pub magic: u64,
                /// [`ABI_MAJOR`](super::ABI_MAJOR) of the host.
                pub abi_major: u16,
                /// [`ABI_MINOR`](super::ABI_MINOR) of the host.
                pub abi_minor: u16,
                /// Size of this table in bytes.
                pub size: u32,
                $( $(#[$meta])* pub $name: extern "C" fn(module: *mut c_void, $($args)*) $(-> $ret)?, )*
            }
        }
    };
}
__host_functions!(declare_host_api);

/// A host's table: a [`HostApi`](crate::abi::HostApi) whose functions are those of the same names
/// that are in scope. Does not compile if one is missing.
#[doc(hidden)]
#[macro_export]
macro_rules! host_api {
    () => {
        $crate::__host_functions!($crate::__host_api_of)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __host_api_of {
    ($( $(#[$meta:meta])* fn $name:ident($($args:tt)*) $(-> $ret:ty)?; )*) => {
        $crate::abi::HostApi {
            magic: $crate::abi::HOST_MAGIC,
            abi_major: $crate::abi::ABI_MAJOR,
            abi_minor: $crate::abi::ABI_MINOR,
            size: ::core::mem::size_of::<$crate::abi::HostApi>() as u32,
            $( $name, )*
        }
    };
}
