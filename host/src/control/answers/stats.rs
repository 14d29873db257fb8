//! The methods `stats`, `stats_by_process` and `stats_prometheus`: one answer in three layouts.
//!
//! *Runs in:* the control process, which answers; the command `stats`, which reads the answer.
//! *Never:* takes a lock: counters are read while processes count.

use module_api::stats::Part;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::{Answered, MethodCall, STATS, STATS_BY_PROCESS, STATS_PROMETHEUS, Then, answered};
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsLayout {
    /// Sums over all processes.
    Sums,
    /// Also the part of each process.
    ByProcess,
    /// The text format of Prometheus.
    Prometheus,
}

impl StatsLayout {
    /// The method that answers in this layout.
    pub fn method(self) -> &'static str {
        match self {
            Self::Sums => STATS,
            Self::ByProcess => STATS_BY_PROCESS,
            Self::Prometheus => STATS_PROMETHEUS,
        }
    }
}

/// A counter, gauge or histogram in an answer that is not for Prometheus. Written by
/// `module_api::stats::Sample`, which writes the same JSON in modules.
#[derive(Debug, Deserialize)]
pub struct StatRow {
    pub module: String,
    pub name: String,
    #[serde(default)]
    pub unit: String,
    #[serde(flatten)]
    pub numbers: StatNumbers,
    #[serde(default)]
    pub processes: Vec<ProcessPart>,
}

/// The part of one process.
#[derive(Debug, Deserialize)]
pub struct ProcessPart {
    /// None: processes that the host did not fork.
    pub slot: Option<u64>,
    #[serde(flatten)]
    pub numbers: StatNumbers,
}

/// The value of a counter or gauge, or the numbers of a histogram.
#[derive(Debug, Deserialize)]
pub struct StatNumbers {
    pub value: Option<Number>,
    pub count: Option<u64>,
    pub sum: Option<u64>,
    pub p50: Option<u64>,
    pub p90: Option<u64>,
    pub p99: Option<u64>,
}

pub(super) fn answer(call: &MethodCall<'_>, layout: StatsLayout) -> Result<Answered> {
    let prefixes: Option<Vec<&str>> = call.params.iter().map(Value::as_str).collect();
    let Some(prefixes) = prefixes else {
        return Err(Error::config(format!("method \"{}\" takes texts", layout.method())).hint("a prefix of MODULE.NAME, such as \"echo\""));
    };
    let stats = call.view.stats;
    let mut text = String::new();
    for (at, entry) in stats.matching(&prefixes).iter().enumerate() {
        let sample = stats.sample(entry, Part::All);
        if layout == StatsLayout::Prometheus {
            sample.write_prometheus(&mut text);
            continue;
        }
        let mut parts = String::new();
        if layout == StatsLayout::ByProcess {
            for part in (0..stats.processes()).map(Part::Process).chain([Part::Outside]) {
                let sample = stats.sample(entry, part);
                if !sample.is_zero() {
                    parts.push_str(if parts.is_empty() { "{" } else { ",{" });
                    match part {
                        Part::Process(process_no) => parts.push_str(&format!("\"slot\":{process_no}")),
                        _ => parts.push_str("\"slot\":null"),
                    }
                    sample.write_json_value(&mut parts);
                    parts.push('}');
                }
            }
            parts = format!(",\"processes\":[{parts}]");
        }
        text.push_str(if at == 0 { "" } else { "," });
        sample.write_json(&mut text, &parts);
    }
    match layout {
        StatsLayout::Prometheus => answered(&text),
        StatsLayout::Sums | StatsLayout::ByProcess => Ok(Answered { json: format!("[{text}]"), then: Then::GoOn }),
    }
}
