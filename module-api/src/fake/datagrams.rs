//! The fake host's listeners, and what handlers answer and send.

use std::ffi::c_void;

use super::{bytes, c_text, fake};
use crate::abi::*;
use crate::sockaddr::RawAddress;

/// Longest datagram, in bytes.
const MAX_DATAGRAM_BYTES: usize = 65_507;

/// One `udp_send_from`: listener, local address, peer, data.
pub type SentFrom = (u32, Vec<u8>, Vec<u8>, Vec<u8>);

/// The function that an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Copied,
    Borrowed,
    Buffer,
}

pub const fn fill(mut api: HostApi) -> HostApi {
    api.listen = listen;
    api.listener_find = listener_find;
    api.listener_address = listener_address;
    api.listener_address_at = listener_address_at;
    api.udp_reply = udp_reply;
    api.udp_reply_borrowed = udp_reply_borrowed;
    api.udp_reply_buffer = udp_reply_buffer;
    api.udp_reply_commit = udp_reply_commit;
    api.udp_send = udp_send;
    api.udp_send_from = udp_send_from;
    api
}

extern "C" fn listen(_: *mut c_void, spec: *const ListenSpec) -> i32 {
    // SAFETY: the crate under test passes a valid pointer.
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
        // SAFETY: the crate under test passes `size` writable bytes, which are enough.
        unsafe { address.cast::<u8>().copy_from_nonoverlapping(raw.as_ptr(), raw.len() as usize) };
        return raw.len() as i32;
    }
    let bound = [2, 0, 0x13, 0xc4, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0_u8];
    assert!(size as usize >= bound.len());
    // SAFETY: as above.
    unsafe { address.cast::<[u8; 16]>().write(bound) };
    bound.len() as i32
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

fn reply(index: u32, data: Vec<u8>, kind: Reply) -> i32 {
    if data.len() > MAX_DATAGRAM_BYTES {
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
    if size > MAX_DATAGRAM_BYTES {
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
