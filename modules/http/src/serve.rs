//! From bytes to answers: a connection's place in its requests, and what each request gets.
//!
//! Runs in TCP workers. Nothing that a client sends ends the process; a request without a body, or with one that arrives with it, is
//! answered without an allocation.

use std::os::fd::AsFd;

use module_api::StreamError;
use module_api::prelude::*;

use crate::body::Decoder;
use crate::files::{Files, Refusal, Rest};
use crate::head::{self, Head, Method, Parsed};
use crate::reply::{Clock, Page, Reply, Wire, plain};
use crate::routes;
use crate::settings::{AccessLog, Settings, order};
use crate::target;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// What fixed answers and files can be asked.
const ALLOW: &[u8] = b"Allow: GET, HEAD, OPTIONS\r\n";

/// What each process has for itself.
#[derive(Debug)]
pub struct Worker {
    clock: Clock,
    /// As the routes.
    pages: Vec<Page>,
    files: Files,
    /// A decoded path.
    path: Vec<u8>,
}

impl Worker {
    /// For these settings.
    pub fn new(settings: &Settings) -> Worker {
        let clock = Clock::new(&settings.server);
        let page = |route: &crate::settings::Route| {
            let body = route.body.as_deref();
            Page::new(&clock, route.code, &route.field, body.map(|body| body.len() as u64), body.unwrap_or_default())
        };
        let pages = settings.routes.iter().map(page).collect();
        Worker { clock, pages, files: Files::new(settings.cache_bytes), path: Vec::new() }
    }

    /// It is that second since 1970.
    #[inline]
    pub fn set_time(&mut self, now_s: u64) {
        self.clock.set(now_s);
    }

    /// What is kept of files.
    #[cfg(test)]
    pub fn files(&self) -> &Files {
        &self.files
    }
}

/// Where a connection stands.
#[derive(Debug, Default)]
pub enum Connection {
    /// Before the head of a request.
    #[default]
    Head,
    /// In the body of a request whose head is over.
    Body(Box<Waiting>),
    /// The end of an answer, and with it the last byte of its request, waits for room.
    File(Box<Pending>),
    /// After the last answer.
    Over,
}

/// A request whose body is not complete.
#[derive(Debug)]
pub struct Waiting {
    head: Vec<u8>,
    decoder: Decoder,
    /// What has arrived of the body, if it is of use to somebody.
    body: Option<Vec<u8>>,
}

/// The end of an answer.
#[derive(Debug)]
pub struct Pending {
    rest: Rest,
    /// The connection is closed behind it.
    is_last: bool,
}

/// How it goes on after an answer.
enum After {
    NextRequest,
    /// The answer was the last one.
    Close,
    /// There is more of it than the queue has taken.
    More(Pending),
}

impl Connection {
    /// Deals with bytes that have arrived. Returns how many are used.
    ///
    /// The bytes of a request that is refused stay unused: that the client may be sending more of it is then known to the host, which reads
    /// on for a while so that the client gets the answer.
    pub fn data(&mut self, settings: &Settings, worker: &mut Worker, wire: &mut impl Wire, data: &[u8]) -> Result<usize, StreamError> {
        let mut used = 0;
        let stop = loop {
            let rest = &data[used..];
            if rest.is_empty() {
                return Ok(used);
            }
            let outcome = match self {
                Connection::Over => return Ok(used),
                Connection::Head => self.head(settings, worker, wire, rest),
                Connection::Body(_) => self.body(settings, worker, wire, rest),
                Connection::File(_) => self.file(wire),
            };
            match outcome {
                Ok(0) => return Ok(used),
                Ok(count) => used += count,
                Err(error) => break error,
            }
        };
        // What is not used comes again when there is room.
        if stop == StreamError::Busy { Ok(used) } else { Err(stop) }
    }

    #[inline]
    fn head(&mut self, settings: &Settings, worker: &mut Worker, wire: &mut impl Wire, data: &[u8]) -> Result<usize, StreamError> {
        let head = match head::parse(data, settings.limits) {
            Parsed::Whole(head) => head,
            Parsed::Partial => return Ok(0),
            Parsed::Refused(code) => return self.refuse(settings, worker, wire, code),
        };
        if head.length == head::Length::None {
            let after = answer(settings, worker, &head, b"", wire)?;
            return Ok(self.go_on(after, wire, head.len));
        }
        let mut decoder = match Decoder::new(head.length, settings.max_body) {
            Ok(Some(decoder)) => decoder,
            Ok(None) => return Ok(0),
            Err(code) => return self.refuse(settings, worker, wire, code),
        };
        let mut used = head.len;
        let mut body = settings.functions.find(head.method_name, head.path, &mut worker.path).map(|_| Vec::new());
        if head.expects {
            wire.write(CONTINUE)?;
        } else {
            match decoder.feed(&data[head.len..], |data| keep(&mut body, data)) {
                Err(code) => return self.refuse(settings, worker, wire, code),
                Ok(fed) if fed.done => {
                    let after = answer(settings, worker, &head, body.as_deref().unwrap_or_default(), wire)?;
                    return Ok(self.go_on(after, wire, head.len + fed.used));
                }
                Ok(fed) => used += fed.used,
            }
        }
        *self = Connection::Body(Box::new(Waiting { head: data[..head.len].to_vec(), decoder, body }));
        Ok(used)
    }

    fn body(&mut self, settings: &Settings, worker: &mut Worker, wire: &mut impl Wire, data: &[u8]) -> Result<usize, StreamError> {
        let Connection::Body(waiting) = self else { return Ok(0) };
        let mut decoder = waiting.decoder;
        let before = waiting.body.as_ref().map_or(0, Vec::len);
        let fed = match decoder.feed(data, |data| keep(&mut waiting.body, data)) {
            Ok(fed) => fed,
            Err(code) => return self.refuse(settings, worker, wire, code),
        };
        if !fed.done {
            waiting.decoder = decoder;
            return Ok(fed.used);
        }
        let after = match head::parse(&waiting.head, settings.limits) {
            Parsed::Whole(head) => match answer(settings, worker, &head, waiting.body.as_deref().unwrap_or_default(), wire) {
                Ok(after) => after,
                Err(error) => {
                    // The same bytes come again.
                    if let Some(body) = &mut waiting.body {
                        body.truncate(before);
                    }
                    return Err(error);
                }
            },
            Parsed::Partial => After::Close,
            Parsed::Refused(code) => return self.refuse(settings, worker, wire, code),
        };
        Ok(self.go_on(after, wire, fed.used))
    }

    fn file(&mut self, wire: &mut impl Wire) -> Result<usize, StreamError> {
        let Connection::File(pending) = self else { return Ok(0) };
        wire.write_file(pending.rest.file.as_fd(), pending.rest.offset, pending.rest.len)?;
        let after = if pending.is_last { After::Close } else { After::NextRequest };
        Ok(self.go_on(after, wire, 1))
    }

    /// After the answer to a request of `len` bytes: how many of them are used.
    #[inline]
    fn go_on(&mut self, after: After, wire: &mut impl Wire, len: usize) -> usize {
        match after {
            After::NextRequest => {
                *self = Connection::Head;
                len
            }
            After::Close => {
                *self = Connection::Over;
                wire.close();
                len
            }
            After::More(pending) => {
                // The last byte comes again when there is room.
                *self = Connection::File(Box::new(pending));
                len - 1
            }
        }
    }

    /// Answers what is no request, or one that is not read to its end.
    #[cold]
    fn refuse(&mut self, settings: &Settings, worker: &mut Worker, wire: &mut impl Wire, code: u16) -> Result<usize, StreamError> {
        let mut text = [0; 64];
        let len = plain(code, &mut text);
        let fields: [&[u8]; 1] = [b"Content-Type: text/plain\r\n"];
        let code = Reply { code, fields: &fields, length: Some(len as u64), body: &text[..len] }.write_last(&worker.clock, wire)?;
        *self = Connection::Over;
        wire.close();
        log(settings, wire, b"-", b"-", code);
        Ok(0)
    }
}

/// Appends to a body that is of use.
fn keep(body: &mut Option<Vec<u8>>, data: &[u8]) {
    if let Some(body) = body {
        body.extend_from_slice(data);
    }
}

/// Answers a whole request.
#[inline]
fn answer(settings: &Settings, worker: &mut Worker, head: &Head<'_>, body: &[u8], wire: &mut impl Wire) -> Result<After, StreamError> {
    let Worker { clock, path, .. } = worker;
    let (code, rest) = if let Some((function, path)) = settings.functions.find(head.method_name, head.path, path) {
        match routes::ask(function, clock, head, path, body, wire)? {
            Some(code) => (code, None),
            None => (error(500, b"", worker, head, wire)?, None),
        }
    } else {
        own(settings, worker, head, wire)?
    };
    if settings.access_log != AccessLog::Off {
        log(settings, wire, head.method_name, head.path, code);
    }
    Ok(match rest {
        Some(rest) => After::More(Pending { rest, is_last: !head.keep_alive }),
        None if head.keep_alive => After::NextRequest,
        None => After::Close,
    })
}

/// What this module has to say by itself.
#[inline]
fn own(settings: &Settings, worker: &mut Worker, head: &Head<'_>, wire: &mut impl Wire) -> Result<(u16, Option<Rest>), StreamError> {
    Ok(match head.method {
        Method::Get | Method::Head => content(settings, worker, head, wire)?,
        Method::Options => {
            let length = (head.path == b"*").then_some(0);
            let code = if length.is_some() { 200 } else { 204 };
            (Reply { code, fields: &[ALLOW], length, body: b"" }.write(&worker.clock, head, wire)?, None)
        }
        Method::OtherKnown | Method::Connect => (error(405, ALLOW, worker, head, wire)?, None),
        Method::Unknown => (error(501, b"", worker, head, wire)?, None),
    })
}

/// A route, or a file.
#[inline]
fn content(settings: &Settings, worker: &mut Worker, head: &Head<'_>, wire: &mut impl Wire) -> Result<(u16, Option<Rest>), StreamError> {
    let path = target::of_request(head.path, &mut worker.path);
    if let Some(path) = path
        && let Ok(found) = settings.routes.binary_search_by(|route| order(&route.path, path))
    {
        return Ok((worker.pages[found].write(&worker.clock, head, wire)?, None));
    }
    let Some(root) = &settings.root else { return Ok((error(404, b"", worker, head, wire)?, None)) };
    if let Err(code) = target::decode(head.path, &mut worker.path) {
        return Ok((error(code, b"", worker, head, wire)?, None));
    }
    let is_folder = worker.path.last().is_none_or(|last| *last == b'/');
    if is_folder {
        worker.path.extend_from_slice(&settings.index);
    }
    let Worker { clock, files, path, .. } = worker;
    match files.answer(root, path, clock, head, wire)? {
        Ok(answered) => Ok(answered),
        Err(Refusal::Folder) if !is_folder => {
            let fields: [&[u8]; 5] = [b"Location: ", head.path, b"/", head.query, b"\r\n"];
            Ok((Reply { code: 301, fields: &fields, length: Some(0), body: b"" }.write(clock, head, wire)?, None))
        }
        Err(refusal) => Ok((error(refusal.code(), b"", worker, head, wire)?, None)),
    }
}

/// An answer of a code and a line of text.
fn error(code: u16, field: &[u8], worker: &Worker, head: &Head<'_>, wire: &mut impl Wire) -> Result<u16, StreamError> {
    let mut text = [0; 64];
    let len = plain(code, &mut text);
    let fields: [&[u8]; 2] = [b"Content-Type: text/plain\r\n", field];
    Reply { code, fields: &fields, length: Some(len as u64), body: &text[..len] }.write(&worker.clock, head, wire)
}

#[cold]
fn log(settings: &Settings, wire: &impl Wire, method: &[u8], path: &[u8], code: u16) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let peer = || wire.peer().map_or("local".to_owned(), |peer| peer.to_string());
    match settings.access_log {
        AccessLog::Off => {}
        AccessLog::Debug => debug!(peer = peer(), method = text(method), path = text(path), code, "answered"),
        AccessLog::Info => info!(peer = peer(), method = text(method), path = text(path), code, "answered"),
    }
}
