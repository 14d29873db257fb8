//! One record as text, JSON, or a message of syslog or journald.
//!
//! *Runs in:* every process. *Never:* writes to a descriptor, allocates, reads the clock.

use super::clock::Utc;
use super::line::{Escape, Line, Shape};
use super::settings::{Format, Severity};
use std::fmt;

/// The name in front of every message to syslog and journald.
const IDENTIFIER: &str = "modhost";

/// A field's value as the event has it.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
    Bool(bool),
    Debug(&'a dyn fmt::Debug),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Signed(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::Debug(value) => value.fmt(f),
        }
    }
}

/// Fields in their order, `message` and `module` among them. Asked more than once per record: that is what keeps a record free of copies.
pub(super) trait Fields {
    fn each(&self, visit: &mut dyn FnMut(&str, Value<'_>));
}

/// What a module sent.
pub(super) struct Sent<'a> {
    pub(super) module: &'a str,
    pub(super) text: &'a str,
}

impl Fields for Sent<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, Value<'_>)) {
        visit("module", Value::Text(self.module));
        visit("message", Value::Text(self.text));
    }
}

/// The one record of the log's own.
pub(super) struct KeptOldFile<'a> {
    pub(super) error: &'a std::io::Error,
}

impl Fields for KeptOldFile<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, Value<'_>)) {
        visit("message", Value::Text("cannot reopen the log file, keeping the old one"));
        visit("error", Value::Debug(&format_args!("{}", self.error)));
    }
}

impl Fields for tracing::Event<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, Value<'_>)) {
        self.record(&mut Each(visit));
    }
}

struct Each<'v>(&'v mut dyn FnMut(&str, Value<'_>));

impl tracing::field::Visit for Each<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        (self.0)(field.name(), Value::Text(value));
    }
    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        (self.0)(field.name(), Value::Signed(value.into()));
    }
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        (self.0)(field.name(), Value::Unsigned(value.into()));
    }
    fn record_i128(&mut self, field: &tracing::field::Field, value: i128) {
        (self.0)(field.name(), Value::Signed(value));
    }
    fn record_u128(&mut self, field: &tracing::field::Field, value: u128) {
        (self.0)(field.name(), Value::Unsigned(value));
    }
    fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
        (self.0)(field.name(), Value::Float(value));
    }
    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        (self.0)(field.name(), Value::Bool(value));
    }
    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        (self.0)(field.name(), Value::Debug(&format_args!("{value}")));
    }
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        (self.0)(field.name(), Value::Debug(value));
    }
}

/// One record, before it is bytes.
pub(super) struct Record<'a> {
    pub(super) time: Utc,
    pub(super) severity: Severity,
    /// The process label, untrusted: modules name their processes.
    pub(super) process: &'a str,
    pub(super) pid: u32,
    pub(super) target: &'a str,
    pub(super) fields: &'a dyn Fields,
    /// Records of this process that could not be written since the last that was.
    pub(super) lost: u64,
}

impl Record<'_> {
    /// As a line of a file, with its newline.
    pub(super) fn line(&self, format: Format, line: &mut Line<'_>) {
        match format {
            Format::Text => {
                let Self { time, severity, process, pid, .. } = self;
                line.escaped(Escape::Line, format_args!("{time} {severity:<5} [{process} {pid}] "));
                self.text(Escape::Line, line);
            }
            Format::Json => self.json(line),
        }
        line.close("\n");
    }

    /// As a datagram for `/dev/log`; the receiver stamps it with its time. Facility 3 is "daemon".
    pub(super) fn syslog(&self, format: Format, line: &mut Line<'_>) {
        let Self { severity, process, pid, .. } = self;
        line.escaped(Escape::Line, format_args!("<{}>{IDENTIFIER}[{pid}]: ", (3 << 3) | severity.syslog_number()));
        match format {
            Format::Text => {
                line.escaped(Escape::Line, format_args!("{severity} [{process}] "));
                self.text(Escape::Line, line);
            }
            Format::Json => self.json(line),
        }
    }

    /// As a datagram of the journal's native protocol: `KEY=value` lines, and for a value of several lines its length before it.
    pub(super) fn journald(&self, line: &mut Line<'_>) {
        let Self { severity, process, target, .. } = self;
        line.close(format_args!("PRIORITY={}\n", severity.syslog_number()));
        line.raw("SYSLOG_IDENTIFIER=modhost\n");
        for (key, value) in [("MODHOST_PROCESS=", process), ("MODHOST_TARGET=", target)] {
            line.raw(key);
            line.escaped(Escape::Line, format_args!("{value}"));
            line.raw("\n");
        }
        self.named("module", &mut |module| {
            line.raw("MODHOST_MODULE=");
            line.escaped(Escape::Line, format_args!("{module}"));
            line.raw("\n");
        });
        line.raw("MESSAGE\n");
        let count_at = line.len();
        line.raw("\0\0\0\0\0\0\0\0");
        self.text(Escape::Lines, line);
        line.patch_count(count_at, line.len() - count_at - 8);
        line.close("\n");
        if self.lost > 0 {
            line.close(format_args!("MODHOST_LOST={}\n", self.lost));
        }
    }

    /// `module: message key=value ...`
    fn text(&self, message: Escape, line: &mut Line<'_>) {
        self.named("module", &mut |module| {
            line.escaped(Escape::Line, format_args!("{module}: "));
        });
        self.named("message", &mut |text| {
            line.escaped(message, format_args!("{text}"));
        });
        self.others(&mut |name, value| {
            let mark = line.len();
            let quotes = Shape::of(format_args!("{value}")).needs_quotes();
            if !line.escaped(Escape::Line, format_args!(" {name}={}", if quotes { "\"" } else { "" })) {
                line.take_back(mark);
            } else if !quotes {
                line.escaped(Escape::Line, format_args!("{value}"));
            } else {
                line.escaped(Escape::Quoted, format_args!("{value}"));
                line.close('"');
            }
        });
        if line.is_cut() {
            line.close(" [cut]");
        }
        if self.lost > 0 {
            line.close(format_args!(" lost={}", self.lost));
        }
    }

    fn json(&self, line: &mut Line<'_>) {
        let Self { time, severity, process, pid, target, .. } = self;
        line.raw(r#"{"time":""#);
        line.escaped(Escape::Json, format_args!("{time}"));
        line.raw(r#"","level":""#);
        line.raw(severity.word());
        line.raw("\"");
        let mut member = |name: &str, value: Value<'_>| {
            json_member(line, ",", name, value);
        };
        member("process", Value::Text(process));
        member("pid", Value::Unsigned((*pid).into()));
        self.named("module", &mut |module| member("module", module));
        member("target", Value::Text(target));
        self.named("message", &mut |message| member("message", message));
        let mut before = r#","fields":{"#;
        self.others(&mut |name, value| {
            if json_member(line, before, name, value) {
                before = ",";
            }
        });
        if before == "," {
            line.close('}');
        }
        if line.is_cut() {
            line.close(r#","cut":true"#);
        }
        if self.lost > 0 {
            line.close(format_args!(r#","lost":{}"#, self.lost));
        }
        line.close('}');
    }

    fn named(&self, wanted: &str, visit: &mut dyn FnMut(Value<'_>)) {
        self.fields.each(&mut |name, value| {
            if name == wanted {
                visit(value);
            }
        });
    }

    fn others(&self, visit: &mut dyn FnMut(&str, Value<'_>)) {
        self.fields.each(&mut |name, value| {
            if !matches!(name, "message" | "module") {
                visit(name, value);
            }
        });
    }
}

/// Writes `before"name":value`, or nothing when not even its beginning fits. Only the text of a string is ever cut.
fn json_member(line: &mut Line<'_>, before: &str, name: &str, value: Value<'_>) -> bool {
    let mark = line.len();
    let is_string = match value {
        Value::Text(_) | Value::Debug(_) => true,
        Value::Float(number) => !number.is_finite(),
        // Larger integers than an f64 holds exactly are read wrongly by most JSON readers, but they are valid.
        Value::Signed(_) | Value::Unsigned(_) | Value::Bool(_) => false,
    };
    let begun = line.raw(before)
        && line.raw("\"")
        && line.escaped(Escape::Json, format_args!("{name}"))
        && line.raw(if is_string { "\":\"" } else { "\":" });
    if !begun || (!line.escaped(Escape::Json, format_args!("{value}")) && !is_string) {
        line.take_back(mark);
        return false;
    }
    if is_string {
        line.close('"');
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::line::RECORD_BYTES;
    use super::*;
    use proptest::prelude::*;

    struct List<'a>(&'a [(&'a str, Value<'a>)]);

    impl Fields for List<'_> {
        fn each(&self, visit: &mut dyn FnMut(&str, Value<'_>)) {
            self.0.iter().for_each(|(name, value)| visit(name, *value));
        }
    }

    fn record<'a>(fields: &'a dyn Fields) -> Record<'a> {
        let time = Utc::from_unix_ms(1_795_374_000_123);
        Record { time, severity: Severity::Info, process: "main", pid: 1234, target: "modhost::x", fields, lost: 0 }
    }

    fn written(write: impl FnOnce(&mut Line<'_>)) -> Vec<u8> {
        let mut bytes = [0; RECORD_BYTES];
        let mut line = Line::new(&mut bytes);
        write(&mut line);
        line.as_bytes().to_vec()
    }

    fn text(record: &Record<'_>) -> String {
        String::from_utf8(written(|line| record.line(Format::Text, line))).unwrap()
    }

    fn json(record: &Record<'_>) -> serde_json::Value {
        serde_json::from_slice(&written(|line| record.line(Format::Json, line))).unwrap()
    }

    #[test]
    fn text_reads_well_and_stays_one_line() {
        let fields = List(&[
            ("message", Value::Text("listening\n2026 error [main 1] forged")),
            ("module", Value::Text("echo")),
            ("address", Value::Debug(&format_args!("127.0.0.1:1"))),
            ("error", Value::Text("no \"such\" file")),
            ("path", Value::Debug(&"/tmp/a b")),
            ("count", Value::Signed(-3)),
        ]);
        let line = text(&record(&fields));
        let start = "2026-11-22T19:00:00.123Z info  [main 1234] echo: listening\\n2026 error [main 1] forged ";
        assert_eq!(line, format!("{start}address=127.0.0.1:1 error=\"no \\\"such\\\" file\" path=\"/tmp/a b\" count=-3\n"));
        let lost = Record { lost: 7, severity: Severity::Fault, ..record(&Sent { module: "m", text: "t" }) };
        assert!(text(&lost).ends_with("fault [main 1234] m: t lost=7\n"));
    }

    #[test]
    fn json_has_types_and_leaves_out_what_is_not_there() {
        let fields = List(&[
            ("message", Value::Text("a\n\"b\"")),
            ("yes", Value::Bool(true)),
            ("n", Value::Unsigned(5)),
            ("nan", Value::Float(f64::NAN)),
            ("half", Value::Float(0.5)),
        ]);
        let expected = serde_json::json!({
            "time": "2026-11-22T19:00:00.123Z", "level": "info", "process": "main", "pid": 1234, "target": "modhost::x",
            "message": "a\n\"b\"", "fields": {"yes": true, "n": 5, "nan": "NaN", "half": 0.5}
        });
        assert_eq!(json(&record(&fields)), expected);
        let sent = json(&Record { lost: 2, ..record(&Sent { module: "sip", text: "hello" }) });
        assert_eq!((&sent["module"], &sent["lost"], sent.get("fields")), (&"sip".into(), &2.into(), None));
    }

    #[test]
    fn syslog_and_journald_messages() {
        let sent = Sent { module: "sip", text: "two\nlines" };
        let syslog = written(|line| record(&sent).syslog(Format::Text, line));
        assert_eq!(String::from_utf8(syslog).unwrap(), "<30>modhost[1234]: info [main] sip: two\\nlines");
        let journald = written(|line| Record { lost: 1, process: "a\nPRIORITY=0", ..record(&sent) }.journald(line));
        let head = "PRIORITY=6\nSYSLOG_IDENTIFIER=modhost\nMODHOST_PROCESS=a\\nPRIORITY=0\nMODHOST_TARGET=modhost::x\nMODHOST_MODULE=sip\n";
        let expected = [head.as_bytes(), b"MESSAGE\n\x15\0\0\0\0\0\0\0sip: two\nlines lost=1\nMODHOST_LOST=1\n"].concat();
        assert_eq!(journald, expected);
    }

    proptest! {
        #[test]
        fn any_record_fits_and_is_well_formed(
            message in any::<String>(), name in "[a-z]{1,40}", value in any::<String>(), repeat in 0..600_usize, lost in any::<u64>()
        ) {
            let (message, value) = (message.repeat(repeat), value.repeat(600 - repeat));
            let list = [("message", Value::Text(&message)), (&name, Value::Text(&value)), ("n", Value::Signed(i128::MIN)), ("z", Value::Text(&value))];
            let fields = List(&list);
            let record = Record { lost, ..record(&fields) };
            let object = json(&record);
            prop_assert!(message.starts_with(object["message"].as_str().unwrap()));
            let line = text(&record);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let journald = written(|line| record.journald(line));
            prop_assert_eq!(journald.last(), Some(&b'\n'));
        }
    }
}
