//! A handler that does nothing, so that the cost of a call to it is the cost of the way there and
//! back.

#![forbid(unsafe_code)]

use module_api::prelude::*;

struct Nothing;

impl Module for Nothing {
    type Params = ();
    type Child = ();

    fn init(_cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(Nothing)
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

impl Nothing {
    fn serve(&self, _child: &mut (), _batch: &Batch<'_>) -> Result<()> {
        Ok(())
    }
}

export_module! {
    Nothing,
    name: "nothing",
    summary: "a handler that does nothing",
    udp: {
        /// Drops each datagram.
        "nothing" => Nothing::serve,
    },
}
