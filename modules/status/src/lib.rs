//! Shows the process table and the counters of all modules as a page of the `http` module, as JSON,
//! and for Prometheus.
//!
//! Runs in TCP workers. Changes nothing. Answers only clients on this machine unless `allow` names
//! others, because process ids and traffic figures are private.

#![forbid(unsafe_code)]

mod networks;
mod page;
mod request;
mod snapshot;

use std::net::IpAddr;

use module_api::interface::Callback;
use module_api::interfaces::http::{Answering, Exchange, RouteMatch, Routes};
use module_api::prelude::*;

use networks::Networks;
use request::{Format, PageRequest};
use snapshot::{Snapshot, Sources};

params! {
    pub struct Params {
        /// Path of the page
        path: String = "/status",
        /// Networks whose clients get the page, too: "192.0.2.0/24"; this machine always does
        allow: Vec<String> = "",
    }
}

struct Status {
    allow: Networks,
    answered: Counter,
    refused: Counter,
}

impl Module for Status {
    type Params = Params;
    type Child = Sources;

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        let routes: Routes = cx.interface()?;
        let answer: Callback<Answering> = cx.callback(Status::answer);
        routes.add("GET", &params.path, RouteMatch::Exact, answer).context("parameter \"path\"")?;
        Ok(Status {
            allow: Networks::parse(&params.allow).map_err(|error| Error::new(format_args!("parameter \"allow\": {error}")))?,
            answered: cx.counter("answered", "requests answered")?,
            refused: cx.counter("refused", "requests from clients that are not allowed, answered with 403")?,
        })
    }

    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Sources> {
        Ok(Sources { stats: cx.stats(), processes: cx.processes() })
    }
}

/// An error answer.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    /// HTTP status code.
    code: u16,
    text: &'static str,
}

impl Status {
    fn answer(&self, sources: &mut Sources, mut exchange: Exchange<'_>) -> Result<()> {
        let request = check(&self.allow, exchange.peer().map(|peer| peer.ip()), exchange.query(), exchange.header("accept"));
        exchange.add_header(b"Cache-Control", b"no-store")?;
        exchange.add_header(b"X-Content-Type-Options", b"nosniff")?;
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                if refusal.code == 403 {
                    self.refused.increment();
                }
                exchange.set_status(refusal.code)?;
                exchange.add_header(b"Content-Type", b"text/plain; charset=utf-8")?;
                return exchange.write(refusal.text.as_bytes());
            }
        };
        // Before the counters are read, so that they include this request.
        self.answered.increment();
        let snapshot = Snapshot::read(*sources);
        let body = match request.format {
            Format::Html => {
                exchange
                    .add_header(b"Content-Security-Policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")?;
                snapshot.html(request.refresh_s)
            }
            Format::Json => snapshot.json(),
            Format::Prometheus => snapshot.prometheus(),
        };
        exchange.add_header(b"Content-Type", request.format.media_type().as_bytes())?;
        exchange.write(body.as_bytes())
    }
}

/// Checks that the client is allowed, then parses its request. `peer` is `None` for a client of a
/// Unix socket: the mode of the socket's file admits it.
fn check(allow: &Networks, peer: Option<IpAddr>, query: &[u8], accept: Option<&[u8]>) -> Result<PageRequest, Refusal> {
    if !peer.is_none_or(|peer| allow.admit(peer)) {
        return Err(Refusal { code: 403, text: "403 Forbidden\n" });
    }
    PageRequest::parse(query, accept).map_err(|text| Refusal { code: 400, text })
}

export_module! {
    Status,
    name: "status",
    summary: "shows the process table and the counters as a page of the http module",
    binds: [Routes],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_outside_the_allowed_networks_get_403() {
        let no_others = Networks::parse(&[]).unwrap();
        let office = Networks::parse(&["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()]).unwrap();
        for (peer, alone, with_office) in [
            (None, true, true),
            (Some("127.0.0.1"), true, true),
            (Some("127.9.9.9"), true, true),
            (Some("::1"), true, true),
            (Some("::ffff:127.0.0.1"), true, true),
            (Some("192.0.2.77"), false, true),
            (Some("::ffff:192.0.2.77"), false, true),
            (Some("2001:db8:ffff::1"), false, true),
            (Some("192.0.3.1"), false, false),
            (Some("0.0.0.0"), false, false),
            (Some("2001:db9::1"), false, false),
            (Some("fe80::1"), false, false),
        ] {
            let peer = peer.map(|peer| peer.parse().unwrap());
            for (allow, is_allowed) in [(&no_others, alone), (&office, with_office)] {
                let refusal = check(allow, peer, b"", None).err();
                assert_eq!(refusal, (!is_allowed).then_some(Refusal { code: 403, text: "403 Forbidden\n" }), "{peer:?}");
                // A client that is not allowed gets 403 for an invalid request, too.
                assert_eq!(check(allow, peer, b"format=x", None).unwrap_err().code, if is_allowed { 400 } else { 403 });
            }
        }
    }
}
