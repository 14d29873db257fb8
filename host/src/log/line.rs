//! The bytes of one record: a bounded buffer and the ways to write untrusted text into it.
//!
//! *Runs in:* every process. *Never:* allocates, writes more than [`RECORD_BYTES`], lets a text end
//! its line or its quotes.
//! *Pure:* no clock, no environment, no system call.

use std::fmt::{self, Write};

/// The longest record. This is `PIPE_BUF`: the kernel never interleaves writes to a pipe up to this
/// size.
pub(super) const RECORD_BYTES: usize = 4096;

/// Only [`Line::close`] uses the last bytes, so that a record that was cut is still well-formed.
const CLOSING_BYTES: usize = 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Part of a line: control characters become visible.
    Line,
    /// Part of a line inside double quotes.
    Quoted,
    /// Inside the quotes of a JSON string.
    Json,
    /// Several lines, for a protocol with a byte count: newlines and tabs stay.
    Lines,
}

pub(super) struct Line<'b> {
    bytes: &'b mut [u8; RECORD_BYTES],
    len: usize,
    cut: bool,
}

impl<'b> Line<'b> {
    pub(super) fn new(bytes: &'b mut [u8; RECORD_BYTES]) -> Self {
        Self { bytes, len: 0, cut: false }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Something did not fit.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Trusted text, whole or not at all; says whether.
    pub(super) fn raw(&mut self, text: &str) -> bool {
        self.push(text.as_bytes(), RECORD_BYTES - CLOSING_BYTES)
    }

    /// Text that must be there, whatever was cut before it.
    pub(super) fn close(&mut self, text: impl fmt::Display) {
        let fits = write!(Closing(self), "{text}");
        debug_assert!(fits.is_ok(), "the closing bytes are too few");
    }

    /// Untrusted text, escaped; its beginning when it does not fit. Says whether all of it did.
    pub(super) fn escaped(&mut self, escape: Escape, text: fmt::Arguments<'_>) -> bool {
        let mut escaped = Escaped { line: self, escape, full: false };
        // After an error of a Debug or Display, what it wrote before stays.
        let _ = escaped.write_fmt(text);
        !escaped.full
    }

    /// Removes everything from `len` on; the record then counts as cut.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.cut = true;
    }

    /// Overwrites eight bytes written earlier, for a count known only afterwards.
    pub(super) fn patch_count(&mut self, at: usize, count: usize) {
        self.bytes[at..at + 8].copy_from_slice(&(count as u64).to_le_bytes());
    }

    fn push(&mut self, text: &[u8], limit: usize) -> bool {
        match self.bytes[..limit].get_mut(self.len..).and_then(|free| free.get_mut(..text.len())) {
            Some(place) => place.copy_from_slice(text),
            None => {
                self.cut = true;
                return false;
            }
        }
        self.len += text.len();
        true
    }
}

struct Closing<'l, 'b>(&'l mut Line<'b>);

impl Write for Closing<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.push(text.as_bytes(), RECORD_BYTES) { Ok(()) } else { Err(fmt::Error) }
    }
}

struct Escaped<'l, 'b> {
    line: &'l mut Line<'b>,
    escape: Escape,
    /// Nothing is written after the first character that did not fit: a Debug that ignores errors
    /// must not leave gaps.
    full: bool,
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Runs of characters that need no escape are copied at once.
        let mut rest = text;
        while !self.full && !rest.is_empty() {
            let plain = rest.find(|c| self.escape.changes(c)).unwrap_or(rest.len());
            let (run, after) = rest.split_at(plain);
            self.copy(run);
            let mut characters = after.chars();
            if let Some(c) = characters.next() {
                self.full = self.full || !self.special(c);
            }
            rest = characters.as_str();
        }
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Escaped<'_, '_> {
    fn copy(&mut self, run: &str) {
        if self.line.raw(run) {
            return;
        }
        self.full = true;
        let room = (RECORD_BYTES - CLOSING_BYTES).saturating_sub(self.line.len);
        self.line.raw(&run[..whole_characters(run, room)]);
    }

    fn special(&mut self, c: char) -> bool {
        match c {
            '\n' => self.line.raw("\\n"),
            '\r' => self.line.raw("\\r"),
            '\t' => self.line.raw("\\t"),
            '"' => self.line.raw("\\\""),
            '\\' => self.line.raw("\\\\"),
            // JSON has exactly four hexadecimal digits; everything escaped in JSON is below U+FFFF.
            _ if self.escape == Escape::Json => self.whole(format_args!("\\u{:04x}", u32::from(c))),
            _ => self.whole(format_args!("\\u{{{:x}}}", u32::from(c))),
        }
    }

    fn whole(&mut self, text: fmt::Arguments<'_>) -> bool {
        let mark = self.line.len;
        let mut raw = Raw(self.line);
        if raw.write_fmt(text).is_err() {
            self.line.truncate(mark);
            return false;
        }
        true
    }
}

struct Raw<'l, 'b>(&'l mut Line<'b>);

impl Write for Raw<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.raw(text) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl Escape {
    /// Escapes control characters, and those that break lines or change the direction of text where
    /// a record is displayed.
    fn changes(self, c: char) -> bool {
        match c {
            '"' | '\\' => matches!(self, Self::Quoted | Self::Json),
            '\n' | '\t' => self != Self::Lines,
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
            _ => c.is_control(),
        }
    }
}

/// The largest length up to `at_most` that does not split a character.
pub(super) fn whole_characters(text: &str, at_most: usize) -> usize {
    (0..=at_most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Whether a text can follow `key=` as it is: it is one word, or one complete quoted literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextShape {
    state: EscapeState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EscapeState {
    Empty,
    Word,
    InQuotes,
    AfterBackslash,
    Quoted,
    Neither,
}

impl TextShape {
    pub(super) fn of(text: fmt::Arguments<'_>) -> Self {
        let mut shape = Self { state: EscapeState::Empty };
        let _ = shape.write_fmt(text);
        shape
    }

    pub(super) fn needs_quotes(self) -> bool {
        !matches!(self.state, EscapeState::Word | EscapeState::Quoted)
    }
}

impl Write for TextShape {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.state = match (self.state, c) {
                (EscapeState::Empty, '"') => EscapeState::InQuotes,
                (EscapeState::InQuotes, '"') => EscapeState::Quoted,
                (EscapeState::InQuotes, '\\') => EscapeState::AfterBackslash,
                (EscapeState::InQuotes | EscapeState::AfterBackslash, _) => EscapeState::InQuotes,
                (EscapeState::Empty | EscapeState::Word, c) if c != '"' && c != '=' && !c.is_whitespace() => EscapeState::Word,
                _ => EscapeState::Neither,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(escape: Escape, text: &str) -> String {
        let mut bytes = [0; RECORD_BYTES];
        let mut line = Line::new(&mut bytes);
        line.escaped(escape, format_args!("{text}"));
        String::from_utf8(line.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn control_characters_are_escaped() {
        for (escape, text, written) in [
            (Escape::Line, "a\nb\x1b[31m \"q\" \\ é", "a\\nb\\u{1b}[31m \"q\" \\ é"),
            (Escape::Quoted, "a \"b\" \\", "a \\\"b\\\" \\\\"),
            (Escape::Json, "\0\u{85}\u{2028}\t", "\\u0000\\u0085\\u2028\\t"),
            (Escape::Lines, "a\n\tb\r\0", "a\n\tb\\r\\u{0}"),
            (Escape::Line, "\u{202e}txt", "\\u{202e}txt"),
        ] {
            assert_eq!(escaped(escape, text), written);
        }
    }

    #[test]
    fn words_and_quoted_literals_need_no_quotes() {
        for (text, needs) in [
            ("", true),
            ("word", false),
            ("127.0.0.1:5060", false),
            ("two words", true),
            ("a=b", true),
            ("\"quoted literal\"", false),
            ("\"a \\\" b\"", false),
            ("\"a\" level=error \"b\"", true),
            ("\"open", true),
            ("\"ends \\\"", true),
        ] {
            assert_eq!(TextShape::of(format_args!("{text}")).needs_quotes(), needs, "{text}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters_and_can_be_closed() {
        let mut bytes = [0; RECORD_BYTES];
        let mut line = Line::new(&mut bytes);
        assert!(line.raw("x"));
        assert!(!line.escaped(Escape::Line, format_args!("{}", "é".repeat(RECORD_BYTES))));
        assert!(line.is_cut());
        line.close("\n");
        assert!(std::str::from_utf8(line.as_bytes()).is_ok());
        assert!(line.len() > RECORD_BYTES - CLOSING_BYTES - 2);
    }

    proptest! {
        #[test]
        fn no_text_ends_a_line(text in any::<String>()) {
            for escape in [Escape::Line, Escape::Quoted, Escape::Json] {
                let written = escaped(escape, &text);
                prop_assert!(!written.chars().any(char::is_control), "{written:?}");
            }
        }

        #[test]
        fn json_strings_read_back(text in any::<String>()) {
            let read: String = serde_json::from_str(&format!("\"{}\"", escaped(Escape::Json, &text))).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
