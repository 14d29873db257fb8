//! The parameters, and what is made of them in `init`.
//!
//! Pure, but for a look at the folder of files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use module_api::interface::Callback;
use module_api::interfaces::http::{Answering, RouteMatch};
use module_api::prelude::*;

use crate::chars::{self, TOKEN};
use crate::files;
use crate::head;
use crate::target;

param_enum! {
    /// Where requests are logged.
    pub enum AccessLog {
        /// Nowhere.
        Off = "off",
        /// At level `debug`.
        Debug = "debug",
        /// At level `info`.
        Info = "info",
    }
}

params! {
    /// `[module.params]` in the configuration.
    pub struct Params {
        /// Fixed answers by path: "200 text/plain hello", "301 /elsewhere", "204"
        pub routes: BTreeMap<String, String> = "",
        /// Folder of files that are served where no route fits; none if not set
        pub root: Option<PathBuf>,
        /// The file that stands for a folder
        pub index: String = "index.html",
        /// Memory for small files, in each worker; 0 for none
        pub cache: Size = "16MiB" in "0"..="1GiB",
        /// Longest request line and fields; longer ones get 431
        pub max_head: Size = "16KiB" in "512"..="256KiB",
        /// Longest target of a request; longer ones get 414
        pub max_target: Size = "8KiB" in "64"..="128KiB",
        /// Longest body of a request; longer ones get 413
        pub max_body: Size = "1MiB" in "0"..="1TiB",
        /// The Server field of each answer; empty for none
        pub server: String = "",
        /// Whether requests are logged, and how: off, debug or info
        pub access_log: AccessLog = "off",
    }
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Decoded.
    pub path: Vec<u8>,
    pub code: u16,
    /// `Content-Type` or `Location`, a whole line; empty for none.
    pub field: Vec<u8>,
    /// None: an answer that has none by its code.
    pub body: Option<Vec<u8>>,
}

/// A function of another module.
struct Function {
    /// Empty for every one.
    method: Vec<u8>,
    /// Decoded.
    path: Vec<u8>,
    matching: RouteMatch,
    answer: Callback<Answering>,
}

/// Functions of other modules. Added in main before any fork, then only read.
#[derive(Default)]
pub struct Functions(RefCell<Vec<Function>>);

impl Functions {
    /// One more.
    pub fn add(&self, method: &str, path: &str, matching: RouteMatch, answer: Callback<Answering>) -> Result<()> {
        let named = format!("http.routes: \"{} {}\"", method.escape_debug(), path.escape_debug());
        if chars::run(method.as_bytes(), TOKEN) != method.len() {
            return Err(Error::new(format_args!("{named} is no route: a method is a word such as GET, or empty for every one")));
        }
        let path = target::of_route(path).map_err(|why| Error::new(format_args!("{named} is no route: {why}")))?;
        let mut functions = self.0.borrow_mut();
        if functions.iter().any(|known| (&known.method[..], &known.path) == (method.as_bytes(), &path)) {
            return Err(Error::new(format_args!("{named} is there already")));
        }
        functions.push(Function { method: method.into(), path, matching, answer });
        Ok(())
    }

    /// The one with the longest path that fits, and the path of the request as it is decoded.
    #[inline]
    pub fn find<'p>(&self, method: &[u8], path: &'p [u8], decoded: &'p mut Vec<u8>) -> Option<(Callback<Answering>, &'p [u8])> {
        let functions = self.0.borrow();
        if functions.is_empty() {
            return None;
        }
        let path = target::of_request(path, decoded)?;
        let method = if method == b"HEAD" { b"GET" } else { method };
        let fits = |function: &&Function| {
            let rest = path.strip_prefix(&function.path[..]);
            (function.method.is_empty() || function.method == method)
                && rest.is_some_and(|rest| {
                    let below = rest.starts_with(b"/") || function.path.ends_with(b"/");
                    rest.is_empty() || (below && function.matching == RouteMatch::Prefix)
                })
        };
        let found = functions.iter().filter(fits).max_by_key(|function| (function.path.len(), function.method.len()))?;
        Some((found.answer, path))
    }
}

/// What the parameters say, made ready for use.
pub struct Settings {
    /// In the order of length and bytes of their paths.
    pub routes: Vec<Route>,
    pub root: Option<PathBuf>,
    pub index: Vec<u8>,
    pub cache_bytes: u64,
    pub limits: head::Limits,
    pub max_body: u64,
    pub server: String,
    pub access_log: AccessLog,
    pub functions: Functions,
}

pub fn read(params: Params) -> Result<Settings> {
    let mut routes = params.routes.iter().map(|(path, answer)| route(path, answer)).collect::<Result<Vec<Route>>>()?;
    routes.sort_by(|one, other| order(&one.path, &other.path));
    if let Some(twice) = routes.windows(2).find(|two| two[0].path == two[1].path) {
        let path = String::from_utf8_lossy(&twice[0].path);
        return Err(Error::new(format_args!("parameter \"routes\": two paths are spelled differently, and both mean {path:?}")));
    }
    if !params.server.bytes().all(|byte| (b' '..0x7f).contains(&byte)) || params.server.trim() != params.server {
        return Err(Error::new("parameter \"server\" has characters that cannot stand in a header field"));
    }
    if target::decode(format!("/{}", params.index).as_bytes(), &mut Vec::new()).is_err() || params.index.is_empty() {
        return Err(Error::new(format_args!("parameter \"index\": {:?} is no name of a file to serve", params.index)));
    }
    if let Some(root) = &params.root {
        let opened = files::open_root(root).context(format_args!("parameter \"root\": the folder {root:?} cannot be opened"))?;
        files::open_below(&opened, b".")
            .context(format_args!("parameter \"root\": files below {root:?} cannot be opened with openat2, which Linux has since 5.6"))?;
    }
    if params.max_target.bytes() >= params.max_head.bytes() {
        return Err(Error::new("parameter \"max_target\" is not below \"max_head\", of which it is a part"));
    }
    Ok(Settings {
        routes,
        root: params.root,
        index: params.index.into_bytes(),
        cache_bytes: params.cache.bytes(),
        limits: head::Limits { head: params.max_head.len(), target: params.max_target.len() },
        max_body: params.max_body.bytes(),
        server: params.server,
        access_log: params.access_log,
        functions: Functions::default(),
    })
}

/// How paths are ordered: lengths are compared quickly, and mostly differ.
pub fn order(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// `CODE`, `CODE TYPE`, `CODE TYPE BODY`, and `CODE LOCATION` for redirects.
fn route(path: &str, answer: &str) -> Result<Route> {
    let wrong = |detail: &str| Error::new(format_args!("parameter \"routes\", {path:?}: {detail} (hint: \"200 text/plain hello\")"));
    let path = target::of_route(path).map_err(|why| wrong(&why))?;
    let (code, rest) = answer.split_once(' ').unwrap_or((answer, ""));
    let number = code.parse::<u16>().ok().filter(|number| code.len() == 3 && (200..=599).contains(number));
    let code = number.ok_or_else(|| wrong("the answer does not begin with a code from 200 to 599"))?;
    let text_of_line = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if matches!(code, 301 | 302 | 303 | 307 | 308) {
        if rest.is_empty() || !text_of_line(rest) {
            return Err(wrong("behind the code of a redirection stands where it leads, without blanks"));
        }
        let field = format!("Location: {rest}\r\n").into_bytes();
        return Ok(Route { path, code, field, body: Some(Vec::new()) });
    }
    if matches!(code, 204 | 205 | 304) {
        if !rest.is_empty() {
            return Err(wrong("an answer of this code has no body"));
        }
        let body = (code == 205).then(Vec::new);
        return Ok(Route { path, code, field: Vec::new(), body });
    }
    if matches!(code, 206 | 401 | 405 | 407 | 416 | 426) {
        return Err(wrong("an answer of this code needs fields that a fixed one cannot have"));
    }
    let (media_type, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let parts = media_type.split(';').next().unwrap_or_default().split('/');
    let is_type =
        parts.clone().count() == 2 && parts.clone().all(|part| !part.is_empty() && chars::run(part.as_bytes(), TOKEN) == part.len());
    if !media_type.is_empty() && (!is_type || !text_of_line(media_type)) {
        return Err(wrong("behind the code stands a media type such as text/plain, and behind that the body"));
    }
    let field = if media_type.is_empty() { Vec::new() } else { format!("Content-Type: {media_type}\r\n").into_bytes() };
    Ok(Route { path, code, field, body: Some(body.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_say_code_type_and_body() {
        let of = |answer: &str| {
            route("/x", answer)
                .map(|route| (route.code, String::from_utf8(route.field).unwrap(), route.body.map(|body| String::from_utf8(body).unwrap())))
        };
        let some = |text: &str| Some(text.to_owned());
        for (answer, wanted) in [
            ("200 text/plain ok", (200, "Content-Type: text/plain\r\n".to_owned(), some("ok"))),
            ("200 text/plain;charset=utf-8 a b  c", (200, "Content-Type: text/plain;charset=utf-8\r\n".to_owned(), some("a b  c"))),
            ("503", (503, String::new(), some(""))),
            ("404 text/html", (404, "Content-Type: text/html\r\n".to_owned(), some(""))),
            ("204", (204, String::new(), None)),
            ("301 /y", (301, "Location: /y\r\n".to_owned(), some(""))),
        ] {
            assert_eq!(of(answer).unwrap(), wanted, "{answer}");
        }
        for (answer, wrong) in [
            ("", "code from 200"),
            ("ok", "code from 200"),
            ("0200 text/plain x", "code from 200"),
            ("100", "code from 200"),
            ("600", "code from 200"),
            ("200 hello world", "media type"),
            ("200 text/ x", "media type"),
            ("200 te\u{7}t/plain x", "media type"),
            ("204 text/plain", "no body"),
            ("301", "where it leads"),
            ("302 /a b", "where it leads"),
            ("401 text/plain no", "needs fields"),
        ] {
            let error = of(answer).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("\"/x\""), "{answer}: {error}");
        }
        assert!(route("x", "204").unwrap_err().to_string().contains("begins with a slash"));
        assert_eq!(route("/a%62%C3%A4", "204").unwrap().path, "/abä".as_bytes());
    }
}
