//! The process table and the counters, read once for each answer, and their output as JSON and for
//! Prometheus.

use module_api::ProcessRow;
use module_api::prelude::*;
use module_api::stats::Sample;

use crate::page;

/// The handles that a process reads with, from its `child_init`.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    pub stats: Stats,
    pub processes: Processes,
}

/// The values for one answer. They are read one after the other while the processes run on, so they
/// are not of one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The supervisor's, or main's in no-fork mode: the process to send signals to.
    pub pid: i32,
    /// Of the host.
    pub version: String,
    pub processes: Vec<ProcessRow>,
    /// Ordered by module and name.
    pub samples: Vec<Sample>,
}

impl Snapshot {
    pub fn read(sources: Sources) -> Snapshot {
        let host = sources.processes.host();
        let mut samples: Vec<Sample> = sources.stats.read().collect();
        samples.sort_by_key(|sample| (sample.what.module, sample.what.name));
        Snapshot { pid: host.pid.get(), version: host.version, processes: sources.processes.iter().collect(), samples }
    }

    pub fn main_pid(&self) -> Option<Pid> {
        self.processes.first()?.pid
    }

    /// Time since main was forked; zero if the process table is empty.
    pub fn uptime(&self) -> Duration {
        self.processes.first().and_then(|main| main.uptime).unwrap_or_default()
    }

    /// The page for a browser, which reloads it every `refresh_s` seconds if that is set.
    pub fn html(&self, refresh_s: Option<u32>) -> String {
        page::html(self, refresh_s)
    }

    /// One object: the fields of the control command `ping`, then the arrays of `modhost ps --json`
    /// and `modhost stats --json`.
    pub fn json(&self) -> String {
        let main_pid = self.main_pid().map_or_else(|| "null".to_owned(), |pid| pid.to_string());
        let uptime_ms = self.uptime().as_millis();
        // A version consists of digits, dots and letters. Other characters are dropped, not
        // escaped.
        let version: String = self.version.chars().filter(|c| c.is_ascii_alphanumeric() || ".-+".contains(*c)).collect();
        let mut json =
            format!("{{\"version\":\"{version}\",\"pid\":{},\"main_pid\":{main_pid},\"uptime_ms\":{uptime_ms},\"processes\":[", self.pid);
        for (at, row) in self.processes.iter().enumerate() {
            json.push_str(if at == 0 { "" } else { "," });
            row.write_json(&mut json);
        }
        json.push_str("],\"stats\":[");
        for (at, sample) in self.samples.iter().enumerate() {
            json.push_str(if at == 0 { "" } else { "," });
            sample.write_json(&mut json, "");
        }
        json.push_str("]}\n");
        json
    }

    /// The counters in version 0.0.4 of the Prometheus text format.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        self.samples.iter().for_each(|sample| sample.write_prometheus(&mut text));
        text
    }
}
