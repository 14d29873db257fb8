//! What commands print: texts, tables, JSON, errors. A reader that has gone away is no failure.
//!
//! *Runs in:* the commands. *Never:* in main or below it: those have the log; panics.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use clap::builder::{BoolValueParser, TypedValueParser};
use serde::Serialize;

use crate::error::{EXIT_CONFIG, Error, ErrorList};

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl OutputFormat {
    /// Reads the flag `--json`.
    pub(crate) fn of_flag() -> impl TypedValueParser<Value = Self> {
        BoolValueParser::new().map(|is_given| if is_given { Self::Json } else { Self::Text })
    }
}

/// Writes to standard output.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // As in `modhost ps | head -1`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the output"),
    }
}

/// Prints why a command failed on standard error. Returns its exit code.
pub fn complain(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ErrorList>() {
        Some(ErrorList(errors)) => complain_of_all(errors),
        None => complain_of_all(&[Error::of_chain(error)]),
    }
}

/// Prints errors for a person on standard error: what, detail, hint. Returns their exit code.
pub fn complain_of_all(errors: &[Error]) -> u8 {
    let mut text = String::new();
    for error in errors {
        text.push_str(&format!("modhost: {}\n", visible(&error.what)));
        for line in error.detail.lines() {
            text.push_str(&format!("  {}\n", visible(line)));
        }
        if !error.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", visible(&error.hint)));
        }
    }
    // Without a standard error there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    errors.iter().map(|error| error.exit).max().unwrap_or(EXIT_CONFIG)
}

/// Prints warnings on standard error.
pub fn warn(warnings: &[String]) {
    let text: String = warnings.iter().map(|warning| format!("modhost: warning: {}\n", visible(warning))).collect();
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A tree of our own values as JSON with a final newline: writing it cannot fail.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// The text on one line, and unable to drive a terminal, whoever wrote it.
pub(crate) fn visible(text: &str) -> String {
    let replaced = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| match c {
            '\n' => ' ',
            _ if replaced(c) => '\u{fffd}',
            _ => c,
        })
        .collect()
}

/// Rows with aligned columns, two spaces apart, and without spaces at the end of a line. A column
/// that is empty in all rows is left out.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).filter(|(_, width)| **width > 0);
        let line: Vec<String> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "", "bb", "c"], ["aaa", "", "é", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    bb  c\naaa  é\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\nc\u{202e}"), "a\u{fffd}[2Jb c\u{fffd}");
    }
}
