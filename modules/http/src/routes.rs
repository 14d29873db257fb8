//! Requests that functions of other modules answer, through the interface `http.routes`.
//!
//! Runs in TCP workers.

use std::net::SocketAddr;

use module_api::StreamError;
use module_api::interface::Callback;
use module_api::interfaces::http::{self, Answering};
use module_api::prelude::*;

use crate::chars::{self, TOKEN};
use crate::head::Head;
use crate::reply::{Clock, Reply, Wire};

/// Longest body that a function may write, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A request, and the answer so far.
struct Exchange<'r> {
    head: &'r Head<'r>,
    peer: Option<SocketAddr>,
    /// Decoded.
    path: &'r [u8],
    request_body: &'r [u8],
    code: u16,
    /// Whole lines.
    fields: Vec<u8>,
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
        crate::head::fields(self.head.fields).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn set_status(&mut self, status: u32) -> Result<()> {
        let code = u16::try_from(status).ok().filter(|code| (200..=599).contains(code));
        self.code = code.context("the code of an answer is from 200 to 599")?;
        Ok(())
    }

    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let is_ours =
            [&b"content-length"[..], b"transfer-encoding", b"connection", b"date"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
        if name.is_empty() || is_ours || chars::run(name, TOKEN) != name.len() || !value.iter().copied().all(chars::is_text) {
            return Err("this cannot be a header of an answer".into());
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

/// Has a function answer. None if it has failed, which is in the log then.
pub fn ask(
    function: Callback<Answering>,
    clock: &Clock,
    head: &Head<'_>,
    path: &[u8],
    body: &[u8],
    wire: &mut impl Wire,
) -> Result<Option<u16>, StreamError> {
    // It is asked once: only if there is room for what it says.
    wire.write(b"")?;
    let mut exchange = Exchange { head, peer: wire.peer(), path, request_body: body, code: 200, fields: Vec::new(), body: Vec::new() };
    if let Err(error) = http::serve(&function, &mut exchange) {
        warn!(path = String::from_utf8_lossy(path).into_owned(), error = %error, "a route of another module has failed");
        return Ok(None);
    }
    let Exchange { code, fields, body, .. } = exchange;
    let has_body = !matches!(code, 204 | 304);
    let body = if has_body { &body[..] } else { b"" };
    let length = has_body.then_some(body.len() as u64);
    Reply { code, fields: &[&fields], length, body }.write(clock, head, wire).map(Some)
}
