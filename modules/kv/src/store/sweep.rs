//! Removes expired keys in the background.
//!
//! Runs in the timer process, every 100 ms.

use std::sync::atomic::Ordering::Relaxed;

use module_api::MapError;
use module_api::prelude::*;

use super::{Store, is_live, now_ms};

/// Keys that are checked under one lock.
const KEYS_PER_STEP: usize = 256;
/// Steps of one call at least.
const STEPS_MIN: usize = 4;
/// Steps of one call at most, while a quarter of the keys has expired.
const STEPS_MAX: usize = 40;

/// The position of the sweep.
#[derive(Debug, Default)]
pub struct Sweep {
    cursor: u64,
    under_way: bool,
}

impl Sweep {
    /// Checks some keys and removes the expired ones. Checks more of them while many have expired.
    pub fn advance(&mut self, store: &Store) -> Result<(), MapError> {
        for step in 0..STEPS_MAX {
            if !self.under_way {
                if !store.shared.may_expire.swap(false, Relaxed) {
                    return Ok(());
                }
                (self.under_way, self.cursor) = (true, 0);
            }
            let now_ms = now_ms();
            let (mut seen, mut expiring, mut expired) = (0_u64, false, 0_u64);
            self.cursor = store.map.scan_from(self.cursor, KEYS_PER_STEP, |_, stored| {
                seen += 1;
                if is_live(stored, now_ms) {
                    expiring |= stored.tag.expires_ms.load(Relaxed) != 0;
                    Scan::Keep
                } else {
                    expired += 1;
                    Scan::Remove
                }
            })?;
            store.expired.add(expired);
            if expiring {
                store.mark_expiring();
            }
            if expired > 0 {
                store.mark_changed();
            }
            if self.cursor == 0 {
                self.under_way = false;
                return Ok(());
            }
            if step >= STEPS_MIN && expired * 4 < seen {
                return Ok(());
            }
        }
        Ok(())
    }
}
