//! What an operator can say about logging: severities, formats, targets.
//!
//! *Runs in:* the process that reads the configuration, before the first fork. *Never:* opens or writes anything.

use crate::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How bad it is. As a threshold it lets itself and everything worse through; a fault cannot be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Severity {
    /// A fault of our own.
    Fault = 0,
    /// Environment, configuration, or a module.
    Error = 1,
    /// Degraded, going on.
    Warn = 2,
    /// What an operator wants to know.
    Info = 3,
    /// What an author wants to know.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

impl Severity {
    /// All of them, worst first; the number of one is its index.
    pub const ALL: [Self; 6] = [Self::Fault, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The word in configuration, command line and records.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// From the number that shared memory or a module's call holds; what is too large is the last.
    pub fn from_number(number: u32) -> Self {
        *Self::ALL.get(number as usize).unwrap_or(&Self::Trace)
    }

    /// The severity of syslog and journald.
    pub(super) const fn syslog_number(self) -> u8 {
        match self {
            Self::Fault => 2,
            Self::Error => 3,
            Self::Warn => 4,
            Self::Info => 6,
            Self::Debug | Self::Trace => 7,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Severity {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|severity| severity.word() == word);
        known.ok_or_else(|| Error::config(format!("unknown log level \"{word}\"")).hint("one of fault, error, warn, info, debug, trace"))
    }
}

/// How a record is written to stderr, a file or syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::config(format!("unknown log format \"{word}\"")).hint("text or json")),
        }
    }
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// Descriptor 2.
    #[default]
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// The datagram socket `/dev/log`.
    Syslog,
    /// The journal's own protocol. It has fields of its own, so the format does not matter.
    Journald,
}

impl FromStr for Target {
    type Err = Error;

    /// A path is told from a mistyped word by its slash.
    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "stderr" => Ok(Self::Stderr),
            "syslog" => Ok(Self::Syslog),
            "journald" => Ok(Self::Journald),
            path if path.contains('/') => Ok(Self::File(PathBuf::from(path))),
            _ => {
                Err(Error::config(format!("unknown log target \"{word}\"")).hint("stderr, syslog, journald, or a path with a slash in it"))
            }
        }
    }
}

/// The `[log]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Where records go.
    pub target: Target,
    /// How they look there.
    pub format: Format,
    /// The threshold of the host and of every module without its own.
    pub level: Severity,
    /// Modules with a threshold of their own.
    pub modules: Vec<(String, Severity)>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { target: Target::Stderr, format: Format::Text, level: Severity::Info, modules: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_go_both_ways() {
        for (number, severity) in Severity::ALL.into_iter().enumerate() {
            assert_eq!(Severity::from_number(number as u32), severity);
            assert_eq!(severity as usize, number);
            assert_eq!(severity.word().parse(), Ok(severity));
        }
        assert_eq!(Severity::from_number(77), Severity::Trace);
        assert_eq!(format!("{:<5}|", Severity::Warn), "warn |");
    }

    #[test]
    fn unknown_words_say_what_is_known() {
        assert_eq!("loud".parse::<Severity>().unwrap_err().exit, crate::error::EXIT_CONFIG);
        assert_eq!("/var/log/x".parse(), Ok(Target::File("/var/log/x".into())));
        assert!("jornald".parse::<Target>().unwrap_err().hint.contains("journald"));
        assert!("xml".parse::<Format>().is_err());
    }
}
