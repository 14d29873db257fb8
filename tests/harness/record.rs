//! The records of fixture modules: one line for each call, in order.

use std::collections::BTreeMap;
use std::fmt;

/// One record: `event key=value key=value ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `init_f`, `init_child_f`, `destroy_f`, `handler`, `timer`, `process`, or `did` for the
    /// result of an action in a script.
    pub event: String,
    fields: BTreeMap<String, String>,
}

impl Record {
    pub fn parse(line: &str) -> Self {
        let (event, rest) = line.split_once(' ').unwrap_or((line, ""));
        let fields = rest.split(' ').filter_map(|field| field.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self { event: event.to_owned(), fields: fields.collect() }
    }

    /// A field as text; empty if missing.
    pub fn text(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// A field as a number.
    #[track_caller]
    pub fn number(&self, key: &str) -> i64 {
        self.text(key).parse().unwrap_or_else(|_| panic!("{key} is no number in: {self}"))
    }

    pub fn module(&self) -> &str {
        self.text("module")
    }

    pub fn pid(&self) -> i32 {
        self.number("pid") as i32
    }

    /// The argument of `init_child_f`; for any other event the rank of the process.
    pub fn rank(&self) -> i32 {
        self.number("rank") as i32
    }

    pub fn process_no(&self) -> i32 {
        self.number("process_no") as i32
    }

    /// Whether it is a call of `init_child_f` with that rank.
    pub fn is_child_init(&self, rank: i32) -> bool {
        self.event == "init_child_f" && self.rank() == rank
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.event)?;
        self.fields.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// All records of a run.
#[derive(Debug, Clone, Default)]
pub struct Records(pub Vec<Record>);

impl Records {
    pub fn parse(text: &str) -> Self {
        // A line without a newline is still being written.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Self(complete.lines().map(Record::parse).collect())
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Record> {
        self.0.iter()
    }

    /// All records that satisfy the condition.
    pub fn that(&self, condition: impl Fn(&Record) -> bool) -> Vec<&Record> {
        self.iter().filter(|record| condition(record)).collect()
    }

    /// Module and rank of each `init_child_f` call in that process, in order.
    pub fn child_inits_in(&self, pid: i32) -> Vec<(String, i32)> {
        let calls = self.that(|record| record.event == "init_child_f" && record.pid() == pid);
        calls.iter().map(|record| (record.module().to_owned(), record.rank())).collect()
    }

    pub fn event(&self, event: &str) -> Vec<&Record> {
        self.that(|record| record.event == event)
    }

    /// Calls of `init_child_f` with that rank.
    pub fn child_inits(&self, rank: i32) -> Vec<&Record> {
        self.that(|record| record.is_child_init(rank))
    }

    /// Index of the first record that satisfies the condition.
    #[track_caller]
    pub fn position(&self, condition: impl Fn(&Record) -> bool) -> usize {
        self.iter().position(condition).unwrap_or_else(|| panic!("no such record in:\n{self}"))
    }

    /// The results of an action, such as `register`, in that module's script.
    pub fn outcomes(&self, module: &str, action: &str) -> Vec<i64> {
        let did = self.that(|record| record.event == "did" && record.module() == module && record.text("action") == action);
        did.iter().map(|record| record.number("result")).collect()
    }
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|record| writeln!(f, "{record}"))
    }
}
