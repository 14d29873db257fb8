//! Times and answers of any form as text for people.
//!
//! *Runs in:* the commands for a running host. *Never:* lets what the host sent drive the terminal.

use serde_json::Value;

use crate::output::{table, visible};

/// A time in its two largest units.
pub fn uptime(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match (hours, minutes, seconds) {
        (0, 0, 0) => format!("{ms}ms"),
        (0, 0, _) => format!("{seconds}s"),
        (0, _, _) => format!("{minutes}m{:02}s", seconds % 60),
        (..48, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

/// Any answer: text as it is, an object as lines, an array of objects as a table.
pub fn value(value: &Value) -> String {
    match value {
        Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_object) => objects(rows),
        Value::Array(items) => items.iter().map(|item| cell(item) + "\n").collect(),
        Value::Object(fields) => table(&fields.iter().map(|(name, value)| vec![visible(name), cell(value)]).collect::<Vec<_>>()),
        Value::Null => String::new(),
        other => cell(other) + "\n",
    }
}

fn objects(rows: &[Value]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut lines = vec![names.iter().map(|name| visible(name)).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| names.iter().map(|name| row.get(name.as_str()).map_or_else(String::new, cell)).collect()));
    table(&lines)
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text),
        Value::Null => "-".to_owned(),
        other => visible(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn uptimes() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1000, "1s"),
            (59_999, "59s"),
            (61_000, "1m01s"),
            (3_600_000, "1h00m"),
            (169_200_000, "47h00m"),
            (180_000_000, "2d02h"),
        ] {
            assert_eq!(uptime(ms), text);
        }
    }

    #[test]
    fn any_value() {
        for (shown, text) in [
            (json!("pong"), "pong\n"),
            (json!(null), ""),
            (json!(3), "3\n"),
            (json!([]), ""),
            (json!(["a", 1]), "a\n1\n"),
            (json!({ "a": 1, "long": [1, "x"] }), "a     1\nlong  [1,\"x\"]\n"),
            (json!([{ "a": 1 }, { "a": "two", "b": null }]), "a    b\n1\ntwo  -\n"),
        ] {
            assert_eq!(value(&shown), text);
        }
    }
}
