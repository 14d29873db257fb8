//! Answers requests through `http.routes`: repeats the request, or does not answer.
#![forbid(unsafe_code)]

use module_api::interface::Callback;
use module_api::interfaces::http::{Answering, Exchange, RouteMatch, Routes};
use module_api::prelude::*;

struct Pages;

impl Module for Pages {
    type Params = ();
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        let routes: Routes = cx.interface()?;
        let told: Callback<Answering> = cx.callback(|_: &Pages, (), mut exchange: Exchange<'_>| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (method, path, query) = (text(exchange.method()), text(exchange.path()), text(exchange.query()));
            let (host, body) = (text(exchange.header("host").unwrap_or_default()), exchange.body().len());
            exchange.set_status(201)?;
            exchange.add_header(b"Content-Type", b"text/x-told")?;
            exchange.write(format!("{method} {path} {query} {host} ").as_bytes())?;
            exchange.write(body.to_string().as_bytes())
        });
        routes.add("", "/told", RouteMatch::Prefix, told)?;
        routes.add("GET", "/caf%C3%A9", RouteMatch::Exact, told)?;
        routes.add("PATCH", "/", RouteMatch::Prefix, told)?;
        for (path, why) in [
            ("told", "begins with a slash"),
            ("/a\n", "cannot contain '\\n'"),
            ("/a%4", "two hexadecimal digits"),
            ("/a/%2E./b", "no part"),
            ("/t%6Fld", "exists already"),
        ] {
            match routes.add("", path, RouteMatch::Exact, told) {
                Err(error) if error.to_string().contains(why) => {}
                outcome => return Err(Error::new(format_args!("{path:?}: {outcome:?}"))),
            }
        }
        let fails: Callback<Answering> = cx.callback(|_: &Pages, (), mut exchange: Exchange<'_>| {
            exchange.write(b"never seen")?;
            exchange.add_header(b"Content-Length", b"3")
        });
        routes.add("GET", "/fails", RouteMatch::Exact, fails)?;
        let peer: Callback<Answering> = cx.callback(|_: &Pages, (), mut exchange: Exchange<'_>| {
            let peer = exchange.peer().map_or("nobody".to_owned(), |peer| peer.to_string());
            exchange.write(peer.as_bytes())
        });
        routes.add("GET", "/peer", RouteMatch::Exact, peer)?;
        let panics: Callback<Answering> = cx.callback(|_: &Pages, (), mut exchange: Exchange<'_>| {
            exchange.write(b"never seen")?;
            panic!("a page that panics")
        });
        routes.add("GET", "/panics", RouteMatch::Exact, panics)?;
        Ok(Pages)
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

module_api::export_module! { Pages, name: "pages", binds: [Routes] }
