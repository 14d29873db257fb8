//! The store: one map in shared memory for all processes.
//!
//! Each operation on a key is one critical section of that key's shard.

mod eviction;
mod sweep;
mod value;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{SystemTime, UNIX_EPOCH};

use module_api::MapError;
use module_api::prelude::*;

pub use eviction::{Eviction, Quota};
pub use sweep::Sweep;
pub use value::{Change, Stored, Value, is_live};

shm_struct! {
    /// The state of the store besides its keys. Every process may write it.
    pub struct SharedState {
        /// Whether there may be keys that expire.
        pub may_expire: AtomicBool,
        /// Whether anything has changed since the last snapshot.
        pub changed: AtomicBool,
        /// Whether a client has asked for a snapshot.
        pub save_wanted: AtomicBool,
        /// Unix seconds of the last snapshot; 0 for none.
        pub saved_at: AtomicU64,
    }
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// There is no memory for the value.
    Full,
    /// The map's lock cannot be taken, or the value is too long for the map.
    Broken(MapError),
}

impl From<MapError> for StoreError {
    fn from(error: MapError) -> StoreError {
        match error {
            MapError::NoMemory => StoreError::Full,
            other => StoreError::Broken(other),
        }
    }
}

/// Keys that FLUSHALL removes under one lock.
const CLEAR_STEP: usize = 1024;

/// Made in `init`. Every process has a copy, and all copies share the map.
pub struct Store {
    pub map: ShmMap<[u8], Stored>,
    pub shared: Shm<SharedState>,
    /// Most bytes of entries; 0 for as much as shared memory has.
    pub max_bytes: u64,
    pub eviction: Eviction,
    /// Most processes that store at the same time.
    pub processes: u64,
    /// Keys that were removed because they had expired.
    pub expired: Counter,
    /// Keys that were removed to make room.
    pub evicted: Counter,
}

impl Store {
    /// Reads a value, and notes that it was used. `None` if there is no such key or it has expired.
    #[inline]
    pub fn get<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<&Stored>) -> R) -> Result<R, StoreError> {
        let mut has_expired = false;
        let result = self.map.get(key, |found| {
            let live = found.filter(|stored| is_live(stored, now_ms));
            match live {
                Some(stored) => self.touch(stored, now_ms),
                None => has_expired = found.is_some(),
            }
            read(live)
        })?;
        if has_expired {
            self.remove_expired(key, now_ms)?;
        }
        Ok(result)
    }

    /// Reads a value without noting a use. `None` if there is no such key or it has expired.
    pub fn peek<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<&Stored>) -> R) -> Result<R, StoreError> {
        Ok(self.map.get(key, |found| read(found.filter(|stored| is_live(stored, now_ms))))?)
    }

    /// As `get`, for a `change` that writes to the atomics of the value.
    pub fn change<R>(&self, key: &[u8], now_ms: u64, change: impl FnOnce(Option<&Stored>) -> R) -> Result<R, StoreError> {
        self.mark_changed();
        self.get(key, now_ms, change)
    }

    /// Reads a value, and replaces, keeps or removes it. `change` gets `None` if there is no such
    /// key or it has expired. `max_entry_bytes` is the most that key and new value can have.
    #[inline]
    pub fn update<'v, R>(
        &self,
        quota: &mut Quota,
        key: &[u8],
        max_entry_bytes: usize,
        now_ms: u64,
        change: impl FnOnce(Option<&Stored>) -> (Change<'v>, R),
    ) -> Result<R, StoreError> {
        self.reserve(quota, max_entry_bytes)?;
        self.mark_changed();
        Ok(self.map.update(key, |found| change(found.filter(|stored| is_live(stored, now_ms))))?)
    }

    /// Reads a value and removes its key.
    pub fn remove<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<&Stored>) -> R) -> Result<R, StoreError> {
        self.mark_changed();
        Ok(self.map.update(key, |found| (Update::Remove, read(found.filter(|stored| is_live(stored, now_ms)))))?)
    }

    /// Removes every key, some at a time. A key that another process stores meanwhile may stay.
    pub fn clear(&self) -> Result<(), MapError> {
        self.mark_changed();
        let mut cursor = 0;
        loop {
            cursor = self.map.scan_from(cursor, CLEAR_STEP, |_, _| Scan::Remove)?;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Notes that a key was given an expiry. Call it after that, so that a sweep that has passed
    /// the key already starts again.
    #[inline]
    pub fn mark_expiring(&self) {
        if !self.shared.may_expire.load(Relaxed) {
            self.shared.may_expire.store(true, Relaxed);
        }
    }

    #[inline]
    fn mark_changed(&self) {
        // Stored only if needed: a store would take the cache line from the other processors.
        if !self.shared.changed.load(Relaxed) {
            self.shared.changed.store(true, Relaxed);
        }
    }

    #[inline]
    fn touch(&self, stored: &Stored, now_ms: u64) {
        if self.eviction == Eviction::Lru && stored.tag.used_ms.load(Relaxed) != now_ms as u32 {
            stored.tag.used_ms.store(now_ms as u32, Relaxed);
        }
    }

    #[cold]
    fn remove_expired(&self, key: &[u8], now_ms: u64) -> Result<(), StoreError> {
        // Another process may have stored the key again.
        let removed = self.map.update(key, |found| match found {
            Some(stored) if !is_live(stored, now_ms) => (Update::Remove, 1),
            _ => (Update::Keep, 0),
        })?;
        self.expired.add(removed);
        Ok(())
    }
}
