//! Sends each datagram back to where it came from, without copying it.
//!
//! Runs in UDP workers. Keeps no state, writes to no memory: what it measures is the host.

#![forbid(unsafe_code)]

use module_api::prelude::*;

struct Echo;

impl Module for Echo {
    type Params = ();
    type Child = ();

    fn init(_cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(Echo)
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

impl Echo {
    fn serve(&self, _child: &mut (), batch: &Batch<'_>) -> Result<()> {
        // A Unix socket without a name can send, and that is no reason to end.
        for datagram in batch.iter().filter(Datagram::is_answerable) {
            datagram.reply_borrowed(datagram.data())?;
        }
        Ok(())
    }
}

export_module! {
    Echo,
    name: "echo",
    summary: "sends each datagram back",
    udp: {
        /// Sends each datagram back to where it came from.
        "echo" => Echo::serve,
    },
}
