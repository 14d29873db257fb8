//! Where the bytes of certificates and keys lie, for the processes that use them: memory without a name and without an address.
//!
//! *Runs in:* the supervisor (writing), TCP workers (reading), main in no-fork mode (both). *Never:* maps it: what is not mapped is in no
//! core file. *Never:* hands out half of one version and half of another.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::ftruncate;
use zeroize::Zeroizing;

use super::files::Contents;
use crate::error::{Error, Result, io_text};

/// Generation, length, sum: eight bytes each.
const HEAD_BYTES: usize = 24;
/// More than any configuration comes to; a length beyond it is no length.
const CONTENT_MAX_BYTES: u64 = 256 << 20;

/// The writer's side.
#[derive(Debug)]
pub struct Vault {
    writer: OwnedFd,
    reader: VaultReader,
    generation: u64,
}

/// The side of who uses it.
#[derive(Debug)]
pub struct VaultReader {
    descriptor: OwnedFd,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is being written at this moment, or the kernel has not read it whole.
    Busy,
    /// The system refused.
    System(Errno),
}

fn failed(call: &str, detail: impl std::fmt::Display) -> Error {
    Error::failed("cannot keep certificates for the TCP workers").detail(format_args!("{call}: {detail}"))
}

impl Vault {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let writer = memfd_create(c"modhost-tls", MFdFlags::MFD_CLOEXEC).map_err(|errno| failed("memfd_create", errno))?;
        // Whoever main becomes cannot open it once more to write.
        fchmod(&writer, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| failed("fchmod", errno))?;
        let descriptor = match std::fs::File::open(format!("/proc/self/fd/{}", writer.as_raw_fd())) {
            Ok(read_only) => read_only.into(),
            // Without /proc: one that could write, too.
            Err(_) => writer.try_clone().map_err(|error| failed("dup", io_text(&error)))?,
        };
        Ok(Self { writer, reader: VaultReader { descriptor }, generation: 0 })
    }

    /// Puts the next version in the place of the one that is there.
    pub fn put(&mut self, contents: &Contents) -> Result<()> {
        let run = contents.encode();
        // First what the head describes. Who reads meanwhile finds that the sum is wrong.
        write_all(&self.writer, &run, HEAD_BYTES)?;
        self.generation += 1;
        write_all(&self.writer, &head(self.generation, &run), 0)?;
        // A longer key of before.
        ftruncate(&self.writer, (HEAD_BYTES + run.len()) as i64).map_err(|errno| failed("ftruncate", errno))
    }

    /// The other side.
    pub fn reader(&self) -> &VaultReader {
        &self.reader
    }

    /// What nobody else is to have.
    pub fn descriptors(&self) -> [RawFd; 2] {
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

fn head(generation: u64, run: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    for (place, number) in [generation, run.len() as u64, sum(run)].into_iter().enumerate() {
        head[8 * place..8 * (place + 1)].copy_from_slice(&number.to_ne_bytes());
    }
    head
}

/// Tells one version from a mixture of two; against nobody's intent.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl VaultReader {
    /// For a process that main forks.
    pub fn try_clone(&self) -> Result<Self> {
        self.descriptor.try_clone().map(|descriptor| Self { descriptor }).map_err(|error| failed("dup", io_text(&error)))
    }

    /// What is there, with its generation, unless that is `known`.
    pub fn newer_than(&self, known: u64) -> std::result::Result<Option<(u64, Contents)>, Unread> {
        let mut first = [0; HEAD_BYTES];
        self.read_exact(&mut first, 0)?;
        let number = |place: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&first[8 * place..8 * (place + 1)]);
            u64::from_ne_bytes(bytes)
        };
        let (generation, length) = (number(0), number(1));
        if generation == known {
            return Ok(None);
        }
        if length > CONTENT_MAX_BYTES {
            return Err(Unread::Busy);
        }
        let mut run = Zeroizing::new(vec![0; length as usize]);
        self.read_exact(&mut run, HEAD_BYTES)?;
        if head(generation, &run) != first {
            return Err(Unread::Busy);
        }
        Contents::decode(&run).map(|contents| Some((generation, contents))).ok_or(Unread::Busy)
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
        // In the middle of the third: the contents are new, the head is not.
        write_all(&vault.writer, b"xx", HEAD_BYTES + 6).unwrap();
        assert_eq!(reader.newer_than(2), Ok(None), "who has the second misses nothing");
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
        assert_eq!(size, (HEAD_BYTES + 4 + 5) as u64);
        assert_eq!(pwrite(&vault.reader.descriptor, b"x", 0), Err(Errno::EBADF));
    }
}
