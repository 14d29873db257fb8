//! Gives the counters of the host and of all modules to the outside: to whoever asks with a datagram, and to the log.
//!
//! Runs in workers, and in the slow timer process if it logs. Answers only this machine unless told otherwise: a small question gets a
//! large answer, and the address of the question may be forged.

#![forbid(unsafe_code)]

mod query;

use std::collections::BTreeMap;
use std::time::Instant;

use module_api::prelude::*;
use module_api::stats::{Sample, Value};

use query::Query;

params! {
    pub struct Params {
        /// Answer other machines, too
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

/// What was reported last, in the process that reports.
#[derive(Default)]
struct Reported {
    at: Option<Instant>,
    totals: BTreeMap<String, u64>,
}

impl Module for Stats {
    type Params = Params;
    type Child = Reported;

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        if !params.log_every.is_zero() {
            cx.timer(Timer::every("report", params.log_every).slow(), |_module, reported, cx| {
                report(reported, cx.stats());
                Ok(())
            })?;
        }
        Ok(Stats {
            allow_remote: params.allow_remote,
            max_bytes: usize::try_from(params.max_bytes).context("max_bytes")?,
            answered: cx.counter("answered", "questions answered")?,
            refused: cx.counter("refused", "questions from other machines, not answered")?,
        })
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<Reported> {
        Ok(Reported::default())
    }
}

impl Stats {
    fn query(&self, _: &mut Reported, batch: &Batch<'_>) -> Result<()> {
        for datagram in batch.iter().filter(Datagram::is_answerable) {
            // Who can send to a Unix socket is on this machine, and has been let in by the mode of its file.
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

/// All of them, in the order of their names.
fn sorted(stats: module_api::Stats) -> Vec<Sample> {
    let mut samples: Vec<Sample> = stats.read().collect();
    samples.sort_by_key(|sample| (sample.what.module, sample.what.name));
    samples
}

/// One record for each number that has changed since the last time.
fn report(reported: &mut Reported, stats: module_api::Stats) {
    let now = Instant::now();
    let seconds = reported.at.replace(now).map(|before| now.duration_since(before).as_secs_f64());
    for sample in sorted(stats) {
        let name = sample.what.full_name();
        let total = match &sample.value {
            Value::Counter(total) => *total,
            Value::Histogram(seen) => seen.count(),
            Value::Gauge(value) => {
                if reported.totals.insert(name.clone(), *value as u64).unwrap_or(0) != *value as u64 {
                    info!(gauge = name, value, "changed");
                }
                continue;
            }
        };
        let before = reported.totals.insert(name.clone(), total).unwrap_or(0);
        let more = total.saturating_sub(before);
        if more > 0 {
            match seconds.filter(|seconds| *seconds > 0.0) {
                Some(seconds) => info!(counter = name, total, per_s = %format_args!("{:.1}", more as f64 / seconds), "counted"),
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
        /// Answers "[PREFIX] [text|json|prometheus]" with the counters whose names begin with PREFIX.
        "query" => Stats::query,
    },
}
