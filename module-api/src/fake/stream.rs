//! The connections of the fake host: there are none, so each function says that this is not one.

use std::ffi::{c_int, c_void};

use crate::abi::{self, Stream};

pub(super) extern "C" fn stream_write(_: *mut c_void, _: *mut Stream, _: *const u8, _: usize) -> i32 {
    abi::E_INVALID
}

pub(super) extern "C" fn stream_buffer(_: *mut c_void, _: *mut Stream, _: usize) -> *mut u8 {
    std::ptr::null_mut()
}

pub(super) extern "C" fn stream_commit(_: *mut c_void, _: *mut Stream, _: usize) -> i32 {
    abi::E_INVALID
}

pub(super) extern "C" fn stream_write_file(_: *mut c_void, _: *mut Stream, _: c_int, _: u64, _: u64) -> i32 {
    abi::E_INVALID
}

pub(super) extern "C" fn stream_queued(_: *mut c_void, _: *mut Stream) -> i64 {
    i64::from(abi::E_INVALID)
}

pub(super) extern "C" fn stream_read(_: *mut c_void, _: *mut Stream, _: u32) -> i32 {
    abi::E_INVALID
}

pub(super) extern "C" fn stream_close(_: *mut c_void, _: *mut Stream, _: u32) -> i32 {
    abi::E_INVALID
}

pub(super) extern "C" fn stream_send(_: *mut c_void, _: u64, _: *const u8, _: usize) -> i32 {
    abi::E_LIMIT
}
