//! Random bytes of the kernel: different in every process, whatever was inherited.
//!
//! *Runs in:* every process. *Never:* buffers: a buffer would be copied by a fork.

use nix::errno::Errno;

/// Fills the buffer.
pub fn fill(mut buffer: &mut [u8]) -> Result<(), Errno> {
    while !buffer.is_empty() {
        // SAFETY: the pointer and length are those of a valid, writable slice.
        let filled = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(filled) {
            Ok(filled) => buffer = buffer.get_mut(filled..).unwrap_or_default(),
            Err(_) => match Errno::last() {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
    Ok(())
}
