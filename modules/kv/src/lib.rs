//! A key-value store in shared memory for Redis clients. Every TCP worker serves every key.
//!
//! Commands run in TCP workers, the sweep of expired keys in the timer process, most snapshots in
//! the slow timer process. No process keeps a copy of a key, so a change is visible in all of them
//! at once.

#![forbid(unsafe_code)]

mod commands;
mod connection;
mod glob;
mod reply;
mod request;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use module_api::CloseReason;
use module_api::prelude::*;

use commands::context::Scratch;
use connection::{Connection, Sink};
use snapshot::{LoadError, SaveOutcome, Snapshots};
use store::{Eviction, Quota, SharedState, Store, Sweep};

param_enum! {
    /// What a start does with a damaged snapshot.
    enum IfDamaged {
        /// Renames the file, and starts without keys.
        StartEmpty = "start-empty",
        /// Fails, and leaves the file as it is.
        Fail = "fail",
    }
}

params! {
    /// `[module.params]` in the configuration.
    struct Params {
        /// Most bytes of keys and values, with 48 for each key; 0 for as much as shared memory has.
        maxmemory: Size = "0",
        /// When memory is used up, "none" answers with an error and "lru" removes the least
        /// recently used keys.
        eviction: Eviction = "none",
        /// Longest key and longest value; the listener's input_limit must be larger than a request
        /// with one.
        max_value: Size = "512KiB" in "1KiB"..="512MiB",
        /// Longest reply of MGET and KEYS.
        max_reply: Size = "64MiB" in "64KiB"..="1GiB",
        /// Parts of the store that can be used at the same time.
        shards: i64 = 256 in 1..=65_536,
        /// File that keeps the keys over a restart; without it they are lost.
        snapshot: Option<PathBuf>,
        /// Time between two snapshots, if anything has changed; 0s for only at the end, and when a
        /// client asks for one.
        snapshot_every: Duration = "5m" in "0s"..="1000d",
        /// What a start does with a damaged snapshot: "start-empty" renames it, "fail" fails the
        /// start.
        snapshot_damaged: IfDamaged = "start-empty",
    }
}

pub struct Limits {
    /// Longest argument of a command.
    pub value_bytes: usize,
    /// Longest reply of MGET and KEYS.
    pub reply_bytes: usize,
}

/// Time between two calls of the sweep.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Time between two checks whether a snapshot is due.
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(1);

struct Kv {
    store: Store,
    limits: Limits,
    snapshots: Snapshots,
    damaged: IfDamaged,
    /// Whether `proc_init` has loaded the snapshot, so that another one may replace it.
    restored: bool,
    commands: Counter,
    connections: Counter,
    hits: Counter,
    misses: Counter,
}

/// The state of one process.
struct Child {
    scratch: Scratch,
    /// Buffer for replies.
    out: Vec<u8>,
    /// Used in the timer process only.
    sweep: Sweep,
    /// Seconds since the last snapshot. Used in the slow timer process only.
    unsaved_s: u64,
}

impl Module for Kv {
    type Params = Params;
    type Child = Child;

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        let shards = usize::try_from(params.shards).context("parameter \"shards\"")?;
        cx.timer(Timer::every("sweep", SWEEP_PERIOD), |kv, child, _| Ok(child.sweep.advance(&kv.store)?))?;
        if params.snapshot.is_some() {
            cx.timer(Timer::every("snapshot", SNAPSHOT_PERIOD).slow(), |kv, child, cx| kv.save_if_due(child, cx.expirations()))?;
        }
        Ok(Kv {
            store: Store {
                map: cx.shm_map(MapOptions { shards })?,
                shared: cx.shm_zeroed::<SharedState>()?,
                max_bytes: params.maxmemory.bytes(),
                eviction: params.eviction,
                processes: 1,
                expired: cx.counter("expired", "keys that have expired and were removed")?,
                evicted: cx.counter("evicted", "keys that were removed to make room")?,
            },
            limits: Limits { value_bytes: params.max_value.len(), reply_bytes: params.max_reply.len() },
            snapshots: Snapshots {
                path: params.snapshot,
                every: Some(params.snapshot_every).filter(|every| !every.is_zero()),
                lock: cx.mutex(0_u64)?,
            },
            damaged: params.snapshot_damaged,
            restored: false,
            commands: cx.counter("commands", "commands answered")?,
            connections: cx.counter("connections", "connections accepted")?,
            hits: cx.counter("hits", "values asked for that were there")?,
            misses: cx.counter("misses", "values asked for that were not there")?,
        })
    }

    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        self.store.processes = cx.max_procs() as u64;
        if let Some(path) = self.snapshots.path.clone() {
            // Here and not in `init`: main runs as the user who will write the file.
            self.restore(&path, &mut Quota::new(cx.rng()?.next_u64()))?;
        }
        self.restored = true;
        Ok(())
    }

    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
        let scratch = Scratch { quota: Quota::new(cx.rng()?.next_u64()), bytes: Vec::new(), hits: 0, misses: 0 };
        Ok(Child { scratch, out: Vec::new(), sweep: Sweep::default(), unsaved_s: 0 })
    }

    fn destroy(&mut self, _cx: &mut Destroy<'_>) {
        if self.restored
            && self.store.shared.changed.load(Relaxed)
            && let Err(error) = snapshot::save(&self.store, &self.snapshots)
        {
            error!("{error}");
        }
    }
}

impl Kv {
    /// Loads the snapshot, and handles a damaged one as configured.
    fn restore(&self, path: &Path, quota: &mut Quota) -> Result<()> {
        let why = match snapshot::load(&self.store, quota, path) {
            Ok(keys) => {
                info!(keys, "snapshot read");
                return Ok(());
            }
            Err(LoadError::NoFile) => return Ok(()),
            Err(LoadError::Failed(error)) => {
                return Err(Error::new(format_args!("cannot read the snapshot: {}: {error}", path.display())));
            }
            Err(LoadError::Damaged(why)) => why,
        };
        if self.damaged == IfDamaged::Fail {
            let hint = "move it away, or set snapshot_damaged = \"start-empty\"";
            return Err(Error::new(format_args!("the snapshot is damaged: {}: {why} (hint: {hint})", path.display())));
        }
        let kept = snapshot::with_suffix(path, &format!(".damaged-{}", store::now_ms() / 1000));
        std::fs::rename(path, &kept).context(format_args!("the snapshot is damaged ({why}) and cannot be kept as {}", kept.display()))?;
        error!("the snapshot is damaged: {}: {why} (hint: it is kept as {}; the store starts empty)", path.display(), kept.display());
        Ok(())
    }

    /// Writes a snapshot if one is due or a client has asked for one. `seconds` have passed since
    /// the last call.
    fn save_if_due(&self, child: &mut Child, seconds: u64) -> Result<()> {
        child.unsaved_s += seconds;
        let due =
            self.snapshots.every.is_some_and(|every| child.unsaved_s >= every.as_secs().max(1)) && self.store.shared.changed.load(Relaxed);
        let wanted = self.store.shared.save_wanted.load(Relaxed);
        if !due && !wanted {
            return Ok(());
        }
        match snapshot::save(&self.store, &self.snapshots) {
            // The next call tries again.
            Ok(SaveOutcome::Busy) => return Ok(()),
            Ok(SaveOutcome::Done | SaveOutcome::NoPath) => {}
            // The next attempt is after a whole period, so that the log does not get an error a
            // second.
            Err(error) => error!("{error}"),
        }
        child.unsaved_s = 0;
        self.store.shared.save_wanted.store(false, Relaxed);
        Ok(())
    }
}

impl StreamHandler<Kv> for Connection {
    fn open(kv: &Kv, _: &mut Child, stream: &mut Stream<'_>) -> Result<Connection> {
        kv.connections.increment();
        Ok(Connection::new(stream.id().number()))
    }

    fn data(&mut self, kv: &Kv, child: &mut Child, stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        self.serve(kv, child, &mut StreamSink(stream), data)
    }

    fn close(self, _: &Kv, _: &mut Child, _: CloseReason) {}
}

/// Sends replies on a connection of the host.
struct StreamSink<'h, 's>(&'h mut Stream<'s>);

impl Sink for StreamSink<'_, '_> {
    fn send(&mut self, replies: &[u8]) -> Result<()> {
        Ok(self.0.write(replies)?)
    }

    fn takes_more(&mut self) -> Result<bool> {
        match self.0.write(&[]) {
            Ok(()) => Ok(true),
            Err(StreamError::Busy) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn close(&mut self) {
        self.0.close();
    }
}

export_module! {
    Kv,
    name: "kv",
    summary: "a key-value store for Redis clients",
    stream: {
        /// Serves Redis clients.
        "resp" => Connection,
    },
}
