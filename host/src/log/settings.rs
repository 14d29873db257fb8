//! What an operator can say about logging: severities, formats, targets.
//!
//! *Runs in:* the process that reads the configuration, before the first fork.
//! *Never:* opens or writes anything.
//! *Pure:* no clock, no environment, no system call.

use std::fmt;
use std::path::PathBuf;

/// As a threshold it admits itself and everything worse; a fault cannot be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Severity {
    /// A fault of the host itself.
    Fault = 0,
    /// An error in the environment, the configuration or a module.
    Error = 1,
    /// Degraded, going on.
    Warn = 2,
    /// For operators.
    Info = 3,
    /// For authors of modules.
    Debug = 4,
    Trace = 5,
}

impl Severity {
    /// Worst first; the number of each is its index.
    const ALL: [Self; 6] = [Self::Fault, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The word in records.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// From a number in the configuration or in a module's call; too large a number is `Trace`.
    pub(crate) fn from_number(number: u32) -> Self {
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

/// How a record is written to stderr, a file or syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SinkTarget {
    /// Descriptor 2.
    #[default]
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// The datagram socket `/dev/log`.
    Syslog,
    /// The journal's native protocol. It has its own fields, so the format does not matter.
    Journald,
}

/// The `[log]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub target: SinkTarget,
    pub format: RecordFormat,
    /// The threshold of the host and of every module that is not in `modules`.
    pub level: Severity,
    /// Thresholds by module name.
    pub modules: Vec<(String, Severity)>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { target: SinkTarget::Stderr, format: RecordFormat::Text, level: Severity::Info, modules: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_and_their_numbers() {
        for (number, severity) in Severity::ALL.into_iter().enumerate() {
            assert_eq!(Severity::from_number(number as u32), severity);
            assert_eq!(severity as usize, number);
        }
        assert_eq!(Severity::from_number(77), Severity::Trace);
        assert_eq!(format!("{:<5}|", Severity::Warn), "warn |");
    }
}
