//! Shows the process table and the counters of all modules as a page of the `http` module: for people, as JSON, and for Prometheus.
//!
//! Runs in TCP workers. Only reads. Answers this machine unless told otherwise: pids and traffic are nobody else's business.

#![forbid(unsafe_code)]

mod networks;
mod page;
mod snapshot;
mod wish;

use std::net::IpAddr;

use module_api::interface::Callback;
use module_api::interfaces::http::{Answering, Exchange, RouteMatch, Routes};
use module_api::prelude::*;

use networks::Networks;
use snapshot::{Snapshot, Sources};
use wish::{Format, Wish};

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

/// An answer without its body.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: u16,
    text: &'static str,
}

impl Status {
    fn answer(&self, sources: &mut Sources, mut exchange: Exchange<'_>) -> Result<()> {
        let wish = wish(&self.allow, exchange.peer().map(|peer| peer.ip()), exchange.query(), exchange.header("accept"));
        exchange.add_header(b"Cache-Control", b"no-store")?;
        exchange.add_header(b"X-Content-Type-Options", b"nosniff")?;
        let wish = match wish {
            Ok(wish) => wish,
            Err(refusal) => {
                if refusal.code == 403 {
                    self.refused.increment();
                }
                exchange.set_status(refusal.code)?;
                exchange.add_header(b"Content-Type", b"text/plain; charset=utf-8")?;
                return exchange.write(refusal.text.as_bytes());
            }
        };
        // Before the counters are read, so that this request is among them.
        self.answered.increment();
        let snapshot = Snapshot::read(*sources);
        let body = match wish.format {
            Format::Html => {
                exchange
                    .add_header(b"Content-Security-Policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")?;
                snapshot.html(wish.refresh_s)
            }
            Format::Json => snapshot.json(),
            Format::Prometheus => snapshot.prometheus(),
        };
        exchange.add_header(b"Content-Type", wish.format.media_type().as_bytes())?;
        exchange.write(body.as_bytes())
    }
}

/// What a client gets, if it gets something. Who asks over a Unix socket has no address, and was let in by the mode of its file.
fn wish(allow: &Networks, peer: Option<IpAddr>, query: &[u8], accept: Option<&[u8]>) -> Result<Wish, Refusal> {
    if !peer.is_none_or(|peer| allow.admit(peer)) {
        return Err(Refusal { code: 403, text: "403 Forbidden\n" });
    }
    Wish::parse(query, accept).map_err(|text| Refusal { code: 400, text })
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
    fn who_gets_the_page() {
        let nobody_else = Networks::parse(&[]).unwrap();
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
            for (allow, gets_it) in [(&nobody_else, alone), (&office, with_office)] {
                let refusal = wish(allow, peer, b"", None).err();
                assert_eq!(refusal, (!gets_it).then_some(Refusal { code: 403, text: "403 Forbidden\n" }), "{peer:?}");
                // Who is not allowed does not learn what can be asked.
                assert_eq!(wish(allow, peer, b"format=x", None).unwrap_err().code, if gets_it { 400 } else { 403 });
            }
        }
    }
}
