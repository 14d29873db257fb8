//! The bytes of a file of any content, read in small blocks.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`. *Never:* maps the file (a file
//! that is truncated under a mapping kills its reader), reads all of it, or reads without end.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::findings::Obstacle;
use crate::error::io_text;

/// Small, because what is read lies in few places and touching a fresh page costs more than a read.
const BLOCK_BYTES: u64 = 4 << 10;
/// Blocks kept. A block goes to the slot of its number modulo this. A real module needs about as
/// many.
const SLOTS: usize = 16;
/// What one inspection may read in total, so that hostile tables cannot keep it busy for long.
const BUDGET_BYTES: u64 = 512 << 20;
/// What the smallest read counts for, so that many small ones use up the budget, too.
const READ_COST_MIN_BYTES: u64 = 64;

pub struct FileSource {
    file: File,
    size_bytes: u64,
    blocks: [Option<CachedBlock>; SLOTS],
    budget_bytes: u64,
}

#[derive(Default)]
struct CachedBlock {
    number: u64,
    bytes: Vec<u8>,
}

impl FileSource {
    /// Opens a regular file. A pipe or a device is refused without waiting for its other end.
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
        let source = Self { file, size_bytes: metadata.len(), blocks: [const { None }; SLOTS], budget_bytes: BUDGET_BYTES };
        Ok((source, metadata))
    }

    /// Size at the time of opening.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` from `offset`, or reports that the file ends before.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Obstacle> {
        let need_bytes = offset.checked_add(buffer.len() as u64).ok_or_else(|| Obstacle::malformed("an offset wraps around"))?;
        if need_bytes > self.size_bytes {
            return Err(Obstacle::Truncated { have_bytes: self.size_bytes, need_bytes });
        }
        let cost = (buffer.len() as u64).max(READ_COST_MIN_BYTES);
        self.budget_bytes =
            self.budget_bytes.checked_sub(cost).ok_or_else(|| Obstacle::malformed("its tables lead to more than is plausible"))?;
        let shrunk = |have_bytes: u64| Obstacle::Truncated { have_bytes, need_bytes };
        if buffer.len() as u64 >= BLOCK_BYTES {
            let count = read_at(&self.file, offset, buffer)?;
            return if count == buffer.len() { Ok(()) } else { Err(shrunk(offset + count as u64)) };
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let block = self.block(at / BLOCK_BYTES)?;
            let rest = block.get((at % BLOCK_BYTES) as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len() - done);
            if count == 0 {
                return Err(shrunk(at));
            }
            buffer[done..done + count].copy_from_slice(&rest[..count]);
            done += count;
        }
        Ok(())
    }

    fn block(&mut self, number: u64) -> Result<&[u8], Obstacle> {
        let slot = &mut self.blocks[number as usize % SLOTS];
        let block = match slot.take() {
            Some(block) if block.number == number => block,
            other => {
                let mut bytes = other.unwrap_or_default().bytes;
                let offset = number * BLOCK_BYTES;
                bytes.resize(BLOCK_BYTES.min(self.size_bytes - offset) as usize, 0);
                let count = read_at(&self.file, offset, &mut bytes)?;
                bytes.truncate(count);
                CachedBlock { number, bytes }
            }
        };
        Ok(&slot.insert(block).bytes)
    }
}

/// Fills `buffer` from `offset`, which lies within the size at the time of opening. Returns how
/// many bytes there were: fewer than asked for, if the file has become shorter since.
fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize, Obstacle> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Obstacle::Unreadable(io_text(&error))),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::tests::MemoryFile;

    fn source(bytes: &[u8]) -> FileSource {
        FileSource::open(&MemoryFile::new(bytes).path()).unwrap().0
    }

    #[test]
    fn reads_across_blocks_and_not_past_the_end() {
        let bytes: Vec<u8> = (0..BLOCK_BYTES * (SLOTS as u64 + 2) + 5).map(|number| (number % 251) as u8).collect();
        let mut source = source(&bytes);
        let mut buffer = [0; 100];
        let at = BLOCK_BYTES as usize - 50;
        // The second and third share their slots with the first.
        for at in [at, at + SLOTS * BLOCK_BYTES as usize, at] {
            source.read(at as u64, &mut buffer).unwrap();
            assert_eq!(buffer[..], bytes[at..at + 100]);
        }
        let mut many = vec![0; BLOCK_BYTES as usize * 2];
        source.read(at as u64, &mut many).unwrap();
        assert_eq!(many[..], bytes[at..at + many.len()]);
        assert_eq!(
            source.read(bytes.len() as u64 - 99, &mut buffer),
            Err(Obstacle::Truncated { have_bytes: bytes.len() as u64, need_bytes: bytes.len() as u64 + 1 })
        );
        assert!(matches!(source.read(u64::MAX, &mut buffer), Err(Obstacle::Malformed(_))));
        source.read(bytes.len() as u64, &mut []).unwrap();
    }

    #[test]
    fn a_file_may_shrink_while_it_is_read() {
        let path = std::env::temp_dir().join(format!("modhost-shrinks-{}", std::process::id()));
        std::fs::write(&path, vec![7; 3 * BLOCK_BYTES as usize]).unwrap();
        let mut source = FileSource::open(&path).unwrap().0;
        let have_bytes = BLOCK_BYTES + 10;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(have_bytes).unwrap();
        std::fs::remove_file(&path).unwrap();
        for (offset, len) in [(have_bytes - 4, 8), (0, 2 * BLOCK_BYTES as usize)] {
            let need_bytes = offset + len as u64;
            assert_eq!(source.read(offset, &mut vec![0; len]), Err(Obstacle::Truncated { have_bytes, need_bytes }));
        }
        source.read(have_bytes - 8, &mut [0; 8]).unwrap();
    }

    #[test]
    fn the_budget_ends_a_loop() {
        let mut source = source(&[0; 1 << 20]);
        let mut buffer = vec![0; 1 << 20];
        let ended = (0..=BUDGET_BYTES >> 20).any(|_| source.read(0, &mut buffer).is_err());
        assert!(ended);
    }

    #[test]
    fn a_directory_or_device_is_refused_by_name() {
        for (path, want) in [("/", "a directory"), ("/dev/null", "a device")] {
            assert_eq!(FileSource::open(Path::new(path)).err(), Some(Obstacle::NotAFile(want)));
        }
        assert_eq!(FileSource::open(Path::new("/nonexistent")).err(), Some(Obstacle::Unreadable("no such file or directory".to_string())));
    }
}
