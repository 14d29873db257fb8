//! The fake host's connections, with a handler that does what lines tell it, and tests of it as its
//! author would write them.

#![forbid(unsafe_code)]

use module_api::prelude::*;
use module_api::testing::{Dial, Host};
use module_api::{CloseReason, StreamId};

#[derive(Default)]
struct Seen {
    closed: Vec<CloseReason>,
    writable: u32,
}

struct Lines;

impl Module for Lines {
    type Params = ();
    type Child = Seen;

    fn init(_: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(Lines)
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Seen> {
        Ok(Seen::default())
    }
}

struct Line;

impl StreamHandler<Lines> for Line {
    fn open(_: &Lines, _: &mut Seen, stream: &mut Stream<'_>) -> Result<Self> {
        if stream.peer().is_some_and(|peer| peer.port() == 1) {
            return Err("nobody comes from port 1".into());
        }
        Ok(Line)
    }

    fn data(&mut self, _: &Lines, _: &mut Seen, stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        let mut used = 0;
        // Unused bytes come again only with the next bytes, so every complete line is used.
        while let Some(length) = data[used..].iter().position(|byte| *byte == b'\n') {
            match obey(stream, str::from_utf8(&data[used..used + length])?)? {
                Ok(()) => used += length + 1,
                Err(StreamError::Busy) => break,
                Err(error) => {
                    stream.write(format!("{error:?}").as_bytes())?;
                    used += length + 1;
                }
            }
        }
        Ok(used)
    }

    fn writable(&mut self, _: &Lines, seen: &mut Seen, _: &mut Stream<'_>) -> Result<()> {
        seen.writable += 1;
        Ok(())
    }

    fn close(self, _: &Lines, seen: &mut Seen, reason: CloseReason) {
        seen.closed.push(reason);
    }
}

fn obey(stream: &mut Stream<'_>, line: &str) -> Result<Result<(), StreamError>> {
    Ok(match line.split_once(' ').unwrap_or((line, "")) {
        ("echo", text) => stream.write(text.as_bytes()),
        ("twice", text) => stream.write_with(100, |room| {
            room[..text.len()].copy_from_slice(text.as_bytes());
            text.len()
        }),
        ("file", path) => stream.write_file(std::fs::File::open(path)?, 1, 3),
        ("send", text) => {
            let (id, text) = text.split_once(' ').unwrap_or((text, ""));
            StreamId::from_number(id.parse()?).send(text.as_bytes())
        }
        ("tls", _) => {
            let text = format!("{:?}", stream.tls().map(|tls| (tls.alpn.map(<[u8]>::len), tls.server_name)));
            stream.write(text.as_bytes())
        }
        ("close" | "half" | "abort", _) => {
            match line {
                "close" => stream.close(),
                "half" => stream.close_sending_side(),
                _ => stream.abort(),
            }
            Ok(())
        }
        ("fail", _) => return Err("as told".into()),
        ("panic", _) => panic!("as told"),
        (other, _) => return Err(Error::new(format_args!("what is {other}"))),
    })
}

export_module! {
    Lines,
    name: "lines",
    stream: { "lines" => Line },
}

#[test]
fn what_is_sent_is_answered_however_it_is_cut() {
    let host = Host::new().start::<Lines>().unwrap();
    let mut worker = host.worker(1).unwrap();
    let mut stream = worker.connect("lines").unwrap();
    let path = std::env::temp_dir().join(format!("connections-{}", std::process::id()));
    std::fs::write(&path, "abcdef").unwrap();
    let script = format!("echo one\ntwice two\nfile {}\ntls\n", path.display());
    assert_eq!(stream.send(&mut worker, script.as_bytes()).unwrap(), b"onetwobcdNone");
    assert_eq!(stream.send_bytewise(&mut worker, script.as_bytes()).unwrap(), b"onetwobcdNone");
    assert_eq!(stream.send(&mut worker, b"echo").unwrap(), b"");
    assert_eq!((stream.unused(), stream.close_reason()), (4, None));
    assert_eq!(stream.end(&mut worker).unwrap(), b"");
    assert_eq!(stream.close_reason(), Some(CloseReason::Normal));
    // The file is shorter than the handler says.
    std::fs::write(&path, "ab").unwrap();
    let mut stream = worker.connect("lines").unwrap();
    assert_eq!(stream.send(&mut worker, script.as_bytes()).unwrap(), b"onetwobNone");
    assert_eq!(stream.close_reason(), Some(CloseReason::Peer));
    std::fs::remove_file(&path).unwrap();
    let mut secret = worker.dial(&Dial::new("lines").tls("h2", "example.org")).unwrap();
    assert_eq!(secret.send(&mut worker, b"tls\n").unwrap(), br#"Some((Some(2), Some("example.org")))"#);
}

#[test]
fn each_end_is_told_once() {
    let host = Host::new().start::<Lines>().unwrap();
    let mut worker = host.worker(1).unwrap();
    for (line, reason) in [("close", CloseReason::Normal), ("abort", CloseReason::Normal), ("fail", CloseReason::Error)] {
        let mut stream = worker.connect("lines").unwrap();
        stream.send(&mut worker, format!("echo x\n{line}\n").as_bytes()).unwrap();
        assert_eq!(stream.close_reason(), Some(reason), "{line}");
        assert_eq!(stream.error().is_some(), line == "fail");
    }
    let mut stream = worker.connect("lines").unwrap();
    stream.send(&mut worker, b"half\n").unwrap();
    assert!(stream.has_ended() && stream.close_reason().is_none());
    stream.end(&mut worker).unwrap();
    let mut stream = worker.dial(&Dial::new("lines").input_limit(10)).unwrap();
    stream.send(&mut worker, b"0123456789").unwrap();
    assert_eq!(stream.close_reason(), Some(CloseReason::Limit));
    let mut stream = worker.connect("lines").unwrap();
    stream.close(&mut worker, CloseReason::Timeout).unwrap();
    stream.close(&mut worker, CloseReason::Stop).unwrap();
    let refused = worker.dial(&Dial::new("lines").from("192.0.2.1:1".parse().unwrap())).unwrap();
    assert_eq!((refused.close_reason(), refused.error()), (Some(CloseReason::Error), Some("nobody comes from port 1")));
    let reasons = &worker.state().unwrap().closed;
    use CloseReason::{Error, Limit, Normal, Timeout};
    assert_eq!(*reasons, [Normal, Normal, Error, Normal, Limit, Timeout], "none for what never opened");
}

#[test]
fn a_client_that_does_not_read_is_waited_for() {
    let host = Host::new().start::<Lines>().unwrap();
    let mut worker = host.worker(1).unwrap();
    let mut stream = worker.dial(&Dial::new("lines").output_limit(8)).unwrap();
    stream.stop_reading();
    assert_eq!(stream.send(&mut worker, b"echo 01234567\necho x\n").unwrap(), b"");
    assert_eq!(stream.unused(), 7, "the second line waits");
    assert_eq!(worker.state().unwrap().writable, 0);
    assert_eq!(stream.read(&mut worker).unwrap(), b"01234567x");
    assert_eq!((stream.unused(), worker.state().unwrap().writable), (0, 1));
}

#[test]
fn sending_reaches_the_connection_of_that_id_or_none() {
    let host = Host::new().start::<Lines>().unwrap();
    let (mut one, mut other) = (host.worker(1).unwrap(), host.worker(2).unwrap());
    let mut from = one.connect("lines").unwrap();
    let mut to = other.connect("lines").unwrap();
    let line = format!("send {} hello\n", to.id().number());
    assert_eq!(from.send(&mut one, line.as_bytes()).unwrap(), b"");
    assert_eq!(to.read(&mut other).unwrap(), b"hello");
    to.close(&mut other, CloseReason::Peer).unwrap();
    let next = other.connect("lines").unwrap();
    assert_ne!(next.id(), to.id());
    assert_eq!(from.send(&mut one, line.as_bytes()).unwrap(), b"Gone");
    // A panic ends the process, and with it its connections.
    let failure = from.send(&mut one, b"panic\n").unwrap_err();
    assert!(failure.text().starts_with("panicked: "), "{failure}");
    assert!(one.has_ended());
    assert_eq!(from.id().send(b"x"), Err(StreamError::Gone));
}

#[test]
fn a_handler_of_the_other_kind_is_none() {
    let host = Host::new().start::<Lines>().unwrap();
    let mut worker = host.worker(1).unwrap();
    let failure = worker.datagrams("lines", &[("192.0.2.1:1".parse().unwrap(), b"x")]).unwrap_err();
    assert_eq!(failure.text(), "the handler \"lines\" serves connections, not datagrams");
    let failure = worker.connect("words").unwrap_err();
    assert_eq!(failure.text(), "the module has no handler \"words\", only lines");
}
