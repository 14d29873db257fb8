//! The store: one map in shared memory for all processes.
//!
//! Each operation on a key is one critical section of that key's shard. What it costs nothing to change in place (when a key ends, when it
//! was last used, a number) is an atomic in front of the value; a text is replaced by another one, at once.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64};
use std::time::{SystemTime, UNIX_EPOCH};

use module_api::prelude::*;
use module_api::{MapError, Tagged};

use crate::reply::parse_number;

shm_struct! {
    /// What stands in front of a value's bytes.
    pub struct Tag {
        /// When the key ends, in Unix milliseconds; 0: never.
        pub ends_ms: AtomicU64,
        /// The value, if it is a number: it has no bytes then.
        pub number: AtomicI64,
        /// The lower bits of the millisecond of the last use.
        pub used_ms: AtomicU32,
        /// `TEXT` or `NUMBER`.
        pub kind: u32,
    }
}

const TEXT: u32 = 0;
const NUMBER: u32 = 1;
/// Bytes of an entry besides its key and its bytes, as the map counts.
pub const ENTRY_BYTES: u64 = 48;

/// A value as it lies in the map.
pub type Stored = Tagged<Tag>;
/// What becomes of it.
pub type Change<'v> = Update<(Tag, &'v [u8])>;

shm_struct! {
    /// What all processes know of the store.
    pub struct Shared {
        /// There may be keys that end.
        pub ending: AtomicBool,
        /// Something was changed since the last snapshot.
        pub changed: AtomicBool,
        /// A client has asked for a snapshot.
        pub save_wanted: AtomicBool,
        /// Unix seconds of the last snapshot.
        pub saved_at: AtomicU64,
    }
}

param_enum! {
    /// What happens when memory is used up.
    pub enum Eviction {
        /// Commands that need more get an error.
        None = "none",
        /// Keys that were not used for long are removed.
        Lru = "lru",
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'v> {
    /// A number, whose only text this is.
    Number(i64),
    /// Anything else.
    Text(&'v [u8]),
}

impl<'v> Value<'v> {
    /// What these bytes are.
    #[inline]
    pub fn of(bytes: &'v [u8]) -> Value<'v> {
        parse_number(bytes).map_or(Value::Text(bytes), Value::Number)
    }

    /// What lies in the map.
    #[inline]
    pub fn stored(stored: &'v Stored) -> Value<'v> {
        match stored.tag.kind {
            NUMBER => Value::Number(stored.tag.number.load(Relaxed)),
            _ => Value::Text(&stored.bytes),
        }
    }

    /// To be put into the map.
    #[inline]
    pub fn put(self, ends_ms: u64, now_ms: u64) -> Change<'v> {
        let (kind, number, bytes) = match self {
            Value::Number(number) => (NUMBER, number, &[][..]),
            Value::Text(bytes) => (TEXT, 0, bytes),
        };
        let tag = Tag { ends_ms: AtomicU64::new(ends_ms), number: AtomicI64::new(number), used_ms: AtomicU32::new(now_ms as u32), kind };
        Update::Replace((tag, bytes))
    }
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago the last use was, by the lower bits of both moments. Another process may use a key after this one has looked at its clock,
/// and somebody may set the clock back: that key was used just now, not 49 days ago.
fn idle_ms(now_ms: u32, used_ms: u32) -> u32 {
    const AHEAD_MAX_MS: u32 = 3_600_000;
    let idle_ms = now_ms.wrapping_sub(used_ms);
    if idle_ms > u32::MAX - AHEAD_MAX_MS { 0 } else { idle_ms }
}

/// Whether it has not ended.
#[inline]
pub fn is_alive(stored: &Stored, now_ms: u64) -> bool {
    let ends_ms = stored.tag.ends_ms.load(Relaxed);
    ends_ms == 0 || ends_ms > now_ms
}

/// Why something was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Full,
    /// The map's lock cannot be had, or the value is too long for it.
    Broken(MapError),
}

impl From<MapError> for Refused {
    fn from(error: MapError) -> Refused {
        match error {
            MapError::NoMemory => Refused::Full,
            other => Refused::Broken(other),
        }
    }
}

/// What one process may still store before it has to look at the sum, and what it evicts with.
#[derive(Debug)]
pub struct Room {
    left_bytes: u64,
    random: u64,
    oldest: Vec<u8>,
}

impl Room {
    /// For this process, with a random number of its own.
    pub fn new(seed: u64) -> Room {
        Room { left_bytes: 0, random: seed | 1, oldest: Vec::new() }
    }

    /// Any number below the limit: good enough to choose keys by.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(limit)) >> 64) as u64
    }
}

/// How many keys are looked at to find one that was not used for long.
const SAMPLE: usize = 10;
const SAMPLE_LOCKS: usize = 64;
/// How often room is made for a value that shared memory has no block for.
const ATTEMPTS: usize = 64;

/// Keys that are removed under one lock when all are.
const CLEAR_STEP: usize = 1024;

/// See the file's head.
pub struct Store {
    /// All keys.
    pub map: ShmMap<[u8], Stored>,
    /// See there.
    pub shared: Shm<Shared>,
    /// Bytes of entries; 0: as much as shared memory has.
    pub max_bytes: u64,
    /// What happens then.
    pub eviction: Eviction,
    /// How many processes may store at a time.
    pub processes: u64,
    /// Keys that were removed because they had ended.
    pub expired: Counter,
    /// Keys that were removed to make room.
    pub evicted: Counter,
}

impl Store {
    /// Looks at a value; none if there is no such key, or it has ended.
    #[inline]
    pub fn get<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<&Stored>) -> R) -> Result<R, Refused> {
        let mut ended = false;
        let result = self.map.get(key, |found| {
            let alive = found.filter(|stored| is_alive(stored, now_ms));
            match alive {
                Some(stored) => self.touch(stored, now_ms),
                None => ended = found.is_some(),
            }
            read(alive)
        })?;
        if ended {
            self.remove_ended(key, now_ms)?;
        }
        Ok(result)
    }

    /// Looks at a value that may have ended, without using it.
    pub fn peek<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<&Stored>) -> R) -> Result<R, Refused> {
        Ok(self.map.get(key, |found| read(found.filter(|stored| is_alive(stored, now_ms))))?)
    }

    /// Looks at a value and changes what is atomic in its tag. A key that has ended is none.
    pub fn change<R>(&self, key: &[u8], now_ms: u64, change: impl FnOnce(Option<&Stored>) -> R) -> Result<R, Refused> {
        self.mark_changed();
        self.get(key, now_ms, change)
    }

    /// Looks at a value and decides what becomes of it. A key that has ended is none. `room_for`: bytes of key and value at most.
    #[inline]
    pub fn update<'v, R>(
        &self,
        room: &mut Room,
        key: &[u8],
        room_for: usize,
        now_ms: u64,
        change: impl FnOnce(Option<&Stored>) -> (Change<'v>, R),
    ) -> Result<R, Refused> {
        self.reserve(room, room_for)?;
        self.mark_changed();
        Ok(self.map.update(key, |found| change(found.filter(|stored| is_alive(stored, now_ms))))?)
    }

    /// Removes a key; what `read` makes of its value.
    pub fn remove<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<&Stored>) -> R) -> Result<R, Refused> {
        self.mark_changed();
        Ok(self.map.update(key, |found| (Update::Remove, read(found.filter(|stored| is_alive(stored, now_ms)))))?)
    }

    /// Removes every key, a few at a time: what others store meanwhile may stay.
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

    /// Some key was given an end. To be called after that, so that a sweep that has passed the key already hears of it.
    #[inline]
    pub fn mark_ending(&self) {
        if !self.shared.ending.load(Relaxed) {
            self.shared.ending.store(true, Relaxed);
        }
    }

    #[inline]
    fn mark_changed(&self) {
        // A store would take the line from the other processors each time.
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
    fn remove_ended(&self, key: &[u8], now_ms: u64) -> Result<(), Refused> {
        // Somebody else may have stored it anew.
        let removed = self.map.update(key, |found| match found {
            Some(stored) if !is_alive(stored, now_ms) => (Update::Remove, 1),
            _ => (Update::Keep, 0),
        })?;
        self.expired.add(removed);
        Ok(())
    }

    /// Sees to it that there is room for an entry.
    ///
    /// The sum over all shards is not made for each entry: a process takes a part of what is left at a time. So the limit is exceeded by
    /// 1/256 at most.
    #[inline]
    pub fn reserve(&self, room: &mut Room, bytes: usize) -> Result<(), Refused> {
        let needed = bytes as u64 + ENTRY_BYTES;
        match room.left_bytes.checked_sub(needed) {
            Some(left) => {
                room.left_bytes = left;
                Ok(())
            }
            None => self.take_room(room, needed),
        }
    }

    #[cold]
    fn take_room(&self, room: &mut Room, needed: u64) -> Result<(), Refused> {
        if self.max_bytes == 0 {
            room.left_bytes = u64::MAX;
            return Ok(());
        }
        let share = self.max_bytes / 256;
        let mut used = self.map.bytes();
        if used + needed > self.max_bytes {
            if self.eviction == Eviction::None || needed > self.max_bytes {
                return Err(Refused::Full);
            }
            while used + needed + share > self.max_bytes && self.evict(room)? {
                used = self.map.bytes();
            }
            if used + needed > self.max_bytes {
                return Err(Refused::Full);
            }
        }
        let left = self.max_bytes - used - needed;
        room.left_bytes = (left / (2 * self.processes)).min(share / self.processes);
        Ok(())
    }

    /// Runs `store`, and makes room as long as shared memory has none for it.
    pub fn with_room<R>(&self, room: &mut Room, mut store: impl FnMut(&mut Room) -> Result<R, Refused>) -> Result<R, Refused> {
        let mut attempts = 0;
        loop {
            match store(room) {
                Err(Refused::Full) if self.eviction == Eviction::Lru && attempts < ATTEMPTS => {
                    attempts += 1;
                    // A few, because a block of the right size is wanted.
                    for _ in 0..SAMPLE {
                        if !self.evict(room)? {
                            return Err(Refused::Full);
                        }
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Removes the key of a few that was not used for longest. False: there is none.
    fn evict(&self, room: &mut Room) -> Result<bool, Refused> {
        let shards = self.map.shards() as u64;
        let buckets = (self.map.len() as u64 / shards).max(128);
        let now = now_ms() as u32;
        let (mut longest, mut seen) = (None, 0);
        // Where a shard ends, or has few keys, fewer are seen at a time.
        for _ in 0..SAMPLE_LOCKS {
            let cursor = room.below(shards) << 44 | room.below(buckets);
            let oldest = &mut room.oldest;
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
            let removed = self.map.update(&room.oldest, |found| match found {
                Some(stored) if stored.tag.used_ms.load(Relaxed) == used_ms => (Update::Remove, true),
                _ => (Update::Keep, false),
            })?;
            if removed {
                self.evicted.increment();
                self.mark_changed();
                return Ok(true);
            }
        }
        // By chance none was found, or there are very few: the first that there is.
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

/// Where the sweep of ended keys is.
#[derive(Debug, Default)]
pub struct Sweep {
    cursor: u64,
    under_way: bool,
}

/// Keys that are looked at under one lock.
const SWEEP_STEP: usize = 256;
const SWEEP_STEPS_MIN: usize = 4;
const SWEEP_STEPS_MAX: usize = 40;

impl Sweep {
    /// One tick: looks at some keys and removes those that have ended; at more of them as long as many have.
    pub fn advance(&mut self, store: &Store) -> Result<(), MapError> {
        for step in 0..SWEEP_STEPS_MAX {
            if !self.under_way {
                if !store.shared.ending.swap(false, Relaxed) {
                    return Ok(());
                }
                (self.under_way, self.cursor) = (true, 0);
            }
            let now_ms = now_ms();
            let (mut seen, mut ending, mut ended) = (0_u64, false, 0_u64);
            self.cursor = store.map.scan_from(self.cursor, SWEEP_STEP, |_, stored| {
                seen += 1;
                if is_alive(stored, now_ms) {
                    ending |= stored.tag.ends_ms.load(Relaxed) != 0;
                    Scan::Keep
                } else {
                    ended += 1;
                    Scan::Remove
                }
            })?;
            store.expired.add(ended);
            if ending {
                store.mark_ending();
            }
            if ended > 0 {
                store.mark_changed();
            }
            if self.cursor == 0 {
                self.under_way = false;
                return Ok(());
            }
            if step >= SWEEP_STEPS_MIN && ended * 4 < seen {
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::idle_ms;

    #[test]
    fn a_use_after_the_look_at_the_clock_is_the_newest() {
        for (now_ms, used_ms, idle) in
            [(1000, 1000, 0), (1000, 400, 600), (5, u32::MAX, 6), (1000, 1001, 0), (0, 3_600_000, 0), (u32::MAX, 4, 0)]
        {
            assert_eq!(idle_ms(now_ms, used_ms), idle, "{now_ms} {used_ms}");
        }
        assert_eq!(idle_ms(3_000_000_000, 0), 3_000_000_000, "34 days");
    }
}
