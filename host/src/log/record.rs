//! One record as text, JSON, or a message of syslog or journald.
//!
//! *Runs in:* every process. *Never:* writes to a descriptor, allocates, reads a clock.

use super::line::{Escape, Line, TextShape};
use super::settings::{RecordFormat, Severity};
use super::timestamp::Timestamp;
use std::fmt;

/// The sender of every message to syslog and journald.
const IDENTIFIER: &str = "modhost";

#[derive(Clone, Copy)]
pub(super) enum FieldValue<'a> {
    Text(&'a str),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
    Bool(bool),
    Debug(&'a dyn fmt::Debug),
}

impl fmt::Display for FieldValue<'_> {
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

/// Fields in their order, `message` and `module` among them. Visited several times per record, so
/// that nothing has to be copied.
pub(super) trait Fields {
    fn each(&self, visit: &mut dyn FnMut(&str, FieldValue<'_>));
}

/// The fields of a record that a module sent.
pub(super) struct ModuleMessage<'a> {
    pub(super) module: &'a str,
    pub(super) text: &'a str,
}

impl Fields for ModuleMessage<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, FieldValue<'_>)) {
        visit("module", FieldValue::Text(self.module));
        visit("message", FieldValue::Text(self.text));
    }
}

/// The fields of the one record that the log itself writes.
pub(super) struct KeptOldFile<'a> {
    pub(super) error: &'a std::io::Error,
}

impl Fields for KeptOldFile<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, FieldValue<'_>)) {
        visit("message", FieldValue::Text("cannot reopen the log file, keeping the old one"));
        visit("error", FieldValue::Debug(&format_args!("{}", self.error)));
    }
}

impl Fields for tracing::Event<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, FieldValue<'_>)) {
        self.record(&mut FieldVisitor(visit));
    }
}

struct FieldVisitor<'v>(&'v mut dyn FnMut(&str, FieldValue<'_>));

impl tracing::field::Visit for FieldVisitor<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        (self.0)(field.name(), FieldValue::Text(value));
    }
    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        (self.0)(field.name(), FieldValue::Signed(value.into()));
    }
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        (self.0)(field.name(), FieldValue::Unsigned(value.into()));
    }
    fn record_i128(&mut self, field: &tracing::field::Field, value: i128) {
        (self.0)(field.name(), FieldValue::Signed(value));
    }
    fn record_u128(&mut self, field: &tracing::field::Field, value: u128) {
        (self.0)(field.name(), FieldValue::Unsigned(value));
    }
    fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
        (self.0)(field.name(), FieldValue::Float(value));
    }
    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        (self.0)(field.name(), FieldValue::Bool(value));
    }
    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        (self.0)(field.name(), FieldValue::Debug(&format_args!("{value}")));
    }
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        (self.0)(field.name(), FieldValue::Debug(value));
    }
}

/// One record before it is written out.
pub(super) struct Record<'a> {
    pub(super) time: Timestamp,
    pub(super) severity: Severity,
    /// The name of the process, untrusted: modules name their processes.
    pub(super) process: &'a str,
    pub(super) pid: u32,
    pub(super) target: &'a str,
    pub(super) fields: &'a dyn Fields,
    /// Records that this process could not write since the last that it wrote.
    pub(super) lost: u64,
}

impl Record<'_> {
    /// A line of a file, with its newline.
    pub(super) fn line(&self, format: RecordFormat, line: &mut Line<'_>) {
        match format {
            RecordFormat::Text => {
                let Self { time, severity, process, pid, .. } = self;
                line.escaped(Escape::Line, format_args!("{time} {severity:<5} [{process} {pid}] "));
                self.text(Escape::Line, line);
            }
            RecordFormat::Json => self.json(line),
        }
        line.close("\n");
    }

    /// A datagram for `/dev/log`, whose receiver adds the time. Facility 3 is "daemon".
    pub(super) fn syslog(&self, format: RecordFormat, line: &mut Line<'_>) {
        let Self { severity, process, pid, .. } = self;
        line.escaped(Escape::Line, format_args!("<{}>{IDENTIFIER}[{pid}]: ", (3 << 3) | severity.syslog_number()));
        match format {
            RecordFormat::Text => {
                line.escaped(Escape::Line, format_args!("{severity} [{process}] "));
                self.text(Escape::Line, line);
            }
            RecordFormat::Json => self.json(line),
        }
    }

    /// A datagram of the journal's native protocol: `KEY=value` lines. A value that may span lines
    /// follows its length.
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
            let quotes = TextShape::of(format_args!("{value}")).needs_quotes();
            if !line.escaped(Escape::Line, format_args!(" {name}={}", if quotes { "\"" } else { "" })) {
                line.truncate(mark);
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
        let mut member = |name: &str, value: FieldValue<'_>| {
            json_member(line, ",", name, value);
        };
        member("process", FieldValue::Text(process));
        member("pid", FieldValue::Unsigned((*pid).into()));
        self.named("module", &mut |module| member("module", module));
        member("target", FieldValue::Text(target));
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

    fn named(&self, wanted: &str, visit: &mut dyn FnMut(FieldValue<'_>)) {
        self.fields.each(&mut |name, value| {
            if name == wanted {
                visit(value);
            }
        });
    }

    fn others(&self, visit: &mut dyn FnMut(&str, FieldValue<'_>)) {
        self.fields.each(&mut |name, value| {
            if !matches!(name, "message" | "module") {
                visit(name, value);
            }
        });
    }
}

/// Writes `before"name":value`, or nothing when not even its beginning fits. Only strings are cut.
fn json_member(line: &mut Line<'_>, before: &str, name: &str, value: FieldValue<'_>) -> bool {
    let mark = line.len();
    let is_string = match value {
        FieldValue::Text(_) | FieldValue::Debug(_) => true,
        FieldValue::Float(number) => !number.is_finite(),
        // Valid, but most JSON readers misread integers that an f64 cannot hold exactly.
        FieldValue::Signed(_) | FieldValue::Unsigned(_) | FieldValue::Bool(_) => false,
    };
    let begun = line.raw(before)
        && line.raw("\"")
        && line.escaped(Escape::Json, format_args!("{name}"))
        && line.raw(if is_string { "\":\"" } else { "\":" });
    if !begun || (!line.escaped(Escape::Json, format_args!("{value}")) && !is_string) {
        line.truncate(mark);
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

    struct ListedFields<'a>(&'a [(&'a str, FieldValue<'a>)]);

    impl Fields for ListedFields<'_> {
        fn each(&self, visit: &mut dyn FnMut(&str, FieldValue<'_>)) {
            self.0.iter().for_each(|(name, value)| visit(name, *value));
        }
    }

    fn record<'a>(fields: &'a dyn Fields) -> Record<'a> {
        let time = Timestamp::from_unix_ms(1_795_374_000_123);
        Record { time, severity: Severity::Info, process: "main", pid: 1234, target: "modhost::x", fields, lost: 0 }
    }

    fn written(write: impl FnOnce(&mut Line<'_>)) -> Vec<u8> {
        let mut bytes = [0; RECORD_BYTES];
        let mut line = Line::new(&mut bytes);
        write(&mut line);
        line.as_bytes().to_vec()
    }

    fn text(record: &Record<'_>) -> String {
        String::from_utf8(written(|line| record.line(RecordFormat::Text, line))).unwrap()
    }

    fn json(record: &Record<'_>) -> serde_json::Value {
        serde_json::from_slice(&written(|line| record.line(RecordFormat::Json, line))).unwrap()
    }

    #[test]
    fn text_is_one_line() {
        let fields = ListedFields(&[
            ("message", FieldValue::Text("listening\n2026 error [main 1] forged")),
            ("module", FieldValue::Text("echo")),
            ("address", FieldValue::Debug(&format_args!("127.0.0.1:1"))),
            ("error", FieldValue::Text("no \"such\" file")),
            ("path", FieldValue::Debug(&"/tmp/a b")),
            ("count", FieldValue::Signed(-3)),
        ]);
        let line = text(&record(&fields));
        let start = "2026-11-22T19:00:00.123Z info  [main 1234] echo: listening\\n2026 error [main 1] forged ";
        assert_eq!(line, format!("{start}address=127.0.0.1:1 error=\"no \\\"such\\\" file\" path=\"/tmp/a b\" count=-3\n"));
        let lost = Record { lost: 7, severity: Severity::Fault, ..record(&ModuleMessage { module: "m", text: "t" }) };
        assert!(text(&lost).ends_with("fault [main 1234] m: t lost=7\n"));
    }

    #[test]
    fn json_has_typed_values_and_no_empty_members() {
        let fields = ListedFields(&[
            ("message", FieldValue::Text("a\n\"b\"")),
            ("yes", FieldValue::Bool(true)),
            ("n", FieldValue::Unsigned(5)),
            ("nan", FieldValue::Float(f64::NAN)),
            ("half", FieldValue::Float(0.5)),
        ]);
        let expected = serde_json::json!({
            "time": "2026-11-22T19:00:00.123Z", "level": "info", "process": "main", "pid": 1234, "target": "modhost::x",
            "message": "a\n\"b\"", "fields": {"yes": true, "n": 5, "nan": "NaN", "half": 0.5}
        });
        assert_eq!(json(&record(&fields)), expected);
        let sent = json(&Record { lost: 2, ..record(&ModuleMessage { module: "sip", text: "hello" }) });
        assert_eq!((&sent["module"], &sent["lost"], sent.get("fields")), (&"sip".into(), &2.into(), None));
    }

    #[test]
    fn syslog_and_journald_messages() {
        let sent = ModuleMessage { module: "sip", text: "two\nlines" };
        let syslog = written(|line| record(&sent).syslog(RecordFormat::Text, line));
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
            let list = [("message", FieldValue::Text(&message)), (&name, FieldValue::Text(&value)), ("n", FieldValue::Signed(i128::MIN)), ("z", FieldValue::Text(&value))];
            let fields = ListedFields(&list);
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
