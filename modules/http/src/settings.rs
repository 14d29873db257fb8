//! The parameters, and the settings that `init` makes of them.
//!
//! Pure, except that it opens the folder of files to check it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use module_api::prelude::*;

use crate::files;
use crate::path;
use crate::request_head;
use crate::routes::Functions;
use crate::syntax::{self, TOKEN};

param_enum! {
    /// The level at which requests are logged.
    pub enum AccessLog {
        Off = "off",
        Debug = "debug",
        Info = "info",
    }
}

params! {
    /// `[module.params]` in the configuration.
    pub struct Params {
        /// Fixed answers by path: "200 text/plain hello", "301 /elsewhere", "204"
        pub routes: BTreeMap<String, String> = "",
        /// Folder of files, served where no route matches; none if not set
        pub root: Option<PathBuf>,
        /// File that is served for a folder
        pub index: String = "index.html",
        /// Memory for small files, in each worker; 0 for none
        pub cache: Size = "16MiB" in "0"..="1GiB",
        /// Longest request line and fields together; a longer head gets 431
        pub max_head: Size = "16KiB" in "512"..="256KiB",
        /// Longest target of a request; a longer one gets 414
        pub max_target: Size = "8KiB" in "64"..="128KiB",
        /// Longest body of a request; a longer one gets 413
        pub max_body: Size = "1MiB" in "0"..="1TiB",
        /// Value of the Server field in each answer; empty for no such field
        pub server: String = "",
        /// Level at which requests are logged: off, debug or info
        pub access_log: AccessLog = "off",
    }
}

/// A path with a fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedRoute {
    /// Decoded.
    pub path: Vec<u8>,
    /// HTTP status code.
    pub code: u16,
    /// The line of `Content-Type` or `Location`; empty for none.
    pub field: Vec<u8>,
    /// `None` if the status code allows no body.
    pub body: Option<Vec<u8>>,
}

/// Made from the parameters in main before any fork. Only `functions` may grow, until the first
/// fork.
pub struct Settings {
    /// Sorted by `order`.
    pub routes: Vec<FixedRoute>,
    pub root: Option<PathBuf>,
    pub index: Vec<u8>,
    pub cache_bytes: u64,
    pub limits: request_head::Limits,
    /// Bytes.
    pub max_body: u64,
    /// Value of the `Server` field; empty for no such field.
    pub server: String,
    pub access_log: AccessLog,
    pub functions: Functions,
}

pub fn read(params: Params) -> Result<Settings> {
    let mut routes = params.routes.iter().map(|(path, answer)| route(path, answer)).collect::<Result<Vec<FixedRoute>>>()?;
    routes.sort_by(|one, other| order(&one.path, &other.path));
    if let Some(same) = routes.windows(2).find(|pair| pair[0].path == pair[1].path) {
        let path = String::from_utf8_lossy(&same[0].path);
        return Err(Error::new(format_args!("parameter \"routes\": two paths are spelled differently, and both mean {path:?}")));
    }
    if !params.server.bytes().all(|byte| (b' '..0x7f).contains(&byte)) || params.server.trim() != params.server {
        return Err(Error::new("parameter \"server\" has characters that a header field cannot contain"));
    }
    if path::of_file(format!("/{}", params.index).as_bytes(), &mut Vec::new()).is_err() || params.index.is_empty() {
        return Err(Error::new(format_args!("parameter \"index\": {:?} is not the name of a file to serve", params.index)));
    }
    if let Some(root) = &params.root {
        let opened = files::open_root(root).context(format_args!("parameter \"root\": the folder {root:?} cannot be opened"))?;
        files::open_below(&opened, b".")
            .context(format_args!("parameter \"root\": files below {root:?} cannot be opened with openat2, which Linux has since 5.6"))?;
    }
    if params.max_target.bytes() >= params.max_head.bytes() {
        return Err(Error::new("parameter \"max_target\" must be below \"max_head\", which includes the target"));
    }
    Ok(Settings {
        routes,
        root: params.root,
        index: params.index.into_bytes(),
        cache_bytes: params.cache.bytes(),
        limits: request_head::Limits { head: params.max_head.len(), target: params.max_target.len() },
        max_body: params.max_body.bytes(),
        server: params.server,
        access_log: params.access_log,
        functions: Functions::default(),
    })
}

/// The order of fixed routes by path: by length first, which is quick to compare and mostly
/// differs.
pub fn order(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Parses `CODE`, `CODE TYPE`, `CODE TYPE BODY`, or `CODE LOCATION` for a redirection.
fn route(path: &str, answer: &str) -> Result<FixedRoute> {
    let wrong = |detail: &str| Error::new(format_args!("parameter \"routes\", {path:?}: {detail} (hint: \"200 text/plain hello\")"));
    let path = path::of_route(path).map_err(|why| wrong(&why))?;
    let (code, rest) = answer.split_once(' ').unwrap_or((answer, ""));
    let number = code.parse::<u16>().ok().filter(|number| code.len() == 3 && (200..=599).contains(number));
    let code = number.ok_or_else(|| wrong("the answer does not begin with a code from 200 to 599"))?;
    let is_visible = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if matches!(code, 301 | 302 | 303 | 307 | 308) {
        if rest.is_empty() || !is_visible(rest) {
            return Err(wrong("the code of a redirection must be followed by its location, without blanks"));
        }
        let field = format!("Location: {rest}\r\n").into_bytes();
        return Ok(FixedRoute { path, code, field, body: Some(Vec::new()) });
    }
    if matches!(code, 204 | 205 | 304) {
        if !rest.is_empty() {
            return Err(wrong("an answer with this code has no body"));
        }
        let body = (code == 205).then(Vec::new);
        return Ok(FixedRoute { path, code, field: Vec::new(), body });
    }
    if matches!(code, 206 | 401 | 405 | 407 | 416 | 426) {
        return Err(wrong("an answer with this code needs fields that a fixed answer cannot have"));
    }
    let (media_type, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let parts = media_type.split(';').next().unwrap_or_default().split('/');
    let is_type =
        parts.clone().count() == 2 && parts.clone().all(|part| !part.is_empty() && syntax::run(part.as_bytes(), TOKEN) == part.len());
    if !media_type.is_empty() && (!is_type || !is_visible(media_type)) {
        return Err(wrong("the code must be followed by a media type such as text/plain, then the body"));
    }
    let field = if media_type.is_empty() { Vec::new() } else { format!("Content-Type: {media_type}\r\n").into_bytes() };
    Ok(FixedRoute { path, code, field, body: Some(body.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_a_code_a_media_type_and_a_body() {
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
            ("301", "followed by its location"),
            ("302 /a b", "followed by its location"),
            ("401 text/plain no", "needs fields"),
        ] {
            let error = of(answer).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("\"/x\""), "{answer}: {error}");
        }
        assert!(route("x", "204").unwrap_err().to_string().contains("begins with a slash"));
        assert_eq!(route("/a%62%C3%A4", "204").unwrap().path, "/abä".as_bytes());
    }
}
