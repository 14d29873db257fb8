//! The host's functions about the process table and the host itself.
//!
//! *Runs in:* any process and thread, from `PROC_INIT` on. *Never:* believes the contents of the
//! table, beyond the bounds of a row.

use std::ffi::c_void;
use std::mem::size_of;
use std::sync::atomic::Ordering::Relaxed;

use module_api::abi;

use super::{FROM_PROC_INIT, guarded, sealed};
use crate::process::phase::Breadcrumb;
use crate::process::slots::{Slot, SlotState};
use crate::sys::time;

/// The size in the first word of the caller's struct, if it covers `T`.
///
/// # Safety
/// `first` is null or points to a number.
unsafe fn covered<T>(first: *const u32) -> Option<u32> {
    if first.is_null() || !first.cast::<T>().is_aligned() {
        return None;
    }
    // SAFETY: the caller's contract; checked not to be null.
    let size = unsafe { first.read() };
    (size as usize >= size_of::<T>()).then_some(size)
}

/// As much of the text as fits, in whole characters, followed by a NUL. Control characters become
/// question marks.
fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut len = 0;
    for character in text.chars().map(|character| if character.is_control() { '?' } else { character }) {
        let end = len + character.len_utf8();
        if end >= N {
            break;
        }
        character.encode_utf8(&mut bytes[len..end]);
        len = end;
    }
    bytes
}

/// A row for modules. Any process may have written anything to the slot. `named` returns a module's
/// name by its index.
fn filled<'m>(size: u32, process_no: u32, slot: Slot, now_ns: u64, named: impl FnOnce(u32) -> Option<&'m str>) -> abi::ProcessRow {
    let pid = slot.pid().max(0);
    let crumb = Breadcrumb::from_word(slot.trail().load(Relaxed));
    let module = crumb.module.and_then(named);
    abi::ProcessRow {
        size,
        process_no,
        rank: slot.rank(),
        pid,
        state: match slot.state() {
            SlotState::Free => abi::PROCESS_FREE,
            SlotState::Starting => abi::PROCESS_STARTING,
            SlotState::Serving => abi::PROCESS_SERVING,
            SlotState::Waiting => abi::PROCESS_WAITING,
            SlotState::Ended => abi::PROCESS_ENDED,
        },
        restarts: slot.restarts(),
        uptime_ns: if pid > 0 { now_ns.saturating_sub(slot.forked_ns()) } else { 0 },
        name: fixed(&slot.name()),
        phase: module.map_or([0; 40], |_| fixed(&crumb.phase.to_string())),
        module: fixed(module.unwrap_or_default()),
    }
}

pub(super) extern "C" fn process_at(module: *mut c_void, process_no: u32, row: *mut abi::ProcessRow) -> i32 {
    guarded(abi::E_FAILED, || {
        let state = match sealed(module, "process_at", FROM_PROC_INIT) {
            Ok((_, state)) => state,
            Err(code) => return code,
        };
        // SAFETY: the ABI's contract: null, or a struct whose size the caller has set.
        let Some(size) = (unsafe { covered::<abi::ProcessRow>(row.cast()) }) else { return abi::E_INVALID };
        let slots = state.family.slots;
        let index = process_no as usize;
        let Some(slot) = slots.slot(index).filter(|_| index < slots.count()) else { return abi::E_INVALID };
        let filled = filled(size, process_no, slot, time::now_ns(), crate::state::module_name);
        // SAFETY: checked above: aligned, and at least as large as ours.
        unsafe { row.write(filled) };
        abi::OK
    })
}

pub(super) extern "C" fn host_info(module: *mut c_void, info: *mut abi::HostInfo) -> i32 {
    guarded(abi::E_FAILED, || {
        let state = match sealed(module, "host_info", FROM_PROC_INIT) {
            Ok((_, state)) => state,
            Err(code) => return code,
        };
        // SAFETY: as above.
        let Some(size) = (unsafe { covered::<abi::HostInfo>(info.cast()) }) else { return abi::E_INVALID };
        // SAFETY: as above.
        unsafe { info.write(abi::HostInfo { size, pid: state.operator_pid, version: fixed(env!("CARGO_PKG_VERSION")) }) };
        abi::OK
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::phase::Phase;
    use crate::process::slots::Slots;

    #[test]
    fn a_row_has_what_the_slot_has_and_garbage_stays_harmless() {
        let slot = Slots::new().unwrap().slot(1).unwrap();
        let row = |now_ns| filled(152, 1, slot, now_ns, |index| (index == 7).then_some("echo"));
        slot.note_fork(-2, 3, 1000);
        slot.set_name("control");
        slot.set_pid(4711);
        slot.trail().store(Breadcrumb::word(7, Phase::Timer), Relaxed);
        let seen = row(1500);
        assert_eq!((seen.size, seen.process_no, seen.rank, seen.pid, seen.restarts, seen.uptime_ns), (152, 1, -2, 4711, 3, 500));
        assert_eq!(
            (seen.state, seen.name, seen.phase, seen.module),
            (abi::PROCESS_STARTING, fixed("control"), fixed("a timer function"), fixed("echo"))
        );
        slot.note_fork(i32::MIN, u32::MAX, u64::MAX);
        slot.set_pid(-5);
        slot.trail().store(u64::MAX, Relaxed);
        slot.set_name("\x1b[2J");
        let seen = row(1500);
        assert_eq!((seen.pid, seen.uptime_ns, seen.name, seen.phase, seen.module), (0, 0, fixed("?[2J"), [0; 40], [0; 32]));
        slot.set_pid(1);
        assert_eq!(row(1500).uptime_ns, 0, "forked in the future");
    }

    #[test]
    fn texts_are_cut_between_characters_and_end_with_a_nul() {
        for (text, bytes) in [("", *b"\0\0\0\0"), ("ab", *b"ab\0\0"), ("abcd", *b"abc\0"), ("ab\u{e9}", *b"ab\0\0"), ("\x1b\n", *b"??\0\0")]
        {
            assert_eq!(fixed::<4>(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn every_phase_and_module_name_fits() {
        let longest = (0..11).map(|phase| Breadcrumb::from_word((1 << 32) | phase).phase.to_string().len()).max();
        assert!(longest < Some(40), "{longest:?}");
    }

    #[test]
    fn only_what_the_size_covers() {
        #[repr(align(8))]
        struct Room([u32; 3]);
        for (size, covers) in [(0, false), (151, false), (152, true), (1000, true)] {
            let room = Room([size; 3]);
            // SAFETY: numbers.
            let found = unsafe { [0, 1].map(|at| covered::<abi::ProcessRow>(room.0[at..].as_ptr())) };
            assert_eq!(found, [covers.then_some(size), None], "not at an odd place");
        }
        // SAFETY: null.
        assert_eq!(unsafe { covered::<abi::ProcessRow>(std::ptr::null()) }, None);
    }
}
