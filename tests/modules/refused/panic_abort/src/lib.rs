//! A correct module, built with the wrong panic strategy.

#![forbid(unsafe_code)]

use module_api::prelude::*;

struct PanicAbort;

impl Module for PanicAbort {
    type Params = ();
    type Child = ();

    fn init(_: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(PanicAbort)
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

export_module! { PanicAbort, name: "panic_abort" }
