//! `modhost stop`: asks for the stop, and waits until the host has ended.
//!
//! *Runs in:* the command `stop`. *Never:* waits for ever; takes another process for the host.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::connection::{self, ANSWER_LIMIT, ControlConnection};
use crate::control::answers::{STOP, Stopping};
use crate::error::Error;
use crate::output::{self, OutputFormat};
use crate::sys::process::ended::ProcessHold;
use crate::sys::time;

/// How long to wait at least: the limit for a host that does not say how long its stop can take.
const STOP_LIMIT_MS: u64 = 30_000;

/// Waited in addition to the host's own limit.
const STOP_EXTRA_MS: u64 = 2_000;

/// Time between two looks at the socket of a host that cannot be watched otherwise.
const LOOK_AGAIN_NS: u64 = 20_000_000;

/// Returns what to print.
pub fn stop(socket: &Path, format: OutputFormat) -> Result<String> {
    let begun_ns = time::now_ns();
    let mut connection = ControlConnection::open(socket, ANSWER_LIMIT)?;
    // Held before the host is asked: soon after its end another process may have the pid.
    let pid = connection.server_pid();
    let supervisor = pid.and_then(ProcessHold::of_pid);
    let asked = match connection.ask(STOP, &[]) {
        Ok(answer) => Ok(connection::read::<Stopping>(answer?)?),
        Err(unanswered) => Err(unanswered),
    };
    drop(connection);
    let limit_ms = asked.as_ref().map_or(STOP_LIMIT_MS, |stopping| stopping.limit_ms.saturating_add(STOP_EXTRA_MS).max(STOP_LIMIT_MS));
    let deadline_ns = time::now_ns().saturating_add(limit_ms.saturating_mul(1_000_000));
    let has_ended = match (&asked, &supervisor) {
        // Also without an answer: the host may be stopping already, without its control process.
        (_, Some(supervisor)) => supervisor.ended_by(deadline_ns),
        (Ok(_), None) => is_removed_by(socket, deadline_ns),
        (Err(_), None) => false,
    };
    let pid = asked.as_ref().ok().map(|stopping| stopping.pid).or(pid);
    match (has_ended, asked) {
        (true, _) => Ok(match format {
            OutputFormat::Text => "stopped\n".to_owned(),
            OutputFormat::Json => output::json(&json!({ "stopped": true, "pid": pid, "took_ms": (time::now_ns() - begun_ns) / 1_000_000 })),
        }),
        (false, Err(unanswered)) => Err(unanswered),
        (false, Ok(stopping)) => Err(Error::failed("the host has not stopped in time")
            .detail(format!("pid {} still runs after {} s", stopping.pid, Duration::from_millis(limit_ms).as_secs()))
            .hint(format!("its log names what it waits for; \"kill -9 {}\" ends everything at once", stopping.pid))
            .into()),
    }
}

/// For a host whose process cannot be seen from here: it removes its socket when it ends.
fn is_removed_by(socket: &Path, deadline_ns: u64) -> bool {
    while time::now_ns() < deadline_ns {
        if std::fs::symlink_metadata(socket).is_err() {
            return true;
        }
        time::sleep_until_ns(time::now_ns() + LOOK_AGAIN_NS);
    }
    false
}
