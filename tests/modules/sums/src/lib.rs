//! Exports `test.sums`: calls between modules, in every process and phase.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;

use module_api::prelude::*;
use sums_declared::{ExportSums, Sums};

/// Each process has its sums, which start as copies of main's.
struct Exporter {
    sums: RefCell<HashMap<String, u64>>,
}

impl Module for Exporter {
    type Params = ();
    type Child = ();

    fn init(_: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        info!("sums is there");
        Ok(Exporter { sums: RefCell::new(HashMap::from([("first".to_owned(), 100)])) })
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

impl ExportSums for Exporter {
    fn add(&self, name: &str, value: u64) -> Result<u64> {
        let mut sums = self.sums.borrow_mut();
        let sum = sums.entry(name.to_owned()).or_default();
        *sum += value;
        Ok(*sum)
    }

    fn fail(&self, text: &[u8]) -> Result<()> {
        assert!(!text.is_empty(), "a panic of the exporter");
        Err(Error::new(String::from_utf8_lossy(text)))
    }

    fn crash(&self, really: bool) -> Result<bool> {
        if really {
            std::process::abort();
        }
        Ok(!really)
    }
}

module_api::export_module! { Exporter, name: "sums", exports: [Sums] }
