//! The byte order of a file, for reading its numbers.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`. *Never:* reads past a slice.
//!
//! *Pure:* no clock, no environment, no system call.

/// Reads numbers out of a slice; 0 if it is too short, which callers rule out by the size of their
/// buffers.
#[derive(Debug, Clone, Copy)]
pub struct ByteOrder {
    pub big_endian: bool,
}

impl ByteOrder {
    pub fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let field = bytes.get(at..at + 2).and_then(|field| field.try_into().ok()).unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(field) } else { u16::from_le_bytes(field) }
    }

    pub fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) }
    }

    pub fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).unwrap_or_default();
        if self.big_endian { u64::from_be_bytes(field) } else { u64::from_le_bytes(field) }
    }
}
