//! Errors in three parts: what failed in the operator's words, the detail, and a hint when there is
//! something to do.
//!
//! *Runs in:* every process, every phase. *Never:* prints, logs or exits by itself.
//!
//! The host's parts return [`Error`]. Commands return [`anyhow::Error`]: a step adds what it was
//! doing as context, and `main.rs` makes one [`Error`] of the whole chain.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

pub const EXIT_OK: u8 = 0;
/// Exit code: failed while starting or running.
pub const EXIT_FAILED: u8 = 1;
/// Exit code: usage or configuration.
pub const EXIT_CONFIG: u8 = 2;
/// Exit code: a fault of our own.
pub const EXIT_FAULT: u8 = 70;

/// One thing that went wrong. In JSON it has its three texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What failed, lower case, no final full stop.
    pub what: String,
    /// Path, system call, limit, position; may be empty.
    #[serde(default)]
    pub detail: String,
    /// What to do; may be empty.
    #[serde(default)]
    pub hint: String,
    /// The exit code of a command that ends with this error.
    #[serde(skip, default = "exit_failed")]
    pub exit: u8,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

fn exit_failed() -> u8 {
    EXIT_FAILED
}

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

    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = detail.to_string();
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// One error of a whole chain: the outermost text is what failed, the others are the detail.
    /// Hint and exit code are those of the [`Error`] in the chain; without one it is a failure.
    pub fn of_chain(chain: &anyhow::Error) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for cause in chain.chain() {
            match (cause.downcast_ref::<Self>(), cause.downcast_ref::<io::Error>()) {
                (Some(error), _) => texts.extend([error.what.clone(), error.detail.clone()]),
                (None, Some(error)) => texts.push(io_text(error)),
                (None, None) => texts.push(cause.to_string()),
            }
        }
        texts.retain(|text| !text.is_empty());
        let typed = chain.downcast_ref::<Self>().cloned().unwrap_or_else(|| Self::failed(""));
        let what = if texts.is_empty() { String::new() } else { texts.remove(0) };
        Self { what, detail: texts.join(": "), ..typed }
    }
}

impl fmt::Display for Error {
    /// `what: detail (hint)` on one line; the lines of a longer detail are joined by semicolons.
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

/// Everything that is wrong with a configuration, found at once.
#[derive(Debug)]
pub struct ErrorList(pub Vec<Error>);

impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

impl std::error::Error for ErrorList {}

/// What the system said, in the style of our own texts: lower case, without the number.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn display_has_three_parts_on_one_line() {
        let error = Error::config("cannot read the configuration").detail("x.toml: ENOENT").hint("pass -c FILE");
        assert_eq!(error.to_string(), "cannot read the configuration: x.toml: ENOENT (hint: pass -c FILE)");
        assert_eq!(Error::failed("no").to_string(), "no");
        assert_eq!(Error::failed("no").detail("one\ntwo").to_string(), "no: one; two");
    }

    #[test]
    fn a_chain_becomes_one_error() {
        let typed = Error::config("no such key").detail("line 1").hint("did you mean x?");
        let chain = Err::<(), _>(typed.clone()).context("cannot read x.toml").context("cannot check").unwrap_err();
        let whole = Error::config("cannot check").detail("cannot read x.toml: no such key: line 1").hint("did you mean x?");
        assert_eq!(Error::of_chain(&chain), whole);
        assert_eq!(Error::of_chain(&typed.clone().into()), typed);
        let system =
            Err::<(), _>(io::Error::from_raw_os_error(nix::errno::Errno::ENOSPC as i32)).context("cannot write the output").unwrap_err();
        assert_eq!(Error::of_chain(&system), Error::failed("cannot write the output").detail("no space left on device"));
    }

    #[test]
    fn in_json_an_error_has_its_texts() {
        let error = Error::failed("no").hint("do");
        assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"what":"no","detail":"","hint":"do"}"#);
        assert_eq!(serde_json::from_str::<Error>(r#"{"what":"no","hint":"do"}"#).unwrap(), error);
    }
}
