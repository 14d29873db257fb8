//! Commands about keys: whether they are there, when they end, which there are.

use std::sync::atomic::Ordering::Relaxed;

use module_api::{MapError, Scan};

use crate::call::{Call, NOT_AN_INTEGER, SYNTAX};
use crate::glob;
use crate::reply::{Reply, parse_number};
use crate::store::{Refused, Stored, is_alive};
use crate::strings::{EndUnit, moment};

pub fn del(call: &mut Call<'_>) {
    count(call, |call, key| call.store.remove(key, call.now_ms, |found| found.is_some()));
}

pub fn exists(call: &mut Call<'_>) {
    count(call, |call, key| call.store.peek(key, call.now_ms, |found| found.is_some()));
}

pub fn touch(call: &mut Call<'_>) {
    count(call, |call, key| call.store.get(key, call.now_ms, |found| found.is_some()));
}

/// Answers with the number of keys for which it is true.
fn count(call: &mut Call<'_>, is: impl Fn(&Call<'_>, &[u8]) -> Result<bool, Refused>) {
    let mut count = 0;
    for key in call.arguments.from(1) {
        match is(call, key) {
            Ok(is) => count += i64::from(is),
            Err(refused) => return call.refused(refused),
        }
    }
    call.reply().integer(count);
}

pub fn kind(call: &mut Call<'_>) {
    match call.store.peek(call.argument(1), call.now_ms, |found| found.is_some()) {
        Ok(true) => call.reply().simple("string"),
        Ok(false) => call.reply().simple("none"),
        Err(refused) => call.refused(refused),
    }
}

pub fn expire(call: &mut Call<'_>) {
    end_at(call, EndUnit { ms: 1000, absolute: false }, "expire");
}

pub fn pexpire(call: &mut Call<'_>) {
    end_at(call, EndUnit { ms: 1, absolute: false }, "pexpire");
}

pub fn expireat(call: &mut Call<'_>) {
    end_at(call, EndUnit { ms: 1000, absolute: true }, "expireat");
}

pub fn pexpireat(call: &mut Call<'_>) {
    end_at(call, EndUnit { ms: 1, absolute: true }, "pexpireat");
}

/// On which condition a key gets another end.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    if_none: bool,
    if_some: bool,
    if_later: bool,
    if_earlier: bool,
}

impl Conditions {
    /// 0: it has no end, which is later than any.
    fn allow(self, before_ms: u64, at_ms: i64) -> bool {
        let before = if before_ms == 0 { i64::MAX } else { i64::try_from(before_ms).unwrap_or(i64::MAX) };
        !(self.if_none && before_ms != 0
            || self.if_some && before_ms == 0
            || self.if_later && at_ms <= before
            || self.if_earlier && at_ms >= before)
    }
}

fn end_at(call: &mut Call<'_>, unit: EndUnit, name: &str) {
    let Some(number) = call.number(2) else { return };
    let mut conditions = Conditions::default();
    for index in 3..call.arguments.len() {
        let words = [
            ("NX", &mut conditions.if_none),
            ("XX", &mut conditions.if_some),
            ("GT", &mut conditions.if_later),
            ("LT", &mut conditions.if_earlier),
        ];
        match words.into_iter().find(|(word, _)| call.is(index, word)) {
            Some((_, condition)) => *condition = true,
            None => {
                let option = String::from_utf8_lossy(call.argument(index)).chars().take(64).collect::<String>();
                return call.error(&format!("ERR Unsupported option {option}"));
            }
        }
    }
    let Conditions { if_none, if_some, if_later, if_earlier } = conditions;
    if if_none && (if_some || if_later || if_earlier) {
        return call.error("ERR NX and XX, GT or LT options at the same time are not compatible");
    }
    if if_later && if_earlier {
        return call.error("ERR GT and LT options at the same time are not compatible");
    }
    let Some(at_ms) = moment(number, unit, call.now_ms) else {
        return call.error(&format!("ERR invalid expire time in '{name}' command"));
    };
    let (store, key, now_ms) = (call.store, call.argument(1), call.now_ms);
    let ends_ms = u64::try_from(at_ms).ok().filter(|ends_ms| *ends_ms > now_ms);
    let outcome = store.change(key, now_ms, |found| {
        let Some(stored) = found.filter(|stored| conditions.allow(stored.tag.ends_ms.load(Relaxed), at_ms)) else { return false };
        // One that has ended is removed by the next who comes past it.
        stored.tag.ends_ms.store(ends_ms.unwrap_or(1), Relaxed);
        true
    });
    store.mark_ending();
    let outcome = match (outcome, ends_ms) {
        (Ok(true), None) => store.get(key, now_ms, |_| true),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(changed) => call.reply().integer(i64::from(changed)),
        Err(refused) => call.refused(refused),
    }
}

pub fn persist(call: &mut Call<'_>) {
    let outcome =
        call.store.change(call.argument(1), call.now_ms, |found| found.is_some_and(|stored| stored.tag.ends_ms.swap(0, Relaxed) != 0));
    match outcome {
        Ok(changed) => call.reply().integer(i64::from(changed)),
        Err(refused) => call.refused(refused),
    }
}

pub fn ttl(call: &mut Call<'_>) {
    let now_ms = call.now_ms;
    // As others do: half a second more is a second more.
    end_of(call, |ends_ms| (ends_ms.saturating_sub(now_ms) + 500) / 1000);
}

pub fn pttl(call: &mut Call<'_>) {
    let now_ms = call.now_ms;
    end_of(call, |ends_ms| ends_ms.saturating_sub(now_ms));
}

pub fn expiretime(call: &mut Call<'_>) {
    end_of(call, |ends_ms| (ends_ms + 500) / 1000);
}

pub fn pexpiretime(call: &mut Call<'_>) {
    end_of(call, |ends_ms| ends_ms);
}

/// Answers with when a key ends, as `say` puts it; -1: never, -2: there is none.
fn end_of(call: &mut Call<'_>, say: impl Fn(u64) -> u64) {
    let outcome = call.store.peek(call.argument(1), call.now_ms, |found| match found.map(|stored| stored.tag.ends_ms.load(Relaxed)) {
        None => -2,
        Some(0) => -1,
        Some(ends_ms) => i64::try_from(say(ends_ms)).unwrap_or(i64::MAX),
    });
    match outcome {
        Ok(number) => call.reply().integer(number),
        Err(refused) => call.refused(refused),
    }
}

pub fn dbsize(call: &mut Call<'_>) {
    let len = call.store.map.len() as i64;
    call.reply().integer(len);
}

pub fn flush(call: &mut Call<'_>) {
    if call.arguments.len() > 2 || call.arguments.len() == 2 && !call.is(1, "SYNC") && !call.is(1, "ASYNC") {
        return call.error(SYNTAX);
    }
    match call.store.clear() {
        Ok(()) => call.reply().ok(),
        Err(error) => call.refused(Refused::from(error)),
    }
}

/// Entries that are looked at under one lock.
const STEP: usize = 256;

pub fn keys(call: &mut Call<'_>) {
    let pattern = call.argument(1);
    let start = call.out.len();
    let (store, now_ms, limit, protocol) = (call.store, call.now_ms, call.limits.reply_bytes, call.client.protocol);
    // How many there are is known at the end, and stands at the beginning.
    let found = &mut call.work.bytes;
    found.clear();
    let (mut count, mut cursor) = (0, 0);
    let outcome: Result<(), MapError> = loop {
        let step = store.map.scan_from(cursor, STEP, |key, stored| {
            if found.len() <= limit && is_alive(stored, now_ms) && glob::matches(pattern, key) {
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
            call.reply().array(count);
            call.out.extend_from_slice(&found);
            call.is_too_long(start);
        }
        Err(error) => call.refused(Refused::from(error)),
    }
}

/// Most entries that one SCAN looks at, and the number of locks it takes at most besides.
const SCAN_MAX: i64 = 100_000;
const SCAN_LOCKS: usize = 4096;

pub fn scan(call: &mut Call<'_>) {
    // A cursor is any number that a client was given: no sign.
    let Some(mut cursor) = parse_cursor(call.argument(1)) else { return call.error("ERR invalid cursor") };
    let (mut pattern, mut limit, mut strings) = (None, 10_usize, true);
    for index in (2..call.arguments.len()).step_by(2) {
        if index + 1 == call.arguments.len() {
            return call.error(SYNTAX);
        } else if call.is(index, "MATCH") {
            pattern = Some(call.argument(index + 1));
        } else if call.is(index, "COUNT") {
            match parse_number(call.argument(index + 1)) {
                Some(count) if count > 0 => limit = count.min(SCAN_MAX) as usize,
                Some(_) => return call.error(SYNTAX),
                None => return call.error(NOT_AN_INTEGER),
            }
        } else if call.is(index, "TYPE") {
            strings = call.is(index + 1, "string");
        } else {
            return call.error(SYNTAX);
        }
    }
    let (store, now_ms, protocol) = (call.store, call.now_ms, call.client.protocol);
    let found = &mut call.work.bytes;
    found.clear();
    let (mut count, mut seen, mut locks) = (0, 0, 0);
    let is_wanted = |key: &[u8], stored: &Stored| {
        strings && is_alive(stored, now_ms) && pattern.is_none_or(|pattern| pattern == b"*" || glob::matches(pattern, key))
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
            let mut reply = call.reply();
            reply.array(2);
            reply.bulk_number(cursor.cast_signed());
            reply.array(count);
            call.out.extend_from_slice(&found);
        }
        Err(error) => call.refused(Refused::from(error)),
    }
    call.work.bytes = found;
    call.work.bytes.clear();
    call.work.bytes.shrink_to(KEPT_BYTES);
}

/// More is given back after a long reply.
const KEPT_BYTES: usize = 64 << 10;

fn parse_cursor(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}
