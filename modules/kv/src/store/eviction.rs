//! The memory limit: each process has a quota, and old keys are removed when memory is used up.
//!
//! Runs in the process that stores a value.

use std::sync::atomic::Ordering::Relaxed;

use module_api::prelude::*;

use super::{Store, StoreError, now_ms};

param_enum! {
    /// What happens when memory is used up.
    pub enum Eviction {
        /// Commands that need more memory get an error.
        None = "none",
        /// The least recently used keys are removed.
        Lru = "lru",
    }
}

/// Bytes of an entry in addition to its key and value, as the map counts.
const ENTRY_BYTES: u64 = 48;
/// Keys of which the least recently used one is evicted.
const SAMPLE: usize = 10;
/// Most locks that are taken for one sample.
const SAMPLE_LOCKS: usize = 64;
/// How often keys are evicted for a value that shared memory has no block for.
const ATTEMPTS: usize = 64;

/// What one process may store before it has to add up the memory of all shards, and its state for
/// choosing keys to evict.
#[derive(Debug)]
pub struct Quota {
    left_bytes: u64,
    /// State of the random numbers; never 0.
    random: u64,
    /// Buffer for the key that is evicted next.
    oldest: Vec<u8>,
}

impl Quota {
    /// `seed` is a random number that differs between processes.
    pub fn new(seed: u64) -> Quota {
        Quota { left_bytes: 0, random: seed | 1, oldest: Vec::new() }
    }

    /// A random number below the limit, good enough to choose keys.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(limit)) >> 64) as u64
    }
}

impl Store {
    /// Makes sure that an entry with `bytes` of key and value is within the memory limit.
    ///
    /// The memory of all shards is not added up for each entry: a process takes a part of what is
    /// left as its quota. The limit can be exceeded by at most 1/256.
    #[inline]
    pub fn reserve(&self, quota: &mut Quota, bytes: usize) -> Result<(), StoreError> {
        let needed = bytes as u64 + ENTRY_BYTES;
        match quota.left_bytes.checked_sub(needed) {
            Some(left) => {
                quota.left_bytes = left;
                Ok(())
            }
            None => self.renew(quota, needed),
        }
    }

    /// Gives the process a new quota, after `needed` bytes are taken.
    #[cold]
    fn renew(&self, quota: &mut Quota, needed: u64) -> Result<(), StoreError> {
        if self.max_bytes == 0 {
            quota.left_bytes = u64::MAX;
            return Ok(());
        }
        let share = self.max_bytes / 256;
        let mut used = self.map.bytes();
        if used + needed > self.max_bytes {
            if self.eviction == Eviction::None || needed > self.max_bytes {
                return Err(StoreError::Full);
            }
            while used + needed + share > self.max_bytes && self.evict(quota)? {
                used = self.map.bytes();
            }
            if used + needed > self.max_bytes {
                return Err(StoreError::Full);
            }
        }
        let left = self.max_bytes - used - needed;
        quota.left_bytes = (left / (2 * self.processes)).min(share / self.processes);
        Ok(())
    }

    /// Calls `store`, and evicts keys and calls it again while shared memory has no block for the
    /// value.
    pub fn with_eviction<R>(&self, quota: &mut Quota, mut store: impl FnMut(&mut Quota) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let mut attempts = 0;
        loop {
            match store(quota) {
                Err(StoreError::Full) if self.eviction == Eviction::Lru && attempts < ATTEMPTS => {
                    attempts += 1;
                    // Several keys, because a block of the right size must become free.
                    for _ in 0..SAMPLE {
                        if !self.evict(quota)? {
                            return Err(StoreError::Full);
                        }
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Removes the least recently used key of a random sample. Returns false if there are no keys.
    fn evict(&self, quota: &mut Quota) -> Result<bool, StoreError> {
        let shards = self.map.shards() as u64;
        let buckets = (self.map.len() as u64 / shards).max(128);
        let now = now_ms() as u32;
        let (mut longest, mut seen) = (None, 0);
        // At the end of a shard, or in one with few keys, a scan finds only a part of the sample.
        for _ in 0..SAMPLE_LOCKS {
            let cursor = quota.below(shards) << 44 | quota.below(buckets);
            let oldest = &mut quota.oldest;
            self.map.scan_from(cursor, SAMPLE - seen, |key, stored| {
                seen += 1;
                let used_ms = stored.tag.used_ms.load(Relaxed);
                let idle_ms = idle_ms(now, used_ms);
                if longest.is_none_or(|(longest_ms, _)| idle_ms > longest_ms) {
                    longest = Some((idle_ms, used_ms));
                    oldest.clear();
                    oldest.extend_from_slice(key);
                }
                Scan::Keep
            })?;
            if seen >= SAMPLE {
                break;
            }
        }
        if let Some((_, used_ms)) = longest {
            // Another process may have used or replaced the key since.
            let removed = self.map.update(&quota.oldest, |found| match found {
                Some(stored) if stored.tag.used_ms.load(Relaxed) == used_ms => (Update::Remove, true),
                _ => (Update::Keep, false),
            })?;
            if removed {
                self.evicted.increment();
                self.mark_changed();
                return Ok(true);
            }
        }
        // The sample was empty, or its key was used: removes the first key of the map.
        let (mut cursor, mut found) = (0, false);
        loop {
            cursor = self.map.scan_from(cursor, 1, |_, _| if std::mem::replace(&mut found, true) { Scan::Keep } else { Scan::Remove })?;
            if found || cursor == 0 {
                self.evicted.add(u64::from(found));
                return Ok(found);
            }
        }
    }
}

/// Time since the last use, from the lower bits of both times. If the use seems to be up to an hour
/// in the future, the key was used just now and not 49 days ago: another process may use a key
/// after this one has read the clock, and the clock may be set back.
fn idle_ms(now_ms: u32, used_ms: u32) -> u32 {
    const AHEAD_MAX_MS: u32 = 3_600_000;
    let idle_ms = now_ms.wrapping_sub(used_ms);
    if idle_ms > u32::MAX - AHEAD_MAX_MS { 0 } else { idle_ms }
}

#[cfg(test)]
mod tests {
    use super::idle_ms;

    #[test]
    fn a_use_in_the_near_future_is_no_idle_time() {
        for (now_ms, used_ms, idle) in
            [(1000, 1000, 0), (1000, 400, 600), (5, u32::MAX, 6), (1000, 1001, 0), (0, 3_600_000, 0), (u32::MAX, 4, 0)]
        {
            assert_eq!(idle_ms(now_ms, used_ms), idle, "{now_ms} {used_ms}");
        }
        assert_eq!(idle_ms(3_000_000_000, 0), 3_000_000_000, "34 days");
    }
}
