//! The snapshot: all keys in a file, which replaces the one before at once.
//!
//! Written by the slow timer process, by a worker for SAVE, and by main at the end; read by main before anything is forked. Not the state
//! of one moment: each key is as it was when the writer came past it.
//!
//! The file: the eight bytes of `MAGIC`, which end with the version; records; an end. A record is the length of the key and that of the value
//! (4 bytes each), when it ends (8), key, value. The end is a length of a key of 4 GiB - 1, the number of records (8), and the CRC-32 of
//! everything before it (4). Numbers have their lowest byte first.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use module_api::prelude::*;
use module_api::{LockFailure, MapError};

use crate::reply::{DIGITS, format_number};
use crate::store::{Store, Value, is_alive, now_ms};

const MAGIC: &[u8; 8] = b"MODHKV\n\x01";
const END: u32 = u32::MAX;
/// Keys that are read under one lock.
const STEP: usize = 512;
const BUFFER_BYTES: usize = 256 << 10;

/// Where and when snapshots are made.
pub struct Saving {
    /// The file; none: no snapshots.
    pub path: Option<PathBuf>,
    /// How often; none: at the end only, and when a client asks for it.
    pub every: Option<Duration>,
    /// Held by who writes.
    pub lock: ShmMutex<u64>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It is on the disk.
    Done,
    /// Somebody else is writing one.
    Busy,
    /// None is configured.
    NoPath,
}

/// Writes a snapshot, to the disk.
pub fn save(store: &Store, saving: &Saving) -> Result<Saved> {
    let Some(path) = &saving.path else { return Ok(Saved::NoPath) };
    let mut guard = match saving.lock.try_lock() {
        Ok(guard) => guard,
        // What it was writing is overwritten.
        Err(LockError::OwnerDied(dead)) => dead.repair(|_| ()).context("the lock of the snapshot")?,
        Err(LockError::Failed(LockFailure::Busy | LockFailure::Deadlock)) => return Ok(Saved::Busy),
        Err(LockError::Failed(failure)) => return Err(Error::new(format_args!("the lock of the snapshot: {failure}"))),
    };
    *guard += 1;
    // What is changed from here on is for the next one.
    let changed = store.shared.changed.swap(false, Relaxed);
    match write(store, path) {
        Ok(keys) => {
            store.shared.saved_at.store(now_ms() / 1000, Relaxed);
            debug!(keys, "snapshot written");
            Ok(Saved::Done)
        }
        Err(error) => {
            store.shared.changed.fetch_or(changed, Relaxed);
            let hint = "is there room, and may this user write to the folder?";
            Err(Error::new(format_args!("cannot write the snapshot: {}: {error} (hint: {hint})", path.display())))
        }
    }
}

fn write(store: &Store, path: &Path) -> Result<u64> {
    let fresh = beside(path, ".new");
    let file = File::create(&fresh).context(fresh.display())?;
    let mut out = Checked { inner: BufWriter::with_capacity(BUFFER_BYTES, file), crc: Crc::default() };
    out.write_all(MAGIC)?;
    let (mut records, mut cursor, mut batch) = (0_u64, 0, Vec::new());
    loop {
        let now_ms = now_ms();
        batch.clear();
        // To memory first: nobody waits for the disk.
        cursor = store.map.scan_from(cursor, STEP, |key, stored| {
            if is_alive(stored, now_ms) {
                let mut digits = [0; DIGITS];
                let value = match Value::stored(stored) {
                    Value::Text(text) => text,
                    Value::Number(number) => format_number(number, &mut digits),
                };
                batch.extend_from_slice(&(key.len() as u32).to_le_bytes());
                batch.extend_from_slice(&(value.len() as u32).to_le_bytes());
                batch.extend_from_slice(&stored.tag.ends_ms.load(Relaxed).to_le_bytes());
                batch.extend_from_slice(key);
                batch.extend_from_slice(value);
                records += 1;
            }
            Scan::Keep
        })?;
        out.write_all(&batch)?;
        if cursor == 0 {
            break;
        }
    }
    out.write_all(&END.to_le_bytes())?;
    out.write_all(&records.to_le_bytes())?;
    let crc = out.crc.value();
    out.write_all(&crc.to_le_bytes())?;
    let file = out.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The name, too, is to survive a loss of power.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(records)
}

/// The same path with something behind its last part.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Why a file was not read.
#[derive(Debug)]
pub enum NotLoaded {
    /// There is none.
    NoFile,
    /// It is not what was written.
    Damaged(String),
    /// It cannot be opened or read, or there is no room for what it holds.
    Failed(Error),
}

/// Reads a snapshot into an empty store. Number of keys. After a failure the store is empty.
pub fn load(store: &Store, room: &mut crate::store::Room, path: &Path) -> Result<u64, NotLoaded> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(NotLoaded::NoFile),
        Err(error) => return Err(NotLoaded::Failed(Error::from(error))),
    };
    let outcome = file.metadata().map_err(NotLoaded::from).and_then(|metadata| read(store, room, file, metadata.len()));
    match outcome {
        Ok(keys) => {
            store.shared.changed.store(false, Relaxed);
            Ok(keys)
        }
        Err(failure) => {
            store.clear().map_err(|error| NotLoaded::Failed(Error::from(error)))?;
            Err(failure)
        }
    }
}

impl From<io::Error> for NotLoaded {
    fn from(error: io::Error) -> NotLoaded {
        match error.kind() {
            ErrorKind::UnexpectedEof => NotLoaded::Damaged("it ends too early".to_owned()),
            _ => NotLoaded::Failed(Error::from(error)),
        }
    }
}

impl From<MapError> for NotLoaded {
    fn from(error: MapError) -> NotLoaded {
        NotLoaded::Failed(Error::from(error))
    }
}

fn damaged<T>(why: &str) -> Result<T, NotLoaded> {
    Err(NotLoaded::Damaged(why.to_owned()))
}

fn read(store: &Store, room: &mut crate::store::Room, file: File, file_bytes: u64) -> Result<u64, NotLoaded> {
    let mut input = Checked { inner: BufReader::with_capacity(BUFFER_BYTES, file), crc: Crc::default() };
    let magic: [u8; 8] = input.array()?;
    if magic != *MAGIC {
        return damaged(if magic.starts_with(b"MODHKV\n") { "it is of another version" } else { "it does not begin as a snapshot" });
    }
    let now_ms = now_ms();
    let (mut records, mut bytes) = (0_u64, Vec::new());
    loop {
        let key_len = u32::from_le_bytes(input.array()?);
        if key_len == END {
            break;
        }
        let value_len = u32::from_le_bytes(input.array()?);
        let ends_ms = u64::from_le_bytes(input.array()?);
        let len = u64::from(key_len) + u64::from(value_len);
        // Before anything of that size is allocated.
        if len > file_bytes {
            return damaged("a length is wrong");
        }
        bytes.resize(len as usize, 0);
        input.read_exact(&mut bytes)?;
        records += 1;
        if ends_ms != 0 && ends_ms <= now_ms {
            continue;
        }
        let (key, value) = bytes.split_at(key_len as usize);
        let stored =
            store.with_room(room, |room| store.update(room, key, bytes.len(), now_ms, |_| (Value::of(value).put(ends_ms, now_ms), ())));
        if let Err(refused) = stored {
            let why = format!("there is no room for all keys: {refused:?} after {records} (hint: raise maxmemory and shared_memory)");
            return Err(NotLoaded::Failed(Error::new(why)));
        }
        if ends_ms != 0 {
            store.mark_ending();
        }
    }
    let counted = u64::from_le_bytes(input.array()?);
    let crc = input.crc.value();
    if u32::from_le_bytes(input.array()?) != crc {
        return damaged("its checksum is wrong");
    }
    if counted != records {
        return damaged("the number of keys is wrong");
    }
    match input.inner.read(&mut [0])? {
        0 => Ok(records),
        _ => damaged("something stands behind its end"),
    }
}

/// Counts what passes into the checksum.
struct Checked<T> {
    inner: T,
    crc: Crc,
}

impl<T: Write> Checked<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.add(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Checked<T> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.crc.add(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// CRC-32 as in Ethernet and zip files.
#[derive(Debug)]
struct Crc(u32);

impl Default for Crc {
    fn default() -> Crc {
        Crc(u32::MAX)
    }
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u32, 0);
        while bit < 8 {
            value = if value & 1 == 0 { value >> 1 } else { value >> 1 ^ 0xedb8_8320 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

impl Crc {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 >> 8 ^ TABLE[((self.0 ^ u32::from(*byte)) & 0xff) as usize];
        }
    }

    fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        let mut crc = Crc::default();
        crc.add(b"1234");
        crc.add(b"56789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }
}
