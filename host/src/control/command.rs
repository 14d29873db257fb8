//! The commands that speak to a running host.
//!
//! *Runs in:* the commands `ps`, `shm`, `stop`, `ping` and `rpc`. *Never:* prints by itself (`main` does).

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::client::{ANSWER_LIMIT, Connection};
use super::methods::{Memory, Process, Stopping};
use super::show;
use super::stats::{self, Shape};
use crate::error::{Error, Result};
use crate::inspect::Form;
use crate::sys::process::ended::ProcessHold;
use crate::sys::time;

/// A host that does not say how long its stop may take is given so long.
const STOP_LIMIT_MS: u64 = 30_000;

/// How much longer than the host's own limit a stop is waited for.
const STOP_EXTRA_MS: u64 = 2_000;

/// `modhost ps`: what to print.
pub fn ps(socket: &Path, form: Form) -> Result<String> {
    let answer = Connection::open(socket, ANSWER_LIMIT)?.call("ps", &[])?;
    let processes: Vec<Process> = serde_json::from_value(answer).map_err(|error| {
        Error::failed("the answer of the host makes no sense").detail(error).hint("host and command may be of different versions")
    })?;
    Ok(match form {
        Form::Text => show::processes(&processes),
        Form::Json => pretty(&processes),
    })
}

/// `modhost stats`: what to print.
pub fn stats(socket: &Path, prefixes: &[String], shape: Shape, form: Form) -> Result<String> {
    let params: Vec<Value> = prefixes.iter().map(|prefix| Value::from(prefix.as_str())).collect();
    let answer = Connection::open(socket, ANSWER_LIMIT)?.call(shape.method(), &params)?;
    stats::show(&answer, shape, form).map_err(|detail| {
        Error::failed("the answer of the host makes no sense").detail(detail).hint("host and command may be of different versions")
    })
}

/// `modhost shm`: what to print.
pub fn shm(socket: &Path, form: Form) -> Result<String> {
    let answer = Connection::open(socket, ANSWER_LIMIT)?.call("shm", &[])?;
    let memory: Memory = serde_json::from_value(answer).map_err(|error| {
        Error::failed("the answer of the host makes no sense").detail(error).hint("host and command may be of different versions")
    })?;
    Ok(match form {
        Form::Text => show::memory(&memory),
        Form::Json => pretty(&memory),
    })
}

/// `modhost rpc` and `modhost ping`: what to print.
pub fn rpc(socket: &Path, method: &str, args: &[String], form: Form) -> Result<String> {
    let params: Vec<Value> = args.iter().map(|arg| param(arg)).collect();
    let answer = Connection::open(socket, ANSWER_LIMIT)?.call(method, &params)?;
    Ok(match form {
        Form::Text => show::value(&answer),
        Form::Json => pretty(&answer),
    })
}

/// What is JSON is sent as that; anything else is text.
fn param(arg: &str) -> Value {
    serde_json::from_str(arg).unwrap_or_else(|_| Value::from(arg))
}

/// `modhost stop`: asks, and waits until the host is gone. What to print.
pub fn stop(socket: &Path, form: Form) -> Result<String> {
    let begun_ns = time::now_ns();
    let mut connection = Connection::open(socket, ANSWER_LIMIT)?;
    // Held before it is asked: its pid may belong to somebody else soon after its end.
    let pid = connection.server_pid();
    let supervisor = pid.and_then(ProcessHold::of_pid);
    let asked = match connection.ask("stop", &[]) {
        Ok(answer) => Ok(serde_json::from_value::<Stopping>(answer?)
            .map_err(|error| Error::failed("the answer of the host makes no sense").detail(error))?),
        Err(unanswered) => Err(unanswered),
    };
    drop(connection);
    let limit_ms = asked.as_ref().map_or(STOP_LIMIT_MS, |stopping| stopping.limit_ms.saturating_add(STOP_EXTRA_MS).max(STOP_LIMIT_MS));
    let deadline_ns = time::now_ns().saturating_add(limit_ms.saturating_mul(1_000_000));
    let gone = match (&asked, &supervisor) {
        // Even without an answer: it may be stopping already, with its control process gone.
        (_, Some(supervisor)) => supervisor.ended_by(deadline_ns),
        (Ok(_), None) => removed_by(socket, deadline_ns),
        (Err(_), None) => false,
    };
    let pid = asked.as_ref().ok().map(|stopping| stopping.pid).or(pid);
    match (gone, asked) {
        (true, _) => Ok(match form {
            Form::Text => "stopped\n".to_owned(),
            Form::Json => pretty(&json!({ "stopped": true, "pid": pid, "took_ms": (time::now_ns() - begun_ns) / 1_000_000 })),
        }),
        (false, Err(error)) => Err(error),
        (false, Ok(stopping)) => Err(Error::failed("the host has not stopped in time")
            .detail(format!("pid {} still runs after {} s", stopping.pid, Duration::from_millis(limit_ms).as_secs()))
            .hint(format!("its log names what it waits for; \"kill -9 {}\" ends everything at once", stopping.pid))),
    }
}

/// For a host whose process cannot be seen from here: it removes its socket at the end.
fn removed_by(socket: &Path, deadline_ns: u64) -> bool {
    while time::now_ns() < deadline_ns {
        if std::fs::symlink_metadata(socket).is_err() {
            return true;
        }
        time::sleep_until_ns(time::now_ns() + 20_000_000);
    }
    false
}

/// An error of a command in JSON: with `--json`, what is printed is always JSON.
pub fn error_json(error: &Error) -> String {
    pretty(&json!({ "error": { "what": error.what, "detail": error.detail, "hint": error.hint } }))
}

/// A tree of values: writing it cannot fail.
pub(super) fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_or_text() {
        for (arg, param_is) in [
            ("1", json!(1)),
            ("true", json!(true)),
            ("x", json!("x")),
            ("\"1\"", json!("1")),
            ("[1,2]", json!([1, 2])),
            ("", json!("")),
            ("10s", json!("10s")),
            ("-v", json!("-v")),
        ] {
            assert_eq!(param(arg), param_is, "{arg}");
        }
    }
}
