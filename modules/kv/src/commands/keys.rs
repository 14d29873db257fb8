//! Commands about keys: existence, expiry, and lists of keys.

use std::sync::atomic::Ordering::Relaxed;

use module_api::{MapError, Scan};

use super::context::{CommandContext, NOT_AN_INTEGER, SCRATCH_KEPT_BYTES, SYNTAX};
use super::strings::{TimeUnit, expiry_ms};
use crate::glob;
use crate::reply::{Reply, parse_number};
use crate::store::{StoreError, Stored, is_live};

pub fn del(cx: &mut CommandContext<'_>) {
    count(cx, |cx, key| cx.store.remove(key, cx.now_ms, |found| found.is_some()));
}

pub fn exists(cx: &mut CommandContext<'_>) {
    count(cx, |cx, key| cx.store.peek(key, cx.now_ms, |found| found.is_some()));
}

pub fn touch(cx: &mut CommandContext<'_>) {
    count(cx, |cx, key| cx.store.get(key, cx.now_ms, |found| found.is_some()));
}

/// Replies with the number of keys for which `is` returns true.
fn count(cx: &mut CommandContext<'_>, is: impl Fn(&CommandContext<'_>, &[u8]) -> Result<bool, StoreError>) {
    let mut count = 0;
    for key in cx.arguments.from(1) {
        match is(cx, key) {
            Ok(is) => count += i64::from(is),
            Err(error) => return cx.send_store_error(error),
        }
    }
    cx.reply().integer(count);
}

pub fn kind(cx: &mut CommandContext<'_>) {
    match cx.store.peek(cx.argument(1), cx.now_ms, |found| found.is_some()) {
        Ok(true) => cx.reply().simple("string"),
        Ok(false) => cx.reply().simple("none"),
        Err(error) => cx.send_store_error(error),
    }
}

pub fn expire(cx: &mut CommandContext<'_>) {
    set_expiry(cx, TimeUnit { ms: 1000, is_absolute: false }, "expire");
}

pub fn pexpire(cx: &mut CommandContext<'_>) {
    set_expiry(cx, TimeUnit { ms: 1, is_absolute: false }, "pexpire");
}

pub fn expireat(cx: &mut CommandContext<'_>) {
    set_expiry(cx, TimeUnit { ms: 1000, is_absolute: true }, "expireat");
}

pub fn pexpireat(cx: &mut CommandContext<'_>) {
    set_expiry(cx, TimeUnit { ms: 1, is_absolute: true }, "pexpireat");
}

/// The conditions for another expiry, by their options.
#[derive(Debug, Clone, Copy, Default)]
struct ExpireConditions {
    /// NX
    if_none: bool,
    /// XX
    if_some: bool,
    /// GT
    if_later: bool,
    /// LT
    if_earlier: bool,
}

impl ExpireConditions {
    /// `before_ms` is 0 for a key that never expires, which counts as later than any time.
    fn allow(self, before_ms: u64, at_ms: i64) -> bool {
        let before = if before_ms == 0 { i64::MAX } else { i64::try_from(before_ms).unwrap_or(i64::MAX) };
        !(self.if_none && before_ms != 0
            || self.if_some && before_ms == 0
            || self.if_later && at_ms <= before
            || self.if_earlier && at_ms >= before)
    }
}

fn set_expiry(cx: &mut CommandContext<'_>, unit: TimeUnit, name: &str) {
    let Some(number) = cx.number(2) else { return };
    let mut conditions = ExpireConditions::default();
    for index in 3..cx.arguments.len() {
        let words = [
            ("NX", &mut conditions.if_none),
            ("XX", &mut conditions.if_some),
            ("GT", &mut conditions.if_later),
            ("LT", &mut conditions.if_earlier),
        ];
        match words.into_iter().find(|(word, _)| cx.is(index, word)) {
            Some((_, condition)) => *condition = true,
            None => {
                let option = String::from_utf8_lossy(cx.argument(index)).chars().take(64).collect::<String>();
                return cx.send_error(&format!("ERR Unsupported option {option}"));
            }
        }
    }
    let ExpireConditions { if_none, if_some, if_later, if_earlier } = conditions;
    if if_none && (if_some || if_later || if_earlier) {
        return cx.send_error("ERR NX and XX, GT or LT options at the same time are not compatible");
    }
    if if_later && if_earlier {
        return cx.send_error("ERR GT and LT options at the same time are not compatible");
    }
    let Some(at_ms) = expiry_ms(number, unit, cx.now_ms) else {
        return cx.send_error(&format!("ERR invalid expire time in '{name}' command"));
    };
    let (store, key, now_ms) = (cx.store, cx.argument(1), cx.now_ms);
    let expires_ms = u64::try_from(at_ms).ok().filter(|expires_ms| *expires_ms > now_ms);
    let outcome = store.change(key, now_ms, |found| {
        let Some(stored) = found.filter(|stored| conditions.allow(stored.tag.expires_ms.load(Relaxed), at_ms)) else { return false };
        // A time in the past makes the key expired. `get` below then removes it.
        stored.tag.expires_ms.store(expires_ms.unwrap_or(1), Relaxed);
        true
    });
    store.mark_expiring();
    let outcome = match (outcome, expires_ms) {
        (Ok(true), None) => store.get(key, now_ms, |_| true),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(changed) => cx.reply().integer(i64::from(changed)),
        Err(error) => cx.send_store_error(error),
    }
}

pub fn persist(cx: &mut CommandContext<'_>) {
    let outcome =
        cx.store.change(cx.argument(1), cx.now_ms, |found| found.is_some_and(|stored| stored.tag.expires_ms.swap(0, Relaxed) != 0));
    match outcome {
        Ok(changed) => cx.reply().integer(i64::from(changed)),
        Err(error) => cx.send_store_error(error),
    }
}

pub fn ttl(cx: &mut CommandContext<'_>) {
    let now_ms = cx.now_ms;
    // Rounded, as Redis does.
    reply_expiry(cx, |expires_ms| (expires_ms.saturating_sub(now_ms) + 500) / 1000);
}

pub fn pttl(cx: &mut CommandContext<'_>) {
    let now_ms = cx.now_ms;
    reply_expiry(cx, |expires_ms| expires_ms.saturating_sub(now_ms));
}

pub fn expiretime(cx: &mut CommandContext<'_>) {
    reply_expiry(cx, |expires_ms| (expires_ms + 500) / 1000);
}

pub fn pexpiretime(cx: &mut CommandContext<'_>) {
    reply_expiry(cx, |expires_ms| expires_ms);
}

/// Replies with the expiry of a key, converted from Unix milliseconds; -1 if the key never expires,
/// -2 if there is no such key.
fn reply_expiry(cx: &mut CommandContext<'_>, convert: impl Fn(u64) -> u64) {
    let outcome = cx.store.peek(cx.argument(1), cx.now_ms, |found| match found.map(|stored| stored.tag.expires_ms.load(Relaxed)) {
        None => -2,
        Some(0) => -1,
        Some(expires_ms) => i64::try_from(convert(expires_ms)).unwrap_or(i64::MAX),
    });
    match outcome {
        Ok(number) => cx.reply().integer(number),
        Err(error) => cx.send_store_error(error),
    }
}

pub fn dbsize(cx: &mut CommandContext<'_>) {
    let len = cx.store.map.len() as i64;
    cx.reply().integer(len);
}

pub fn flush(cx: &mut CommandContext<'_>) {
    if cx.arguments.len() > 2 || cx.arguments.len() == 2 && !cx.is(1, "SYNC") && !cx.is(1, "ASYNC") {
        return cx.send_error(SYNTAX);
    }
    match cx.store.clear() {
        Ok(()) => cx.reply().ok(),
        Err(error) => cx.send_store_error(StoreError::from(error)),
    }
}

/// Entries that KEYS reads under one lock.
const STEP: usize = 256;

pub fn keys(cx: &mut CommandContext<'_>) {
    let pattern = cx.argument(1);
    let start = cx.out.len();
    let (store, now_ms, limit, protocol) = (cx.store, cx.now_ms, cx.limits.reply_bytes, cx.client.protocol);
    // The reply begins with the number of keys, so they are collected first.
    let found = &mut cx.scratch.bytes;
    found.clear();
    let (mut count, mut cursor) = (0, 0);
    let outcome: Result<(), MapError> = loop {
        let step = store.map.scan_from(cursor, STEP, |key, stored| {
            if found.len() <= limit && is_live(stored, now_ms) && glob::matches(pattern, key) {
                count += 1;
                Reply { out: found, protocol }.bulk(key);
            }
            Scan::Keep
        });
        match step {
            Ok(next) if next != 0 && found.len() <= limit => cursor = next,
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let found = std::mem::take(found);
    match outcome {
        Ok(()) => {
            cx.reply().array(count);
            cx.out.extend_from_slice(&found);
            cx.refuse_long_reply(start);
        }
        Err(error) => cx.send_store_error(StoreError::from(error)),
    }
}

/// Most entries that one SCAN reads.
const SCAN_MAX: i64 = 100_000;
/// Most locks that one SCAN takes.
const SCAN_LOCKS: usize = 4096;

pub fn scan(cx: &mut CommandContext<'_>) {
    let Some(mut cursor) = parse_cursor(cx.argument(1)) else { return cx.send_error("ERR invalid cursor") };
    let (mut pattern, mut limit, mut wants_strings) = (None, 10_usize, true);
    for index in (2..cx.arguments.len()).step_by(2) {
        if index + 1 == cx.arguments.len() {
            return cx.send_error(SYNTAX);
        } else if cx.is(index, "MATCH") {
            pattern = Some(cx.argument(index + 1));
        } else if cx.is(index, "COUNT") {
            match parse_number(cx.argument(index + 1)) {
                Some(count) if count > 0 => limit = count.min(SCAN_MAX) as usize,
                Some(_) => return cx.send_error(SYNTAX),
                None => return cx.send_error(NOT_AN_INTEGER),
            }
        } else if cx.is(index, "TYPE") {
            wants_strings = cx.is(index + 1, "string");
        } else {
            return cx.send_error(SYNTAX);
        }
    }
    let (store, now_ms, protocol) = (cx.store, cx.now_ms, cx.client.protocol);
    let found = &mut cx.scratch.bytes;
    found.clear();
    let (mut count, mut seen, mut locks) = (0, 0, 0);
    let is_wanted = |key: &[u8], stored: &Stored| {
        wants_strings && is_live(stored, now_ms) && pattern.is_none_or(|pattern| pattern == b"*" || glob::matches(pattern, key))
    };
    let outcome: Result<(), MapError> = loop {
        let step = store.map.scan_from(cursor, limit - seen, |key, stored| {
            seen += 1;
            if is_wanted(key, stored) {
                count += 1;
                Reply { out: found, protocol }.bulk(key);
            }
            Scan::Keep
        });
        locks += 1;
        match step {
            Ok(next) => cursor = next,
            Err(error) => break Err(error),
        }
        if cursor == 0 || seen >= limit || locks >= SCAN_LOCKS {
            break Ok(());
        }
    };
    let found = std::mem::take(found);
    match outcome {
        Ok(()) => {
            let mut reply = cx.reply();
            reply.array(2);
            reply.bulk_number(cursor.cast_signed());
            reply.array(count);
            cx.out.extend_from_slice(&found);
        }
        Err(error) => cx.send_store_error(StoreError::from(error)),
    }
    cx.scratch.bytes = found;
    cx.scratch.bytes.clear();
    cx.scratch.bytes.shrink_to(SCRATCH_KEPT_BYTES);
}

/// A cursor is an unsigned number; a sign is not allowed.
fn parse_cursor(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}
