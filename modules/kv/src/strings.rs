//! Commands that read and write values.

use std::sync::atomic::Ordering::Relaxed;

use module_api::Update;

use crate::call::{Call, NOT_AN_INTEGER, SYNTAX, TOO_LONG};
use crate::reply::{DIGITS, format_number, parse_number};
use crate::store::{Refused, Value};

pub fn get(call: &mut Call<'_>) {
    let key = call.argument(1);
    if let Err(refused) = read(call, key) {
        call.refused(refused);
    }
}

/// Sends the value of a key, and counts whether there was one.
#[inline]
fn read(call: &mut Call<'_>, key: &[u8]) -> Result<(), Refused> {
    let store = call.store;
    store.get(key, call.now_ms, |found| {
        match found {
            Some(_) => call.work.hits += 1,
            None => call.work.misses += 1,
        }
        call.send_value(found);
    })
}

pub fn mget(call: &mut Call<'_>) {
    let start = call.out.len();
    let count = call.arguments.len() - 1;
    call.reply().array(count);
    for key in call.arguments.from(1) {
        if let Err(refused) = read(call, key) {
            call.out.truncate(start);
            return call.refused(refused);
        }
        if call.is_too_long(start) {
            return;
        }
    }
}

/// When SET is to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    Always,
    IfNew,
    IfThere,
}

/// The end that a value gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Never,
    AsBefore,
    At(u64),
}

/// What SET and its relatives answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ok,
    Before,
    Flag,
}

pub fn set(call: &mut Call<'_>) {
    if call.arguments.len() == 3 {
        return store(call, call.argument(1), call.argument(2), Only::Always, End::Never, Answer::Ok);
    }
    let (mut only, mut end, mut answer) = (Only::Always, None, Answer::Ok);
    let mut index = 3;
    while index < call.arguments.len() {
        if call.is(index, "NX") && only != Only::IfThere {
            only = Only::IfNew;
        } else if call.is(index, "XX") && only != Only::IfNew {
            only = Only::IfThere;
        } else if call.is(index, "GET") {
            answer = Answer::Before;
        } else if call.is(index, "KEEPTTL") && end.is_none() {
            end = Some(End::AsBefore);
        } else if let Some(unit) = unit_of(call, index)
            && end.is_none()
            && index + 1 < call.arguments.len()
        {
            index += 1;
            let Some(at_ms) = end_argument(call, index, unit, "set") else { return };
            end = Some(End::At(at_ms));
        } else {
            return call.error(SYNTAX);
        }
        index += 1;
    }
    store(call, call.argument(1), call.argument(2), only, end.unwrap_or(End::Never), answer);
}

/// What the number behind `EX` and its like means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndUnit {
    /// Milliseconds in one.
    pub ms: i64,
    /// Counted from 1970, not from now.
    pub absolute: bool,
}

fn unit_of(call: &Call<'_>, index: usize) -> Option<EndUnit> {
    let words = [("EX", 1000, false), ("PX", 1, false), ("EXAT", 1000, true), ("PXAT", 1, true)];
    words.into_iter().find(|(word, ..)| call.is(index, word)).map(|(_, ms, absolute)| EndUnit { ms, absolute })
}

/// The moment that a number means, in Unix milliseconds; it may be in the past. None: no moment of our time.
pub fn moment(number: i64, unit: EndUnit, now_ms: u64) -> Option<i64> {
    let from = if unit.absolute { 0 } else { i64::try_from(now_ms).ok()? };
    number.checked_mul(unit.ms)?.checked_add(from)
}

/// The end of a value that is given with it, which must be in the future; an error has been sent if it is not.
fn end_argument(call: &mut Call<'_>, index: usize, unit: EndUnit, command: &str) -> Option<u64> {
    let number = call.number(index)?;
    let at_ms = if number > 0 { moment(number, unit, call.now_ms).and_then(|at_ms| u64::try_from(at_ms).ok()) } else { None };
    if at_ms.is_none() {
        call.error(&format!("ERR invalid expire time in '{command}' command"));
    }
    at_ms
}

#[inline]
fn store(call: &mut Call<'_>, key: &[u8], bytes: &[u8], only: Only, end: End, answer: Answer) {
    let value = Value::of(bytes);
    let (store, now_ms, start) = (call.store, call.now_ms, call.out.len());
    let room_for = key.len() + bytes.len();
    let (client, out) = (&mut *call.client, &mut *call.out);
    let outcome = store.with_room(&mut call.work.room, |room| {
        store
            .update(room, key, room_for, now_ms, |found| {
                let goes_on = match only {
                    Only::Always => true,
                    Only::IfNew => found.is_none(),
                    Only::IfThere => found.is_some(),
                };
                if answer == Answer::Before {
                    let mut reply = crate::reply::Reply { out, protocol: client.protocol };
                    match found.map(Value::stored) {
                        Some(Value::Text(text)) => reply.bulk(text),
                        Some(Value::Number(number)) => reply.bulk_number(number),
                        None => reply.nothing(),
                    }
                }
                if !goes_on {
                    return (Update::Keep, false);
                }
                let ends_ms = match end {
                    End::Never => 0,
                    End::AsBefore => found.map_or(0, |stored| stored.tag.ends_ms.load(Relaxed)),
                    End::At(at_ms) => at_ms,
                };
                (value.put(ends_ms, now_ms), true)
            })
            .inspect_err(|_| out.truncate(start))
    });
    if matches!(end, End::At(_)) {
        store.mark_ending();
    }
    match (outcome, answer) {
        (Ok(true), Answer::Ok) => call.reply().ok(),
        (Ok(false), Answer::Ok) => call.reply().nothing(),
        (Ok(stored), Answer::Flag) => call.reply().integer(i64::from(stored)),
        (Ok(_), Answer::Before) => {}
        (Err(refused), _) => call.refused(refused),
    }
}

pub fn setnx(call: &mut Call<'_>) {
    store(call, call.argument(1), call.argument(2), Only::IfNew, End::Never, Answer::Flag);
}

pub fn getset(call: &mut Call<'_>) {
    store(call, call.argument(1), call.argument(2), Only::Always, End::Never, Answer::Before);
}

pub fn setex(call: &mut Call<'_>) {
    set_with_end(call, 1000, "setex");
}

pub fn psetex(call: &mut Call<'_>) {
    set_with_end(call, 1, "psetex");
}

fn set_with_end(call: &mut Call<'_>, ms: i64, name: &str) {
    if let Some(at_ms) = end_argument(call, 2, EndUnit { ms, absolute: false }, name) {
        store(call, call.argument(1), call.argument(3), Only::Always, End::At(at_ms), Answer::Ok);
    }
}

pub fn mset(call: &mut Call<'_>) {
    if call.arguments.len().is_multiple_of(2) {
        return call.wrong_number_of("mset");
    }
    let (store, now_ms) = (call.store, call.now_ms);
    let mut pairs = call.arguments.from(1);
    while let (Some(key), Some(bytes)) = (pairs.next(), pairs.next()) {
        let room_for = key.len() + bytes.len();
        let stored = store
            .with_room(&mut call.work.room, |room| store.update(room, key, room_for, now_ms, |_| (Value::of(bytes).put(0, now_ms), ())));
        if let Err(refused) = stored {
            return call.refused(refused);
        }
    }
    call.reply().ok();
}

pub fn getdel(call: &mut Call<'_>) {
    let (store, key) = (call.store, call.argument(1));
    if let Err(refused) = store.remove(key, call.now_ms, |found| call.send_value(found)) {
        call.refused(refused);
    }
}

pub fn getex(call: &mut Call<'_>) {
    let end = match call.arguments.len() {
        2 => None,
        3 if call.is(2, "PERSIST") => Some(0),
        4 => {
            let Some(unit) = unit_of(call, 2) else { return call.error(SYNTAX) };
            let Some(at_ms) = end_argument(call, 3, unit, "getex") else { return };
            Some(at_ms)
        }
        _ => return call.error(SYNTAX),
    };
    let (store, key) = (call.store, call.argument(1));
    let outcome = store.change(key, call.now_ms, |found| {
        if let (Some(stored), Some(ends_ms)) = (found, end) {
            stored.tag.ends_ms.store(ends_ms, Relaxed);
        }
        call.send_value(found);
    });
    store.mark_ending();
    if let Err(refused) = outcome {
        call.refused(refused);
    }
}

pub fn strlen(call: &mut Call<'_>) {
    let len = call.store.get(call.argument(1), call.now_ms, |found| match found.map(Value::stored) {
        Some(Value::Text(text)) => text.len(),
        Some(Value::Number(number)) => format_number(number, &mut [0; DIGITS]).len(),
        None => 0,
    });
    match len {
        Ok(len) => call.reply().integer(len as i64),
        Err(refused) => call.refused(refused),
    }
}

pub fn getrange(call: &mut Call<'_>) {
    let (Some(from), Some(to)) = (parse_number(call.argument(2)), parse_number(call.argument(3))) else {
        return call.error(NOT_AN_INTEGER);
    };
    let (store, key) = (call.store, call.argument(1));
    let outcome = store.get(key, call.now_ms, |found| {
        let mut digits = [0; DIGITS];
        let text = match found.map(Value::stored) {
            Some(Value::Text(text)) => text,
            Some(Value::Number(number)) => format_number(number, &mut digits),
            None => &[],
        };
        // Negative ones count from the end.
        let len = text.len() as i64;
        let place = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
        let (first, last) = (place(from), place(to).min(len - 1));
        let empty = from < 0 && to < 0 && from > to || first > last;
        let part = if empty { &[][..] } else { text.get(first as usize..=last as usize).unwrap_or_default() };
        call.reply().bulk(part);
    });
    if let Err(refused) = outcome {
        call.refused(refused);
    }
}

pub fn append(call: &mut Call<'_>) {
    let (key, more) = (call.argument(1), call.argument(2));
    let (store, now_ms, longest) = (call.store, call.now_ms, call.limits.value_bytes);
    let work = &mut *call.work;
    let bytes = &mut work.bytes;
    // The old value goes when the new one is there.
    let room_for = key.len() + more.len();
    let outcome = store.with_room(&mut work.room, |room| {
        let bytes = &mut *bytes;
        store.update(room, key, room_for, now_ms, move |found| {
            bytes.clear();
            match found.map(Value::stored) {
                Some(Value::Text(text)) => bytes.extend_from_slice(text),
                Some(Value::Number(number)) => bytes.extend_from_slice(format_number(number, &mut [0; DIGITS])),
                None => {}
            }
            if bytes.len() + more.len() > longest {
                return (Update::Keep, None);
            }
            bytes.extend_from_slice(more);
            let len = bytes.len();
            let ends_ms = found.map_or(0, |stored| stored.tag.ends_ms.load(Relaxed));
            (Value::of(bytes).put(ends_ms, now_ms), Some(len))
        })
    });
    if bytes.capacity() > KEPT_BYTES {
        *bytes = Vec::new();
    }
    match outcome {
        Ok(Some(len)) => call.reply().integer(len as i64),
        Ok(None) => call.error(TOO_LONG),
        Err(refused) => call.refused(refused),
    }
}

/// More is given back after a long value.
const KEPT_BYTES: usize = 64 << 10;

pub fn incr(call: &mut Call<'_>) {
    add(call, 1);
}

pub fn decr(call: &mut Call<'_>) {
    add(call, -1);
}

pub fn incrby(call: &mut Call<'_>) {
    if let Some(amount) = call.number(2) {
        add(call, amount);
    }
}

pub fn decrby(call: &mut Call<'_>) {
    let Some(amount) = call.number(2) else { return };
    match amount.checked_neg() {
        Some(amount) => add(call, amount),
        None => call.error("ERR decrement would overflow"),
    }
}

/// What became of a number.
enum Sum {
    Is(i64),
    Overflows,
    NoNumber,
    NoKey,
}

fn add(call: &mut Call<'_>, amount: i64) {
    let (store, key, now_ms) = (call.store, call.argument(1), call.now_ms);
    // A number that is there is changed where it is, under the shard's lock.
    let change = |found: Option<&crate::store::Stored>| match found.map(|stored| (stored, Value::stored(stored))) {
        Some((stored, Value::Number(number))) => match number.checked_add(amount) {
            Some(sum) => {
                stored.tag.number.store(sum, Relaxed);
                Sum::Is(sum)
            }
            None => Sum::Overflows,
        },
        Some((_, Value::Text(_))) => Sum::NoNumber,
        None => Sum::NoKey,
    };
    let outcome = match store.change(key, now_ms, change) {
        Ok(Sum::NoKey) => store.with_room(&mut call.work.room, |room| {
            store.update(room, key, key.len(), now_ms, |found| match change(found) {
                Sum::NoKey => (Value::Number(amount).put(0, now_ms), Sum::Is(amount)),
                // Somebody was quicker.
                sum => (Update::Keep, sum),
            })
        }),
        outcome => outcome,
    };
    match outcome {
        Ok(Sum::Is(sum)) => call.reply().integer(sum),
        Ok(Sum::Overflows) => call.error("ERR increment or decrement would overflow"),
        Ok(Sum::NoNumber | Sum::NoKey) => call.error(NOT_AN_INTEGER),
        Err(refused) => call.refused(refused),
    }
}
