//! The error of the SDK: a text that the host gets with a failing return.
//!
//! Allocates only on failing paths; is never passed over the binary interface as a Rust type.

use std::error::Error as StdError;
use std::fmt;

use crate::abi;

/// The result of functions of this crate that can fail for more than one reason.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed: one line of text, which the host logs with the module and the phase.
///
/// It is made from anything that describes a failure: a `&str`, a `String`, or any
/// [`std::error::Error`], whose chain of sources becomes part of the text. Therefore `?` works on
/// nearly every result:
///
/// ```
/// use module_api::prelude::*;
///
/// fn port(text: &str) -> Result<u16> {
///     let port = text.parse().context("the port is not a number")?;
///     if port == 0 {
///         return Err("port 0 cannot be used here".into());
///     }
///     Ok(port)
/// }
/// assert_eq!(port("x").unwrap_err().to_string(), "the port is not a number: invalid digit found in string");
/// ```
///
/// `Error` does not implement [`std::error::Error`] itself; otherwise these conversions would not
/// be possible.
pub struct Error {
    text: Box<str>,
}

impl Error {
    /// An error with this text: lower case, no final full stop.
    pub fn new(text: impl fmt::Display) -> Error {
        Error { text: text.to_string().into_boxed_str() }
    }

    /// Puts the failed action in front of the text: `what: text`.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Error {
        Error::new(format_args!("{what}: {}", self.text))
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The error for a negative return `code` of the host's function `call`.
    #[cold]
    pub(crate) fn from_code(call: &str, code: i32) -> Error {
        Error::new(format_args!("{call}: {}", code_meaning(code)))
    }
}

impl<E> From<E> for Error
where
    E: Into<Box<dyn StdError>>,
{
    #[cold]
    fn from(error: E) -> Error {
        let error: Box<dyn StdError> = error.into();
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Error { text: text.into_boxed_str() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Adds the failed action to a failure; see [`Error::context`].
pub trait Context<T> {
    /// On failure, puts `what` in front of the text.
    ///
    /// # Errors
    /// The failure of `self`.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.into().context(what))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error::new(what))
    }
}

/// The meaning of a code of the binary interface. The host has logged the detail.
fn code_meaning(code: i32) -> &'static str {
    match code {
        abi::E_PHASE => "not allowed in this phase or process",
        abi::E_INVALID => "an argument is out of its range",
        abi::E_NO_MEMORY => "shared memory is exhausted",
        abi::E_LIMIT => "more than was registered, or more than there is room for",
        abi::E_SYSTEM => "a system call failed",
        abi::E_BUSY => "busy",
        abi::E_DEADLOCK => "the calling process holds this lock already",
        abi::E_NO_PEER => "the sender has no address",
        abi::E_NOT_RECOVERABLE => "the data under the lock was left damaged and nobody repaired it",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }
    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn from_anything() {
        let parse = || "x".parse::<i32>().unwrap_err();
        let cases: [(Error, &str); 6] = [
            ("text".into(), "text"),
            (String::from("owned").into(), "owned"),
            (parse().into(), "invalid digit found in string"),
            (Outer(parse()).into(), "outer: invalid digit found in string"),
            (Error::from("inner").context("while testing"), "while testing: inner"),
            (Error::from_code("register_procs", abi::E_PHASE), "register_procs: not allowed in this phase or process"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.text(), text);
        }
    }

    #[test]
    fn context_on_results_and_options() {
        fn question_mark() -> Result<()> {
            Err(std::io::Error::other("disk"))?;
            Ok(())
        }
        assert_eq!(question_mark().context("load").unwrap_err().to_string(), "load: disk");
        assert_eq!(None::<u8>.context("no value").unwrap_err().to_string(), "no value");
        assert_eq!(Some(1).context("no value").unwrap(), 1);
    }
}
