//! Reports the state of a connection and obeys commands in lines. For the tests of TLS: a handler
//! must see the same with and without it.
//!
//! | line | does |
//! | --- | --- |
//! | `tls` | answers whether there is TLS, with which application protocol, for which host, and which process this is |
//! | `say TEXT` | answers the text |
//! | `big N` | answers N bytes, counting from 0 to 250 |
//! | `file N PATH` | answers the first N bytes of a file |
//! | `count` | counts what follows; the answer to the end of the other side is how much that was |
//! | `half` | answers `half`, ends this side, and logs at the end how much came after it |
//! | `abort` | resets the connection |
//! | `GET ...` | answers as a server of HTTP, `ok`, and closes |
//! | `close` | answers `bye` and closes |

#![forbid(unsafe_code)]

use std::fs::File;

use module_api::CloseReason;
use module_api::prelude::*;

struct Teller;

impl Module for Teller {
    type Params = ();
    type Child = ();

    fn init(_: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(Teller)
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

/// The state of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Lines,
    Counting,
    HalfClosed,
}

struct Line {
    mode: Mode,
    counted: u64,
    /// The bytes of `big` that are left, and its next byte.
    left: u64,
    next: u8,
}

impl Line {
    fn send_big(&mut self, stream: &mut Stream<'_>) -> Result<()> {
        while self.left > 0 {
            let count = self.left.min(20_000) as usize;
            let bytes: Vec<u8> = (0..count).map(|place| ((usize::from(self.next) + place) % 251) as u8).collect();
            match stream.write(&bytes) {
                Ok(()) => {}
                Err(StreamError::Busy) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            self.left -= count as u64;
            self.next = ((usize::from(self.next) + count) % 251) as u8;
        }
        Ok(())
    }

    fn obey(&mut self, stream: &mut Stream<'_>, line: &str) -> Result<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "tls" => {
                let text = match stream.tls() {
                    None => "no tls".to_owned(),
                    Some(tls) => {
                        let alpn = tls.alpn.map_or("-".into(), String::from_utf8_lossy);
                        format!("tls alpn={alpn} name={}", tls.server_name.unwrap_or("-"))
                    }
                };
                stream.write(format!("{text} pid={}\n", std::process::id()).as_bytes())?;
            }
            "say" => stream.write(format!("{rest}\n").as_bytes())?,
            "big" => {
                (self.left, self.next) = (rest.parse().unwrap_or(0), 0);
                self.send_big(stream)?;
            }
            "file" => {
                let (count, path) = rest.split_once(' ').unwrap_or_default();
                stream.write_file(File::open(path)?, 0, count.parse().unwrap_or(0))?;
            }
            "count" => self.mode = Mode::Counting,
            "half" => {
                stream.write(b"half\n")?;
                stream.close_sending_side();
                self.mode = Mode::HalfClosed;
            }
            "abort" => {
                stream.abort();
                self.mode = Mode::Counting;
            }
            "GET" => {
                stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
                stream.close();
                self.mode = Mode::Counting;
            }
            _ => {
                stream.write(b"bye\n")?;
                stream.close();
                self.mode = Mode::Counting;
            }
        }
        Ok(())
    }
}

impl StreamHandler<Teller> for Line {
    fn open(_: &Teller, _: &mut (), stream: &mut Stream<'_>) -> Result<Self> {
        debug!("opened tls={}", stream.tls().is_some());
        Ok(Line { mode: Mode::Lines, counted: 0, left: 0, next: 0 })
    }

    fn data(&mut self, _: &Teller, _: &mut (), stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        if self.mode != Mode::Lines {
            self.counted += data.len() as u64;
            return Ok(data.len());
        }
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return Ok(0) };
        let line = String::from_utf8_lossy(&data[..end]).into_owned();
        // Without room for the answer, the line comes again when there is room.
        if stream.write(b"") == Err(StreamError::Busy) {
            return Ok(0);
        }
        self.obey(stream, &line)?;
        let used = end + 1;
        // Several lines may have arrived at once, and the bytes after `count` are not one.
        if used < data.len() { Ok(used + self.data(&Teller, &mut (), stream, &data[used..])?) } else { Ok(used) }
    }

    fn writable(&mut self, _: &Teller, _: &mut (), stream: &mut Stream<'_>) -> Result<()> {
        self.send_big(stream)
    }

    fn end(&mut self, _: &Teller, _: &mut (), stream: &mut Stream<'_>, unused: usize) -> Result<()> {
        match self.mode {
            Mode::Counting => stream.write(format!("counted {}\n", self.counted).as_bytes())?,
            Mode::Lines => stream.write(format!("end unused={unused}\n").as_bytes())?,
            Mode::HalfClosed => {}
        }
        stream.close();
        Ok(())
    }

    fn close(self, _: &Teller, _: &mut (), reason: CloseReason) {
        info!("closed reason={reason:?} counted={}", self.counted);
    }
}

export_module! {
    Teller,
    name: "teller",
    summary: "tells what it sees of a connection",
    stream: {
        /// Obeys each line.
        "line" => Line,
    },
}
