//! A store in the memory of the test, for tests of the registrar.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Instant;

use crate::registrar::{Change, Store, StoreError};

#[derive(Default)]
pub struct LocalStore {
    lists: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// The error of every change that puts a list.
    pub fails: Cell<Option<StoreError>>,
    /// Every call waits until then, as for a lock.
    pub locked_until: Cell<Option<Instant>>,
}

impl LocalStore {
    pub fn keys(&self) -> Vec<String> {
        self.lists.borrow().keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    fn lock(&self) {
        while self.locked_until.get().is_some_and(|end| Instant::now() < end) {
            std::hint::spin_loop();
        }
    }
}

impl Store for LocalStore {
    fn read<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<R, StoreError> {
        self.lock();
        let lists = self.lists.borrow();
        Ok(read(lists.get(key).map(Vec::as_slice).unwrap_or_default()))
    }

    fn update<R>(&self, key: &[u8], new: &mut Vec<u8>, change: impl FnOnce(&[u8], &mut Vec<u8>) -> (Change, R)) -> Result<R, StoreError> {
        self.lock();
        let mut lists = self.lists.borrow_mut();
        new.clear();
        let (change, result) = change(lists.get(key).map(Vec::as_slice).unwrap_or_default(), new);
        if let (Some(error), Change::Put) = (self.fails.get(), change) {
            return Err(error);
        }
        match change {
            Change::Keep => {}
            Change::Put => drop(lists.insert(key.to_vec(), new.clone())),
            Change::Remove => drop(lists.remove(key)),
        }
        Ok(result)
    }
}
