//! The host's functions about counters: registering and reading. Counting itself makes no call.
//!
//! *Runs in:* main, in `init_f` and `PROC_INIT` (registering); any process and thread from
//! `PROC_INIT` on (reading). *Never:* believes a pointer's length without a limit.

use std::ffi::{CStr, c_char, c_void};
use std::mem::size_of;

use module_api::abi;
use module_api::stats::{Kind, Part, Unit};

use super::{FROM_PROC_INIT, caller, guarded, out_of_phase, refuse, sealed};
use crate::module::call;
use crate::process::phase::Phase;
use crate::state::MainMemory;
use crate::stats::registry::Registry;
use crate::stats::registry::StatRequest;

/// # Safety
/// `text` is null or a NUL-terminated string.
unsafe fn whole(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

pub(super) extern "C" fn stat_register(module: *mut c_void, spec: *const abi::StatSpec, first: *mut *mut c_void) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(memory)) = (caller(module), MainMemory::current()) else { return abi::E_INVALID };
        if !matches!(phase, Phase::Init | Phase::ProcInit) {
            return out_of_phase("stat_register", module, phase, "init_f and init_child_f(PROC_INIT)");
        }
        // SAFETY: the ABI's contract: null, or a struct that starts with its size.
        let Some(spec) = (unsafe { spec.as_ref() }) else { return abi::E_INVALID };
        if (spec.size as usize) < size_of::<abi::StatSpec>() || first.is_null() || spec.name.is_null() {
            return abi::E_INVALID;
        }
        let (Some(kind), Some(unit)) = (Kind::from_number(spec.kind), Unit::from_number(spec.unit)) else { return abi::E_INVALID };
        if spec.bounds.is_null() != (spec.bound_count == 0) || spec.bound_count > abi::STAT_MAX_BOUNDS || !spec.bounds.is_aligned() {
            return abi::E_INVALID;
        }
        let bounds = if spec.bounds.is_null() {
            Vec::new()
        } else {
            // SAFETY: the ABI's contract: as many numbers; checked to be few and aligned.
            unsafe { std::slice::from_raw_parts(spec.bounds, spec.bound_count as usize) }.to_vec()
        };
        // SAFETY: the ABI's contract.
        let (name, help) = unsafe { (whole(spec.name), whole(spec.help)) };
        match memory.stats.register(&module.name, StatRequest { name, help, kind, unit, flags: spec.flags, bounds }) {
            Ok(address) => {
                // SAFETY: the ABI's contract: writable; checked not to be null.
                unsafe { first.write(std::ptr::with_exposed_provenance_mut(address)) };
                abi::OK
            }
            Err(error) => {
                call::set_error(&error.to_string());
                refuse(abi::E_INVALID, &error)
            }
        }
    })
}

/// The counters. Before they can be read: the code for the caller.
fn readable(handle: *mut c_void, what: &str) -> Result<&'static Registry, i32> {
    sealed(handle, what, FROM_PROC_INIT)?;
    MainMemory::current().map(|memory| &memory.stats).ok_or(abi::E_INVALID)
}

pub(super) extern "C" fn stat_info(module: *mut c_void, index: u32, info: *mut abi::StatInfo) -> i32 {
    guarded(abi::E_FAILED, || {
        let stats = match readable(module, "stat_info") {
            Ok(stats) => stats,
            Err(code) => return code,
        };
        // SAFETY: the ABI's contract: null, or a struct whose size the caller has set.
        let Some(size) = (unsafe { info.as_ref() }).map(|info| info.size) else { return abi::E_INVALID };
        let (true, Some(entry)) = (size as usize >= size_of::<abi::StatInfo>(), stats.entry(index as usize)) else {
            return abi::E_INVALID;
        };
        let what = &entry.what;
        let filled = abi::StatInfo {
            size,
            kind: match what.kind {
                Kind::Counter => abi::STAT_COUNTER,
                Kind::Gauge => abi::STAT_GAUGE,
                Kind::Histogram => abi::STAT_HISTOGRAM,
            },
            flags: entry.flags,
            unit: match what.unit {
                Unit::Bytes => abi::UNIT_BYTES,
                Unit::Nanoseconds => abi::UNIT_NS,
                _ => abi::UNIT_NONE,
            },
            module: entry.module.as_ptr(),
            name: entry.name.as_ptr(),
            help: entry.help.as_ptr(),
            bounds: if what.bounds.is_empty() { std::ptr::null() } else { what.bounds.as_ptr() },
            bound_count: what.bounds.len() as u32,
            words: what.words() as u32,
        };
        // SAFETY: checked above: at least as large as ours.
        unsafe { info.write(filled) };
        abi::OK
    })
}

pub(super) extern "C" fn stat_read(module: *mut c_void, index: u32, process_no: i32, words: *mut u64, count: u32) -> i32 {
    guarded(abi::E_FAILED, || {
        let stats = match readable(module, "stat_read") {
            Ok(stats) => stats,
            Err(code) => return code,
        };
        let Some(entry) = stats.entry(index as usize) else { return abi::E_INVALID };
        let part = match process_no {
            abi::STAT_ALL => Part::All,
            abi::STAT_OUTSIDE => Part::Outside,
            process_no => match usize::try_from(process_no) {
                Ok(process_no) => Part::Process(process_no),
                Err(_) => return abi::E_INVALID,
            },
        };
        let there_are = entry.what.words();
        let wanted = (count as usize).min(there_are);
        if words.is_null() || !words.is_aligned() {
            return abi::E_INVALID;
        }
        // SAFETY: the ABI's contract: `count` writable words, of which no more than there are get
        // written.
        let words = unsafe {
            words.write_bytes(0, wanted);
            std::slice::from_raw_parts_mut(words, wanted)
        };
        if stats.read(entry, part, words) { there_are as i32 } else { abi::E_INVALID }
    })
}
