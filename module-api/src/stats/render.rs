//! Values as text for people, as JSON, and in the text format of Prometheus.
//!
//! Pure. Writes whole lines or objects, one sample at a time, so that a caller can stop when its
//! buffer is full.

use std::fmt::Write as _;

use crate::stats::buckets;
use crate::stats::{Description, Kind, Sample, Unit, Value};

/// The quantiles that are shown of a histogram, in percent.
pub const QUANTILES: [u32; 3] = [50, 90, 99];

impl Sample {
    /// Writes one line: `module.name value`.
    pub fn write_text(&self, text: &mut String) {
        text.push_str(&self.what.full_name());
        match &self.value {
            Value::Counter(value) => push(text, format_args!(" {value}")),
            Value::Gauge(value) => push(text, format_args!(" {value}")),
            Value::Histogram(seen) => {
                push(text, format_args!(" count={} sum={}", seen.count(), seen.sum()));
                for percent in QUANTILES {
                    push(text, format_args!(" p{percent}={}", seen.quantile(percent)));
                }
            }
        }
        text.push('\n');
    }

    /// Writes one object: `module`, `name`, `kind`, `unit`, `help`, and `value` or `count`, `sum`,
    /// `p50`, `p90`, `p99`, `buckets` (pairs of largest value and count, without the empty
    /// buckets). `more` is written before the closing brace.
    pub fn write_json(&self, json: &mut String, more: &str) {
        let Description { module, name, help, kind, unit, .. } = &self.what;
        for (at, (key, value)) in
            [("module", *module), ("name", *name), ("kind", kind.name()), ("unit", unit.name()), ("help", *help)].into_iter().enumerate()
        {
            json.push(if at == 0 { '{' } else { ',' });
            push(json, format_args!("\"{key}\":"));
            quoted(json, value);
        }
        self.write_json_value(json);
        if let Value::Histogram(seen) = &self.value {
            let pairs: Vec<String> = seen.buckets().map(|(highest, count)| format!("[{highest},{count}]")).collect();
            push(json, format_args!(",\"buckets\":[{}]", pairs.join(",")));
        }
        json.push_str(more);
        json.push('}');
    }

    /// Writes the fields of that object that depend on the value, without `buckets`, each with a
    /// comma before it.
    pub fn write_json_value(&self, json: &mut String) {
        match &self.value {
            Value::Counter(value) => push(json, format_args!(",\"value\":{value}")),
            Value::Gauge(value) => push(json, format_args!(",\"value\":{value}")),
            Value::Histogram(seen) => {
                push(json, format_args!(",\"count\":{},\"sum\":{}", seen.count(), seen.sum()));
                for percent in QUANTILES {
                    push(json, format_args!(",\"p{percent}\":{}", seen.quantile(percent)));
                }
            }
        }
    }

    /// Writes its lines in the text format of Prometheus, version 0.0.4: `HELP`, `TYPE` and the
    /// values. Times are in seconds.
    pub fn write_prometheus(&self, text: &mut String) {
        let what = &self.what;
        let family = what.prometheus_family();
        push(text, format_args!("# HELP {family} "));
        for c in what.help.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        push(text, format_args!("\n# TYPE {family} {}\n", what.kind.name()));
        match &self.value {
            Value::Counter(value) => push(text, format_args!("{family} {}\n", number(what.unit, i128::from(*value)))),
            Value::Gauge(value) => push(text, format_args!("{family} {}\n", number(what.unit, i128::from(*value)))),
            Value::Histogram(seen) => {
                for bound in prometheus_bounds(what.bounds) {
                    let shown = number(what.unit, i128::from(bound));
                    push(text, format_args!("{family}_bucket{{le=\"{shown}\"}} {}\n", seen.count_up_to(bound)));
                }
                let count = seen.count();
                let sum = number(what.unit, i128::from(seen.sum()));
                push(text, format_args!("{family}_bucket{{le=\"+Inf\"}} {count}\n{family}_sum {sum}\n{family}_count {count}\n"));
            }
        }
    }
}

impl Description {
    /// The name in Prometheus: `modhost_MODULE_NAME`, with the unit and, for a counter, `_total` at
    /// its end.
    fn prometheus_family(&self) -> String {
        let mut family = format!("modhost_{}_{}", self.module.replace('-', "_"), self.name);
        let mut end_in = |suffix: &str| {
            if !family.ends_with(suffix) {
                family.push_str(suffix);
            }
        };
        match self.unit {
            Unit::One => {}
            Unit::Bytes => end_in("_bytes"),
            Unit::Nanoseconds => end_in("_seconds"),
        }
        if self.kind == Kind::Counter {
            end_in("_total");
        }
        family
    }

    /// All names that it occupies in Prometheus.
    pub fn prometheus_names(&self) -> Vec<String> {
        let family = self.prometheus_family();
        match self.kind {
            Kind::Counter | Kind::Gauge => vec![family],
            Kind::Histogram => ["", "_bucket", "_sum", "_count"].map(|suffix| format!("{family}{suffix}")).to_vec(),
        }
    }
}

/// The same bounds at every scrape, whatever was recorded: the author's, or one less than each
/// power of two.
fn prometheus_bounds(bounds: &[u64]) -> Vec<u64> {
    if bounds.is_empty() {
        let mut bounds: Vec<u64> = (0..63).map(|power| (1 << power) - 1).collect();
        // Each bound is the largest value of a bucket.
        debug_assert!(bounds.iter().all(|bound| buckets::highest(&[], buckets::index(&[], *bound)) == *bound));
        bounds.dedup();
        bounds
    } else {
        bounds.to_vec()
    }
}

/// Converts nanoseconds to seconds exactly, without floating-point numbers.
fn number(unit: Unit, value: i128) -> String {
    if unit != Unit::Nanoseconds {
        return value.to_string();
    }
    let (sign, value) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
    let text = format!("{sign}{}.{:09}", value / 1_000_000_000, value % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes a JSON string.
pub(crate) fn quoted(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if c.is_control() => push(json, format_args!("\\u{:04x}", c as u32)),
            c => json.push(c),
        }
    }
    json.push('"');
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a `String` does not fail.
    let _ = text.write_fmt(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind, unit: Unit, bounds: &'static [u64], words: &[u64]) -> Sample {
        let what = Description { module: "a-b", name: "x", help: "a \"help\"\n\\ more", kind, unit, bounds };
        Sample::from_words(what, words)
    }

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        write(&mut text);
        text
    }

    #[test]
    fn text_is_one_line() {
        for (sample, line) in [
            (sample(Kind::Counter, Unit::One, &[], &[7]), "a-b.x 7\n"),
            (sample(Kind::Gauge, Unit::One, &[], &[u64::MAX]), "a-b.x -1\n"),
            (sample(Kind::Histogram, Unit::One, &[1, 9], &[12, 1, 1, 0]), "a-b.x count=2 sum=12 p50=0 p90=5 p99=5\n"),
        ] {
            assert_eq!(written(|text| sample.write_text(text)), line);
        }
    }

    #[test]
    fn json_is_an_object() {
        let json = written(|json| sample(Kind::Counter, Unit::Bytes, &[], &[u64::MAX]).write_json(json, ",\"more\":[]"));
        let start = r#"{"module":"a-b","name":"x","kind":"counter","unit":"bytes","help":"a \"help\"\u000a\\ more""#;
        assert_eq!(json, format!("{start},\"value\":18446744073709551615,\"more\":[]}}"));
        let json = written(|json| sample(Kind::Histogram, Unit::One, &[1, 9], &[12, 0, 1, 1]).write_json(json, ""));
        assert!(json.ends_with(r#","count":2,"sum":12,"p50":5,"p90":9,"p99":9,"buckets":[[9,1],[18446744073709551615,1]]}"#), "{json}");
    }

    #[test]
    fn prometheus_gets_its_names_units_and_escapes() {
        let counter = written(|text| sample(Kind::Counter, Unit::Bytes, &[], &[7]).write_prometheus(text));
        let family = "modhost_a_b_x_bytes_total";
        assert_eq!(counter, format!("# HELP {family} a \"help\"\\n\\\\ more\n# TYPE {family} counter\n{family} 7\n"));
        let gauge = written(|text| sample(Kind::Gauge, Unit::Nanoseconds, &[], &[(-1_500_000_000_i64) as u64]).write_prometheus(text));
        assert!(gauge.ends_with("\nmodhost_a_b_x_seconds -1.5\n"), "{gauge}");
        let own = written(|text| sample(Kind::Histogram, Unit::Nanoseconds, &[1000, 2_000_000_000], &[77, 1, 2, 3]).write_prometheus(text));
        let lines: Vec<&str> = own.lines().skip(1).collect();
        let want = [
            "# TYPE modhost_a_b_x_seconds histogram",
            "modhost_a_b_x_seconds_bucket{le=\"0.000001\"} 1",
            "modhost_a_b_x_seconds_bucket{le=\"2\"} 3",
            "modhost_a_b_x_seconds_bucket{le=\"+Inf\"} 6",
            "modhost_a_b_x_seconds_sum 0.000000077",
            "modhost_a_b_x_seconds_count 6",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn prometheus_buckets_do_not_depend_on_the_values() {
        let mut words = vec![0; 1 + buckets::LOG_LINEAR];
        let lines = |words: &[u64]| {
            let text = written(|text| sample(Kind::Histogram, Unit::One, &[], words).write_prometheus(text));
            text.lines().filter(|line| line.contains("_bucket")).map(str::to_owned).collect::<Vec<_>>()
        };
        let none = lines(&words);
        words[1..].fill(1);
        let all = lines(&words);
        let bound = |line: &String| line.split('"').nth(1).map(str::to_owned);
        assert_eq!(none.iter().map(bound).collect::<Vec<_>>(), all.iter().map(bound).collect::<Vec<_>>());
        let counts: Vec<u64> = all.iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(counts.is_sorted() && counts.last() == Some(&(buckets::LOG_LINEAR as u64)), "{counts:?}");
    }
}
