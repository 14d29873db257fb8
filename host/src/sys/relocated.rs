//! What the dynamic linker has relocated in modules and libraries, as memory that main and its children share.
//!
//! Tables of addresses (of functions, of texts, of imports) are written by the linker when it loads a file, and are read-only from then on (RELRO). To
//! the kernel they are private memory that was written to: each fork makes a mapping with its page tables for every file, and notes every page.
//! Of shared memory it notes nothing; a child's first look finds the pages.
//!
//! *Runs in:* main, once modules are loaded and before it forks; what is loaded later stays as it is. *Never:* touches the program itself (tools that read
//! core dumps know it by its mappings) or the linker (which may write to its own again).

use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::slice;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::resource::{Resource, getrlimit};

use super::fork::Alone;
use super::mapping::page_bytes;
use super::raw;
use crate::error::EXIT_FAILED;

/// Memory that is read-only since its file was loaded: whole pages.
struct Range {
    start: usize,
    size_bytes: usize,
}

/// The last words of a process whose files have lost their tables, the C library maybe among them.
const LOST: &str = "modhost: cannot share tables of functions\n  mmap: ENOMEM: out of memory\n  \
                    hint: give the host more memory, or set share_tables = false\n";

/// Puts a shared copy in the place of all such memory, which nobody can make writable again. Where that cannot be had, all stays as it was, and forks
/// take longer. That nobody else is running is needed because another thread might load a file meanwhile.
pub fn share(_: &Alone) {
    if let Err(errno) = try_share() {
        tracing::debug!("tables of functions are not shared: {errno}");
    }
}

/// The size of what is shared now in bytes.
fn try_share() -> nix::Result<usize> {
    let ranges = relocated()?;
    let all_bytes = ranges.iter().map(|range| range.size_bytes).sum();
    // Writing beyond this limit would end the process (SIGXFSZ).
    if getrlimit(Resource::RLIMIT_FSIZE)?.0 < all_bytes as u64 {
        return Err(Errno::EFBIG);
    }
    let copy = copy_of(&ranges)?;
    let mut offset = 0;
    for Range { start, size_bytes } in ranges {
        let (at, length) = (NonZeroUsize::new(start), NonZeroUsize::new(size_bytes).ok_or(Errno::EINVAL)?);
        // SAFETY: the same bytes stand at the same place before and after, and in between nothing runs: the kernel puts one mapping in the place
        // of the other.
        let mapped = unsafe { mmap(at, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED, &copy, offset) };
        if let Err(errno) = mapped {
            // What a limit forbids, the kernel refuses before it takes anything away. But if it ran out of memory behind that, a file is without its tables.
            let mut residency = 0_u8;
            // SAFETY: asks about one page.
            let asked = unsafe { raw::call(libc::SYS_mincore, [start, page_bytes(), &raw mut residency as usize, 0, 0, 0]) };
            if asked.is_err() {
                // SAFETY: reads a text of the program. Where nobody hears it there is nothing else to do.
                let _ = unsafe { raw::call(libc::SYS_write, [2, LOST.as_ptr() as usize, LOST.len(), 0, 0, 0]) };
                super::exit::leave_now(EXIT_FAILED);
            }
            return Err(errno);
        }
        offset += size_bytes as libc::off_t;
    }
    Ok(all_bytes)
}

/// The contents, one after the other, in a file without a name that cannot be written to any more.
fn copy_of(ranges: &[Range]) -> nix::Result<OwnedFd> {
    let create = |flags| memfd_create(c"relocated", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | flags);
    // Linux before 6.3 does not know the flag that others may demand.
    let copy = create(MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL)).or_else(|_| create(MFdFlags::empty()))?;
    for Range { start, size_bytes } in ranges {
        // SAFETY: pages of a loaded file, which nobody writes to.
        let mut rest = unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(*start), *size_bytes) };
        while !rest.is_empty() {
            match nix::unistd::write(copy.as_fd(), rest)? {
                0 => return Err(Errno::EIO),
                written => rest = &rest[written..],
            }
        }
    }
    // Linux 5.1: what is mapped from now on can be read only, by whoever asks.
    let seals = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy)
}

/// What a look at the loaded files finds, and which are left alone.
struct Look {
    program: *const libc::Elf64_Phdr,
    linker: u64,
    found: Vec<Range>,
}

/// Such memory of all files but two.
fn relocated() -> nix::Result<Vec<Range>> {
    // SAFETY: asks for numbers.
    let (program, linker) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_BASE)) };
    if program == 0 || linker == 0 {
        // The linker was started as a program, and this one is its argument: which of the two is which cannot be told.
        return Err(Errno::ENOTSUP);
    }
    let mut look = Look { program: std::ptr::with_exposed_provenance(program as usize), linker, found: Vec::new() };
    // SAFETY: the function is called with each loaded file and the pointer given here, before this returns.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut look).cast()) };
    Ok(look.found)
}

/// Notes what the linker has made read-only in a file: the pages that it calls for, but for a last one that is shared with something else.
unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _size: usize, look: *mut c_void) -> c_int {
    // SAFETY: the first is the linker's, the second what `relocated` passed; both are valid for this call.
    let (info, look) = unsafe { (&*info, &mut *look.cast::<Look>()) };
    if info.dlpi_phdr == look.program || info.dlpi_addr == look.linker {
        return 0;
    }
    // SAFETY: that many headers stand there.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    // Of several, the linker heeds the last one.
    if let Some(header) = headers.iter().rfind(|header| header.p_type == libc::PT_GNU_RELRO) {
        // A file whose own addresses are above those where it lies has a difference that wraps around.
        let first = info.dlpi_addr.wrapping_add(header.p_vaddr);
        let page = |address: u64| address as usize / page_bytes() * page_bytes();
        let (start, end) = (page(first), page(first.wrapping_add(header.p_memsz)));
        if start < end {
            look.found.push(Range { start, size_bytes: end - start });
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that holds an address.
    fn mapping_of(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut lines = maps.lines();
        let holds = |line: &&str| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            (usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap()).contains(&address)
        };
        lines.find(holds).expect("it is mapped").to_owned()
    }

    /// Of the C library and whatever else this program is linked with. In a process of its own: another test may be loading a file.
    #[test]
    fn what_is_relocated_is_shared_and_cannot_be_written_to() {
        const ALONE: &str = "MODHOST_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "sys::relocated::tests::what_is_relocated_is_shared_and_cannot_be_written_to";
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", name]).env(ALONE, "1").output().unwrap();
            assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
            return;
        }
        let ranges = relocated().unwrap();
        // SAFETY: read-only memory of a loaded file.
        let bytes =
            |range: &Range| unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(range.start), range.size_bytes) };
        let before: Vec<Vec<u8>> = ranges.iter().map(|range| bytes(range).to_vec()).collect();
        assert!(!before.is_empty());
        let size_bytes = try_share().unwrap();
        assert_eq!(size_bytes, before.concat().len());
        // Again, of what is shared already.
        assert_eq!(try_share(), Ok(size_bytes));
        for (range, before) in ranges.iter().zip(before) {
            let mapping = mapping_of(range.start);
            assert!(mapping.contains(" r--s ") && mapping.contains("memfd:relocated"), "{mapping}");
            assert!(bytes(range) == before, "{mapping}");
            // As somebody tries who wants to put another function in the place of an imported one.
            let page = std::ptr::without_provenance_mut(range.start);
            // SAFETY: changes nothing, as the test says.
            let refused = unsafe { libc::mprotect(page, page_bytes(), libc::PROT_READ | libc::PROT_WRITE) };
            assert_eq!((refused, Errno::last()), (-1, Errno::EACCES), "{mapping}");
        }
        // The program and the linker have theirs as before.
        // SAFETY: asks for a number.
        let linker = unsafe { libc::getauxval(libc::AT_BASE) } as usize;
        static TEXTS: [&str; 2] = ["one", "two"];
        for address in [(&raw const TEXTS).addr(), linker] {
            assert!(mapping_of(address).contains(" r--p "), "{}", mapping_of(address));
        }
        assert_eq!(std::hint::black_box(TEXTS).concat(), "onetwo");
    }
}
