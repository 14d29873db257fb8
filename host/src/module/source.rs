//! The bytes of a file that may be anything, read piecemeal.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`.
//! *Never:* maps the file (a file that is truncated under a mapping kills its reader), reads all of it, or reads without end.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::elf::Obstacle;
use crate::config::read::io_text;

/// Large enough for the whole of a small C module, small enough that reading one costs about as much as the call itself.
const BLOCK_BYTES: u64 = 16 << 10;
/// What one inspection may look at in total, so that hostile tables cannot make it go round for long.
const BUDGET_BYTES: u64 = 512 << 20;
/// What the smallest read counts for, so that many small ones end too.
const READ_COST_MIN_BYTES: u64 = 64;
/// Blocks kept; all are dropped when there are more, which a real module does not come near.
const BLOCKS_MAX: usize = 256;

/// A file, or a buffer that stands for one in tests.
pub struct Source {
    backing: Backing,
    size_bytes: u64,
    blocks: HashMap<u64, Box<[u8]>>,
    budget_bytes: u64,
}

enum Backing {
    File(File),
    Bytes(Vec<u8>),
}

impl Source {
    /// Opens a regular file. A pipe or a device is refused without waiting for it.
    pub fn open(path: &Path) -> Result<(Self, Metadata), Obstacle> {
        let unreadable = |error: io::Error| Obstacle::Unreadable(io_text(&error));
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let kind = metadata.file_type();
        if !kind.is_file() {
            return Err(Obstacle::NotAFile(match () {
                () if kind.is_dir() => "a directory",
                () if kind.is_fifo() => "a pipe",
                () if kind.is_socket() => "a socket",
                () => "a device",
            }));
        }
        let size_bytes = metadata.len();
        Ok((Self::new(Backing::File(file), size_bytes), metadata))
    }

    /// A buffer instead of a file.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let size_bytes = bytes.len() as u64;
        Self::new(Backing::Bytes(bytes), size_bytes)
    }

    fn new(backing: Backing, size_bytes: u64) -> Self {
        Self { backing, size_bytes, blocks: HashMap::new(), budget_bytes: BUDGET_BYTES }
    }

    /// Its size when it was opened.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` from `offset`, or says that the file ends before.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Obstacle> {
        let need_bytes = offset.checked_add(buffer.len() as u64).ok_or_else(|| Obstacle::malformed("an offset wraps around"))?;
        if need_bytes > self.size_bytes {
            return Err(Obstacle::Truncated { have_bytes: self.size_bytes, need_bytes });
        }
        let cost = (buffer.len() as u64).max(READ_COST_MIN_BYTES);
        self.budget_bytes =
            self.budget_bytes.checked_sub(cost).ok_or_else(|| Obstacle::malformed("its tables lead to more than is plausible"))?;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let block = self.block(at / BLOCK_BYTES)?;
            let start = (at % BLOCK_BYTES) as usize;
            let count = block.len().saturating_sub(start).min(buffer.len() - done);
            if count == 0 {
                // It has become shorter since it was opened.
                return Err(Obstacle::Truncated { have_bytes: at, need_bytes });
            }
            buffer[done..done + count].copy_from_slice(&block[start..start + count]);
            done += count;
        }
        Ok(())
    }

    fn block(&mut self, number: u64) -> Result<&[u8], Obstacle> {
        if !self.blocks.contains_key(&number) {
            let offset = number * BLOCK_BYTES;
            let len = BLOCK_BYTES.min(self.size_bytes - offset) as usize;
            let block = match &self.backing {
                Backing::Bytes(bytes) => bytes[offset as usize..offset as usize + len].into(),
                Backing::File(file) => read_block(file, offset, len).map_err(|error| Obstacle::Unreadable(io_text(&error)))?,
            };
            if self.blocks.len() == BLOCKS_MAX {
                self.blocks.clear();
            }
            self.blocks.insert(number, block);
        }
        Ok(&self.blocks[&number])
    }
}

fn read_block(file: &File, offset: u64, len: usize) -> io::Result<Box<[u8]>> {
    let mut block = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut block[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(done);
    Ok(block.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_across_blocks_and_not_past_the_end() {
        let bytes: Vec<u8> = (0..BLOCK_BYTES * 2 + 5).map(|number| (number % 251) as u8).collect();
        let mut source = Source::from_bytes(bytes.clone());
        let mut buffer = [0; 100];
        let at = BLOCK_BYTES as usize - 50;
        source.read(at as u64, &mut buffer).unwrap();
        assert_eq!(buffer[..], bytes[at..at + 100]);
        assert_eq!(
            source.read(bytes.len() as u64 - 99, &mut buffer),
            Err(Obstacle::Truncated { have_bytes: bytes.len() as u64, need_bytes: bytes.len() as u64 + 1 })
        );
        assert!(matches!(source.read(u64::MAX, &mut buffer), Err(Obstacle::Malformed(_))));
        source.read(bytes.len() as u64, &mut []).unwrap();
    }

    #[test]
    fn the_budget_ends_a_loop() {
        let mut source = Source::from_bytes(vec![0; 1 << 20]);
        let mut buffer = vec![0; 1 << 20];
        let ended = (0..=BUDGET_BYTES >> 20).any(|_| source.read(0, &mut buffer).is_err());
        assert!(ended);
    }

    #[test]
    fn what_is_no_file_is_named() {
        for (path, want) in [("/", "a directory"), ("/dev/null", "a device")] {
            assert_eq!(Source::open(Path::new(path)).err(), Some(Obstacle::NotAFile(want)));
        }
        assert_eq!(Source::open(Path::new("/nonexistent")).err(), Some(Obstacle::Unreadable("no such file or directory".to_string())));
    }
}
