//! Preconditions and ranges of requests for what has a validator (RFC 9110, sections 13 and 14).
//!
//! Pure.

use module_api::date;

use crate::chars;
use crate::head::{Head, Method};

/// What a request for something that exists gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All of it: 200.
    Whole,
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// So many bytes from there on: 206.
    Part { from: u64, len: u64 },
    /// 416.
    Unsatisfiable,
}

/// What identifies a state of something.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'v> {
    /// Strong, with its quotes.
    pub etag: &'v [u8],
    /// When it was last changed, in seconds since 1970.
    pub modified_s: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Judges a GET or HEAD. A field that cannot be understood is taken for absent.
pub fn judge(head: &Head<'_>, what: Validators<'_>, now_s: u64) -> Verdict {
    if !head.conditional {
        return Verdict::Whole;
    }
    let date = |name: &str| {
        let mut values = head.values(name);
        let value = values.next().filter(|_| values.next().is_none());
        value.and_then(|value| date::parse(value, now_s))
    };
    let has = |name: &str| head.values(name).next().is_some();
    if has("if-match") {
        if !head.values("if-match").any(|tags| matches(tags, what.etag, Comparison::Strong)) {
            return Verdict::Failed;
        }
    } else if date("if-unmodified-since").is_some_and(|date| what.modified_s > date) {
        return Verdict::Failed;
    }
    if has("if-none-match") {
        if head.values("if-none-match").any(|tags| matches(tags, what.etag, Comparison::Weak)) {
            return Verdict::NotModified;
        }
    } else if date("if-modified-since").is_some_and(|date| what.modified_s <= date) {
        return Verdict::NotModified;
    }
    if head.method != Method::Get {
        return Verdict::Whole;
    }
    let mut ranges = head.values("range");
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Verdict::Whole };
    let mut conditions = head.values("if-range");
    let fresh = match (conditions.next(), conditions.next()) {
        (None, _) => true,
        (Some(tag), None) if tag.starts_with(b"\"") => tag == what.etag,
        // A second is long: what was changed in the very last ones may have been changed again.
        (Some(text), None) => date::parse(text, now_s).is_some_and(|date| date == what.modified_s && date + 1 < now_s),
        _ => false,
    };
    if fresh { part(range, what.bytes) } else { Verdict::Whole }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of tags, or `*`, names this one. What follows a mistake in the list is not looked at.
fn matches(tags: &[u8], etag: &[u8], how: Comparison) -> bool {
    if chars::trim(tags) == b"*" {
        return true;
    }
    let mut rest = tags;
    loop {
        while let [b' ' | b'\t' | b',', more @ ..] = rest {
            rest = more;
        }
        let (weak, quoted) = match rest {
            [b'W', b'/', more @ ..] => (true, more),
            more => (false, more),
        };
        let Some(inner) = quoted.strip_prefix(b"\"") else { return false };
        let Some(len) = inner.iter().position(|byte| *byte == b'"') else { return false };
        if &quoted[..len + 2] == etag && (how == Comparison::Weak || !weak) {
            return true;
        }
        rest = &inner[len + 1..];
    }
}

/// One range of bytes. Of several, and of other units, the whole is given, which is always allowed.
fn part(range: &[u8], bytes: u64) -> Verdict {
    let Some((unit, set)) = range.iter().position(|byte| *byte == b'=').map(|at| (&range[..at], &range[at + 1..])) else {
        return Verdict::Whole;
    };
    let mut sets = chars::list(set);
    let (Some(set), None) = (sets.next(), sets.next()) else { return Verdict::Whole };
    let Some(dash) = set.iter().position(|byte| *byte == b'-') else { return Verdict::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Verdict::Whole;
    }
    // A number that is too long for us is beyond every end.
    let number = |digits: &[u8]| {
        let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        are_digits.then(|| chars::number(digits).unwrap_or(u64::MAX))
    };
    let (first, last) = (&set[..dash], &set[dash + 1..]);
    let (from, end) = match (number(first), number(last)) {
        (Some(from), Some(last)) if from <= last => (from, bytes.min(last.saturating_add(1))),
        (Some(from), None) if last.is_empty() => (from, bytes),
        (None, Some(suffix)) if first.is_empty() => (if suffix == 0 { bytes } else { bytes.saturating_sub(suffix) }, bytes),
        _ => return Verdict::Whole,
    };
    if from >= end { Verdict::Unsatisfiable } else { Verdict::Part { from, len: end - from } }
}
