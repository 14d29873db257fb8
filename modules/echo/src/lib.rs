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

/// A connection: keeps nothing.
struct Bytes;

impl StreamHandler<Echo> for Bytes {
    fn open(_: &Echo, _child: &mut (), _stream: &mut Stream<'_>) -> Result<Self> {
        Ok(Bytes)
    }

    fn data(&mut self, _: &Echo, _child: &mut (), stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        match stream.write(data) {
            Ok(()) => Ok(data.len()),
            // A peer that sends and does not read: once it reads, the same bytes come again.
            Err(StreamError::Busy) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

export_module! {
    Echo,
    name: "echo",
    summary: "sends back what it gets",
    udp: {
        /// Sends each datagram back to where it came from.
        "echo" => Echo::serve,
    },
    stream: {
        /// Sends each byte of a connection back.
        "bytes" => Bytes,
    },
}
