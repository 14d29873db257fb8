//! Values as the map in shared memory keeps them.
//!
//! Any process may read a value under the lock of its shard. Expiry, last use and numbers are
//! atomics that are changed in place; a text is replaced as a whole.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use module_api::prelude::*;
use module_api::{Tagged, Update};

use crate::reply::{DIGITS, format_number, parse_number};

shm_struct! {
    /// The fixed part of a value, before its bytes.
    pub struct Tag {
        /// When the key expires, in Unix milliseconds; 0 for never.
        pub expires_ms: AtomicU64,
        /// The value, if it is a number: then it has no bytes.
        pub number: AtomicI64,
        /// The lower bits of the Unix millisecond of the last use.
        pub used_ms: AtomicU32,
        /// `TEXT` or `NUMBER`.
        pub kind: u32,
    }
}

const TEXT: u32 = 0;
const NUMBER: u32 = 1;

/// A value in the map.
pub type Stored = Tagged<Tag>;
/// What an update does with a value.
pub type Change<'v> = Update<(Tag, &'v [u8])>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'v> {
    /// An integer in its only decimal notation, see `parse_number`.
    Number(i64),
    /// Any other bytes.
    Text(&'v [u8]),
}

impl<'v> Value<'v> {
    #[inline]
    pub fn of(bytes: &'v [u8]) -> Value<'v> {
        parse_number(bytes).map_or(Value::Text(bytes), Value::Number)
    }

    #[inline]
    pub fn stored(stored: &'v Stored) -> Value<'v> {
        match stored.tag.kind {
            NUMBER => Value::Number(stored.tag.number.load(Relaxed)),
            _ => Value::Text(&stored.bytes),
        }
    }

    /// The bytes of the value. Those of a number are written to `digits`.
    #[inline]
    pub fn bytes<'b>(self, digits: &'b mut [u8; DIGITS]) -> &'b [u8]
    where
        'v: 'b,
    {
        match self {
            Value::Number(number) => format_number(number, digits),
            Value::Text(text) => text,
        }
    }

    /// The update that puts the value into the map. `expires_ms` is 0 for never.
    #[inline]
    pub fn put(self, expires_ms: u64, now_ms: u64) -> Change<'v> {
        let (kind, number, bytes) = match self {
            Value::Number(number) => (NUMBER, number, &[][..]),
            Value::Text(bytes) => (TEXT, 0, bytes),
        };
        let tag =
            Tag { expires_ms: AtomicU64::new(expires_ms), number: AtomicI64::new(number), used_ms: AtomicU32::new(now_ms as u32), kind };
        Update::Replace((tag, bytes))
    }
}

/// Whether the key has not expired.
#[inline]
pub fn is_live(stored: &Stored, now_ms: u64) -> bool {
    let expires_ms = stored.tag.expires_ms.load(Relaxed);
    expires_ms == 0 || expires_ms > now_ms
}
