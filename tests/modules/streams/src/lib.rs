//! Connections driven by commands in lines of text. For the promises about the TCP main process and
//! its workers, and the rows of the failure table about connections.
//!
//! `init` registers two processes that send on connections of workers when asked: `linked`, with a
//! link to the TCP main process, and `bare`, without one.

#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;

use module_api::prelude::*;
use module_api::{CloseReason, Process, StreamId, params};

params! {
    struct Params {
        /// Opens this listener too.
        listen: Option<String>,
    }
}

/// Ids of connections, on their way to one of the two processes.
struct Orders {
    ask: UnixDatagram,
    hear: UnixDatagram,
}

struct Streams {
    linked: Orders,
    bare: Orders,
    /// Closed connections, by reason.
    closed: [Counter; 6],
}

const REASONS: [&str; 6] = ["normal", "peer", "timeout", "limit", "error", "stop"];

impl Module for Streams {
    type Params = Params;
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        cx.register_procs(2)?;
        if let Some(address) = &params.listen {
            cx.listen_tcp(address, Some("lines"))?;
        }
        let closed = REASONS.map(|reason| cx.counter(&format!("closed_{reason}"), "connections closed"));
        let [a, b, c, d, e, f] = closed;
        let orders = || UnixDatagram::pair().map(|(ask, hear)| Orders { ask, hear });
        Ok(Streams { linked: orders()?, bare: orders()?, closed: [a?, b?, c?, d?, e?, f?] })
    }

    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        cx.fork_process(21, "linked", MakeSock::Yes, |module, (), cx| module.send_on_demand(&module.linked, cx))?;
        cx.fork_process(22, "bare", MakeSock::No, |module, (), cx| module.send_on_demand(&module.bare, cx))?;
        Ok(())
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

impl Streams {
    fn send_on_demand(&self, orders: &Orders, _cx: &mut Process<'_>) -> Result<()> {
        loop {
            let mut id = [0; 8];
            orders.hear.recv(&mut id)?;
            let began = std::time::Instant::now();
            let outcome = StreamId::from_number(u64::from_ne_bytes(id)).send(b"sent\n");
            info!("asked to send outcome={outcome:?} ms={}", began.elapsed().as_millis());
        }
    }
}

/// One connection.
struct Lines {
    /// The bytes of `big` that are not written yet.
    left: u64,
    /// Echoes everything.
    echo: bool,
    /// When the peer ends its half: says so and closes.
    stays: bool,
}

impl StreamHandler<Streams> for Lines {
    fn open(_: &Streams, (): &mut (), stream: &mut Stream<'_>) -> Result<Self> {
        debug!("open id={} peer={:?}", stream.id(), stream.peer());
        Ok(Lines { left: 0, echo: false, stays: false })
    }

    fn data(&mut self, module: &Streams, (): &mut (), stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        let mut used = 0;
        while used < data.len() {
            let rest = &data[used..];
            if self.echo {
                return match stream.write(rest) {
                    Ok(()) => Ok(data.len()),
                    Err(StreamError::Busy) => Ok(used),
                    Err(error) => Err(error.into()),
                };
            }
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
            self.line(module, stream, str::from_utf8(&rest[..end])?)?;
            used += end + 1;
        }
        Ok(used)
    }

    fn writable(&mut self, _: &Streams, (): &mut (), stream: &mut Stream<'_>) -> Result<()> {
        self.write_big(stream)
    }

    fn end(&mut self, _: &Streams, (): &mut (), stream: &mut Stream<'_>, unused: usize) -> Result<()> {
        if self.stays {
            stream.write(format!("ended unused={unused}\n").as_bytes())?;
        }
        stream.close();
        Ok(())
    }

    fn close(self, module: &Streams, (): &mut (), reason: CloseReason) {
        let number =
            [CloseReason::Normal, CloseReason::Peer, CloseReason::Timeout, CloseReason::Limit, CloseReason::Error, CloseReason::Stop]
                .iter()
                .position(|known| *known == reason)
                .unwrap_or(0);
        module.closed[number].add(1);
        info!("closed reason={}", REASONS[number]);
    }
}

impl Lines {
    fn line(&mut self, module: &Streams, stream: &mut Stream<'_>, line: &str) -> Result<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ');
        let mut number = || -> Result<u64> { Ok(words.next().unwrap_or("").parse()?) };
        match word {
            "say" => stream.write(format!("{rest}\n").as_bytes())?,
            "echo" => self.echo = true,
            "stay" => self.stays = true,
            "id" => stream.write(format!("{}\n", stream.id().number()).as_bytes())?,
            "pid" => stream.write(format!("{}\n", std::process::id()).as_bytes())?,
            "peer" => stream.write(format!("{:?}\n", stream.peer()).as_bytes())?,
            "listener" => {
                let addresses = stream.listener().addresses()?;
                stream.write(format!("{addresses:?}\n").as_bytes())?;
            }
            "big" => {
                self.left += number()?;
                self.write_big(stream)?;
            }
            "file" => {
                let (offset, len) = (number()?, number()?);
                let path = rest.splitn(3, ' ').nth(2).unwrap_or("");
                stream.write_file(std::fs::File::open(path)?, offset, len)?;
            }
            "queued" => stream.write(format!("{}\n", stream.queued()).as_bytes())?,
            "pause" => stream.pause(),
            "close" => stream.close(),
            "half" => stream.close_sending_side(),
            "abort" => stream.abort(),
            "fail" => return Err("as told".into()),
            "panic" => panic!("as told"),
            // From a worker.
            "send" => {
                let (id, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let began = std::time::Instant::now();
                let outcome = StreamId::from_number(id.parse()?).send(text.as_bytes());
                stream.write(format!("{outcome:?} {}\n", began.elapsed().as_millis()).as_bytes())?;
            }
            // From another process, which logs the result.
            "linked" => module.linked.ask(number()?)?,
            "bare" => module.bare.ask(number()?)?,
            other => return Err(Error::new(format_args!("what is \"{other}\""))),
        }
        Ok(())
    }

    /// As much as the queue accepts now.
    fn write_big(&mut self, stream: &mut Stream<'_>) -> Result<()> {
        while self.left > 0 {
            let size = self.left.min(16 << 10);
            match stream.write_with(size as usize, |room| {
                room.fill(b'b');
                room.len()
            }) {
                Ok(()) => self.left -= size,
                Err(StreamError::Busy) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Orders {
    fn ask(&self, id: u64) -> Result<()> {
        self.ask.send(&id.to_ne_bytes())?;
        Ok(())
    }
}

export_module! {
    Streams,
    name: "streams",
    stream: {
        "lines" => Lines,
    },
}
