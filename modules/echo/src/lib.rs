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
        // A Unix socket without a name can send, and that is no reason to end.
        for datagram in batch.iter().filter(Datagram::is_answerable) {
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

#[cfg(test)]
mod tests {
    use module_api::testing::Host;

    use super::*;

    #[test]
    fn each_datagram_comes_back() {
        let host = Host::new().start::<Echo>().unwrap();
        let mut worker = host.worker(1).unwrap();
        let (one, other) = ("192.0.2.1:5060".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap());
        let answers = worker.datagrams("echo", &[(one, "hello"), (other, ""), (one, "again")]).unwrap();
        let answers: Vec<_> = answers.iter().map(|answer| (answer.datagram(), answer.to(), answer.data())).collect();
        assert_eq!(answers, [(0, one, &b"hello"[..]), (1, other, b""), (2, one, b"again")]);
    }
}
