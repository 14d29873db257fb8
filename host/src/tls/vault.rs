//! The bytes of certificates and keys, in an unnamed memory file for the processes that use them.
//!
//! *Runs in:* the supervisor (writing), TCP workers (reading), main in no-fork mode (both).
//! *Never:* maps the file, so that its contents are in no core dump; returns a mixture of two
//! versions.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::ftruncate;
use zeroize::Zeroizing;

use super::files::Contents;
use crate::error::{Error, Result, io_text};

/// Version, length, checksum: eight bytes each.
const HEADER_BYTES: usize = 24;
/// More than any configuration needs; a larger length in the header is damage.
const CONTENT_MAX_BYTES: u64 = 256 << 20;

/// The writer's side.
#[derive(Debug)]
pub struct Vault {
    writer: OwnedFd,
    reader: VaultReader,
    version: u64,
}

/// The reader's side.
#[derive(Debug)]
pub(crate) struct VaultReader {
    descriptor: OwnedFd,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// The vault is being written, or was read in part only.
    Busy,
    System(Errno),
}

fn failed(call: &str, detail: impl std::fmt::Display) -> Error {
    Error::failed("cannot keep certificates for the TCP workers").detail(format_args!("{call}: {detail}"))
}

impl Vault {
    pub(crate) fn new() -> Result<Self> {
        let writer = memfd_create(c"modhost-tls", MFdFlags::MFD_CLOEXEC).map_err(|errno| failed("memfd_create", errno))?;
        // The user that main becomes cannot open it again for writing.
        fchmod(&writer, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| failed("fchmod", errno))?;
        let descriptor = match std::fs::File::open(format!("/proc/self/fd/{}", writer.as_raw_fd())) {
            Ok(read_only) => read_only.into(),
            // Without /proc: a descriptor that could also write.
            Err(_) => writer.try_clone().map_err(|error| failed("dup", io_text(&error)))?,
        };
        Ok(Self { writer, reader: VaultReader { descriptor }, version: 0 })
    }

    /// Replaces the contents with the next version.
    pub(crate) fn put(&mut self, contents: &Contents) -> Result<()> {
        let run = contents.encode();
        // The header last: until then, a reader finds a wrong checksum.
        write_all(&self.writer, &run, HEADER_BYTES)?;
        self.version += 1;
        write_all(&self.writer, &header(self.version, &run), 0)?;
        // Remove the rest of a longer version.
        ftruncate(&self.writer, (HEADER_BYTES + run.len()) as i64).map_err(|errno| failed("ftruncate", errno))
    }

    pub(crate) fn reader(&self) -> &VaultReader {
        &self.reader
    }

    /// Descriptors that no other process may keep.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.writer.as_raw_fd(), self.reader.descriptor.as_raw_fd()]
    }
}

fn write_all(file: &OwnedFd, bytes: &[u8], offset: usize) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(file, &bytes[done..], (offset + done) as i64) {
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed("pwrite", errno)),
        }
    }
    Ok(())
}

fn header(version: u64, run: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    for (place, number) in [version, run.len() as u64, checksum(run)].into_iter().enumerate() {
        header[8 * place..8 * (place + 1)].copy_from_slice(&number.to_ne_bytes());
    }
    header
}

/// Detects a mixture of two versions (FNV-1a); no protection against intent.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl VaultReader {
    /// Another descriptor, for main and the TCP workers that it forks.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        self.descriptor.try_clone().map(|descriptor| Self { descriptor }).map_err(|error| failed("dup", io_text(&error)))
    }

    /// The version and its contents, unless the version is `known`.
    pub(super) fn newer_than(&self, known: u64) -> std::result::Result<Option<(u64, Contents)>, Unread> {
        let mut first = [0; HEADER_BYTES];
        self.read_exact(&mut first, 0)?;
        let number = |place: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&first[8 * place..8 * (place + 1)]);
            u64::from_ne_bytes(bytes)
        };
        let (version, length) = (number(0), number(1));
        if version == known {
            return Ok(None);
        }
        if length > CONTENT_MAX_BYTES {
            return Err(Unread::Busy);
        }
        let mut run = Zeroizing::new(vec![0; length as usize]);
        self.read_exact(&mut run, HEADER_BYTES)?;
        if header(version, &run) != first {
            return Err(Unread::Busy);
        }
        Contents::decode(&run).map(|contents| Some((version, contents))).ok_or(Unread::Busy)
    }

    fn read_exact(&self, bytes: &mut [u8], offset: usize) -> std::result::Result<(), Unread> {
        let mut done = 0;
        while done < bytes.len() {
            match pread(&self.descriptor, &mut bytes[done..], (offset + done) as i64) {
                Ok(0) => return Err(Unread::Busy),
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Unread::System(errno)),
            }
        }
        Ok(())
    }
}

impl AsFd for VaultReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(text: &[u8]) -> Contents {
        let mut run = (text.len() as u32).to_ne_bytes().to_vec();
        run.extend_from_slice(text);
        Contents::decode(&run).unwrap()
    }

    #[test]
    fn each_version_is_seen_once_and_whole() {
        let mut vault = Vault::new().unwrap();
        let reader = vault.reader().try_clone().unwrap();
        assert_eq!(reader.newer_than(0), Err(Unread::Busy), "nothing was put there");
        vault.put(&contents(b"the first, a long one")).unwrap();
        assert_eq!(reader.newer_than(0), Ok(Some((1, contents(b"the first, a long one")))));
        assert_eq!(reader.newer_than(1), Ok(None));
        vault.put(&contents(b"second")).unwrap();
        assert_eq!(reader.newer_than(1), Ok(Some((2, contents(b"second")))));
        // In the middle of the third version: the contents are new, the header is not.
        write_all(&vault.writer, b"xx", HEADER_BYTES + 6).unwrap();
        assert_eq!(reader.newer_than(2), Ok(None), "a reader of the second version sees no new one");
        assert_eq!(reader.newer_than(1), Err(Unread::Busy), "a mixture");
        vault.put(&contents(b"third")).unwrap();
        assert_eq!(reader.newer_than(2), Ok(Some((3, contents(b"third")))));
    }

    #[test]
    fn nothing_of_a_longer_key_stays_and_readers_cannot_write() {
        let mut vault = Vault::new().unwrap();
        vault.put(&contents(&[b'k'; 1000])).unwrap();
        vault.put(&contents(b"short")).unwrap();
        let size = std::fs::File::from(vault.writer.try_clone().unwrap()).metadata().unwrap().len();
        assert_eq!(size, (HEADER_BYTES + 4 + 5) as u64);
        assert_eq!(pwrite(&vault.reader.descriptor, b"x", 0), Err(Errno::EBADF));
    }
}
