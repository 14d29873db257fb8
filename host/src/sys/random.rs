//! Random bytes from the kernel: different in every process, whatever was inherited.
//!
//! *Runs in:* every process. *Never:* buffers: a fork would copy the buffer.

use nix::errno::Errno;

use crate::error::{Error, Result};

/// Fills the buffer. The error is that of `getrandom`.
pub fn fill(mut buffer: &mut [u8]) -> std::result::Result<(), Errno> {
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

pub fn word() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes).map_err(|errno| Error::failed("cannot get random bytes").detail(format!("getrandom: {errno}")))?;
    Ok(u64::from_ne_bytes(bytes))
}
