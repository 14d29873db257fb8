//! The fake host's process table: what a test has put into it.

use std::ffi::c_void;

use crate::abi::{self, HostInfo, ProcessRow};
use crate::fake::fake;
use crate::processes::ProcessState;

/// As much of the text as there is room for, with a NUL behind it.
fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut len = text.len().min(N - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    bytes
}

pub extern "C" fn process_at(_: *mut c_void, process_no: u32, row: *mut ProcessRow) -> i32 {
    fake(|fake| {
        if fake.max_procs < 0 {
            return fake.max_procs;
        }
        let Some(found) = fake.processes.get(process_no as usize) else { return abi::E_INVALID };
        let last = found.last.as_ref();
        let filled = ProcessRow {
            size: size_of::<ProcessRow>() as u32,
            process_no,
            rank: found.rank.number(),
            pid: found.pid.map_or(0, |pid| pid.get()),
            state: match found.state {
                ProcessState::Free => abi::PROCESS_FREE,
                ProcessState::Starting => abi::PROCESS_STARTING,
                ProcessState::Serving => abi::PROCESS_SERVING,
                ProcessState::Waiting => abi::PROCESS_WAITING,
                ProcessState::Ended => abi::PROCESS_ENDED,
                ProcessState::Unknown => u32::MAX,
            },
            restarts: found.restarts,
            uptime_ns: found.uptime.map_or(0, |uptime| uptime.as_nanos() as u64),
            name: fixed(&found.name),
            phase: fixed(last.map_or("", |last| &last.phase)),
            module: fixed(last.map_or("", |last| &last.module)),
        };
        // SAFETY: the crate under test passes a row of its own.
        unsafe { row.write(filled) };
        abi::OK
    })
}

pub extern "C" fn host_info(_: *mut c_void, info: *mut HostInfo) -> i32 {
    let filled = HostInfo { size: size_of::<HostInfo>() as u32, pid: 999, version: fixed("0.0.0") };
    // SAFETY: as above.
    unsafe { info.write(filled) };
    abi::OK
}
