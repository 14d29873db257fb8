//! Imports a `test.sums` that was declared differently.
#![forbid(unsafe_code)]

use module_api::prelude::*;

module_api::interface! {
    /// Not the interface that `sums` exports.
    pub interface Sums "test.sums" 1.0, exported by ExportSums {
        /// Takes a number of another type.
        fn add(name: &str, value: u32) -> u64;
    }
}

struct Changed;

impl Module for Changed {
    type Params = ();
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        match cx.interface_if_present::<Sums>() {
            None => info!("without sums"),
            Some(sums) => info!("with sums: {}", sums.add("first", 1)?),
        }
        Ok(Changed)
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

module_api::export_module! { Changed, name: "sums_changed", binds_if_present: [Sums] }
