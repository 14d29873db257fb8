//! A system call without the C library.
//!
//! *Runs in:* every child, in its prologue. *Never:* makes a call that the C library keeps state
//! about, such as starting threads or managing memory.

use nix::errno::Errno;

/// Results from here on are negated error numbers.
const ERRORS: usize = -4095_isize as usize;

/// Makes the call. Arguments beyond those of the call are ignored.
///
/// # Safety
/// That of the call: pointers lead to memory that it may read and write.
pub(super) unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let result = unsafe { enter(number, arguments) };
    if result >= ERRORS { Err(Errno::from_raw(result.wrapping_neg() as i32)) } else { Ok(result) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn enter(number: libc::c_long, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> usize {
    let result;
    // SAFETY: the kernel's convention on this machine: it changes rax, rcx, r11 and the memory that
    // the call writes.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn enter(number: libc::c_long, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> usize {
    let result;
    // SAFETY: the kernel's convention on this machine: it changes x0 and the memory that the call
    // writes.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number as usize,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            in("x5") sixth,
            options(nostack),
        );
    }
    result
}

/// On other machines the C library makes the call.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn enter(number: libc::c_long, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> usize {
    // SAFETY: the caller's promise.
    match unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) } {
        -1 => (Errno::last_raw() as usize).wrapping_neg(),
        result => result as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_errors() {
        // SAFETY: no arguments; a number that no descriptor has.
        unsafe {
            assert_eq!(call(libc::SYS_getpid, [0; 6]), Ok(std::process::id() as usize));
            assert_eq!(call(libc::SYS_close, [usize::MAX, 0, 0, 0, 0, 0]), Err(Errno::EBADF));
        }
        let (mut from, mut to) = (*b"six arguments", [0; 13]);
        let part = |bytes: &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let (read, written) = (part(&mut from), part(&mut to));
        let [read, written] = [&raw const read as usize, &raw const written as usize];
        // SAFETY: each list is one part of this process's memory, as long as it says.
        let copied = unsafe { call(libc::SYS_process_vm_readv, [std::process::id() as usize, written, 1, read, 1, 0]) };
        assert_eq!((copied, to), (Ok(13), from));
    }
}
