//! Evaluates the preconditions and the range of a request for a file (RFC 9110, sections 13 and
//! 14).
//!
//! Pure.

use module_api::date;

use crate::request_head::{Method, RequestHead};
use crate::syntax;

/// The answer to a request for an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluation {
    /// 200 with the whole file.
    Full,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 206 with `len` bytes from the offset `from`.
    Range { from: u64, len: u64 },
    /// 416.
    RangeNotSatisfiable,
}

/// What preconditions are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'v> {
    /// A strong entity tag, with its quotes.
    pub etag: &'v [u8],
    /// Seconds since 1970.
    pub modified_s: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// Evaluates a GET or HEAD. A field that cannot be parsed is ignored.
pub fn evaluate(head: &RequestHead<'_>, file: Validators<'_>, now_s: u64) -> Evaluation {
    if !head.conditional {
        return Evaluation::Full;
    }
    let date = |name: &str| {
        let mut values = head.values(name);
        let value = values.next().filter(|_| values.next().is_none());
        value.and_then(|value| date::parse(value, now_s))
    };
    let has = |name: &str| head.values(name).next().is_some();
    if has("if-match") {
        if !head.values("if-match").any(|tags| matches(tags, file.etag, Comparison::Strong)) {
            return Evaluation::PreconditionFailed;
        }
    } else if date("if-unmodified-since").is_some_and(|date| file.modified_s > date) {
        return Evaluation::PreconditionFailed;
    }
    if has("if-none-match") {
        if head.values("if-none-match").any(|tags| matches(tags, file.etag, Comparison::Weak)) {
            return Evaluation::NotModified;
        }
    } else if date("if-modified-since").is_some_and(|date| file.modified_s <= date) {
        return Evaluation::NotModified;
    }
    if head.method != Method::Get {
        return Evaluation::Full;
    }
    let mut ranges = head.values("range");
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Evaluation::Full };
    let mut conditions = head.values("if-range");
    let fresh = match (conditions.next(), conditions.next()) {
        (None, _) => true,
        (Some(tag), None) if tag.starts_with(b"\"") => tag == file.etag,
        // A file can change twice within a second. A date that is at least two seconds old is
        // strong enough for a range.
        (Some(text), None) => date::parse(text, now_s).is_some_and(|date| date == file.modified_s && date + 1 < now_s),
        _ => false,
    };
    if fresh { evaluate_range(range, file.bytes) } else { Evaluation::Full }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags, or `*`, contains `etag`. Reads the list up to the first mistake.
fn matches(tags: &[u8], etag: &[u8], how: Comparison) -> bool {
    if syntax::trim(tags) == b"*" {
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

/// Evaluates one range of bytes. Several ranges and other units get the whole file, as the RFC
/// allows.
fn evaluate_range(range: &[u8], bytes: u64) -> Evaluation {
    let Some((unit, set)) = range.iter().position(|byte| *byte == b'=').map(|at| (&range[..at], &range[at + 1..])) else {
        return Evaluation::Full;
    };
    let mut sets = syntax::list(set);
    let (Some(set), None) = (sets.next(), sets.next()) else { return Evaluation::Full };
    let Some(dash) = set.iter().position(|byte| *byte == b'-') else { return Evaluation::Full };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Evaluation::Full;
    }
    // A number too long for `syntax::number` is beyond the end of every file.
    let number = |digits: &[u8]| {
        let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        are_digits.then(|| syntax::number(digits).unwrap_or(u64::MAX))
    };
    let (first, last) = (&set[..dash], &set[dash + 1..]);
    let (from, end) = match (number(first), number(last)) {
        (Some(from), Some(last)) if from <= last => (from, bytes.min(last.saturating_add(1))),
        (Some(from), None) if last.is_empty() => (from, bytes),
        (None, Some(suffix)) if first.is_empty() => (if suffix == 0 { bytes } else { bytes.saturating_sub(suffix) }, bytes),
        _ => return Evaluation::Full,
    };
    if from >= end { Evaluation::RangeNotSatisfiable } else { Evaluation::Range { from, len: end - from } }
}
