//! Errors in three parts: what failed in the operator's words, the detail, a hint when there is something to do.
//!
//! *Runs in:* every process, every phase. *Never:* prints, logs or exits by itself.

use std::fmt;

/// Exit code: everything went well.
pub const EXIT_OK: u8 = 0;
/// Exit code: failed while starting or running.
pub const EXIT_FAILED: u8 = 1;
/// Exit code: usage or configuration.
pub const EXIT_CONFIG: u8 = 2;
/// Exit code: a fault of our own.
pub const EXIT_FAULT: u8 = 70;

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What failed, lower case, no final full stop.
    pub what: String,
    /// Path, system call, limit, position; may be empty.
    pub detail: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The exit code this error ends the command with.
    pub exit: u8,
}

/// The host's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure while starting or running (exit code 1).
    pub fn failed(what: impl Into<String>) -> Self {
        Self { what: what.into(), detail: String::new(), hint: String::new(), exit: EXIT_FAILED }
    }

    /// A usage or configuration error (exit code 2).
    pub fn config(what: impl Into<String>) -> Self {
        Self { exit: EXIT_CONFIG, ..Self::failed(what) }
    }

    /// A fault of our own (exit code 70).
    pub fn fault(what: impl Into<String>) -> Self {
        Self { exit: EXIT_FAULT, ..Self::failed(what) }
    }

    /// Adds the detail.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = detail.to_string();
        self
    }

    /// Adds the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Error {
    /// `what: detail (hint)` on one line; the lines of a longer detail stand behind each other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for (index, line) in self.detail.lines().enumerate() {
            write!(f, "{}{line}", if index == 0 { ": " } else { "; " })?;
        }
        if !self.hint.is_empty() {
            write!(f, " (hint: {})", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// What the system said, as the rest of our texts are written: lower case, without the number.
pub fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_has_three_parts_on_one_line() {
        let error = Error::config("cannot read the configuration").detail("x.toml: ENOENT").hint("pass -c FILE");
        assert_eq!(error.to_string(), "cannot read the configuration: x.toml: ENOENT (hint: pass -c FILE)");
        assert_eq!(Error::failed("no").to_string(), "no");
        assert_eq!(Error::failed("no").detail("one\ntwo").to_string(), "no: one; two");
    }
}
