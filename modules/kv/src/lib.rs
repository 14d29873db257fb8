//! A key-value store in shared memory for Redis clients: every TCP worker serves every key.
//!
//! Runs in TCP workers; ended keys are swept away by the timer process, snapshots are written by the slow one. Keeps nothing of a key in a
//! process: what one worker has answered, all of them know.

#![forbid(unsafe_code)]

mod call;
mod command;
mod glob;
mod keys;
mod reply;
mod request;
mod server;
mod session;
mod snapshot;
mod store;
mod strings;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use module_api::CloseReason;
use module_api::prelude::*;

use call::Work;
use session::{Session, Sink};
use snapshot::{NotLoaded, Saved, Saving};
use store::{Eviction, Room, Shared, Store, Sweep};

param_enum! {
    /// What a start does with a snapshot that is damaged.
    enum Damaged {
        /// Keeps it under another name and begins with nothing.
        StartEmpty = "start-empty",
        /// Does not start.
        Fail = "fail",
    }
}

params! {
    /// `[module.params]` in the configuration.
    struct Params {
        /// Most bytes of keys and values, with 48 for each key; 0: as much as shared memory has.
        maxmemory: Size = "0",
        /// What happens when it is used up: "none" answers with an error, "lru" removes keys that were not used for long.
        eviction: Eviction = "none",
        /// Longest key and longest value; the listener's input_limit must be larger than a request with one.
        max_value: Size = "512KiB" in "1KiB"..="512MiB",
        /// Longest reply of MGET and KEYS.
        max_reply: Size = "64MiB" in "64KiB"..="1GiB",
        /// Parts of the store that can be used at the same time.
        shards: i64 = 256 in 1..=65_536,
        /// File that keeps the keys over a restart; none: they are gone then.
        snapshot: Option<PathBuf>,
        /// Time between two snapshots, if anything has changed; 0s: only at the end, and when a client asks for one.
        snapshot_every: Duration = "5m" in "0s"..="1000d",
        /// What a start does with a damaged snapshot: "start-empty" keeps it under another name, "fail" does not start.
        snapshot_damaged: Damaged = "start-empty",
    }
}

/// What a client may ask for.
pub struct Limits {
    /// Longest argument.
    pub value_bytes: usize,
    /// Longest reply.
    pub reply_bytes: usize,
}

/// Time between two steps of the sweep.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Time between two looks at whether a snapshot is due.
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(1);

struct Kv {
    store: Store,
    limits: Limits,
    saving: Saving,
    damaged: Damaged,
    /// The snapshot was looked at: another one may take its place.
    restored: bool,
    commands: Counter,
    connections: Counter,
    hits: Counter,
    misses: Counter,
}

/// What a process has for itself.
struct Child {
    work: Work,
    out: Vec<u8>,
    sweep: Sweep,
    /// Seconds since the last snapshot of this process.
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
                shared: cx.shm_zeroed::<Shared>()?,
                max_bytes: params.maxmemory.bytes(),
                eviction: params.eviction,
                processes: 1,
                expired: cx.counter("expired", "keys that have ended and were removed")?,
                evicted: cx.counter("evicted", "keys that were removed to make room")?,
            },
            limits: Limits { value_bytes: params.max_value.len(), reply_bytes: params.max_reply.len() },
            saving: Saving {
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
        if let Some(path) = self.saving.path.clone() {
            // As the user who will write it.
            self.restore(&path, &mut Room::new(cx.rng()?.next_u64()))?;
        }
        self.restored = true;
        Ok(())
    }

    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
        let work = Work { room: Room::new(cx.rng()?.next_u64()), bytes: Vec::new(), hits: 0, misses: 0 };
        Ok(Child { work, out: Vec::new(), sweep: Sweep::default(), unsaved_s: 0 })
    }

    fn destroy(&mut self, _cx: &mut Destroy<'_>) {
        if self.restored
            && self.store.shared.changed.load(Relaxed)
            && let Err(error) = snapshot::save(&self.store, &self.saving)
        {
            error!("{error}");
        }
    }
}

impl Kv {
    fn restore(&self, path: &Path, room: &mut Room) -> Result<()> {
        let why = match snapshot::load(&self.store, room, path) {
            Ok(keys) => {
                info!(keys, "snapshot read");
                return Ok(());
            }
            Err(NotLoaded::NoFile) => return Ok(()),
            Err(NotLoaded::Failed(error)) => {
                return Err(Error::new(format_args!("cannot read the snapshot: {}: {error}", path.display())));
            }
            Err(NotLoaded::Damaged(why)) => why,
        };
        if self.damaged == Damaged::Fail {
            let hint = "move it away, or set snapshot_damaged = \"start-empty\"";
            return Err(Error::new(format_args!("the snapshot is damaged: {}: {why} (hint: {hint})", path.display())));
        }
        let kept = snapshot::beside(path, &format!(".damaged-{}", store::now_ms() / 1000));
        std::fs::rename(path, &kept).context(format_args!("the snapshot is damaged ({why}) and cannot be kept as {}", kept.display()))?;
        error!("the snapshot is damaged: {}: {why} (hint: it is kept as {}; the store starts empty)", path.display(), kept.display());
        Ok(())
    }

    fn save_if_due(&self, child: &mut Child, seconds: u64) -> Result<()> {
        child.unsaved_s += seconds;
        let due =
            self.saving.every.is_some_and(|every| child.unsaved_s >= every.as_secs().max(1)) && self.store.shared.changed.load(Relaxed);
        let wanted = self.store.shared.save_wanted.load(Relaxed);
        if !due && !wanted {
            return Ok(());
        }
        match snapshot::save(&self.store, &self.saving) {
            // The next tick tries again.
            Ok(Saved::Busy) => return Ok(()),
            Ok(Saved::Done | Saved::NoPath) => {}
            // Not each second.
            Err(error) => error!("{error}"),
        }
        child.unsaved_s = 0;
        self.store.shared.save_wanted.store(false, Relaxed);
        Ok(())
    }
}

impl StreamHandler<Kv> for Session {
    fn open(kv: &Kv, _: &mut Child, stream: &mut Stream<'_>) -> Result<Session> {
        kv.connections.increment();
        Ok(Session::new(stream.id().number()))
    }

    fn data(&mut self, kv: &Kv, child: &mut Child, stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        self.serve(kv, child, &mut Host(stream), data)
    }

    fn close(self, _: &Kv, _: &mut Child, _: CloseReason) {}
}

/// A connection of the host as a place for replies.
struct Host<'h, 's>(&'h mut Stream<'s>);

impl Sink for Host<'_, '_> {
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
        "resp" => Session,
    },
}
