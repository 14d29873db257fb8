//! The host's functions about connections.
//!
//! *Runs in:* the process that serves the connection, inside a call of its handler; `stream_send`
//! in any process with a link. *Never:* sends, or touches a connection other than that of the
//! running call: requests are collected, and carried out when the handler has returned.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::raw::c_int;

use module_api::abi;

use super::{bytes, guarded, sealed};
use crate::net::stream::directory::ConnectionId;
use crate::net::stream::handler_call::{CloseMode, HandlerCall, Reading, WriteRefusal};
use crate::net::stream::sender;
use crate::sys::fast_fork::process_identity::this_process;

/// The code for a refusal, or for a connection other than that of the running call.
#[inline(always)]
fn code(outcome: Option<Result<(), WriteRefusal>>) -> i32 {
    match outcome {
        Some(Ok(())) => abi::OK,
        Some(Err(WriteRefusal::Busy)) => abi::E_BUSY,
        Some(Err(WriteRefusal::Gone)) => abi::E_GONE,
        Some(Err(WriteRefusal::System)) => abi::E_SYSTEM,
        Some(Err(WriteRefusal::Invalid)) | None => abi::E_INVALID,
    }
}

pub extern "C" fn stream_write(_module: *mut c_void, stream: *mut abi::Stream, data: *const u8, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        // SAFETY: the ABI's contract: `len` readable bytes.
        let data = unsafe { bytes(data, len) };
        code(HandlerCall::during(stream, |call| call.write(data)))
    })
}

pub extern "C" fn stream_buffer(_module: *mut c_void, stream: *mut abi::Stream, size: usize) -> *mut u8 {
    guarded(std::ptr::null_mut(), || match HandlerCall::during(stream, |call| call.buffer(size)) {
        Some(Ok(buffer)) => buffer,
        Some(Err(_)) | None => std::ptr::null_mut(),
    })
}

pub extern "C" fn stream_commit(_module: *mut c_void, stream: *mut abi::Stream, len: usize) -> i32 {
    guarded(abi::E_FAILED, || code(HandlerCall::during(stream, |call| call.commit(len))))
}

pub extern "C" fn stream_write_file(_module: *mut c_void, stream: *mut abi::Stream, descriptor: c_int, offset: u64, len: u64) -> i32 {
    guarded(abi::E_FAILED, || {
        if descriptor < 0 {
            return abi::E_INVALID;
        }
        // SAFETY: the descriptor is borrowed from the caller for the length of the call, and not
        // closed here.
        let file = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(descriptor) });
        code(HandlerCall::during(stream, |call| call.write_file(&file, offset, len)))
    })
}

pub extern "C" fn stream_queued(_module: *mut c_void, stream: *mut abi::Stream) -> i64 {
    guarded(i64::from(abi::E_FAILED), || {
        HandlerCall::during(stream, |call| i64::try_from(call.queued_bytes()).unwrap_or(i64::MAX)).unwrap_or(i64::from(abi::E_INVALID))
    })
}

pub extern "C" fn stream_read(_module: *mut c_void, stream: *mut abi::Stream, on: u32) -> i32 {
    let reading = if on == 0 { Reading::Pause } else { Reading::Resume };
    guarded(abi::E_FAILED, || HandlerCall::during(stream, |call| call.set_reading(reading)).map_or(abi::E_INVALID, |()| abi::OK))
}

pub extern "C" fn stream_close(_module: *mut c_void, stream: *mut abi::Stream, how: u32) -> i32 {
    guarded(abi::E_FAILED, || {
        let how = match how {
            abi::CLOSE_AFTER_SENDING => CloseMode::AfterSending,
            abi::CLOSE_NOW => CloseMode::Now,
            abi::CLOSE_SENDING_SIDE => CloseMode::SendingSide,
            _ => return abi::E_INVALID,
        };
        HandlerCall::during(stream, |call| call.close(how)).map_or(abi::E_INVALID, |()| abi::OK)
    })
}

pub extern "C" fn stream_send(module: *mut c_void, id: u64, data: *const u8, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        let state = match sealed(module, "stream_send", "init_child_f(PROC_MAIN) and everywhere after it") {
            Ok((_, state)) => state,
            Err(code) => return code,
        };
        // Without listeners there are no connections.
        let Some(directory) = state.directory else { return abi::E_GONE };
        let process_no = this_process().process_no();
        let link = usize::try_from(process_no).ok().and_then(|process_no| state.family.own_end(process_no));
        // SAFETY: the ABI's contract: `len` readable bytes.
        sender::send(directory, link, process_no as u32, ConnectionId(id), unsafe { bytes(data, len) })
    })
}
