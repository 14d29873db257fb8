//! The keys of a `[[listen]]` that are about its connections.
//!
//! *Runs in:* the supervisor, before anything is forked; main only reads the result.
//! *Never:* stops at the first error.
//!
//! *Pure:* no clock, no environment, no system call.

use std::fmt;
use std::time::Duration;

use super::reader::Section;
use crate::error::Error;

pub(super) const KEYS: [&str; 8] =
    ["idle_timeout", "read_timeout", "total_timeout", "max_connections", "max_per_address", "input_limit", "output_limit", "accept"];
/// Of `input_limit` and `output_limit`.
const LIMIT_MIN_BYTES: u64 = 4 << 10;
const LIMIT_MAX_BYTES: u64 = 1 << 30;
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400 * 365);
const CONNECTIONS_MAX: u32 = 1 << 26;

/// Limits of the connections of a listener. Zero means no limit, except in the byte sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Longest time without a byte in either direction.
    pub idle_timeout: Duration,
    /// Longest time between the first byte that the handler has not used and its use.
    pub read_timeout: Duration,
    /// Maximum lifetime of a connection, active or not.
    pub total_timeout: Duration,
    pub max_connections: u32,
    /// Most connections from one IP address.
    pub max_per_address: u32,
    /// Most bytes that a handler may leave unused.
    pub input_limit_bytes: usize,
    /// The high-water mark of queued bytes; a quarter of it is the low-water mark.
    pub output_limit_bytes: usize,
    pub accept: Accept,
}

/// The processes that accept the connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// TCP main, which sends each connection to the worker with the least load.
    #[default]
    Main,
    /// Each TCP worker for itself.
    Workers,
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Workers => "workers",
        })
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(75),
            read_timeout: Duration::from_secs(60),
            total_timeout: Duration::ZERO,
            max_connections: 0,
            max_per_address: 0,
            input_limit_bytes: 1 << 20,
            output_limit_bytes: 256 << 10,
            accept: Accept::default(),
        }
    }
}

pub(super) fn read_stream_options(section: &Section<'_, '_>) -> StreamOptions {
    let default = StreamOptions::default();
    let timeout = |key: &str, default: Duration| section.duration(key, Duration::ZERO..=TIMEOUT_MAX).unwrap_or(default);
    let count = |key: &str| section.integer(key, 0..=CONNECTIONS_MAX).unwrap_or(0);
    let accept = section.parsed("accept", |text| match text {
        "main" => Ok(Accept::Main),
        "workers" => Ok(Accept::Workers),
        other => Err(Error::config(format!("\"{}\" cannot accept connections", other.escape_debug()))
            .hint("write \"main\" (the TCP main process, by load) or \"workers\" (each for itself)")),
    });
    StreamOptions {
        idle_timeout: timeout("idle_timeout", default.idle_timeout),
        read_timeout: timeout("read_timeout", default.read_timeout),
        total_timeout: timeout("total_timeout", default.total_timeout),
        max_connections: count("max_connections"),
        max_per_address: count("max_per_address"),
        input_limit_bytes: section.size("input_limit", LIMIT_MIN_BYTES..=LIMIT_MAX_BYTES).unwrap_or(default.input_limit_bytes),
        output_limit_bytes: section.size("output_limit", LIMIT_MIN_BYTES..=LIMIT_MAX_BYTES).unwrap_or(default.output_limit_bytes),
        accept: accept.unwrap_or_default(),
    }
}
