//! A hash map in shared memory: the API. How a shard works is in `shard`.
//!
//! Made in main, used in any process. Never shows a value that is half-written, whoever dies when.

use std::fmt;
use std::marker::PhantomData;

use super::item::{MapKey, MapValue};
use super::shard::Shard;
use super::siphash;
use crate::host::host;
use crate::{Error, LockFailure, Result};

/// A hash map in shared memory, for all processes.
///
/// Made by `cx.shm_map(..)` in [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit); used in any process, phase and thread
/// from then on. It is cut into shards, each with a lock of its own, which is held for one operation. A shard grows by one bucket per
/// insertion, so that no operation takes long because the map is large.
///
/// A process that dies inside, at any instruction, harms nobody: the next one to use the shard repairs it first, which takes as long as a
/// few operations. A value is replaced by storing one pointer: everybody sees the old one or the new one.
///
/// ```
/// # use module_api::prelude::*;
/// fn remember(seen: &ShmMap<str, u64>, caller: &str) -> Result<u64> {
///     Ok(seen.update(caller, |count| {
///         let count = count.copied().unwrap_or_default() + 1;
///         (Update::Replace(count), count)
///     })?)
/// }
/// ```
///
/// Functions that are passed in run while the shard is locked: they should be short, and must not use the same map. If one panics, that
/// operation has not happened.
pub struct ShmMap<K: ?Sized + 'static, V: ?Sized + 'static> {
    shards: &'static [Shard],
    seed: [u64; 2],
    items: PhantomData<fn(&K) -> &V>,
}

/// Where the number of the bucket ends in a cursor and that of the shard begins.
const CURSOR_BITS: u32 = 44;

/// How a [`ShmMap`] is made.
#[derive(Debug, Clone, Copy)]
pub struct MapOptions {
    /// Number of parts that can be used at the same time, a power of two up to 65,536; another number is rounded up. More than a few
    /// for each process gain nothing. One takes 256 bytes, and 1 KiB as soon as it is used.
    pub shards: usize,
}

impl Default for MapOptions {
    fn default() -> MapOptions {
        MapOptions { shards: 64 }
    }
}

/// What [`ShmMap::update`] is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update<T> {
    /// Nothing.
    Keep,
    /// Insert this, or put it in the old value's place.
    Replace(T),
    /// Remove the entry, if there is one.
    Remove,
}

/// What becomes of an entry that [`ShmMap::scan`] has visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// It stays.
    Keep,
    /// It is removed.
    Remove,
}

/// Why an operation of a [`ShmMap`] did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// Shared memory is exhausted; the host has logged who has most.
    NoMemory,
    /// A key or a value has 4 GiB or more.
    TooLarge,
    /// The shard's lock cannot be had: [`LockFailure::Deadlock`] in a function that was passed to the same map.
    Lock(LockFailure),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::NoMemory => f.write_str("no shared memory for the entry; `shared_memory` in the configuration is the limit"),
            MapError::TooLarge => f.write_str("a key or a value of a map is limited to 4 GiB"),
            MapError::Lock(failure) => write!(f, "the map's lock: {failure}"),
        }
    }
}

impl std::error::Error for MapError {}

pub(crate) fn new<K: MapKey + ?Sized, V: MapValue + ?Sized>(options: MapOptions) -> Result<ShmMap<K, V>> {
    if options.shards == 0 || options.shards > 1 << 16 {
        return Err(Error::new(format_args!("a map of {} shards: 1 to 65536 are possible", options.shards)));
    }
    let shards = super::zeroed_slice::<Shard>(options.shards.next_power_of_two())?.as_static();
    for shard in shards {
        shard.initialise()?;
    }
    let mut seed = [0_u8; 16];
    host().fill_random(&mut seed)?;
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok(ShmMap { shards, seed: [word(&seed[..8]), word(&seed[8..])], items: PhantomData })
}

impl<K: MapKey + ?Sized, V: MapValue + ?Sized> ShmMap<K, V> {
    /// Looks at the value of `key`; none if there is no such entry.
    ///
    /// # Errors
    /// If the lock cannot be had.
    #[inline]
    pub fn get<R>(&self, key: &K, read: impl FnOnce(Option<&V>) -> R) -> Result<R, MapError> {
        self.at(key, |shard, hash, key| {
            let held = shard.lock().map_err(MapError::Lock)?;
            let found = held.find(hash, key);
            Ok(read(found.map(|place| held.value::<V>(&place))))
        })
    }

    /// Whether there is such an entry.
    ///
    /// # Errors
    /// If the lock cannot be had.
    pub fn contains(&self, key: &K) -> Result<bool, MapError> {
        self.get(key, |value| value.is_some())
    }

    /// Inserts an entry, or replaces its value; true if there was one.
    ///
    /// # Errors
    /// If there is no memory for it, or the lock cannot be had. The old value is still there then.
    pub fn insert(&self, key: &K, value: V::In<'_>) -> Result<bool, MapError> {
        self.at(key, |shard, hash, key| {
            let held = shard.lock().map_err(MapError::Lock)?;
            let found = held.find(hash, key);
            held.store::<V>(hash, key, found, value)?;
            Ok(found.is_some())
        })
    }

    /// Removes an entry; true if there was one.
    ///
    /// # Errors
    /// If the lock cannot be had.
    pub fn remove(&self, key: &K) -> Result<bool, MapError> {
        self.at(key, |shard, hash, key| {
            let held = shard.lock().map_err(MapError::Lock)?;
            let found = held.find(hash, key);
            found.inspect(|place| held.remove::<V>(place));
            Ok(found.is_some())
        })
    }

    /// Looks at the value of `key` and decides what becomes of it, with nobody in between.
    ///
    /// # Errors
    /// As [`insert`](ShmMap::insert).
    pub fn update<'v, R>(&self, key: &K, change: impl FnOnce(Option<&V>) -> (Update<V::In<'v>>, R)) -> Result<R, MapError> {
        self.at(key, |shard, hash, key| {
            let held = shard.lock().map_err(MapError::Lock)?;
            let found = held.find(hash, key);
            let (update, result) = change(found.as_ref().map(|place| held.value::<V>(place)));
            match (update, found) {
                (Update::Keep, _) | (Update::Remove, None) => {}
                (Update::Replace(value), found) => held.store::<V>(hash, key, found, value)?,
                (Update::Remove, Some(place)) => held.remove::<V>(&place),
            }
            Ok(result)
        })
    }

    /// Number of entries. Takes no lock: what changes meanwhile is counted or not.
    pub fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of shards, for [`scan_shard`](ShmMap::scan_shard).
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Visits all entries of one shard, which is locked meanwhile. A sweep that takes a few shards at a time keeps nobody waiting for long.
    /// There is nothing in a shard past the last.
    ///
    /// # Errors
    /// If the lock cannot be had.
    pub fn scan_shard(&self, shard: usize, mut visit: impl FnMut(&K, &V) -> Scan) -> Result<(), MapError> {
        let Some(shard) = self.shards.get(shard) else { return Ok(()) };
        let held = shard.lock().map_err(MapError::Lock)?;
        held.scan::<V>(0, usize::MAX, |held, place| K::with_key(held.key(place), |key| visit(key, held.value::<V>(place))));
        Ok(())
    }

    /// Visits all entries, one shard after the other. What is inserted meanwhile may be missed.
    ///
    /// # Errors
    /// If a lock cannot be had.
    pub fn scan(&self, mut visit: impl FnMut(&K, &V) -> Scan) -> Result<(), MapError> {
        (0..self.shards.len()).try_for_each(|shard| self.scan_shard(shard, &mut visit))
    }

    /// Visits about `limit` entries of one shard, which is locked meanwhile, from `cursor` on, which is 0 at first. Returns the cursor to go on
    /// with; 0: that was the last. Where a shard ends, and where it is nearly empty, they are fewer, or none.
    ///
    /// Who goes on to the end sees each entry that is there all the time at least once, whatever is inserted and removed meanwhile; one
    /// that is there for a part of the time may be missed, and any may be seen twice if the map grows. Cursors stay good as long as the
    /// map exists. Entries lie in an order that has nothing to do with their keys, so those behind a random cursor are a random sample.
    ///
    /// # Errors
    /// If the lock cannot be had.
    pub fn scan_from(&self, cursor: u64, limit: usize, mut visit: impl FnMut(&K, &V) -> Scan) -> Result<u64, MapError> {
        let (index, bucket) = ((cursor >> CURSOR_BITS) as usize, cursor & ((1 << CURSOR_BITS) - 1));
        let Some(shard) = self.shards.get(index) else { return Ok(0) };
        let held = shard.lock().map_err(MapError::Lock)?;
        let next =
            held.scan::<V>(bucket, limit.max(1), |held, place| K::with_key(held.key(place), |key| visit(key, held.value::<V>(place))));
        Ok(match next {
            Some(bucket) => (index as u64) << CURSOR_BITS | bucket,
            None if index + 1 < self.shards.len() => (index as u64 + 1) << CURSOR_BITS,
            None => 0,
        })
    }

    /// Bytes of all entries: keys, values, and 24 bytes for each. Takes no lock, as [`len`](ShmMap::len). The table itself takes 8 bytes
    /// for each entry besides, and the allocator rounds up.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(Shard::bytes).sum()
    }

    #[inline(always)]
    fn at<R>(&self, key: &K, work: impl FnOnce(&Shard, u64, &[u8]) -> Result<R, MapError>) -> Result<R, MapError> {
        key.with_bytes(|bytes| {
            let hash = siphash::hash(self.seed, bytes);
            // The upper half chooses the shard, the lower one the bucket.
            let index = (hash >> 32) as usize & (self.shards.len() - 1);
            self.shards.get(index).map_or(Err(MapError::TooLarge), |shard| work(shard, hash, bytes))
        })
    }
}

impl<K: MapKey + ?Sized> ShmMap<K, [u8]> {
    /// As [`update`](ShmMap::update), for a value that is made from the old one: `change` writes it to `out`, which is emptied before.
    ///
    /// # Errors
    /// As [`insert`](ShmMap::insert).
    pub fn update_with<R>(
        &self,
        key: &K,
        out: &mut Vec<u8>,
        change: impl FnOnce(Option<&[u8]>, &mut Vec<u8>) -> (Update<()>, R),
    ) -> Result<R, MapError> {
        self.at(key, |shard, hash, key| {
            let held = shard.lock().map_err(MapError::Lock)?;
            let found = held.find(hash, key);
            out.clear();
            let (update, result) = change(found.as_ref().map(|place| held.value::<[u8]>(place)), out);
            match (update, found) {
                (Update::Keep, _) | (Update::Remove, None) => {}
                (Update::Replace(()), found) => held.store::<[u8]>(hash, key, found, out)?,
                (Update::Remove, Some(place)) => held.remove::<[u8]>(&place),
            }
            Ok(result)
        })
    }
}

impl<K: ?Sized, V: ?Sized> Clone for ShmMap<K, V> {
    fn clone(&self) -> ShmMap<K, V> {
        *self
    }
}

impl<K: ?Sized, V: ?Sized> Copy for ShmMap<K, V> {}

impl<K: MapKey + ?Sized, V: MapValue + ?Sized> fmt::Debug for ShmMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShmMap").field("len", &self.len()).field("shards", &self.shards.len()).finish()
    }
}
