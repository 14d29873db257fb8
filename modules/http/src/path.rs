//! Decodes the path of a request target into that of a route or a file.
//!
//! Pure.

use std::borrow::Cow;

use crate::syntax::{self, TARGET};

/// Decodes `%XX` in the path of a file that may be served. The result has no leading slash, no
/// empty part except possibly the last one, and no part that begins with a dot except `.well-known`
/// as the first one. The error is the status code for any other path, and for one with `%2F`.
pub fn of_file(path: &[u8], decoded: &mut Vec<u8>) -> Result<(), u16> {
    unescape(path.strip_prefix(b"/").ok_or(400_u16)?, decoded)?;
    let mut parts = decoded.split(|byte| *byte == b'/').enumerate().peekable();
    while let Some((number, part)) = parts.next() {
        let is_last = parts.peek().is_none();
        let hidden = part.first() == Some(&b'.') && !(number == 0 && part == b".well-known");
        if hidden || (part.is_empty() && !is_last) {
            return Err(404);
        }
    }
    Ok(())
}

/// Decodes the path of a request, to be compared with those of routes. `None` if it can match no
/// route: `*`, an invalid `%XX`, `%2F`, or a part `.` or `..`. A path without `%` is returned as it
/// is.
#[inline]
pub fn of_request<'p>(path: &'p [u8], decoded: &'p mut Vec<u8>) -> Option<&'p [u8]> {
    let path = if path.contains(&b'%') {
        unescape(path, decoded).ok()?;
        decoded
    } else {
        path
    };
    (path.first() == Some(&b'/') && !has_dots(path)).then_some(path)
}

/// Decodes the path of a route. The error states why no request can have this path.
pub fn of_route(path: &str) -> Result<Vec<u8>, Cow<'static, str>> {
    let mut decoded = Vec::new();
    if !path.starts_with('/') {
        return Err("a path begins with a slash".into());
    }
    if let Some(wrong) = path.chars().find(|letter| *letter == '?' || !u8::try_from(*letter).is_ok_and(|byte| syntax::is(byte, TARGET))) {
        let hint = "a query is not part of it; write %XX for bytes that are not ASCII";
        return Err(format!("a path cannot contain {wrong:?} (hint: {hint})").into());
    }
    match unescape(path.as_bytes(), &mut decoded) {
        Ok(()) => {}
        Err(404) => return Err("a slash written as %2F matches no route".into()),
        Err(_) => return Err("% must be followed by two hexadecimal digits other than 00".into()),
    }
    if decoded.iter().any(u8::is_ascii_control) {
        return Err("a path has no control characters".into());
    }
    if has_dots(&decoded) {
        return Err("a path has no part \".\" or \"..\"".into());
    }
    Ok(decoded)
}

fn has_dots(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| matches!(part, b"." | b".."))
}

/// Decodes `%XX`. The error is a status code: 400 for an invalid `%XX` or `%00`, 404 for `%2F`.
fn unescape(path: &[u8], decoded: &mut Vec<u8>) -> Result<(), u16> {
    decoded.clear();
    let mut rest = path;
    while let [byte, more @ ..] = rest {
        rest = more;
        let byte = if *byte == b'%' {
            let [high, low, more @ ..] = more else { return Err(400) };
            rest = more;
            match hex(*high)? << 4 | hex(*low)? {
                0 => return Err(400),
                b'/' => return Err(404),
                byte => byte,
            }
        } else {
            *byte
        };
        decoded.push(byte);
    }
    Ok(())
}

fn hex(digit: u8) -> Result<u8, u16> {
    (digit as char).to_digit(16).map(|digit| digit as u8).ok_or(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_files() {
        let mut decoded = Vec::new();
        for (path, wanted) in [
            ("/", Ok("")),
            ("/a/b.html", Ok("a/b.html")),
            ("/a/", Ok("a/")),
            ("/a%20b%c3%A4", Ok("a bä")),
            ("/.well-known/x", Ok(".well-known/x")),
            ("/a/.well-known/x", Err(404)),
            ("/.well-known%2Fx", Err(404)),
            ("/..", Err(404)),
            ("/a/../b", Err(404)),
            ("/a/%2e%2E/b", Err(404)),
            ("/a/%2e", Err(404)),
            ("/.git/config", Err(404)),
            ("/%2egit", Err(404)),
            ("//a", Err(404)),
            ("/a//b", Err(404)),
            ("/a%", Err(400)),
            ("/a%4", Err(400)),
            ("/a%4g", Err(400)),
            ("/a%+4", Err(400)),
            ("/a%00", Err(400)),
            ("a", Err(400)),
        ] {
            let outcome = of_file(path.as_bytes(), &mut decoded).map(|()| std::str::from_utf8(&decoded).unwrap());
            assert_eq!(outcome, wanted, "{path}");
        }
    }

    #[test]
    fn paths_of_requests() {
        for (path, wanted) in [
            ("/", Some("/")),
            ("/a//b/", Some("/a//b/")),
            ("/%61%c3%a4/.git", Some("/aä/.git")),
            ("/a%25%3f", Some("/a%?")),
            ("/a%2Fb", None),
            ("/a%2fb%00", None),
            ("/a%0", None),
            ("/a/../b", None),
            ("/a/%2e%2E", None),
            ("/./a", None),
            ("/a/...", Some("/a/...")),
            ("*", None),
            ("%2fa", None),
            ("", None),
        ] {
            let mut decoded = b"before".to_vec();
            let found = of_request(path.as_bytes(), &mut decoded).map(|found| std::str::from_utf8(found).unwrap());
            assert_eq!(found, wanted, "{path}");
        }
    }

    #[test]
    fn paths_of_routes() {
        for (path, wanted) in [
            ("/", Ok("/")),
            ("/a%62/%C3%A4", Ok("/ab/ä")),
            ("/a%3Fb%23", Ok("/a?b#")),
            ("/..a/b..", Ok("/..a/b..")),
            ("", Err("begins with a slash")),
            ("a", Err("begins with a slash")),
            ("*", Err("begins with a slash")),
            ("%2Fa", Err("begins with a slash")),
            ("/a b", Err("cannot contain ' '")),
            ("/a?b", Err("cannot contain '?'")),
            ("/a#b", Err("cannot contain '#'")),
            ("/ä", Err("cannot contain 'ä' (hint: a query is not part of it; write %XX for bytes that are not ASCII)")),
            ("/\u{7}", Err("cannot contain '\\u{7}'")),
            ("/a\0", Err("cannot contain '\\0'")),
            ("/a%", Err("two hexadecimal digits")),
            ("/a%4", Err("two hexadecimal digits")),
            ("/a%4g", Err("two hexadecimal digits")),
            ("/a%00", Err("other than 00")),
            ("/a%0A", Err("no control characters")),
            ("/a%7f", Err("no control characters")),
            ("/a%2Fb", Err("%2F matches no route")),
            ("/..", Err("no part \".\" or \"..\"")),
            ("/a/%2e/b", Err("no part")),
            ("/a/.%2E", Err("no part")),
        ] {
            match (of_route(path), wanted) {
                (Ok(found), Ok(wanted)) => {
                    assert_eq!(found, wanted.as_bytes(), "{path}");
                    // Every route can be requested by the same path.
                    assert_eq!(of_request(path.as_bytes(), &mut Vec::new()), Some(&found[..]), "{path}");
                }
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{path}: {why}"),
                (found, _) => panic!("{path:?}: {found:?}"),
            }
        }
    }
}
