//! Whether a fork may have handlers to run: functions that libraries register with `pthread_atfork`.
//!
//! The C library's `fork` writes to three pages in each child, for the sake of handlers and of threads that are not there any more. Where there can be
//! neither, `_Fork` does the same (POSIX.1-2024: it is `fork` but for the handlers).
//!
//! *Runs in:* main, before it forks. *Never:* takes a file that it cannot read for one without. It does not see who looks the function up by name
//! while running (`dlsym`).

use std::ffi::{CStr, c_int, c_void};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a file that registers handlers has of the C library: what `pthread_atfork` is compiled to, and that name itself in old files.
const REGISTERING: [&CStr; 2] = [c"__register_atfork", c"pthread_atfork"];

const DT_NULL: i64 = 0;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_STRSZ: i64 = 10;
const DT_GNU_HASH: i64 = 0x6fff_fef5;

/// `Elf64_Dyn`.
#[repr(C)]
struct Entry {
    tag: i64,
    value: u64,
}

/// `Elf64_Sym`.
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

/// How many files had been loaded in all when they were last looked at, shifted, and whether there may be handlers. 0: not looked at yet.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Whether anything that is loaded may have registered handlers. Looks at each file's imports once, and again when more are loaded.
pub fn possible() -> bool {
    let mut look = Look { last: LAST.load(Relaxed), loaded: 0, possible: false };
    // SAFETY: the function is called with each loaded file and the pointer given here, before this returns.
    unsafe { libc::dl_iterate_phdr(Some(look_at), (&raw mut look).cast()) };
    let found = (look.loaded << 1) | u64::from(look.possible);
    if found != look.last {
        LAST.store(found, Relaxed);
    }
    look.possible
}

struct Look {
    last: u64,
    loaded: u64,
    possible: bool,
}

/// Goes on (0), or has seen enough (1).
unsafe extern "C" fn look_at(info: *mut libc::dl_phdr_info, _size: usize, look: *mut c_void) -> c_int {
    // SAFETY: the first is the linker's, the second what `possible` passed; both are valid for this call.
    let (info, look) = unsafe { (&*info, &mut *look.cast::<Look>()) };
    look.loaded = info.dlpi_adds;
    if look.last >> 1 == look.loaded {
        look.possible = look.last & 1 == 1;
        return 1;
    }
    // SAFETY: the linker describes a file that is loaded, and stays so during this call.
    look.possible = unsafe { imports_one(info) }.unwrap_or(true);
    c_int::from(look.possible)
}

/// Whether a loaded file imports one of these functions; none if that cannot be told.
///
/// # Safety
/// The description is of a file that is loaded.
unsafe fn imports_one(info: &libc::dl_phdr_info) -> Option<bool> {
    let base = info.dlpi_addr;
    // SAFETY: that many headers stand there.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let Some(dynamic) = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC) else { return Some(false) };
    let first = std::ptr::with_exposed_provenance::<Entry>((base + dynamic.p_vaddr) as usize);
    // SAFETY: a segment of the file, in memory as long as its header says, and aligned as its entries have to be.
    let entries = unsafe { slice::from_raw_parts(first, dynamic.p_memsz as usize / size_of::<Entry>()) };
    let value = |wanted| entries.iter().take_while(|entry| entry.tag != DT_NULL).find(|entry| entry.tag == wanted).map(|entry| entry.value);
    // The linker has made addresses of offsets, but not in the kernel's own file, and not on all machines.
    let address = |wanted| value(wanted).map(|at| if at < base { base + at } else { at } as usize);
    let Some(symbols) = address(DT_SYMTAB) else { return Some(false) };
    let (names, names_bytes) = (address(DT_STRTAB)?, value(DT_STRSZ)? as usize);
    // SAFETY: numbers of the tables below, where they stand.
    let number = |table: usize, index: usize| unsafe { std::ptr::with_exposed_provenance::<u32>(table).add(index).read() as usize };
    let count = match (address(DT_GNU_HASH), address(DT_HASH)) {
        (Some(table), _) => {
            // Buckets, first symbol in one, words of its filter (64 bits each), shift; the filter; the buckets.
            let (buckets, first, filter) = (number(table, 0), number(table, 1), 2 * number(table, 2));
            // What is imported stands before the first symbol that a bucket leads to. If none leads anywhere, that number means nothing; the names stand
            // somewhere behind the symbols, and what lies between is no harm.
            match (0..buckets).any(|bucket| number(table, 4 + filter + bucket) != 0) {
                true => first,
                false => names.checked_sub(symbols)? / size_of::<Symbol>(),
            }
        }
        (None, Some(table)) => number(table, 1),
        (None, None) => return None,
    };
    // SAFETY: the file's tables, as large as it says.
    let (symbols, names) = unsafe {
        (
            slice::from_raw_parts(std::ptr::with_exposed_provenance::<Symbol>(symbols), count),
            slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(names), names_bytes),
        )
    };
    let is_registering = |name: &[u8]| REGISTERING.iter().any(|wanted| name.starts_with(wanted.to_bytes_with_nul()));
    Some(symbols.iter().any(|symbol| symbol.section == 0 && names.get(symbol.name as usize..).is_some_and(is_registering)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_is_looked_at_again() {
        // Neither this program nor what it is linked with.
        assert!(!possible());
        let looked_at = LAST.load(Relaxed);
        assert!(looked_at >> 1 > 1 && !possible());
        // As after more was loaded.
        LAST.store(looked_at + 0b10, Relaxed);
        assert!(!possible());
        assert_eq!(LAST.load(Relaxed), looked_at);
        // An answer is kept.
        LAST.store(looked_at | 1, Relaxed);
        assert!(possible());
        LAST.store(looked_at, Relaxed);
    }
}
