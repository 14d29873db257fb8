//! `stats`: what was counted, as the control process answers it and as the command shows it.
//!
//! *Runs in:* the control process (answering), the command `stats` (showing); pure but for reading the counters. *Never:* lets what the
//! host sent drive the terminal.

use module_api::stats::Part;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::command::pretty;
use super::methods::{Reply, Then, View, reply};
use crate::error::{Error, Result};
use crate::inspect::Form;
use crate::output::{table, visible};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Sums over all processes.
    Sums,
    /// And the part of each.
    ByProcess,
    /// The text format of Prometheus.
    Prometheus,
}

impl Shape {
    /// The control method that answers.
    pub fn method(self) -> &'static str {
        match self {
            Self::Sums => "stats",
            Self::ByProcess => "stats_by_process",
            Self::Prometheus => "stats_prometheus",
        }
    }
}

/// `stats`.
pub(super) fn all(view: &View<'_>, params: &[Value], _: u64) -> Result<Reply> {
    answer(view, params, Shape::Sums)
}

/// `stats_by_process`.
pub(super) fn by_process(view: &View<'_>, params: &[Value], _: u64) -> Result<Reply> {
    answer(view, params, Shape::ByProcess)
}

/// `stats_prometheus`.
pub(super) fn prometheus(view: &View<'_>, params: &[Value], _: u64) -> Result<Reply> {
    answer(view, params, Shape::Prometheus)
}

fn answer(view: &View<'_>, params: &[Value], shape: Shape) -> Result<Reply> {
    let prefixes: Option<Vec<&str>> = params.iter().map(Value::as_str).collect();
    let Some(prefixes) = prefixes else {
        return Err(Error::config(format!("method \"{}\" takes texts", shape.method())).hint("a prefix of MODULE.NAME, such as \"echo\""));
    };
    let entries = view.stats.matching(&prefixes);
    let mut text = String::new();
    for (at, entry) in entries.iter().enumerate() {
        let sample = view.stats.sample(entry, Part::All);
        if shape == Shape::Prometheus {
            sample.write_prometheus(&mut text);
            continue;
        }
        let mut parts = String::new();
        if shape == Shape::ByProcess {
            for part in (0..view.stats.processes()).map(Part::Process).chain([Part::Outside]) {
                let sample = view.stats.sample(entry, part);
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
    match shape {
        Shape::Prometheus => reply(&text),
        Shape::Sums | Shape::ByProcess => Ok(Reply { json: format!("[{text}]"), then: Then::Nothing }),
    }
}

/// One in the answer.
#[derive(Debug, Deserialize)]
struct Row {
    module: String,
    name: String,
    #[serde(default)]
    unit: String,
    #[serde(flatten)]
    value: Shown,
    #[serde(default)]
    processes: Vec<PartRow>,
}

/// A part of it.
#[derive(Debug, Deserialize)]
struct PartRow {
    slot: Option<u64>,
    #[serde(flatten)]
    value: Shown,
}

/// A number, or the numbers of a histogram.
#[derive(Debug, Deserialize)]
struct Shown {
    value: Option<Number>,
    count: Option<u64>,
    sum: Option<u64>,
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
}

impl Shown {
    fn cells(&self, name: String, unit: &str) -> Vec<String> {
        let first = self.value.as_ref().map(Number::to_string).or_else(|| self.count.map(|count| count.to_string()));
        let mut cells = vec![name, first.unwrap_or_else(|| "-".to_owned()), visible(unit)];
        cells.extend([self.sum, self.p50, self.p90, self.p99].map(|number| number.map_or_else(String::new, |number| number.to_string())));
        cells
    }
}

/// What the command prints; or what is wrong with the answer.
pub fn show(answer: &Value, shape: Shape, form: Form) -> Result<String, String> {
    if shape == Shape::Prometheus {
        // Names are checked and texts are without control characters when they are registered; newlines are the format's.
        let text = answer.as_str().ok_or("it is no text")?;
        return Ok(text.lines().map(|line| visible(line) + "\n").collect());
    }
    let rows = Vec::<Row>::deserialize(answer).map_err(|error| error.to_string())?;
    if form == Form::Json {
        return Ok(pretty(answer));
    }
    let mut lines = vec![["name", "value", "unit", "sum", "p50", "p90", "p99"].map(str::to_owned).to_vec()];
    for row in &rows {
        lines.push(row.value.cells(visible(&format!("{}.{}", row.module, row.name)), &row.unit));
        for part in &row.processes {
            let name = part.slot.map_or_else(|| "  outside".to_owned(), |slot| format!("  slot {slot}"));
            lines.push(part.value.cells(name, ""));
        }
    }
    Ok(table(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let answer = serde_json::json!([
            { "module": "echo", "name": "answered", "kind": "counter", "unit": "", "help": "h", "value": u64::MAX,
              "processes": [{ "slot": 1, "value": 7 }, { "slot": null, "value": 1 }] },
            { "module": "echo", "name": "open", "kind": "gauge", "value": -3 },
            { "module": "echo", "name": "took\u{1b}", "kind": "histogram", "unit": "ns", "count": 2, "sum": 30, "p50": 10, "p90": 20, "p99": 20,
              "buckets": [[10, 1], [20, 1]] },
        ]);
        let text = show(&answer, Shape::ByProcess, Form::Text).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["echo.answered", "18446744073709551615"]);
        assert_eq!((lines[2].as_slice(), lines[3].as_slice()), (["slot", "1", "7"].as_slice(), ["outside", "1"].as_slice()));
        assert_eq!(lines[4], ["echo.open", "-3"]);
        assert_eq!(lines[5], ["echo.took\u{fffd}", "2", "ns", "30", "10", "20", "20"]);
        assert!(show(&serde_json::json!([{ "module": 1 }]), Shape::Sums, Form::Json).is_err());
        assert!(show(&serde_json::json!(1), Shape::Prometheus, Form::Text).is_err());
    }
}
