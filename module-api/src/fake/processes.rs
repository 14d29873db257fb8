//! The fake host's processes: forks and timers that a module asks for, and the process table that a
//! test has set.

use std::ffi::c_void;

use super::{c_text, fake};
use crate::abi::*;
use crate::processes::ProcessState;

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

pub const fn fill(mut api: HostApi) -> HostApi {
    api.process_info = process_info;
    api.max_procs = max_procs;
    api.register_procs = register_procs;
    api.fork_process_entry = fork_process_entry;
    api.timer_add = timer_add;
    api.process_at = process_at;
    api.host_info = host_info;
    api
}

extern "C" fn process_info(_: *mut c_void, info: *mut ProcessInfo) -> i32 {
    // SAFETY: the crate under test passes a valid pointer.
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

extern "C" fn fork_process_entry(_: *mut c_void, spec: *const ForkSpec) -> i32 {
    // SAFETY: the crate under test passes a valid pointer.
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

extern "C" fn timer_add(_: *mut c_void, spec: *const TimerSpec) -> i32 {
    // SAFETY: the crate under test passes a valid pointer.
    let spec = unsafe { &*spec };
    let TimerSpec { process, first_ns, period_ns, data, .. } = *spec;
    fake(|fake| {
        fake.timer_names.push(c_text(spec.name));
        fake.timers.push(FakeTimer { process, first_ns, period_ns, function: spec.function.unwrap(), data });
    });
    OK
}

/// The text, cut to what fits, with a NUL after it.
fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut len = text.len().min(N - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    bytes
}

extern "C" fn process_at(_: *mut c_void, process_no: u32, row: *mut ProcessRow) -> i32 {
    fake(|fake| {
        if fake.max_procs < 0 {
            return fake.max_procs;
        }
        let Some(found) = fake.processes.get(process_no as usize) else { return E_INVALID };
        let last = found.last.as_ref();
        let mut filled = ProcessRow { size: size_of::<ProcessRow>() as u32, process_no, ..ProcessRow::EMPTY };
        filled.rank = found.rank.number();
        filled.pid = found.pid.map_or(0, |pid| pid.get());
        filled.state = match found.state {
            ProcessState::Free => PROCESS_FREE,
            ProcessState::Starting => PROCESS_STARTING,
            ProcessState::Serving => PROCESS_SERVING,
            ProcessState::Waiting => PROCESS_WAITING,
            ProcessState::Ended => PROCESS_ENDED,
            ProcessState::Unknown => u32::MAX,
        };
        filled.restarts = found.restarts;
        filled.uptime_ns = found.uptime.map_or(0, |uptime| uptime.as_nanos() as u64);
        filled.name = fixed(&found.name);
        filled.phase = fixed(last.map_or("", |last| &last.phase));
        filled.module = fixed(last.map_or("", |last| &last.module));
        // SAFETY: the crate under test passes a valid pointer.
        unsafe { row.write(filled) };
        OK
    })
}

extern "C" fn host_info(_: *mut c_void, info: *mut HostInfo) -> i32 {
    let mut filled = HostInfo { size: size_of::<HostInfo>() as u32, ..HostInfo::EMPTY };
    (filled.pid, filled.version) = (999, fixed("0.0.0"));
    // SAFETY: as above.
    unsafe { info.write(filled) };
    OK
}
