//! Answers datagrams with the counters of the host and of all modules, and logs them from a timer.
//!
//! Runs in UDP workers, and in the slow timer process if `log_every` is set. Answers only clients
//! on this machine unless `allow_remote` is set: a small query gets a large answer, and its
//! sender's address may be forged.

#![forbid(unsafe_code)]

mod query;

use std::collections::BTreeMap;
use std::time::Instant;

use module_api::prelude::*;
use module_api::stats::{Sample, Value};

use query::Query;

params! {
    pub struct Params {
        /// Answer queries from other machines, too
        allow_remote: bool = false,
        /// Longest answer in bytes
        max_bytes: i64 = 8192 in 256..=65507,
        /// Time between two reports in the log; 0 for none
        log_every: Duration = "0s",
    }
}

struct Stats {
    allow_remote: bool,
    max_bytes: usize,
    answered: Counter,
    refused: Counter,
}

/// The last report, to find what has changed since. Used in the slow timer process only.
#[derive(Default)]
struct LastReport {
    /// `None` before the first report.
    at: Option<Instant>,
    /// By full name. Of a histogram the number of values, of a gauge its value as `u64`.
    totals: BTreeMap<String, u64>,
}

impl Module for Stats {
    type Params = Params;
    type Child = LastReport;

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        if !params.log_every.is_zero() {
            cx.timer(Timer::every("report", params.log_every).slow(), |_module, last, cx| {
                report(last, cx.stats());
                Ok(())
            })?;
        }
        Ok(Stats {
            allow_remote: params.allow_remote,
            max_bytes: usize::try_from(params.max_bytes).context("max_bytes")?,
            answered: cx.counter("answered", "queries answered")?,
            refused: cx.counter("refused", "queries from other machines, not answered")?,
        })
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<LastReport> {
        Ok(LastReport::default())
    }
}

impl Stats {
    fn query(&self, _: &mut LastReport, batch: &Batch<'_>) -> Result<()> {
        for datagram in batch.iter().filter(Datagram::is_answerable) {
            // A sender on a Unix socket is on this machine, and the mode of the socket's file
            // admits it.
            let remote = datagram.peer().inet().is_some_and(|peer| !peer.ip().to_canonical().is_loopback());
            if !self.allow_remote && remote {
                self.refused.increment();
                continue;
            }
            let answer = match Query::parse(datagram.data()) {
                Ok(query) => query.answer(sorted(batch.stats()), self.max_bytes),
                Err(reason) => format!("error: {reason}\n"),
            };
            match datagram.reply(answer.as_bytes()) {
                Ok(()) => self.answered.increment(),
                Err(error) => warn!(%error, "an answer could not be queued"),
            }
        }
        Ok(())
    }
}

/// Every counter, gauge and histogram, ordered by module and name.
fn sorted(stats: module_api::Stats) -> Vec<Sample> {
    let mut samples: Vec<Sample> = stats.read().collect();
    samples.sort_by_key(|sample| (sample.what.module, sample.what.name));
    samples
}

/// Logs one record for each value that has changed since the last report.
fn report(last: &mut LastReport, stats: module_api::Stats) {
    let now = Instant::now();
    let seconds = last.at.replace(now).map(|before| now.duration_since(before).as_secs_f64());
    for sample in sorted(stats) {
        let name = sample.what.full_name();
        let total = match &sample.value {
            Value::Counter(total) => *total,
            Value::Histogram(seen) => seen.count(),
            Value::Gauge(value) => {
                if last.totals.insert(name.clone(), *value as u64).unwrap_or(0) != *value as u64 {
                    info!(gauge = name, value, "changed");
                }
                continue;
            }
        };
        let before = last.totals.insert(name.clone(), total).unwrap_or(0);
        let increase = total.saturating_sub(before);
        if increase > 0 {
            match seconds.filter(|seconds| *seconds > 0.0) {
                Some(seconds) => info!(counter = name, total, per_s = %format_args!("{:.1}", increase as f64 / seconds), "counted"),
                None => info!(counter = name, total, "counted"),
            }
        }
    }
}

export_module! {
    Stats,
    name: "stats",
    summary: "answers datagrams with the counters of all modules, and logs them",
    udp: {
        /// Answers "[PREFIX] [text|json|prometheus]" with the counters whose names begin with
        /// PREFIX.
        "query" => Stats::query,
    },
}
