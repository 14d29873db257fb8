//! From the path of a target to the path of a file.
//!
//! Pure.

/// Decodes `%XX` and refuses what is no path of a file that is served, with the code to answer. The result has no slash before it, no empty
/// part but perhaps the last, and no part that begins with a dot, but for `.well-known` at the beginning. A slash that is written as `%2F` is
/// none.
pub fn decode(path: &[u8], decoded: &mut Vec<u8>) -> Result<(), u16> {
    decoded.clear();
    let path = path.strip_prefix(b"/").ok_or(400_u16)?;
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

fn hex(digit: u8) -> Result<u8, u16> {
    (digit as char).to_digit(16).map(|digit| digit as u8).ok_or(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
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
            let outcome = decode(path.as_bytes(), &mut decoded).map(|()| std::str::from_utf8(&decoded).unwrap());
            assert_eq!(outcome, wanted, "{path}");
        }
    }
}
