//! The bytes of one record: a bounded buffer and the ways to write untrusted text into it.
//!
//! *Runs in:* every process. *Never:* allocates, writes more than [`RECORD_BYTES`], lets a text end its line or its quotes.

use std::fmt::{self, Write};

/// The longest record. It equals `PIPE_BUF`: up to this size the kernel never mixes one `write` to a pipe with another's.
pub const RECORD_BYTES: usize = 4096;

/// Kept free by everything but [`Line::close`], so that a record that was cut still ends well.
const CLOSING_BYTES: usize = 96;

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// As part of a line: control characters become visible.
    Line,
    /// As part of a line inside double quotes.
    Quoted,
    /// Inside the quotes of a JSON string.
    Json,
    /// Several lines, for a protocol that counts bytes: newlines and tabs stay.
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

    /// Text of our own, whole or not at all; says whether.
    pub(super) fn raw(&mut self, text: &str) -> bool {
        self.push(text.as_bytes(), RECORD_BYTES - CLOSING_BYTES)
    }

    /// What must follow, whatever was cut before.
    pub(super) fn close(&mut self, text: impl fmt::Display) {
        let fits = write!(Closing(self), "{text}");
        debug_assert!(fits.is_ok(), "the closing bytes are too few");
    }

    /// Formats `text`, escaped; when it does not fit, its beginning. Says whether all of it is there.
    pub(super) fn escaped(&mut self, escape: Escape, text: fmt::Arguments<'_>) -> bool {
        let mut escaped = Escaped { line: self, escape, full: false };
        // A Debug or Display that fails by itself has written what it could; that is all there is to say.
        let _ = escaped.write_fmt(text);
        !escaped.full
    }

    /// Takes back all from `len` on.
    pub(super) fn take_back(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.cut = true;
    }

    /// Overwrites eight bytes that were written before, for a count known only afterwards.
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
    /// Nothing is written after the first character that did not fit: a Debug that ignores errors must not leave gaps.
    full: bool,
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Runs of harmless text are copied at once.
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
            // JSON knows four hexadecimal digits only; everything that changes in JSON is below U+FFFF.
            _ if self.escape == Escape::Json => self.whole(format_args!("\\u{:04x}", u32::from(c))),
            _ => self.whole(format_args!("\\u{{{:x}}}", u32::from(c))),
        }
    }

    fn whole(&mut self, text: fmt::Arguments<'_>) -> bool {
        let mark = self.line.len;
        let mut raw = Raw(self.line);
        if raw.write_fmt(text).is_err() {
            self.line.take_back(mark);
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
    /// Control characters, and those that break lines or turn the direction of text where a record is read.
    fn changes(self, c: char) -> bool {
        match c {
            '"' | '\\' => matches!(self, Self::Quoted | Self::Json),
            '\n' | '\t' => self != Self::Lines,
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
            _ => c.is_control(),
        }
    }
}

/// The largest length not above `at_most` that ends a character.
pub(super) fn whole_characters(text: &str, at_most: usize) -> usize {
    (0..=at_most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Whether a text can stand behind `key=` as it is: one word, or one quoted literal that ends where it seems to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Word,
    InQuotes,
    AfterBackslash,
    Quoted,
    Neither,
}

impl Shape {
    pub(super) fn of(text: fmt::Arguments<'_>) -> Self {
        let mut shape = Self { state: State::Empty };
        let _ = shape.write_fmt(text);
        shape
    }

    pub(super) fn needs_quotes(self) -> bool {
        !matches!(self.state, State::Word | State::Quoted)
    }
}

impl Write for Shape {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.state = match (self.state, c) {
                (State::Empty, '"') => State::InQuotes,
                (State::InQuotes, '"') => State::Quoted,
                (State::InQuotes, '\\') => State::AfterBackslash,
                (State::InQuotes | State::AfterBackslash, _) => State::InQuotes,
                (State::Empty | State::Word, c) if c != '"' && c != '=' && !c.is_whitespace() => State::Word,
                _ => State::Neither,
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
    fn control_characters_become_visible() {
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
    fn shapes() {
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
            assert_eq!(Shape::of(format_args!("{text}")).needs_quotes(), needs, "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_character_and_can_be_closed() {
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
