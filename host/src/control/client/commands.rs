//! The commands for a running host: arguments and help, the method that each asks, and the text
//! that it makes of the answer.
//!
//! *Runs in:* those commands. *Never:* prints by itself (`main` does).
//!
//! A new command is a variant of [`ClientCommand`], an arm in each of its two `match`es, and its
//! rendering, all in this file.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueHint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connection::{self, ANSWER_LIMIT, ControlConnection};
use super::{render, stop};
use crate::control::answers::stats::{StatNumbers, StatRow, StatsLayout};
use crate::control::answers::{self, MemoryUsage, ProcessRow};
use crate::output::{self, OutputFormat, table, visible};

const PS_EXAMPLES: &str = "\
Examples:
  modhost ps
  modhost ps -s target/quickstart.sock --json | jq '.[] | select(.restarts > 0)'";

const STATS_EXAMPLES: &str = "\
Examples:
  modhost stats
  modhost stats echo host.re --per-process
  modhost stats --prometheus -s /run/modhost.sock > /var/lib/node_exporter/modhost.prom
  modhost stats --json | jq '.[] | select(.name == \"answered\") | .value'";

const SHM_EXAMPLES: &str = "\
Examples:
  modhost shm
  modhost shm -s target/quickstart.sock --json | jq .largest_free_bytes";

const RPC_EXAMPLES: &str = "\
Examples:
  modhost rpc methods                            what can be called
  modhost rpc -s /run/modhost.sock METHOD ARG ARG

An ARG that is valid JSON is sent as that (1, true, [1,2], \"1\" in quotes), anything else as text.
Before an ARG that begins with a hyphen put --.";

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum ClientCommand {
    /// List the processes of a running host
    #[command(after_help = PS_EXAMPLES)]
    Ps(ControlArgs),
    /// Show what a running host and its modules have counted
    #[command(after_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
    /// Say which module of a running host has how much shared memory
    #[command(after_help = SHM_EXAMPLES)]
    Shm(ControlArgs),
    /// Stop a running host and wait for its end
    Stop(ControlArgs),
    /// Ask a running host for a sign of life
    Ping(ControlArgs),
    /// Call a method of a running host
    #[command(after_help = RPC_EXAMPLES)]
    Rpc(RpcArgs),
}

// No documentation on the structs below: clap would show it instead of the commands' own.

#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Control socket of the host
    #[arg(short = 's', long = "socket", value_name = "SOCKET", default_value = "/run/modhost.sock", value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,

    /// Print the answer as JSON
    #[arg(long = "json", action = clap::ArgAction::SetTrue, value_parser = OutputFormat::of_flag())]
    pub format: OutputFormat,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    pub control: ControlArgs,

    /// Only counters whose MODULE.NAME begins like this, such as echo or host.re
    #[arg(value_name = "PREFIX")]
    pub prefixes: Vec<String>,

    /// Show the part of each process, too
    #[arg(long = "per-process")]
    pub per_process: bool,

    /// Print the text format of Prometheus
    #[arg(long, conflicts_with_all = ["format", "per_process"])]
    pub prometheus: bool,
}

#[derive(Debug, Args)]
pub struct RpcArgs {
    #[command(flatten)]
    pub control: ControlArgs,

    /// Method, such as ping; "methods" lists them
    #[arg(value_name = "METHOD")]
    pub method: String,

    /// Arguments of the method
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    pub args: Vec<String>,
}

impl ClientCommand {
    /// Asks the host. Returns what to print.
    pub fn run(&self) -> Result<String> {
        match self {
            Self::Ps(host) => host.show(answers::PS, &[], |rows: &Vec<ProcessRow>| process_table(rows)),
            Self::Stats(args) => args.show(),
            Self::Shm(host) => host.show(answers::SHM, &[], memory_tables),
            Self::Stop(host) => stop::stop(&host.socket, host.format),
            Self::Ping(host) => host.show(answers::PING, &[], render::value),
            Self::Rpc(args) => args.show(),
        }
    }

    /// How the answer is printed, or the error in its place.
    pub fn format(&self) -> OutputFormat {
        match self {
            Self::Ps(host) | Self::Shm(host) | Self::Stop(host) | Self::Ping(host) => host.format,
            Self::Stats(args) => args.control.format,
            Self::Rpc(args) => args.control.format,
        }
    }
}

impl ControlArgs {
    fn ask(&self, method: &str, params: &[Value]) -> Result<Value> {
        ControlConnection::open(&self.socket, ANSWER_LIMIT)?.call(method, params)
    }

    /// Asks, and reads the answer into the struct that `text` renders for people.
    fn show<A: Serialize + DeserializeOwned>(&self, method: &str, params: &[Value], text: fn(&A) -> String) -> Result<String> {
        let answer = connection::read(self.ask(method, params)?)?;
        Ok(match self.format {
            OutputFormat::Text => text(&answer),
            OutputFormat::Json => output::json(&answer),
        })
    }
}

impl StatsArgs {
    pub(crate) fn layout(&self) -> StatsLayout {
        match (self.prometheus, self.per_process) {
            (true, _) => StatsLayout::Prometheus,
            (false, true) => StatsLayout::ByProcess,
            (false, false) => StatsLayout::Sums,
        }
    }

    fn show(&self) -> Result<String> {
        let layout = self.layout();
        let params: Vec<Value> = self.prefixes.iter().map(|prefix| Value::from(prefix.as_str())).collect();
        let answer = self.control.ask(layout.method(), &params)?;
        stats_text(answer, layout, self.control.format)
    }
}

impl RpcArgs {
    fn show(&self) -> Result<String> {
        let params: Vec<Value> = self.args.iter().map(|arg| param(arg)).collect();
        self.control.show(&self.method, &params, render::value)
    }
}

/// An argument that is valid JSON is sent as that, any other as a string.
fn param(arg: &str) -> Value {
    serde_json::from_str(arg).unwrap_or_else(|_| Value::from(arg))
}

fn process_table(processes: &[ProcessRow]) -> String {
    let mut rows = vec![["slot", "pid", "rank", "state", "uptime", "restarts", "name"].map(str::to_owned).to_vec()];
    rows.extend(processes.iter().map(|process| {
        vec![
            process.slot.to_string(),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.rank.to_string(),
            visible(&process.state),
            process.uptime_ms.map_or_else(|| "-".to_owned(), render::uptime),
            process.restarts.to_string(),
            visible(&process.name),
        ]
    }));
    table(&rows)
}

fn memory_tables(usage: &MemoryUsage) -> String {
    let mut rows = vec![["module", "blocks", "bytes"].map(str::to_owned).to_vec()];
    rows.extend(usage.modules.iter().map(|share| vec![visible(&share.module), share.blocks.to_string(), share.bytes.to_string()]));
    let sums = [
        ("used", usage.used_bytes),
        ("spare", usage.spare_bytes),
        ("free", usage.free_bytes),
        ("largest free", usage.largest_free_bytes),
        ("total", usage.total_bytes),
    ];
    let sums: Vec<_> = sums.iter().map(|(name, bytes)| vec![(*name).to_owned(), bytes.to_string()]).collect();
    format!("{}\n{}", table(&rows), table(&sums))
}

fn stats_text(answer: Value, layout: StatsLayout, format: OutputFormat) -> Result<String> {
    if layout == StatsLayout::Prometheus {
        let text: String = connection::read(answer)?;
        return Ok(text.lines().map(|line| visible(line) + "\n").collect());
    }
    let rows: Vec<StatRow> = connection::read(answer.clone())?;
    if format == OutputFormat::Json {
        return Ok(output::json(&answer));
    }
    let mut lines = vec![["name", "value", "unit", "sum", "p50", "p90", "p99"].map(str::to_owned).to_vec()];
    for row in &rows {
        lines.push(stat_cells(visible(&format!("{}.{}", row.module, row.name)), &row.unit, &row.numbers));
        for part in &row.processes {
            let name = part.slot.map_or_else(|| "  outside".to_owned(), |slot| format!("  slot {slot}"));
            lines.push(stat_cells(name, "", &part.numbers));
        }
    }
    Ok(table(&lines))
}

fn stat_cells(name: String, unit: &str, numbers: &StatNumbers) -> Vec<String> {
    let value = numbers.value.as_ref().map(ToString::to_string).or_else(|| numbers.count.map(|count| count.to_string()));
    let mut cells = vec![name, value.unwrap_or_else(|| "-".to_owned()), visible(unit)];
    let others = [numbers.sum, numbers.p50, numbers.p90, numbers.p99];
    cells.extend(others.map(|number| number.map_or_else(String::new, |number| number.to_string())));
    cells
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::answers::ModuleShare;

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

    #[test]
    fn the_table_of_processes() {
        let (name, state) = ("main".into(), "serving".into());
        let main = ProcessRow { slot: 0, pid: Some(4711), rank: 0, name, state, uptime_ms: Some(61_000), restarts: 0, last: None };
        let (name, state) = ("x\u{1b}c".into(), "ended".into());
        let ended = ProcessRow { slot: 12, pid: None, rank: -2, name, state, uptime_ms: None, restarts: 3, last: None };
        let text = "\
slot  pid   rank  state    uptime  restarts  name
0     4711  0     serving  1m01s   0         main
12    -     -2    ended    -       3         x\u{fffd}c
";
        assert_eq!(process_table(&[main, ended]), text);
    }

    #[test]
    fn the_tables_of_memory() {
        let share = |module: &str, blocks, bytes| ModuleShare { module: module.into(), blocks, bytes };
        let shown = memory_tables(&MemoryUsage {
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
    fn the_table_of_counters() {
        let answer = json!([
            { "module": "echo", "name": "answered", "kind": "counter", "unit": "", "help": "h", "value": u64::MAX,
              "processes": [{ "slot": 1, "value": 7 }, { "slot": null, "value": 1 }] },
            { "module": "echo", "name": "open", "kind": "gauge", "value": -3 },
            { "module": "echo", "name": "took\u{1b}", "kind": "histogram", "unit": "ns", "count": 2, "sum": 30, "p50": 10, "p90": 20, "p99": 20,
              "buckets": [[10, 1], [20, 1]] },
        ]);
        let text = stats_text(answer, StatsLayout::ByProcess, OutputFormat::Text).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["echo.answered", "18446744073709551615"]);
        assert_eq!((lines[2].as_slice(), lines[3].as_slice()), (["slot", "1", "7"].as_slice(), ["outside", "1"].as_slice()));
        assert_eq!(lines[4], ["echo.open", "-3"]);
        assert_eq!(lines[5], ["echo.took\u{fffd}", "2", "ns", "30", "10", "20", "20"]);
        assert!(stats_text(json!([{ "module": 1 }]), StatsLayout::Sums, OutputFormat::Json).is_err());
        assert!(stats_text(json!(1), StatsLayout::Prometheus, OutputFormat::Text).is_err());
    }
}
