//! A hash map in shared memory: the public interface. `shard` has the implementation.
//!
//! Made in main, used in any process. A reader never sees a half-written value, whichever process
//! dies at whatever moment.

use std::fmt;
use std::marker::PhantomData;

use siphasher::sip::SipHasher13;

use super::item::{MapKey, MapValue};
use super::shard::Shard;
use crate::host::host;
use crate::{Error, LockFailure, Result};

/// A hash map in shared memory, for all processes.
///
/// Made by `cx.shm_map(..)` in [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit); used
/// in any process, phase and thread from then on. It consists of shards, each with its own lock,
/// which is held for one operation. A shard grows by one bucket per insertion, so that no operation
/// takes long because the map is large.
///
/// A process may die in an operation at any instruction: the next one to use the shard first
/// repairs it, which takes as long as a few operations. A value is replaced by storing one pointer:
/// other processes see the old value or the new one.
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
/// Functions passed to a method run while the shard is locked: they should be short, and must not
/// use the same map. If one panics, the operation has not happened.
pub struct ShmMap<K: ?Sized + 'static, V: ?Sized + 'static> {
    shards: &'static [Shard],
    /// Key of the hash, the same in all processes: whoever does not know it cannot choose keys that
    /// collide.
    seed: [u64; 2],
    items: PhantomData<fn(&K) -> &V>,
}

/// Bits of a cursor for the number of the bucket; the higher ones are for that of the shard.
const CURSOR_BITS: u32 = 44;

/// Options of a [`ShmMap`].
#[derive(Debug, Clone, Copy)]
pub struct MapOptions {
    /// Number of shards, which can be used at the same time: 1 to 65,536, rounded up to a power of
    /// two. More than a few for each process gain nothing. A shard takes 256 bytes, and another 1
    /// KiB as soon as it is used.
    pub shards: usize,
}

impl Default for MapOptions {
    fn default() -> MapOptions {
        MapOptions { shards: 64 }
    }
}

/// The change that [`ShmMap::update`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update<T> {
    /// None.
    Keep,
    /// Insert this value, or replace the old one.
    Replace(T),
    /// Remove the entry, if there is one.
    Remove,
}

/// Whether [`ShmMap::scan`] keeps an entry that it has visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// The entry stays.
    Keep,
    /// The entry is removed.
    Remove,
}

/// Why an operation of a [`ShmMap`] failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// Shared memory is exhausted; the host has logged which modules use most.
    NoMemory,
    /// A key or a value is 4 GiB or larger.
    TooLarge,
    /// The shard's lock was not acquired: [`LockFailure::Deadlock`] in a function that was passed
    /// to the same map.
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

/// SipHash-1-3 with this seed as its key.
#[inline]
fn keyed_hash(seed: [u64; 2], bytes: &[u8]) -> u64 {
    SipHasher13::new_with_keys(seed[0], seed[1]).hash(bytes)
}

impl<K: MapKey + ?Sized, V: MapValue + ?Sized> ShmMap<K, V> {
    /// Passes the value of `key` to `read`; `None` without such an entry.
    ///
    /// # Errors
    /// If the lock is not acquired.
    #[inline]
    pub fn get<R>(&self, key: &K, read: impl FnOnce(Option<&V>) -> R) -> Result<R, MapError> {
        self.at(key, |shard, hash, key| {
            let held = shard.lock().map_err(MapError::Lock)?;
            let found = held.find(hash, key);
            Ok(read(found.map(|place| held.value::<V>(&place))))
        })
    }

    /// Whether there is an entry for `key`.
    ///
    /// # Errors
    /// If the lock is not acquired.
    pub fn contains(&self, key: &K) -> Result<bool, MapError> {
        self.get(key, |value| value.is_some())
    }

    /// Inserts an entry, or replaces its value; true if there was one.
    ///
    /// # Errors
    /// If there is no memory for it, or the lock is not acquired. Then the old value is still
    /// there.
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
    /// If the lock is not acquired.
    pub fn remove(&self, key: &K) -> Result<bool, MapError> {
        self.at(key, |shard, hash, key| {
            let held = shard.lock().map_err(MapError::Lock)?;
            let found = held.find(hash, key);
            found.inspect(|place| held.remove::<V>(place));
            Ok(found.is_some())
        })
    }

    /// Passes the value of `key` to `change` and does what it returns, in one step under the lock.
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

    /// Number of entries. Takes no lock: changes made meanwhile may or may not be counted.
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

    /// Visits all entries of one shard, which is locked meanwhile. To keep other processes from
    /// waiting long, sweep a few shards at a time. A shard past the last has no entries.
    ///
    /// # Errors
    /// If the lock is not acquired.
    pub fn scan_shard(&self, shard: usize, mut visit: impl FnMut(&K, &V) -> Scan) -> Result<(), MapError> {
        let Some(shard) = self.shards.get(shard) else { return Ok(()) };
        let held = shard.lock().map_err(MapError::Lock)?;
        held.scan::<V>(0, usize::MAX, |held, place| K::with_key(held.key(place), |key| visit(key, held.value::<V>(place))));
        Ok(())
    }

    /// Visits all entries, one shard after the other. Entries inserted meanwhile may be missed.
    ///
    /// # Errors
    /// If a lock is not acquired.
    pub fn scan(&self, mut visit: impl FnMut(&K, &V) -> Scan) -> Result<(), MapError> {
        (0..self.shards.len()).try_for_each(|shard| self.scan_shard(shard, &mut visit))
    }

    /// Visits about `limit` entries of one shard, which is locked meanwhile, from `cursor` on. The
    /// first cursor is 0. Returns the next cursor; 0: there are no more entries. At the end of a
    /// shard, and where it is nearly empty, it visits fewer entries, or none.
    ///
    /// A scan to the end visits every entry that exists throughout the scan at least once, whatever
    /// is inserted and removed meanwhile. An entry that exists for a part of the time may be
    /// missed. If the map grows, any entry may be visited twice. Cursors stay valid as long as the
    /// map exists. The order of entries does not depend on their keys, so the entries after a
    /// random cursor are a random sample.
    ///
    /// # Errors
    /// If the lock is not acquired.
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

    /// Size of all entries in bytes: keys, values, and 24 bytes for each. Takes no lock, as
    /// [`len`](ShmMap::len). In addition the table takes 8 bytes for each entry, and the allocator
    /// rounds up.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(Shard::bytes).sum()
    }

    #[inline(always)]
    fn at<R>(&self, key: &K, work: impl FnOnce(&Shard, u64, &[u8]) -> Result<R, MapError>) -> Result<R, MapError> {
        key.with_bytes(|bytes| {
            let hash = keyed_hash(self.seed, bytes);
            // The upper half selects the shard, the lower half the bucket.
            let index = (hash >> 32) as usize & (self.shards.len() - 1);
            self.shards.get(index).map_or(Err(MapError::TooLarge), |shard| work(shard, hash, bytes))
        })
    }
}

impl<K: MapKey + ?Sized> ShmMap<K, [u8]> {
    /// As [`update`](ShmMap::update), for a value that is made from the old one: `out` is emptied,
    /// and `change` writes the new value to it.
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

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use super::*;

    #[test]
    fn the_hash_agrees_with_the_standard_library_for_its_seed() {
        let bytes: Vec<u8> = (0..200_u16).map(|number| (number * 7) as u8).collect();
        for length in 0..bytes.len() {
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes[..length]);
            assert_eq!(keyed_hash([0, 0], &bytes[..length]), hasher.finish(), "{length}");
        }
    }

    #[test]
    fn the_hash_has_known_answers_for_a_seed() {
        let seed = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: Vec<u8> = (0..63).collect();
        for (length, hash) in [
            (0, 0xabac_0158_050f_c4dc),
            (1, 0xc9f4_9bf3_7d57_ca93),
            (7, 0xd392_7d98_9bb1_1140),
            (8, 0x3690_9511_8d29_9a8e),
            (15, 0xd320_d86d_2a51_9956),
            (16, 0xcc4f_dd1a_7d90_8b66),
            (63, 0x9d19_9062_b7bb_b3a8),
        ] {
            assert_eq!(keyed_hash(seed, &bytes[..length]), hash, "{length}");
        }
    }

    #[test]
    fn another_seed_is_another_hash() {
        assert_ne!(keyed_hash([0, 0], b"key"), keyed_hash([1, 0], b"key"));
        assert_ne!(keyed_hash([0, 0], b"key"), keyed_hash([0, 1], b"key"));
    }
}
