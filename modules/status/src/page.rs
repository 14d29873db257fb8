//! The HTML page: one document without scripts, which a text browser shows as well.
//!
//! Pure.

use std::fmt::Write as _;

use module_api::stats::{QUANTILES, Sample, Value};
use module_api::{Duration, ProcessRow};

use crate::snapshot::Snapshot;

const STYLE: &str = "body{font-family:sans-serif;margin:1.5em}table{border-collapse:collapse;margin-bottom:1.5em}\
    th,td{text-align:left;padding:.15em .8em .15em 0;vertical-align:top}th{border-bottom:1px solid #888}\
    .n{text-align:right;font-variant-numeric:tabular-nums}.waiting td,.ended td{color:#b00}.free td{color:#888}";

/// The whole page.
pub fn html(snapshot: &Snapshot, refresh_s: Option<u32>) -> String {
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    if let Some(seconds) = refresh_s {
        put(&mut page, format_args!("<meta http-equiv=\"refresh\" content=\"{seconds}\">\n"));
    }
    let (version, uptime) = (escaped(&snapshot.version), time(snapshot.uptime()));
    let main = snapshot.main_pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    put(
        &mut page,
        format_args!(
            "<title>modhost status</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>modhost {version}</h1>\n\
             <p>pid {}, main {main}, up {uptime}</p>\n<h2>Processes</h2>\n",
            snapshot.pid
        ),
    );
    table(&mut page, &["slot", "pid", "rank", "state", "uptime", "restarts", "name", "in a call of"]);
    snapshot.processes.iter().for_each(|row| process(&mut page, row));
    page.push_str("</table>\n");
    for of_module in snapshot.samples.chunk_by(|one, other| one.what.module == other.what.module) {
        put(&mut page, format_args!("<h2>Counters of {}</h2>\n", escaped(of_module[0].what.module)));
        table(&mut page, &["name", "value", "unit", "p50", "p90", "p99", "meaning"]);
        of_module.iter().for_each(|sample| counter(&mut page, sample));
        page.push_str("</table>\n");
    }
    page.push_str(
        "<p>The value of a histogram is the number of values; p50, p90 and p99 are estimates.\n\
         Also: <a href=\"?format=json\">JSON</a>, <a href=\"?format=prometheus\">Prometheus</a>,\n\
         <a href=\"?refresh=5\">every 5 seconds</a>.</p>\n</body>\n</html>\n",
    );
    page
}

/// Opens a table with its headings.
fn table(page: &mut String, headings: &[&str]) {
    page.push_str("<table>\n<tr>");
    headings.iter().for_each(|heading| put(page, format_args!("<th>{heading}</th>")));
    page.push_str("</tr>\n");
}

/// One row: the columns of `modhost ps`, and the module call that the process is in.
fn process(page: &mut String, row: &ProcessRow) {
    let pid = row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let uptime = row.uptime.map_or_else(|| "-".to_owned(), time);
    let call = row.last.as_ref().map_or_else(String::new, |last| format!("{}: {}", escaped(&last.module), escaped(&last.phase)));
    let state = row.state.name();
    put(
        page,
        format_args!(
            "<tr class=\"{state}\"><td class=\"n\">{}</td><td class=\"n\">{pid}</td><td class=\"n\">{}</td><td>{state}</td><td>{uptime}</td>\
             <td class=\"n\">{}</td><td>{}</td><td>{call}</td></tr>\n",
            row.process_no,
            row.rank,
            row.restarts,
            escaped(&row.name)
        ),
    );
}

fn counter(page: &mut String, sample: &Sample) {
    let what = &sample.what;
    let (value, quantiles) = match &sample.value {
        Value::Counter(value) => (value.to_string(), QUANTILES.map(|_| String::new())),
        Value::Gauge(value) => (value.to_string(), QUANTILES.map(|_| String::new())),
        Value::Histogram(seen) => (seen.count().to_string(), QUANTILES.map(|percent| seen.quantile(percent).to_string())),
    };
    put(page, format_args!("<tr><td>{}</td><td class=\"n\">{value}</td><td>{}</td>", escaped(what.name), what.unit.name()));
    quantiles.iter().for_each(|quantile| put(page, format_args!("<td class=\"n\">{quantile}</td>")));
    put(page, format_args!("<td>{}</td></tr>\n", escaped(what.help)));
}

/// Formats a time in its two largest units, as `modhost ps` does.
fn time(time: Duration) -> String {
    let (ms, seconds) = (time.as_millis(), time.as_secs());
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match (hours, minutes, seconds) {
        (0, 0, 0) => format!("{ms}ms"),
        (0, 0, _) => format!("{seconds}s"),
        (0, _, _) => format!("{minutes}m{:02}s", seconds % 60),
        (..48, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

/// Escapes text for an element or a quoted attribute. Control characters become U+FFFD.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

fn put(page: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = page.write_fmt(part);
}

#[cfg(test)]
mod tests {
    use module_api::stats::{Description, Kind, Unit};
    use module_api::{LastCall, Pid, ProcessState, Rank};

    use super::*;

    const COUNTER: Description =
        Description { module: "echo", name: "answered", help: "answers & \"more\"", kind: Kind::Counter, unit: Unit::One, bounds: &[] };

    /// Three processes: main, one whose name needs escaping, one that waits for its restart. Three
    /// entries: a counter, a histogram, a gauge.
    fn snapshot() -> Snapshot {
        let mut main = ProcessRow::new(0, "main");
        (main.pid, main.uptime, main.state) = (Some(Pid::new(100)), Some(Duration::from_millis(61_500)), ProcessState::Serving);
        let mut hostile = ProcessRow::new(1, "<script>alert('x')</script>&\"\u{1}");
        (hostile.pid, hostile.uptime, hostile.state) = (Some(Pid::new(101)), Some(Duration::from_millis(7)), ProcessState::Starting);
        (hostile.rank, hostile.restarts) = (Rank::TIMER, 3);
        hostile.last = Some(LastCall { phase: "a datagram handler".to_owned(), module: "<m>".to_owned() });
        let mut waiting = ProcessRow::new(2, "worker 2");
        waiting.state = ProcessState::Waiting;
        let sample = |what, words: &[u64]| Sample::from_words(what, words);
        let samples = vec![
            sample(COUNTER, &[7]),
            sample(
                Description { kind: Kind::Histogram, name: "took", unit: Unit::Nanoseconds, bounds: &[1, 9], ..COUNTER },
                &[12, 0, 1, 1],
            ),
            sample(Description { module: "kv", name: "keys", kind: Kind::Gauge, unit: Unit::Bytes, ..COUNTER }, &[u64::MAX]),
        ];
        Snapshot { pid: 99, version: "1.2.3".to_owned(), processes: vec![main, hostile, waiting], samples }
    }

    /// The text of every cell, by row.
    fn cells(page: &str) -> Vec<Vec<String>> {
        let rows = page.split("<tr").skip(1).map(|row| row.split("</tr>").next().unwrap());
        let text = |cell: &str| cell.split_once('>').unwrap().1.split("</t").next().unwrap().to_owned();
        rows.map(|row| row.split("<t").skip(1).map(text).collect()).collect()
    }

    #[test]
    fn every_process_and_counter_is_a_row() {
        let page = html(&snapshot(), None);
        let rows = cells(&page);
        let wanted: [&[&str]; 9] = [
            &["slot", "pid", "rank", "state", "uptime", "restarts", "name", "in a call of"],
            &["0", "100", "0", "serving", "1m01s", "0", "main", ""],
            &[
                "1",
                "101",
                "-1",
                "starting",
                "7ms",
                "3",
                "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}",
                "&lt;m&gt;: a datagram handler",
            ],
            &["2", "-", "0", "waiting", "-", "0", "worker 2", ""],
            &["name", "value", "unit", "p50", "p90", "p99", "meaning"],
            &["answered", "7", "", "", "", "", "answers &amp; &quot;more&quot;"],
            &["took", "2", "ns", "5", "9", "9", "answers &amp; &quot;more&quot;"],
            &["name", "value", "unit", "p50", "p90", "p99", "meaning"],
            &["keys", "-1", "bytes", "", "", "", "answers &amp; &quot;more&quot;"],
        ];
        assert_eq!(rows, wanted);
        assert!(page.contains("<h1>modhost 1.2.3</h1>\n<p>pid 99, main 100, up 1m01s</p>"), "{page}");
        assert!(page.contains("<h2>Counters of echo</h2>") && page.contains("<h2>Counters of kv</h2>"), "{page}");
        assert_eq!(page.matches("<table>").count(), page.matches("</table>").count());
        assert!(!page.contains("<script") && !page.contains("refresh\" content"), "{page}");
    }

    #[test]
    fn refresh_sets_the_reload_interval() {
        assert!(html(&snapshot(), Some(30)).contains("<meta http-equiv=\"refresh\" content=\"30\">"));
    }

    #[test]
    fn an_empty_process_table_makes_a_valid_page() {
        let page = html(&Snapshot { processes: Vec::new(), samples: Vec::new(), ..snapshot() }, None);
        assert!(page.contains("<p>pid 99, main -, up 0ms</p>") && page.ends_with("</html>\n"), "{page}");
    }

    #[test]
    fn json_has_the_fields_of_ping_ps_and_stats() {
        let json: serde_json::Value = serde_json::from_str(&snapshot().json()).unwrap();
        assert_eq!(
            (&json["version"], &json["pid"], &json["main_pid"], &json["uptime_ms"]),
            (&"1.2.3".into(), &99.into(), &100.into(), &61_500.into())
        );
        let rows = json["processes"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1]["name"], "<script>alert('x')</script>&\"\u{1}");
        assert_eq!(rows[1]["last"], serde_json::json!({ "phase": "a datagram handler", "module": "<m>" }));
        assert_eq!((&rows[2]["pid"], &rows[2]["state"]), (&serde_json::Value::Null, &"waiting".into()));
        let stats = json["stats"].as_array().unwrap();
        assert_eq!((stats[0]["value"].as_u64(), stats[1]["count"].as_u64(), stats[2]["value"].as_i64()), (Some(7), Some(2), Some(-1)));
        // A version of invalid characters, and an empty process table.
        let empty = Snapshot { version: "\"\\".to_owned(), processes: Vec::new(), samples: Vec::new(), ..snapshot() };
        let json: serde_json::Value = serde_json::from_str(&empty.json()).unwrap();
        assert_eq!(
            (&json["version"], &json["main_pid"], &json["processes"]),
            (&"".into(), &serde_json::Value::Null, &serde_json::json!([]))
        );
    }

    #[test]
    fn prometheus_text_has_every_entry_once() {
        let text = snapshot().prometheus();
        let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(families, ["modhost_echo_answered_total counter", "modhost_echo_took_seconds histogram", "modhost_kv_keys_bytes gauge"]);
    }

    #[test]
    fn times_have_their_two_largest_units() {
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
            assert_eq!(time(Duration::from_millis(ms)), text);
        }
    }
}
