//! The fake host's connections: what a handler queues during one call.

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
    /// The process that serves it.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "read by authors' tests"))]
    pub process_no: i32,
    /// Queued bytes that the peer has not taken.
    pub queue: Vec<u8>,
    /// In bytes.
    pub high_water: usize,
    /// Whether this call of the handler was refused something because the queue was full.
    pub refused: bool,
    /// How the handler has ended it, `CLOSE_*`.
    pub close: Option<u32>,
    pub paused: bool,
    /// Whether a queued file was shorter than the handler said.
    pub cut_off: bool,
    /// The last `stream_buffer`.
    pub lent: Vec<u8>,
}

pub(super) const fn fill(mut api: HostApi) -> HostApi {
    api.stream_write = stream_write;
    api.stream_buffer = stream_buffer;
    api.stream_commit = stream_commit;
    api.stream_write_file = stream_write_file;
    api.stream_queued = stream_queued;
    api.stream_read = stream_read;
    api.stream_close = stream_close;
    api.stream_send = stream_send;
    api
}

/// Calls `f` with the connection if a handler is running about `stream`.
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

extern "C" fn stream_write(_: *mut c_void, stream: *mut Stream, data: *const u8, len: usize) -> i32 {
    let data = bytes(data, len);
    during(stream, |connection| queue(connection, &data)).unwrap_or(E_INVALID)
}

extern "C" fn stream_buffer(_: *mut c_void, stream: *mut Stream, size: usize) -> *mut u8 {
    let lend = |connection: &mut Connection| {
        connection.lent = vec![b'.'; size];
        match size <= MAX_BUFFER_BYTES && open_for_more(connection) == OK {
            true => connection.lent.as_mut_ptr(),
            false => std::ptr::null_mut(),
        }
    };
    during(stream, lend).unwrap_or(std::ptr::null_mut())
}

extern "C" fn stream_commit(_: *mut c_void, stream: *mut Stream, len: usize) -> i32 {
    let commit = |connection: &mut Connection| {
        let lent = std::mem::take(&mut connection.lent);
        let Some(data) = lent.get(..len) else { return E_INVALID };
        connection.queue.extend_from_slice(data);
        OK
    };
    during(stream, commit).unwrap_or(E_INVALID)
}

extern "C" fn stream_write_file(_: *mut c_void, stream: *mut Stream, descriptor: c_int, offset: u64, len: u64) -> i32 {
    if descriptor < 0 {
        return E_INVALID;
    }
    // SAFETY: the descriptor stays the caller's: it is open for the length of the call, and not
    // closed here.
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

extern "C" fn stream_queued(_: *mut c_void, stream: *mut Stream) -> i64 {
    during(stream, |connection| connection.queue.len() as i64).unwrap_or(i64::from(E_INVALID))
}

extern "C" fn stream_read(_: *mut c_void, stream: *mut Stream, on: u32) -> i32 {
    during(stream, |connection| connection.paused = on == 0).map_or(E_INVALID, |()| OK)
}

extern "C" fn stream_close(_: *mut c_void, stream: *mut Stream, how: u32) -> i32 {
    let close = |connection: &mut Connection| {
        // The strongest request so far holds.
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

extern "C" fn stream_send(_: *mut c_void, id: u64, data: *const u8, len: usize) -> i32 {
    if len > MAX_SEND_BYTES {
        return E_INVALID;
    }
    let data = bytes(data, len);
    fake(|fake| fake.connections.get_mut(&id).map_or(E_GONE, |connection| queue(connection, &data)))
}
