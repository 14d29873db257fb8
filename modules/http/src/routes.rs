//! The interface `http.routes`: functions of other modules that answer requests.
//!
//! Functions are added in main and called in TCP workers.

use std::cell::RefCell;
use std::net::SocketAddr;

use module_api::StreamError;
use module_api::interface::Callback;
use module_api::interfaces::http::{self, Answering, RouteMatch};
use module_api::prelude::*;

use crate::path;
use crate::reply::{Clock, Output, Reply};
use crate::request_head::RequestHead;
use crate::syntax::{self, TOKEN};

/// Longest body that a function may write, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A function of another module, and the requests it answers.
struct Function {
    /// Empty for every method.
    method: Vec<u8>,
    /// Decoded.
    path: Vec<u8>,
    /// Whether the function also answers all paths below `path`.
    matching: RouteMatch,
    answer: Callback<Answering>,
}

/// The functions of other modules. Added in main before any fork, constant from then on.
#[derive(Default)]
pub struct Functions(RefCell<Vec<Function>>);

impl Functions {
    /// Adds a function.
    ///
    /// # Errors
    /// The method is not a token, no request can have the path, or the route exists already.
    pub fn add(&self, method: &str, path: &str, matching: RouteMatch, answer: Callback<Answering>) -> Result<()> {
        let named = format!("http.routes: \"{} {}\"", method.escape_debug(), path.escape_debug());
        if syntax::run(method.as_bytes(), TOKEN) != method.len() {
            return Err(Error::new(format_args!("{named} is not a route: a method is a word such as GET, or empty for every method")));
        }
        let path = path::of_route(path).map_err(|why| Error::new(format_args!("{named} is not a route: {why}")))?;
        let mut functions = self.0.borrow_mut();
        if functions.iter().any(|known| (&known.method[..], &known.path) == (method.as_bytes(), &path)) {
            return Err(Error::new(format_args!("{named} exists already")));
        }
        functions.push(Function { method: method.into(), path, matching, answer });
        Ok(())
    }

    /// Finds the function with the longest path that matches. Also returns the decoded path of the
    /// request, which may be in `decoded`.
    #[inline]
    pub fn find<'p>(&self, method: &[u8], path: &'p [u8], decoded: &'p mut Vec<u8>) -> Option<(Callback<Answering>, &'p [u8])> {
        let functions = self.0.borrow();
        if functions.is_empty() {
            return None;
        }
        let path = path::of_request(path, decoded)?;
        let method = if method == b"HEAD" { b"GET" } else { method };
        let matches = |function: &&Function| {
            let rest = path.strip_prefix(&function.path[..]);
            (function.method.is_empty() || function.method == method)
                && rest.is_some_and(|rest| {
                    rest.is_empty()
                        || (function.matching == RouteMatch::Prefix && (rest.starts_with(b"/") || function.path.ends_with(b"/")))
                })
        };
        let found = functions.iter().filter(matches).max_by_key(|function| (function.path.len(), function.method.len()))?;
        Some((found.answer, path))
    }
}

/// A request, and the answer so far.
struct Exchange<'r> {
    head: &'r RequestHead<'r>,
    peer: Option<SocketAddr>,
    /// Decoded.
    path: &'r [u8],
    request_body: &'r [u8],
    /// HTTP status code of the answer.
    code: u16,
    /// Fields of the answer: whole lines.
    fields: Vec<u8>,
    /// Body of the answer.
    body: Vec<u8>,
}

impl http::Server for Exchange<'_> {
    fn method(&self) -> &[u8] {
        self.head.method_name
    }

    fn path(&self) -> &[u8] {
        self.path
    }

    fn query(&self) -> &[u8] {
        self.head.query.strip_prefix(b"?").unwrap_or_default()
    }

    fn body(&self) -> &[u8] {
        self.request_body
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn header(&self, name: &[u8]) -> Option<&[u8]> {
        crate::request_head::fields(self.head.fields).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn set_status(&mut self, status: u32) -> Result<()> {
        let code = u16::try_from(status).ok().filter(|code| (200..=599).contains(code));
        self.code = code.context("the code of an answer must be from 200 to 599")?;
        Ok(())
    }

    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let is_ours =
            [&b"content-length"[..], b"transfer-encoding", b"connection", b"date"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
        if name.is_empty() || is_ours || syntax::run(name, TOKEN) != name.len() || !value.iter().copied().all(syntax::is_text) {
            return Err("this cannot be a field of an answer".into());
        }
        for piece in [name, b": ", value, b"\r\n"] {
            self.fields.extend_from_slice(piece);
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        if self.body.len() + data.len() > MAX_ANSWER {
            return Err("the body of an answer is too long".into());
        }
        self.body.extend_from_slice(data);
        Ok(())
    }
}

/// Calls a function and writes its answer. Returns the status code, or `None` if the function has
/// failed, which is logged.
pub fn call(
    function: Callback<Answering>,
    clock: &Clock,
    head: &RequestHead<'_>,
    path: &[u8],
    body: &[u8],
    output: &mut impl Output,
) -> Result<Option<u16>, StreamError> {
    // The function must be called only once per request, so first make sure that the answer can be
    // queued.
    output.write(b"")?;
    let mut exchange = Exchange { head, peer: output.peer(), path, request_body: body, code: 200, fields: Vec::new(), body: Vec::new() };
    if let Err(error) = http::serve(&function, &mut exchange) {
        warn!(path = String::from_utf8_lossy(path).into_owned(), error = %error, "a route of another module has failed");
        return Ok(None);
    }
    let Exchange { code, fields, body, .. } = exchange;
    let has_body = !matches!(code, 204 | 304);
    let body = if has_body { &body[..] } else { b"" };
    let length = has_body.then_some(body.len() as u64);
    Reply { code, fields: &[&fields], length, body }.write(clock, head, output).map(Some)
}
