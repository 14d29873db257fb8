//! Answers of the host as text for people.
//!
//! *Runs in:* the commands `ps`, `stop`, `ping` and `rpc`; pure. *Never:* lets what the host sent drive the terminal.

use serde_json::Value;

use super::methods::{Memory, Process};
use crate::output::{table, visible};

/// `modhost ps`.
pub fn processes(processes: &[Process]) -> String {
    let mut rows = vec![["slot", "pid", "rank", "state", "uptime", "restarts", "name"].map(str::to_owned).to_vec()];
    rows.extend(processes.iter().map(|process| {
        vec![
            process.slot.to_string(),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.rank.to_string(),
            visible(&process.state),
            process.uptime_ms.map_or_else(|| "-".to_owned(), uptime),
            process.restarts.to_string(),
            visible(&process.name),
        ]
    }));
    table(&rows)
}

/// `modhost shm`.
pub fn memory(memory: &Memory) -> String {
    let mut rows = vec![["module", "blocks", "bytes"].map(str::to_owned).to_vec()];
    rows.extend(memory.modules.iter().map(|share| vec![visible(&share.module), share.blocks.to_string(), share.bytes.to_string()]));
    let sums = [
        ("used", memory.used_bytes),
        ("spare", memory.spare_bytes),
        ("free", memory.free_bytes),
        ("largest free", memory.largest_free_bytes),
        ("total", memory.total_bytes),
    ];
    let sums: Vec<_> = sums.iter().map(|(name, bytes)| vec![(*name).to_owned(), bytes.to_string()]).collect();
    format!("{}\n{}", table(&rows), table(&sums))
}

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

/// Whatever `rpc` brought back: text as it is, an object as lines, a list of objects as a table.
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

    use super::super::methods::Share;
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
    fn the_process_table() {
        let main = Process {
            slot: 0,
            pid: Some(4711),
            rank: 0,
            name: "main".into(),
            state: "serving".into(),
            uptime_ms: Some(61_000),
            restarts: 0,
            last: None,
        };
        let gone = Process {
            slot: 12,
            pid: None,
            rank: -2,
            name: "x\u{1b}c".into(),
            state: "ended".into(),
            uptime_ms: None,
            restarts: 3,
            last: None,
        };
        let text = "\
slot  pid   rank  state    uptime  restarts  name
0     4711  0     serving  1m01s   0         main
12    -     -2    ended    -       3         x\u{fffd}c
";
        assert_eq!(processes(&[main, gone]), text);
    }

    #[test]
    fn the_table_of_memory() {
        let share = |module: &str, blocks, bytes| Share { module: module.into(), blocks, bytes };
        let shown = memory(&Memory {
            modules: vec![share("sip", 2, 224), share("x\u{1b}c", 1, 64)],
            total_bytes: 1_048_576,
            used_bytes: 288,
            free_bytes: 1_015_808,
            spare_bytes: 32_480,
            largest_free_bytes: 1_015_808,
        });
        let text = "\
module  blocks  bytes
sip     2       224
x\u{fffd}c     1       64

used          288
spare         32480
free          1015808
largest free  1015808
total         1048576
";
        assert_eq!(shown, text);
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
