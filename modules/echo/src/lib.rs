//! Sends each datagram back to its sender without copying it, and the bytes of a connection back to
//! the client.
//!
//! Runs in UDP and TCP workers. Writes to no memory except its counter, so a benchmark with it
//! measures the host.

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
        // A datagram from an unnamed Unix socket has no address to answer; it is skipped, not an
        // error.
        for datagram in batch.iter().filter(Datagram::is_answerable) {
            datagram.reply_borrowed(datagram.data())?;
        }
        self.answered.add(batch.len() as u64);
        Ok(())
    }
}

// ANCHOR: connections
/// One connection. It has no state.
struct Bytes;

impl StreamHandler<Echo> for Bytes {
    fn open(_: &Echo, _child: &mut (), _stream: &mut Stream<'_>) -> Result<Self> {
        Ok(Bytes)
    }

    fn data(&mut self, _: &Echo, _child: &mut (), stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        match stream.write(data) {
            Ok(()) => Ok(data.len()),
            // The peer sends and does not read. Once it reads, the host passes the same bytes
            // again.
            Err(StreamError::Busy) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
// ANCHOR_END: connections

export_module! {
    Echo,
    name: "echo",
    summary: "sends back what it gets",
    child_init: false,
    udp: {
        /// Sends each datagram back to where it came from.
        "echo" => Echo::serve,
    },
    stream: {
        /// Sends each byte of a connection back.
        "bytes" => Bytes,
    },
}

#[cfg(test)]
mod tests {
    use module_api::CloseReason;
    use module_api::testing::{Dial, Host};

    use super::*;

    // ANCHOR: test
    #[test]
    fn bytes_are_sent_back_when_the_output_queue_has_room() {
        let host = Host::new().start::<Echo>().unwrap();
        let mut worker = host.worker(1).unwrap();
        let mut stream = worker.dial(&Dial::new("bytes").output_limit(4)).unwrap();
        assert_eq!(stream.send(&mut worker, b"hello").unwrap(), b"hello");
        // While the client does not read, its bytes stay unused.
        stream.stop_reading();
        assert_eq!(stream.send(&mut worker, b"first").unwrap(), b"");
        assert_eq!(stream.send(&mut worker, b"second").unwrap(), b"");
        assert_eq!(stream.read(&mut worker).unwrap(), b"firstsecond");
        stream.end(&mut worker).unwrap();
        assert_eq!(stream.close_reason(), Some(CloseReason::Normal));
    }
    // ANCHOR_END: test

    #[test]
    fn datagrams_are_sent_back_to_their_senders() {
        let host = Host::new().start::<Echo>().unwrap();
        let mut worker = host.worker(1).unwrap();
        let (first, second) = ("192.0.2.1:5060".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap());
        let answers = worker.datagrams("echo", &[(first, "hello"), (second, ""), (first, "again")]).unwrap();
        let answers: Vec<_> = answers.iter().map(|answer| (answer.datagram(), answer.to(), answer.data())).collect();
        assert_eq!(answers, [(0, first, &b"hello"[..]), (1, second, b""), (2, first, b"again")]);
    }
}
