//! Sends each datagram back to where it came from, without copying it.
//!
//! Runs in UDP workers. Writes to no memory but its counter: what it measures is the host.

#![forbid(unsafe_code)]

use module_api::prelude::*;

struct Echo {
    answered: Counter,
}

impl Module for Echo {
    type Params = ();
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(Echo { answered: cx.counter("answered", "datagrams sent back")? })
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

impl Echo {
    fn serve(&self, _child: &mut (), batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            datagram.reply_borrowed(datagram.data())?;
        }
        self.answered.add(batch.len() as u64);
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
