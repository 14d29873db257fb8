//! Snapshots: a file with all keys, which replaces the previous one atomically.
//!
//! Written by the slow timer process, by a worker for SAVE, and by main at the end; read by main
//! before it forks. Not the state of one moment: each key is written as it is when the writer
//! reaches it.
//!
//! The file consists of the eight bytes of `MAGIC`, which end with the version, of records, and of
//! an end. A record is the length of the key and that of the value (4 bytes each), the expiry in
//! Unix milliseconds (8), the key, and the value. The end is `u32::MAX` in place of the length of a
//! key, the number of records (8), and the CRC-32 of everything before it (4). Numbers are
//! little-endian.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use module_api::prelude::*;
use module_api::{LockFailure, MapError};

use crate::reply::DIGITS;
use crate::store::{Quota, Store, Value, is_live, now_ms};

const MAGIC: &[u8; 8] = b"MODHKV\n\x01";
const END: u32 = u32::MAX;
/// Keys that are copied under one lock.
const STEP: usize = 512;
const BUFFER_BYTES: usize = 256 << 10;

/// Where and when snapshots are written.
pub struct Snapshots {
    /// The file; `None` for no snapshots.
    pub path: Option<PathBuf>,
    /// Time between two snapshots; `None` for only at the end and when a client asks for one.
    pub every: Option<Duration>,
    /// Held by the process that writes. The value counts the attempts.
    pub lock: ShmMutex<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveOutcome {
    /// The snapshot is on the disk.
    Done,
    /// Another process is writing one.
    Busy,
    /// No file is configured.
    NoPath,
}

/// Writes a snapshot to the disk.
pub fn save(store: &Store, snapshots: &Snapshots) -> Result<SaveOutcome> {
    let Some(path) = &snapshots.path else { return Ok(SaveOutcome::NoPath) };
    let mut guard = match snapshots.lock.try_lock() {
        Ok(guard) => guard,
        // A file that the dead process has begun is overwritten.
        Err(LockError::OwnerDied(dead)) => dead.repair(|_| ()).context("the lock of the snapshot")?,
        Err(LockError::Failed(LockFailure::Busy | LockFailure::Deadlock)) => return Ok(SaveOutcome::Busy),
        Err(LockError::Failed(failure)) => return Err(Error::new(format_args!("the lock of the snapshot: {failure}"))),
    };
    *guard += 1;
    // A change from here on belongs to the next snapshot.
    let changed = store.shared.changed.swap(false, Relaxed);
    match write(store, path) {
        Ok(keys) => {
            store.shared.saved_at.store(now_ms() / 1000, Relaxed);
            debug!(keys, "snapshot written");
            Ok(SaveOutcome::Done)
        }
        Err(error) => {
            store.shared.changed.fetch_or(changed, Relaxed);
            let hint = "is there room, and may this user write to the folder?";
            Err(Error::new(format_args!("cannot write the snapshot: {}: {error} (hint: {hint})", path.display())))
        }
    }
}

fn write(store: &Store, path: &Path) -> Result<u64> {
    let new_path = with_suffix(path, ".new");
    let file = File::create(&new_path).context(new_path.display())?;
    let mut out = Checksummed { inner: BufWriter::with_capacity(BUFFER_BYTES, file), crc: Crc32::default() };
    out.write_all(MAGIC)?;
    let (mut records, mut cursor, mut buffer) = (0_u64, 0, Vec::new());
    loop {
        let now_ms = now_ms();
        buffer.clear();
        // Copied to memory first, so that no process waits for the disk.
        cursor = store.map.scan_from(cursor, STEP, |key, stored| {
            if is_live(stored, now_ms) {
                let mut digits = [0; DIGITS];
                let value = Value::stored(stored).bytes(&mut digits);
                buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
                buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
                buffer.extend_from_slice(&stored.tag.expires_ms.load(Relaxed).to_le_bytes());
                buffer.extend_from_slice(key);
                buffer.extend_from_slice(value);
                records += 1;
            }
            Scan::Keep
        })?;
        out.write_all(&buffer)?;
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
    fs::rename(&new_path, path)?;
    // The folder is synced, so that the new name survives a loss of power.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(records)
}

/// Appends a suffix to the name of a file.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Why a snapshot was not loaded.
#[derive(Debug)]
pub enum LoadError {
    NoFile,
    /// The file is not as it was written.
    Damaged(String),
    /// The file cannot be opened or read, or there is no memory for its keys.
    Failed(Error),
}

/// Loads a snapshot into an empty store. Returns the number of records. After an error the store is
/// empty.
pub fn load(store: &Store, quota: &mut Quota, path: &Path) -> Result<u64, LoadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(LoadError::NoFile),
        Err(error) => return Err(LoadError::Failed(Error::from(error))),
    };
    let outcome = file.metadata().map_err(LoadError::from).and_then(|metadata| read(store, quota, file, metadata.len()));
    match outcome {
        Ok(keys) => {
            store.shared.changed.store(false, Relaxed);
            Ok(keys)
        }
        Err(failure) => {
            store.clear().map_err(|error| LoadError::Failed(Error::from(error)))?;
            Err(failure)
        }
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> LoadError {
        match error.kind() {
            ErrorKind::UnexpectedEof => LoadError::Damaged("it ends too early".to_owned()),
            _ => LoadError::Failed(Error::from(error)),
        }
    }
}

impl From<MapError> for LoadError {
    fn from(error: MapError) -> LoadError {
        LoadError::Failed(Error::from(error))
    }
}

fn damaged<T>(why: &str) -> Result<T, LoadError> {
    Err(LoadError::Damaged(why.to_owned()))
}

fn read(store: &Store, quota: &mut Quota, file: File, file_bytes: u64) -> Result<u64, LoadError> {
    let mut input = Checksummed { inner: BufReader::with_capacity(BUFFER_BYTES, file), crc: Crc32::default() };
    let magic: [u8; 8] = input.array()?;
    if magic != *MAGIC {
        return damaged(if magic.starts_with(b"MODHKV\n") { "it is of another version" } else { "it does not begin like a snapshot" });
    }
    let now_ms = now_ms();
    let (mut records, mut bytes) = (0_u64, Vec::new());
    loop {
        let key_len = u32::from_le_bytes(input.array()?);
        if key_len == END {
            break;
        }
        let value_len = u32::from_le_bytes(input.array()?);
        let expires_ms = u64::from_le_bytes(input.array()?);
        let len = u64::from(key_len) + u64::from(value_len);
        // Checked before memory of that size is allocated.
        if len > file_bytes {
            return damaged("a length is wrong");
        }
        bytes.resize(len as usize, 0);
        input.read_exact(&mut bytes)?;
        records += 1;
        if expires_ms != 0 && expires_ms <= now_ms {
            continue;
        }
        let (key, value) = bytes.split_at(key_len as usize);
        let stored = store.with_eviction(quota, |quota| {
            store.update(quota, key, bytes.len(), now_ms, |_| (Value::of(value).put(expires_ms, now_ms), ()))
        });
        if let Err(error) = stored {
            let why = format!("there is no room for all keys: {error:?} after {records} (hint: raise maxmemory and shared_memory)");
            return Err(LoadError::Failed(Error::new(why)));
        }
        if expires_ms != 0 {
            store.mark_expiring();
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
        _ => damaged("there are bytes after its end"),
    }
}

/// Adds every byte that is read or written to a checksum.
struct Checksummed<T> {
    inner: T,
    crc: Crc32,
}

impl<T: Write> Checksummed<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.add(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Checksummed<T> {
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

/// CRC-32 as in Ethernet and ZIP files.
#[derive(Debug)]
struct Crc32(u32);

impl Default for Crc32 {
    fn default() -> Crc32 {
        Crc32(u32::MAX)
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

impl Crc32 {
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
    fn the_checksum_is_crc_32() {
        let mut crc = Crc32::default();
        crc.add(b"1234");
        crc.add(b"56789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }
}
