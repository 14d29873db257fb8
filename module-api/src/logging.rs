//! Sends the records of `tracing` and `log` to the host.
//!
//! Runs in every process, phase and thread of a module. Keeps no state: the host owns the level and
//! may change it at any time. Spans are not recorded.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::abi;
use crate::host::{log_level, try_host};

/// Called before the author's first line. A second call changes nothing.
pub(crate) fn install() {
    // Each of the two fails only if the author has installed something else, which stays.
    let _ = tracing::subscriber::set_global_default(ToHost);
    if log::set_logger(&ToHost).is_ok() {
        // The host's level decides. It can change at any time, and this one cannot follow.
        log::set_max_level(log::LevelFilter::Trace);
    }
}

#[doc(hidden)]
pub use tracing;

/// Whether a record of this level may be wanted: by the host or, without a host, by another
/// subscriber.
///
/// Checked before `tracing`: on first use of a place that logs, `tracing` writes to that place's
/// registration, whether the record is wanted or not. After a fork, each process would copy a page
/// for it.
#[doc(hidden)]
#[inline]
pub fn wanted(level: u32) -> bool {
    level <= log_level() || try_host().is_none()
}

/// Logs a record at level `error`: an operator has to act. Arguments as for `tracing::error!`.
#[macro_export]
macro_rules! error {
    ($($argument:tt)+) => {
        if $crate::logging::wanted($crate::abi::LEVEL_ERROR) {
            $crate::logging::tracing::error!($($argument)+)
        }
    };
}

/// Logs a record at level `warn`: something is wrong, but work goes on. Arguments as for
/// `tracing::warn!`.
#[macro_export]
macro_rules! warn {
    ($($argument:tt)+) => {
        if $crate::logging::wanted($crate::abi::LEVEL_WARN) {
            $crate::logging::tracing::warn!($($argument)+)
        }
    };
}

/// Logs a record at level `info`: rare and worth knowing. Arguments as for `tracing::info!`.
#[macro_export]
macro_rules! info {
    ($($argument:tt)+) => {
        if $crate::logging::wanted($crate::abi::LEVEL_INFO) {
            $crate::logging::tracing::info!($($argument)+)
        }
    };
}

/// Logs a record at level `debug`: for finding a fault. Arguments as for `tracing::debug!`.
#[macro_export]
macro_rules! debug {
    ($($argument:tt)+) => {
        if $crate::logging::wanted($crate::abi::LEVEL_DEBUG) {
            $crate::logging::tracing::debug!($($argument)+)
        }
    };
}

/// Logs a record at level `trace`: for following each step. Arguments as for `tracing::trace!`.
#[macro_export]
macro_rules! trace {
    ($($argument:tt)+) => {
        if $crate::logging::wanted($crate::abi::LEVEL_TRACE) {
            $crate::logging::tracing::trace!($($argument)+)
        }
    };
}

struct ToHost;

impl Subscriber for ToHost {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() { Interest::sometimes() } else { Interest::never() }
    }

    #[inline]
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        tracing_level(metadata.level()) <= log_level() && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::new();
        event.record(&mut line);
        let metadata = event.metadata();
        line.send(tracing_level(metadata.level()), metadata.target());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl log::Log for ToHost {
    #[inline]
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() as u32 <= log_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if log::Log::enabled(self, record.metadata()) {
            let mut line = Line::new();
            let _ = line.write_fmt(*record.args());
            line.send(record.level() as u32, record.target());
        }
    }

    fn flush(&self) {}
}

fn tracing_level(level: &Level) -> u32 {
    match *level {
        Level::ERROR => abi::LEVEL_ERROR,
        Level::WARN => abi::LEVEL_WARN,
        Level::INFO => abi::LEVEL_INFO,
        Level::DEBUG => abi::LEVEL_DEBUG,
        Level::TRACE => abi::LEVEL_TRACE,
    }
}

/// Most records are shorter. A longer one costs an allocation.
const INLINE_BYTES: usize = 512;

/// One record's text: the message, then ` key=value` for each field.
struct Line {
    inline: [u8; INLINE_BYTES],
    len: usize,
    /// The whole text, once it no longer fits `inline`.
    spilled: Vec<u8>,
}

impl Line {
    fn new() -> Line {
        Line { inline: [0; INLINE_BYTES], len: 0, spilled: Vec::new() }
    }

    fn as_bytes(&self) -> &[u8] {
        if self.spilled.is_empty() { &self.inline[..self.len] } else { &self.spilled }
    }

    fn send(&self, level: u32, target: &str) {
        if let Some(host) = try_host() {
            host.log(level, target, self.as_bytes());
        }
    }

    fn key(&mut self, name: &str) {
        if !self.as_bytes().is_empty() {
            let _ = self.write_str(" ");
        }
        let _ = self.write_str(name);
        let _ = self.write_str("=");
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let text = text.as_bytes();
        if self.spilled.is_empty() {
            if let Some(room) = self.inline.get_mut(self.len..self.len + text.len()) {
                room.copy_from_slice(text);
                self.len += text.len();
                return Ok(());
            }
            self.spilled.extend_from_slice(&self.inline[..self.len]);
        }
        self.spilled.extend_from_slice(text);
        Ok(())
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self, "{value:?}");
        } else {
            self.key(field.name());
            let _ = write!(self, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            let _ = self.write_str(value);
            return;
        }
        self.key(field.name());
        // Quoted only if a reader could not see where the value ends.
        let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'=');
        let _ = if plain { self.write_str(value) } else { write!(self, "{value:?}") };
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.key(field.name());
        let _ = write!(self, "{:?}", value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_spills_once_it_is_long() {
        for (pieces, width) in [(1, 10), (4, 128), (5, 128), (1, 600), (700, 1)] {
            let mut line = Line::new();
            for _ in 0..pieces {
                line.write_str(&"x".repeat(width)).unwrap();
            }
            assert_eq!(line.as_bytes().len(), pieces * width);
            assert!(line.as_bytes().iter().all(|byte| *byte == b'x'));
            assert_eq!(line.spilled.is_empty(), pieces * width <= INLINE_BYTES);
        }
    }
}
