//! Serves a connection: takes its bytes, finds the requests in them, and answers each one.
//!
//! Runs in TCP workers. No input ends the process. Allocates nothing for a request without a body,
//! or with one that arrives together with the head.

use std::os::fd::AsFd;

use module_api::StreamError;
use module_api::prelude::*;

use crate::files::{FileRange, Files, Refusal};
use crate::path;
use crate::reply::{Clock, Output, PreparedReply, Reply, status_text};
use crate::request_body::Decoder;
use crate::request_head::{self, BodyLength, Method, Parsed, RequestHead};
use crate::routes;
use crate::settings::{AccessLog, FixedRoute, Settings, order};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// The methods of fixed answers and files.
const ALLOW: &[u8] = b"Allow: GET, HEAD, OPTIONS\r\n";

/// The state of one process.
#[derive(Debug)]
pub struct Worker {
    clock: Clock,
    /// The fixed answers, in the order of `Settings::routes`.
    fixed_replies: Vec<PreparedReply>,
    files: Files,
    /// Buffer for a decoded path.
    path: Vec<u8>,
}

impl Worker {
    pub fn new(settings: &Settings) -> Worker {
        let clock = Clock::new(&settings.server);
        let prepare = |route: &FixedRoute| {
            let body = route.body.as_deref();
            PreparedReply::new(&clock, route.code, &route.field, body.map(|body| body.len() as u64), body.unwrap_or_default())
        };
        let fixed_replies = settings.routes.iter().map(prepare).collect();
        Worker { clock, fixed_replies, files: Files::new(settings.cache_bytes), path: Vec::new() }
    }

    /// Sets the time for the next answers, in seconds since 1970.
    #[inline]
    pub fn set_time(&mut self, now_s: u64) {
        self.clock.set(now_s);
    }

    #[cfg(test)]
    pub fn files(&self) -> &Files {
        &self.files
    }
}

/// The state of a connection between two calls of `data`.
#[derive(Debug, Default)]
pub enum Connection {
    /// The head of a request comes next.
    #[default]
    Head,
    /// More of a request's body comes next.
    Body(Box<PartialRequest>),
    /// The rest of an answer waits for room in the output queue. The last byte of its request stays
    /// unused, so that the host calls again when there is room.
    File(Box<PendingFile>),
    /// The last answer is written.
    Closed,
}

/// A request whose body is not complete.
#[derive(Debug)]
pub struct PartialRequest {
    head: Vec<u8>,
    decoder: Decoder,
    /// The body so far; `None` if no function will read it.
    body: Option<Vec<u8>>,
}

/// The rest of an answer.
#[derive(Debug)]
pub struct PendingFile {
    rest: FileRange,
    /// Whether the connection is closed after it.
    is_last: bool,
}

/// How a connection continues after an answer.
enum Next {
    Request,
    /// The answer was the last one.
    Close,
    /// The queue has not taken all of the answer.
    Rest(PendingFile),
}

impl Connection {
    /// Handles bytes that have arrived. Returns how many are used.
    ///
    /// The bytes of a refused request stay unused. From them the host knows that the client may
    /// still be sending, and reads on for a while so that the client gets the answer.
    pub fn data(&mut self, settings: &Settings, worker: &mut Worker, output: &mut impl Output, data: &[u8]) -> Result<usize, StreamError> {
        let mut used = 0;
        let stop = loop {
            let rest = &data[used..];
            if rest.is_empty() {
                return Ok(used);
            }
            let outcome = match self {
                Connection::Closed => return Ok(used),
                Connection::Head => self.head(settings, worker, output, rest),
                Connection::Body(_) => self.body(settings, worker, output, rest),
                Connection::File(_) => self.file(output),
            };
            match outcome {
                Ok(0) => return Ok(used),
                Ok(count) => used += count,
                Err(error) => break error,
            }
        };
        // The host passes unused bytes again when there is room.
        if stop == StreamError::Busy { Ok(used) } else { Err(stop) }
    }

    #[inline]
    fn head(&mut self, settings: &Settings, worker: &mut Worker, output: &mut impl Output, data: &[u8]) -> Result<usize, StreamError> {
        let head = match request_head::parse(data, settings.limits) {
            Parsed::Whole(head) => head,
            Parsed::Partial => return Ok(0),
            Parsed::Refused(code) => return self.refuse(settings, worker, output, code),
        };
        if head.length == BodyLength::None {
            let next = answer(settings, worker, &head, b"", output)?;
            return Ok(self.proceed(next, output, head.len));
        }
        let mut decoder = match Decoder::new(head.length, settings.max_body) {
            Ok(Some(decoder)) => decoder,
            Ok(None) => return Ok(0),
            Err(code) => return self.refuse(settings, worker, output, code),
        };
        let mut used = head.len;
        let mut body = settings.functions.find(head.method_name, head.path, &mut worker.path).map(|_| Vec::new());
        if head.expects {
            output.write(CONTINUE)?;
        } else {
            match decoder.feed(&data[head.len..], |data| append(&mut body, data)) {
                Err(code) => return self.refuse(settings, worker, output, code),
                Ok(progress) if progress.is_complete => {
                    let next = answer(settings, worker, &head, body.as_deref().unwrap_or_default(), output)?;
                    return Ok(self.proceed(next, output, head.len + progress.used));
                }
                Ok(progress) => used += progress.used,
            }
        }
        *self = Connection::Body(Box::new(PartialRequest { head: data[..head.len].to_vec(), decoder, body }));
        Ok(used)
    }

    fn body(&mut self, settings: &Settings, worker: &mut Worker, output: &mut impl Output, data: &[u8]) -> Result<usize, StreamError> {
        let Connection::Body(request) = self else { return Ok(0) };
        let mut decoder = request.decoder;
        let len_before = request.body.as_ref().map_or(0, Vec::len);
        let progress = match decoder.feed(data, |data| append(&mut request.body, data)) {
            Ok(progress) => progress,
            Err(code) => return self.refuse(settings, worker, output, code),
        };
        if !progress.is_complete {
            request.decoder = decoder;
            return Ok(progress.used);
        }
        let next = match request_head::parse(&request.head, settings.limits) {
            Parsed::Whole(head) => match answer(settings, worker, &head, request.body.as_deref().unwrap_or_default(), output) {
                Ok(next) => next,
                Err(error) => {
                    // The host passes the same bytes again.
                    if let Some(body) = &mut request.body {
                        body.truncate(len_before);
                    }
                    return Err(error);
                }
            },
            Parsed::Partial => Next::Close,
            Parsed::Refused(code) => return self.refuse(settings, worker, output, code),
        };
        Ok(self.proceed(next, output, progress.used))
    }

    fn file(&mut self, output: &mut impl Output) -> Result<usize, StreamError> {
        let Connection::File(pending) = self else { return Ok(0) };
        output.write_file(pending.rest.file.as_fd(), pending.rest.offset, pending.rest.len)?;
        let next = if pending.is_last { Next::Close } else { Next::Request };
        Ok(self.proceed(next, output, 1))
    }

    /// Enters the next state after the answer to a request of `len` bytes. Returns how many of them
    /// are used.
    #[inline]
    fn proceed(&mut self, next: Next, output: &mut impl Output, len: usize) -> usize {
        match next {
            Next::Request => {
                *self = Connection::Head;
                len
            }
            Next::Close => {
                *self = Connection::Closed;
                output.close();
                len
            }
            Next::Rest(pending) => {
                // The host passes the last byte again when there is room.
                *self = Connection::File(Box::new(pending));
                len - 1
            }
        }
    }

    /// Answers bytes that are not a request, or one that is not read to its end, and closes the
    /// connection.
    #[cold]
    fn refuse(&mut self, settings: &Settings, worker: &mut Worker, output: &mut impl Output, code: u16) -> Result<usize, StreamError> {
        let mut text = [0; 64];
        let len = status_text(code, &mut text);
        let fields: [&[u8]; 1] = [b"Content-Type: text/plain\r\n"];
        let code = Reply { code, fields: &fields, length: Some(len as u64), body: &text[..len] }.write_last(&worker.clock, output)?;
        *self = Connection::Closed;
        output.close();
        log(settings, output, b"-", b"-", code);
        Ok(0)
    }
}

/// Appends to a body that is kept.
fn append(body: &mut Option<Vec<u8>>, data: &[u8]) {
    if let Some(body) = body {
        body.extend_from_slice(data);
    }
}

/// Answers a complete request.
#[inline]
fn answer(
    settings: &Settings,
    worker: &mut Worker,
    head: &RequestHead<'_>,
    body: &[u8],
    output: &mut impl Output,
) -> Result<Next, StreamError> {
    let Worker { clock, path, .. } = worker;
    let (code, rest) = if let Some((function, path)) = settings.functions.find(head.method_name, head.path, path) {
        match routes::call(function, clock, head, path, body, output)? {
            Some(code) => (code, None),
            None => (error(500, b"", worker, head, output)?, None),
        }
    } else {
        answer_by_method(settings, worker, head, output)?
    };
    if settings.access_log != AccessLog::Off {
        log(settings, output, head.method_name, head.path, code);
    }
    Ok(match rest {
        Some(rest) => Next::Rest(PendingFile { rest, is_last: !head.keep_alive }),
        None if head.keep_alive => Next::Request,
        None => Next::Close,
    })
}

/// Answers a request that no function of another module answers. Returns the status code, and the
/// part of a file that still has to be sent.
#[inline]
fn answer_by_method(
    settings: &Settings,
    worker: &mut Worker,
    head: &RequestHead<'_>,
    output: &mut impl Output,
) -> Result<(u16, Option<FileRange>), StreamError> {
    Ok(match head.method {
        Method::Get | Method::Head => answer_content(settings, worker, head, output)?,
        Method::Options => {
            let length = (head.path == b"*").then_some(0);
            let code = if length.is_some() { 200 } else { 204 };
            (Reply { code, fields: &[ALLOW], length, body: b"" }.write(&worker.clock, head, output)?, None)
        }
        Method::OtherKnown | Method::Connect => (error(405, ALLOW, worker, head, output)?, None),
        Method::Unknown => (error(501, b"", worker, head, output)?, None),
    })
}

/// Answers a GET or HEAD with a fixed answer or a file.
#[inline]
fn answer_content(
    settings: &Settings,
    worker: &mut Worker,
    head: &RequestHead<'_>,
    output: &mut impl Output,
) -> Result<(u16, Option<FileRange>), StreamError> {
    let path = path::of_request(head.path, &mut worker.path);
    if let Some(path) = path
        && let Ok(found) = settings.routes.binary_search_by(|route| order(&route.path, path))
    {
        return Ok((worker.fixed_replies[found].write(&worker.clock, head, output)?, None));
    }
    let Some(root) = &settings.root else { return Ok((error(404, b"", worker, head, output)?, None)) };
    if let Err(code) = path::of_file(head.path, &mut worker.path) {
        return Ok((error(code, b"", worker, head, output)?, None));
    }
    let is_folder = worker.path.last().is_none_or(|last| *last == b'/');
    if is_folder {
        worker.path.extend_from_slice(&settings.index);
    }
    let Worker { clock, files, path, .. } = worker;
    match files.answer(root, path, clock, head, output)? {
        Ok(answered) => Ok(answered),
        Err(Refusal::Folder) if !is_folder => {
            let fields: [&[u8]; 5] = [b"Location: ", head.path, b"/", head.query, b"\r\n"];
            Ok((Reply { code: 301, fields: &fields, length: Some(0), body: b"" }.write(clock, head, output)?, None))
        }
        Err(refusal) => Ok((error(refusal.code(), b"", worker, head, output)?, None)),
    }
}

/// Answers with a status code and its text. `field` is one more line; empty for none.
fn error(code: u16, field: &[u8], worker: &Worker, head: &RequestHead<'_>, output: &mut impl Output) -> Result<u16, StreamError> {
    let mut text = [0; 64];
    let len = status_text(code, &mut text);
    let fields: [&[u8]; 2] = [b"Content-Type: text/plain\r\n", field];
    Reply { code, fields: &fields, length: Some(len as u64), body: &text[..len] }.write(&worker.clock, head, output)
}

#[cold]
fn log(settings: &Settings, output: &impl Output, method: &[u8], path: &[u8], code: u16) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let peer = || output.peer().map_or("local".to_owned(), |peer| peer.to_string());
    match settings.access_log {
        AccessLog::Off => {}
        AccessLog::Debug => debug!(peer = peer(), method = text(method), path = text(path), code, "answered"),
        AccessLog::Info => info!(peer = peer(), method = text(method), path = text(path), code, "answered"),
    }
}
