//! Commands that read and write values.

use std::sync::atomic::Ordering::Relaxed;

use module_api::Update;

use super::context::{CommandContext, NOT_AN_INTEGER, SCRATCH_KEPT_BYTES, SYNTAX, TOO_LONG, write_value};
use crate::reply::{DIGITS, Reply, parse_number};
use crate::store::{StoreError, Stored, Value};

pub fn get(cx: &mut CommandContext<'_>) {
    let key = cx.argument(1);
    if let Err(error) = read(cx, key) {
        cx.send_store_error(error);
    }
}

/// Sends the value of a key, and counts a hit or a miss.
#[inline]
fn read(cx: &mut CommandContext<'_>, key: &[u8]) -> Result<(), StoreError> {
    let store = cx.store;
    store.get(key, cx.now_ms, |found| {
        match found {
            Some(_) => cx.scratch.hits += 1,
            None => cx.scratch.misses += 1,
        }
        cx.send_value(found);
    })
}

pub fn mget(cx: &mut CommandContext<'_>) {
    let start = cx.out.len();
    let count = cx.arguments.len() - 1;
    cx.reply().array(count);
    for key in cx.arguments.from(1) {
        if let Err(error) = read(cx, key) {
            cx.out.truncate(start);
            return cx.send_store_error(error);
        }
        if cx.refuse_long_reply(start) {
            return;
        }
    }
}

/// The condition for SET to store the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfAbsent,
    IfPresent,
}

/// The expiry that SET gives the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Never,
    /// That of the previous value.
    Unchanged,
    /// Unix milliseconds.
    At(u64),
}

/// The reply of SET and its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetReply {
    /// OK, or a null if the value was not stored.
    Ok,
    /// The previous value, or a null if there was none.
    Previous,
    /// 1 if the value was stored, otherwise 0.
    Stored,
}

pub fn set(cx: &mut CommandContext<'_>) {
    if cx.arguments.len() == 3 {
        return store(cx, cx.argument(1), cx.argument(2), Condition::Always, Expiry::Never, SetReply::Ok);
    }
    let (mut condition, mut expiry, mut reply) = (Condition::Always, None, SetReply::Ok);
    let mut index = 3;
    while index < cx.arguments.len() {
        if cx.is(index, "NX") && condition != Condition::IfPresent {
            condition = Condition::IfAbsent;
        } else if cx.is(index, "XX") && condition != Condition::IfAbsent {
            condition = Condition::IfPresent;
        } else if cx.is(index, "GET") {
            reply = SetReply::Previous;
        } else if cx.is(index, "KEEPTTL") && expiry.is_none() {
            expiry = Some(Expiry::Unchanged);
        } else if let Some(unit) = unit_of(cx, index)
            && expiry.is_none()
            && index + 1 < cx.arguments.len()
        {
            index += 1;
            let Some(at_ms) = parse_expiry_ms(cx, index, unit, "set") else { return };
            expiry = Some(Expiry::At(at_ms));
        } else {
            return cx.send_error(SYNTAX);
        }
        index += 1;
    }
    store(cx, cx.argument(1), cx.argument(2), condition, expiry.unwrap_or(Expiry::Never), reply);
}

/// The unit of an expiry argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeUnit {
    /// Milliseconds of one unit.
    pub ms: i64,
    /// Whether the time counts from 1970 instead of from now.
    pub is_absolute: bool,
}

fn unit_of(cx: &CommandContext<'_>, index: usize) -> Option<TimeUnit> {
    let words = [("EX", 1000, false), ("PX", 1, false), ("EXAT", 1000, true), ("PXAT", 1, true)];
    words.into_iter().find(|(word, ..)| cx.is(index, word)).map(|(_, ms, is_absolute)| TimeUnit { ms, is_absolute })
}

/// The expiry in Unix milliseconds, which may be in the past. `None` if it does not fit into an
/// i64.
pub fn expiry_ms(number: i64, unit: TimeUnit, now_ms: u64) -> Option<i64> {
    let from = if unit.is_absolute { 0 } else { i64::try_from(now_ms).ok()? };
    number.checked_mul(unit.ms)?.checked_add(from)
}

/// Parses an argument as an expiry, in Unix milliseconds. Sends an error if its number is not above
/// 0.
fn parse_expiry_ms(cx: &mut CommandContext<'_>, index: usize, unit: TimeUnit, command: &str) -> Option<u64> {
    let number = cx.number(index)?;
    let at_ms = if number > 0 { expiry_ms(number, unit, cx.now_ms).and_then(|at_ms| u64::try_from(at_ms).ok()) } else { None };
    if at_ms.is_none() {
        cx.send_error(&format!("ERR invalid expire time in '{command}' command"));
    }
    at_ms
}

#[inline]
fn store(cx: &mut CommandContext<'_>, key: &[u8], bytes: &[u8], condition: Condition, expiry: Expiry, reply: SetReply) {
    let value = Value::of(bytes);
    let (store, now_ms, start) = (cx.store, cx.now_ms, cx.out.len());
    let max_entry_bytes = key.len() + bytes.len();
    let (client, out) = (&mut *cx.client, &mut *cx.out);
    let outcome = store.with_eviction(&mut cx.scratch.quota, |quota| {
        store
            .update(quota, key, max_entry_bytes, now_ms, |found| {
                let is_stored = match condition {
                    Condition::Always => true,
                    Condition::IfAbsent => found.is_none(),
                    Condition::IfPresent => found.is_some(),
                };
                if reply == SetReply::Previous {
                    write_value(Reply { out, protocol: client.protocol }, found);
                }
                if !is_stored {
                    return (Update::Keep, false);
                }
                let expires_ms = match expiry {
                    Expiry::Never => 0,
                    Expiry::Unchanged => found.map_or(0, |stored| stored.tag.expires_ms.load(Relaxed)),
                    Expiry::At(at_ms) => at_ms,
                };
                (value.put(expires_ms, now_ms), true)
            })
            .inspect_err(|_| out.truncate(start))
    });
    if matches!(expiry, Expiry::At(_)) {
        store.mark_expiring();
    }
    match (outcome, reply) {
        (Ok(true), SetReply::Ok) => cx.reply().ok(),
        (Ok(false), SetReply::Ok) => cx.reply().null(),
        (Ok(stored), SetReply::Stored) => cx.reply().integer(i64::from(stored)),
        (Ok(_), SetReply::Previous) => {}
        (Err(error), _) => cx.send_store_error(error),
    }
}

pub fn setnx(cx: &mut CommandContext<'_>) {
    store(cx, cx.argument(1), cx.argument(2), Condition::IfAbsent, Expiry::Never, SetReply::Stored);
}

pub fn getset(cx: &mut CommandContext<'_>) {
    store(cx, cx.argument(1), cx.argument(2), Condition::Always, Expiry::Never, SetReply::Previous);
}

pub fn setex(cx: &mut CommandContext<'_>) {
    set_with_expiry(cx, 1000, "setex");
}

pub fn psetex(cx: &mut CommandContext<'_>) {
    set_with_expiry(cx, 1, "psetex");
}

fn set_with_expiry(cx: &mut CommandContext<'_>, ms: i64, name: &str) {
    if let Some(at_ms) = parse_expiry_ms(cx, 2, TimeUnit { ms, is_absolute: false }, name) {
        store(cx, cx.argument(1), cx.argument(3), Condition::Always, Expiry::At(at_ms), SetReply::Ok);
    }
}

pub fn mset(cx: &mut CommandContext<'_>) {
    if cx.arguments.len().is_multiple_of(2) {
        return cx.send_wrong_argument_count("mset");
    }
    let (store, now_ms) = (cx.store, cx.now_ms);
    let mut pairs = cx.arguments.from(1);
    while let (Some(key), Some(bytes)) = (pairs.next(), pairs.next()) {
        let max_entry_bytes = key.len() + bytes.len();
        let stored = store.with_eviction(&mut cx.scratch.quota, |quota| {
            store.update(quota, key, max_entry_bytes, now_ms, |_| (Value::of(bytes).put(0, now_ms), ()))
        });
        if let Err(error) = stored {
            return cx.send_store_error(error);
        }
    }
    cx.reply().ok();
}

pub fn getdel(cx: &mut CommandContext<'_>) {
    let (store, key) = (cx.store, cx.argument(1));
    if let Err(error) = store.remove(key, cx.now_ms, |found| cx.send_value(found)) {
        cx.send_store_error(error);
    }
}

pub fn getex(cx: &mut CommandContext<'_>) {
    let expiry = match cx.arguments.len() {
        2 => None,
        3 if cx.is(2, "PERSIST") => Some(0),
        4 => {
            let Some(unit) = unit_of(cx, 2) else { return cx.send_error(SYNTAX) };
            let Some(at_ms) = parse_expiry_ms(cx, 3, unit, "getex") else { return };
            Some(at_ms)
        }
        _ => return cx.send_error(SYNTAX),
    };
    let (store, key) = (cx.store, cx.argument(1));
    let outcome = store.change(key, cx.now_ms, |found| {
        if let (Some(stored), Some(expires_ms)) = (found, expiry) {
            stored.tag.expires_ms.store(expires_ms, Relaxed);
        }
        cx.send_value(found);
    });
    store.mark_expiring();
    if let Err(error) = outcome {
        cx.send_store_error(error);
    }
}

pub fn strlen(cx: &mut CommandContext<'_>) {
    let len =
        cx.store.get(cx.argument(1), cx.now_ms, |found| found.map_or(0, |stored| Value::stored(stored).bytes(&mut [0; DIGITS]).len()));
    match len {
        Ok(len) => cx.reply().integer(len as i64),
        Err(error) => cx.send_store_error(error),
    }
}

pub fn getrange(cx: &mut CommandContext<'_>) {
    let (Some(from), Some(to)) = (parse_number(cx.argument(2)), parse_number(cx.argument(3))) else {
        return cx.send_error(NOT_AN_INTEGER);
    };
    let (store, key) = (cx.store, cx.argument(1));
    let outcome = store.get(key, cx.now_ms, |found| {
        let mut digits = [0; DIGITS];
        let text = found.map_or(&[][..], |stored| Value::stored(stored).bytes(&mut digits));
        // Negative offsets count from the end.
        let len = text.len() as i64;
        let offset = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
        let (first, last) = (offset(from), offset(to).min(len - 1));
        let is_empty = from < 0 && to < 0 && from > to || first > last;
        let part = if is_empty { &[][..] } else { text.get(first as usize..=last as usize).unwrap_or_default() };
        cx.reply().bulk(part);
    });
    if let Err(error) = outcome {
        cx.send_store_error(error);
    }
}

pub fn append(cx: &mut CommandContext<'_>) {
    let (key, more) = (cx.argument(1), cx.argument(2));
    let (store, now_ms, longest) = (cx.store, cx.now_ms, cx.limits.value_bytes);
    let scratch = &mut *cx.scratch;
    let bytes = &mut scratch.bytes;
    // Only the added bytes: those of the old value are freed when the new one is stored.
    let max_entry_bytes = key.len() + more.len();
    let outcome = store.with_eviction(&mut scratch.quota, |quota| {
        let bytes = &mut *bytes;
        store.update(quota, key, max_entry_bytes, now_ms, move |found| {
            bytes.clear();
            if let Some(stored) = found {
                bytes.extend_from_slice(Value::stored(stored).bytes(&mut [0; DIGITS]));
            }
            if bytes.len() + more.len() > longest {
                return (Update::Keep, None);
            }
            bytes.extend_from_slice(more);
            let len = bytes.len();
            let expires_ms = found.map_or(0, |stored| stored.tag.expires_ms.load(Relaxed));
            (Value::of(bytes).put(expires_ms, now_ms), Some(len))
        })
    });
    if bytes.capacity() > SCRATCH_KEPT_BYTES {
        *bytes = Vec::new();
    }
    match outcome {
        Ok(Some(len)) => cx.reply().integer(len as i64),
        Ok(None) => cx.send_error(TOO_LONG),
        Err(error) => cx.send_store_error(error),
    }
}

pub fn incr(cx: &mut CommandContext<'_>) {
    add(cx, 1);
}

pub fn decr(cx: &mut CommandContext<'_>) {
    add(cx, -1);
}

pub fn incrby(cx: &mut CommandContext<'_>) {
    if let Some(amount) = cx.number(2) {
        add(cx, amount);
    }
}

pub fn decrby(cx: &mut CommandContext<'_>) {
    let Some(amount) = cx.number(2) else { return };
    match amount.checked_neg() {
        Some(amount) => add(cx, amount),
        None => cx.send_error("ERR decrement would overflow"),
    }
}

/// The result of adding to a value.
enum Increment {
    /// The new value.
    Done(i64),
    Overflow,
    NotANumber,
    NoKey,
}

fn add(cx: &mut CommandContext<'_>, amount: i64) {
    let (store, key, now_ms) = (cx.store, cx.argument(1), cx.now_ms);
    // A number in the map is changed in place, under the shard's lock.
    let change = |found: Option<&Stored>| match found.map(|stored| (stored, Value::stored(stored))) {
        Some((stored, Value::Number(number))) => match number.checked_add(amount) {
            Some(sum) => {
                stored.tag.number.store(sum, Relaxed);
                Increment::Done(sum)
            }
            None => Increment::Overflow,
        },
        Some((_, Value::Text(_))) => Increment::NotANumber,
        None => Increment::NoKey,
    };
    let outcome = match store.change(key, now_ms, change) {
        Ok(Increment::NoKey) => store.with_eviction(&mut cx.scratch.quota, |quota| {
            store.update(quota, key, key.len(), now_ms, |found| match change(found) {
                Increment::NoKey => (Value::Number(amount).put(0, now_ms), Increment::Done(amount)),
                // Another process has stored the key since.
                result => (Update::Keep, result),
            })
        }),
        outcome => outcome,
    };
    match outcome {
        Ok(Increment::Done(sum)) => cx.reply().integer(sum),
        Ok(Increment::Overflow) => cx.send_error("ERR increment or decrement would overflow"),
        Ok(Increment::NotANumber | Increment::NoKey) => cx.send_error(NOT_AN_INTEGER),
        Err(error) => cx.send_store_error(error),
    }
}
