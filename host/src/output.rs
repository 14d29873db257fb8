//! What commands print. A reader that has gone away is no failure, and nothing here panics.
//!
//! *Runs in:* the commands. *Never:* in main or below it: those have the log.

use std::io::{ErrorKind, Write};

use crate::error::{EXIT_CONFIG, Error};

/// Writes to standard output. Returns `code`, or another one if it could not be written.
pub fn print(text: &str, code: u8) -> u8 {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        // As in `modhost ps | head -1`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Err(error) => complain(&[Error::failed("cannot write the output").detail(error)]),
    }
}

/// Prints errors for a person on standard error: what, detail, hint. Returns the exit code they ask for.
pub fn complain(errors: &[Error]) -> u8 {
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

/// One line that cannot drive a terminal, whoever wrote it.
pub fn visible(text: &str) -> String {
    let replaced = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| {
            if c == '\n' {
                ' '
            } else if replaced(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Rows with aligned columns, two spaces apart; nothing at the end of a line.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
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
        let rows = [["a", "bb", "c"], ["aaa", "é", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    bb  c\naaa  é\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\nc\u{202e}"), "a\u{fffd}[2Jb c\u{fffd}");
    }
}
