//! The host's functions about listeners and datagrams.
//!
//! *Runs in:* main in `init_f` (`listen`), handlers (`udp_reply`...), any process from `PROC_INIT`
//! on (`udp_send`, `listener_...`). *Never:* believes a pointer's length without a limit.

use std::ffi::{CStr, c_void};
use std::mem::size_of;

use module_api::abi;
use nix::errno::Errno;

use super::{FROM_PROC_INIT, bytes, caller, guarded, name, out_of_phase, refuse, sealed};
use crate::config::ListenOptions;
use crate::config::address::{Scheme, parse_address};
use crate::error::{EXIT_FAILED, Error};
use crate::process::phase::Phase;
use crate::state::{InitRequests, ListenerRequest};
use crate::sys::socket::socket_address::{SOCKET_ADDRESS_BYTES, SocketAddress};
use crate::sys::udp::buffers::MAX_DATAGRAM_BYTES;
use crate::sys::udp::datagrams::Datagrams;

pub(super) extern "C" fn listen(module: *mut c_void, spec: *const abi::ListenSpec) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(requests)) = (caller(module), InitRequests::current()) else { return abi::E_INVALID };
        if phase != Phase::Init {
            return out_of_phase("listen", module, phase, "init_f");
        }
        // SAFETY: the ABI's contract: null, or a struct that starts with its size.
        let Some(spec) = (unsafe { spec.as_ref() }) else { return abi::E_INVALID };
        if (spec.size as usize) < size_of::<abi::ListenSpec>() || spec.address.is_null() {
            return abi::E_INVALID;
        }
        let scheme = match spec.kind {
            abi::HANDLER_UDP => Scheme::Udp,
            // The TCP workers serve all listeners for connections.
            abi::HANDLER_STREAM if spec.workers == 0 => Scheme::Tcp,
            _ => return abi::E_INVALID,
        };
        // SAFETY: the ABI's contract.
        let (address, handler) = unsafe { (CStr::from_ptr(spec.address).to_string_lossy(), name(spec.handler)) };
        let parsed = match parse_address(scheme, &address) {
            Ok(parsed) => parsed,
            Err(error) => {
                let what = format!("module \"{}\" asked for a listener at \"{address}\"", module.name);
                return refuse(abi::E_INVALID, &Error { what, exit: EXIT_FAILED, ..error });
            }
        };
        if module.handler(spec.kind, handler.as_deref()).is_none() {
            return refuse(
                abi::E_INVALID,
                &Error::failed(format!("module \"{}\" asked for a listener without a handler for it", module.name)).detail(address),
            );
        }
        let mut asked_for = requests.listeners();
        let workers = (spec.workers > 0).then_some(spec.workers);
        asked_for.push(ListenerRequest { addresses: vec![parsed], options: ListenOptions::default(), module, handler, workers });
        i32::try_from(requests.planned_listeners + asked_for.len() - 1).unwrap_or(abi::E_LIMIT)
    })
}

pub(super) extern "C" fn listener_find(module: *mut c_void, index: u32) -> i32 {
    guarded(abi::E_FAILED, || {
        let (module, state) = match sealed(module, "listener_find", FROM_PROC_INIT) {
            Ok(sealed) => sealed,
            Err(code) => return code,
        };
        let mut own = state.listeners.iter().filter(|listener| std::ptr::eq(listener.module, module));
        own.nth(index as usize).and_then(|listener| i32::try_from(listener.index).ok()).unwrap_or(abi::E_INVALID)
    })
}

pub(super) extern "C" fn listener_address(module: *mut c_void, listener: u32, address: *mut c_void, size: u32) -> i32 {
    listener_address_at(module, listener, 0, address, size)
}

pub(super) extern "C" fn listener_address_at(module: *mut c_void, listener: u32, nth: u32, address: *mut c_void, size: u32) -> i32 {
    guarded(abi::E_FAILED, || {
        let (_, state) = match sealed(module, "listener_address", FROM_PROC_INIT) {
            Ok(sealed) => sealed,
            Err(code) => return code,
        };
        let Some(socket) = state.listener(listener).and_then(|listener| listener.sockets.get(nth as usize)) else { return abi::E_INVALID };
        let name = socket.name.as_bytes();
        if address.is_null() || (size as usize) < name.len() {
            return abi::E_INVALID;
        }
        // SAFETY: the ABI's contract: `size` writable bytes, and `name` is not longer.
        unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), address.cast::<u8>(), name.len()) };
        name.len() as i32
    })
}

/// The buffers of a batch, if this process is handling that batch.
#[inline(always)]
fn datagrams_of(batch: *mut abi::UdpBatch) -> Option<&'static Datagrams> {
    crate::net::udp::serving(batch)
}

/// The code for the outcome of queuing an answer.
#[inline(always)]
fn queued(outcome: std::result::Result<(), Errno>) -> i32 {
    match outcome {
        Ok(()) => abi::OK,
        Err(Errno::EDESTADDRREQ) => abi::E_NO_PEER,
        Err(_) => abi::E_INVALID,
    }
}

pub(super) extern "C" fn udp_reply(_module: *mut c_void, batch: *mut abi::UdpBatch, index: u32, data: *const u8, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        // SAFETY: the ABI's contract: `len` readable bytes.
        let (Some(datagrams), data) = (datagrams_of(batch), unsafe { bytes(data, len) }) else { return abi::E_INVALID };
        queued(datagrams.copy(index as usize, data))
    })
}

pub(super) extern "C" fn udp_reply_borrowed(
    _module: *mut c_void,
    batch: *mut abi::UdpBatch,
    index: u32,
    data: *const u8,
    len: usize,
) -> i32 {
    guarded(abi::E_FAILED, || {
        let Some(datagrams) = datagrams_of(batch) else { return abi::E_INVALID };
        queued(datagrams.queue(index as usize, data, len))
    })
}

pub(super) extern "C" fn udp_reply_buffer(_module: *mut c_void, batch: *mut abi::UdpBatch, size: usize) -> *mut u8 {
    guarded(std::ptr::null_mut(), || datagrams_of(batch).and_then(|datagrams| datagrams.buffer(size)).unwrap_or(std::ptr::null_mut()))
}

pub(super) extern "C" fn udp_reply_commit(_module: *mut c_void, batch: *mut abi::UdpBatch, index: u32, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        let Some(datagrams) = datagrams_of(batch) else { return abi::E_INVALID };
        queued(datagrams.commit(index as usize, len))
    })
}

pub(super) extern "C" fn udp_send(
    module: *mut c_void,
    listener: u32,
    peer: *const c_void,
    peer_len: u32,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: the ABI's contract: as many readable bytes.
    unsafe { send(module, listener, None, (peer, peer_len), (data, len)) }
}

pub(super) extern "C" fn udp_send_from(
    module: *mut c_void,
    listener: u32,
    local: *const c_void,
    local_len: u32,
    peer: *const c_void,
    peer_len: u32,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: as above.
    unsafe { send(module, listener, Some((local, local_len)), (peer, peer_len), (data, len)) }
}

/// # Safety
/// Each pointer leads to as many readable bytes as the number beside it says.
unsafe fn send(
    module: *mut c_void,
    listener: u32,
    local: Option<(*const c_void, u32)>,
    peer: (*const c_void, u32),
    (data, len): (*const u8, usize),
) -> i32 {
    guarded(abi::E_FAILED, || {
        let (module, state) = match sealed(module, "udp_send", FROM_PROC_INIT) {
            Ok(sealed) => sealed,
            Err(code) => return code,
        };
        let Some(listener) = state.listener(listener).filter(|listener| listener.datagrams().is_some() && len <= MAX_DATAGRAM_BYTES) else {
            return abi::E_INVALID;
        };
        let name = |(start, len): (*const c_void, u32)| {
            if len as usize > SOCKET_ADDRESS_BYTES {
                return None;
            }
            // SAFETY: the caller's contract; a length that no address has is not read.
            SocketAddress::from_bytes(unsafe { bytes(start.cast(), len as usize) })
        };
        let Some(peer) = name(peer) else { return abi::E_INVALID };
        // SAFETY: the caller's contract.
        let data = unsafe { bytes(data, len) };
        let outcome = match local.map(name) {
            None => listener.send(&peer, data),
            Some(Some(local)) => listener.send_from(&local, &peer, data),
            Some(None) => return abi::E_INVALID,
        };
        match outcome {
            Ok(()) => {
                crate::stats::count(crate::stats::HostCounter::Sent, 1);
                abi::OK
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS) => abi::E_BUSY,
            Err(Errno::EINVAL | Errno::EMSGSIZE | Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => abi::E_INVALID,
            Err(errno) => {
                tracing::debug!("a datagram could not be sent module=\"{}\" listener=\"{listener}\": sendmsg: {errno}", module.name);
                abi::E_SYSTEM
            }
        }
    })
}
