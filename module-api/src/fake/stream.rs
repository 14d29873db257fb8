//! The fake host's functions about connections: what a handler queues during one call.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

use super::{bytes, fake};
use crate::abi::*;

/// Longest buffer that a handler can borrow.
const MAX_BUFFER_BYTES: usize = 16 << 20;
/// Most bytes that one `stream_send` carries.
const MAX_SEND_BYTES: usize = 64 << 10;

/// A connection of the fake host.
#[derive(Debug, Default)]
pub struct Connection {
    /// The process that has it.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "read by authors' tests"))]
    pub process_no: i32,
    /// What is queued and was not taken by the peer.
    pub queue: Vec<u8>,
    pub high_water: usize,
    /// Something was refused in this call because the queue was full.
    pub refused: bool,
    /// How the handler has ended it.
    pub close: Option<u32>,
    pub paused: bool,
    /// A queued file was shorter than the handler said.
    pub cut_off: bool,
    pub lent: Vec<u8>,
}

/// Calls `f` with the connection if `stream` is that of the call that is running.
fn during<R>(stream: *mut Stream, f: impl FnOnce(&mut Connection) -> R) -> Option<R> {
    fake(|fake| {
        let (address, id) = fake.stream_call?;
        (stream.addr() == address).then_some(())?;
        fake.connections.get_mut(&id).map(f)
    })
}

fn open_for_more(connection: &mut Connection) -> i32 {
    if connection.close.is_some() {
        return E_GONE;
    }
    if connection.queue.len() >= connection.high_water {
        connection.refused = true;
        return E_BUSY;
    }
    OK
}

fn queue(connection: &mut Connection, data: &[u8]) -> i32 {
    let code = open_for_more(connection);
    if code == OK {
        connection.queue.extend_from_slice(data);
    }
    code
}

pub extern "C" fn stream_write(_: *mut c_void, stream: *mut Stream, data: *const u8, len: usize) -> i32 {
    let data = bytes(data, len);
    during(stream, |connection| queue(connection, &data)).unwrap_or(E_INVALID)
}

pub extern "C" fn stream_buffer(_: *mut c_void, stream: *mut Stream, size: usize) -> *mut u8 {
    let lend = |connection: &mut Connection| {
        connection.lent = vec![b'.'; size];
        match size <= MAX_BUFFER_BYTES && open_for_more(connection) == OK {
            true => connection.lent.as_mut_ptr(),
            false => std::ptr::null_mut(),
        }
    };
    during(stream, lend).unwrap_or(std::ptr::null_mut())
}

pub extern "C" fn stream_commit(_: *mut c_void, stream: *mut Stream, len: usize) -> i32 {
    let commit = |connection: &mut Connection| {
        let lent = std::mem::take(&mut connection.lent);
        let Some(data) = lent.get(..len) else { return E_INVALID };
        connection.queue.extend_from_slice(data);
        OK
    };
    during(stream, commit).unwrap_or(E_INVALID)
}

pub extern "C" fn stream_write_file(_: *mut c_void, stream: *mut Stream, descriptor: c_int, offset: u64, len: u64) -> i32 {
    if descriptor < 0 {
        return E_INVALID;
    }
    // SAFETY: only borrowed: the descriptor is the caller's for the length of the call, and is not closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
    let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
    let (mut filled, mut failed) = (0, false);
    while filled < data.len() && !failed {
        match file.read_at(&mut data[filled..], offset + filled as u64) {
            Ok(count) if count > 0 => filled += count,
            _ => failed = true,
        }
    }
    let append = |connection: &mut Connection| {
        let code = queue(connection, &data[..filled]);
        connection.cut_off |= code == OK && failed;
        code
    };
    during(stream, append).unwrap_or(E_INVALID)
}

pub extern "C" fn stream_queued(_: *mut c_void, stream: *mut Stream) -> i64 {
    during(stream, |connection| connection.queue.len() as i64).unwrap_or(i64::from(E_INVALID))
}

pub extern "C" fn stream_read(_: *mut c_void, stream: *mut Stream, on: u32) -> i32 {
    during(stream, |connection| connection.paused = on == 0).map_or(E_INVALID, |()| OK)
}

pub extern "C" fn stream_close(_: *mut c_void, stream: *mut Stream, how: u32) -> i32 {
    let close = |connection: &mut Connection| {
        // The stronger wish stands.
        connection.close = Some(match (connection.close, how) {
            (Some(CLOSE_NOW), _) | (_, CLOSE_NOW) => CLOSE_NOW,
            (Some(CLOSE_AFTER_SENDING), _) | (_, CLOSE_AFTER_SENDING) => CLOSE_AFTER_SENDING,
            _ => CLOSE_SENDING_SIDE,
        });
    };
    if how > CLOSE_SENDING_SIDE {
        return E_INVALID;
    }
    during(stream, close).map_or(E_INVALID, |()| OK)
}

pub extern "C" fn stream_send(_: *mut c_void, id: u64, data: *const u8, len: usize) -> i32 {
    if len > MAX_SEND_BYTES {
        return E_INVALID;
    }
    let data = bytes(data, len);
    fake(|fake| fake.connections.get_mut(&id).map_or(E_GONE, |connection| queue(connection, &data)))
}
