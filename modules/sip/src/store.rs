//! Keeps the bindings in shared memory: a map with one list per address-of-record.
//!
//! Used in UDP workers, swept in the slow timer process. Holds the lock of one shard at a time,
//! only while a list is copied or made.

use module_api::prelude::*;
use module_api::{MapError, MapOptions, Scan, ShmMap, Update};

use crate::Sip;
use crate::bindings::Bindings;
use crate::registrar::{Change, Store, StoreError};

/// Enough that workers seldom wait for each other, and that sweeping one shard takes little time.
const SHARDS: usize = 1024;
/// Calls of `sweep` for the whole map.
const SWEEPS: usize = 16;

#[derive(Clone, Copy)]
pub struct SharedStore {
    map: ShmMap<[u8], [u8]>,
}

impl SharedStore {
    pub fn new(cx: &mut ModInit<'_, Sip>) -> Result<SharedStore> {
        Ok(SharedStore { map: cx.shm_map(MapOptions { shards: SHARDS })? })
    }

    /// Frees addresses-of-record whose bindings have all expired at `now`, in the next part of the
    /// map. `next` is the shard at which it begins.
    pub fn sweep(&self, next: &mut usize, now: u32) -> Result<()> {
        let shards = self.map.shards();
        for _ in 0..shards.div_ceil(SWEEPS) {
            self.map.scan_shard(*next % shards, |_, list| if has_expired(list, now) { Scan::Remove } else { Scan::Keep })?;
            *next = (*next + 1) % shards;
        }
        Ok(())
    }
}

/// Whether no binding of the list is left.
fn has_expired(list: &[u8], now: u32) -> bool {
    Bindings::at(list, now).next().is_none()
}

impl Store for SharedStore {
    fn read<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<R, StoreError> {
        self.map.get(key, |list| read(list.unwrap_or_default())).map_err(|error| failed(&error))
    }

    fn update<R>(&self, key: &[u8], new: &mut Vec<u8>, change: impl FnOnce(&[u8], &mut Vec<u8>) -> (Change, R)) -> Result<R, StoreError> {
        let change = |old: Option<&[u8]>, new: &mut Vec<u8>| {
            let (change, result) = change(old.unwrap_or_default(), new);
            let update = match change {
                Change::Keep => Update::Keep,
                Change::Put => Update::Replace(()),
                Change::Remove => Update::Remove,
            };
            (update, result)
        };
        self.map.update_with(key, new, change).map_err(|error| failed(&error))
    }
}

#[cold]
fn failed(error: &MapError) -> StoreError {
    match error {
        MapError::NoMemory => StoreError::Full,
        error => {
            error!(error = %error, "the bindings cannot be reached");
            StoreError::Failed
        }
    }
}
