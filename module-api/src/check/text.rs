//! Lists and tables written as one text, on the command line and in defaults: `a, b, "c, d"` and
//! `key = value, "k 2" = "v, 2"`.
//!
//! *Pure:* no clock, no environment, no system call.

/// The items, separated by commas. An item in double quotes may contain commas, `\"` and `\\`. A
/// blank text has no items.
pub fn items(text: &str) -> Result<Vec<String>, String> {
    split(text, |rest| word(rest, &[',']))
}

/// The entries. A key may appear only once.
pub fn entries(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = split(text, |rest| {
        let (key, rest) = word(rest, &['=', ','])?;
        let rest = rest.strip_prefix('=').ok_or_else(|| format!("\"{}\" has no \"=\"", key.escape_debug()))?;
        let (value, rest) = word(rest, &[','])?;
        Ok(((key, value), rest))
    })?;
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("the key \"{}\" appears twice", pair[0].escape_debug())),
        None => Ok(entries),
    }
}

fn split<T>(text: &str, part: impl Fn(&str) -> Result<(T, &str), String>) -> Result<Vec<T>, String> {
    let mut parts = Vec::new();
    if text.trim().is_empty() {
        return Ok(parts);
    }
    let mut rest = text;
    loop {
        let (found, after) = part(rest)?;
        parts.push(found);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(parts),
        }
    }
}

/// One word, and the rest of the text, which begins with a delimiter or is empty.
fn word<'t>(text: &'t str, delimiters: &[char]) -> Result<(String, &'t str), String> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(delimiters).unwrap_or(text.len()));
        let word = word.trim_end();
        return match word {
            "" => Err("an item is missing; an empty one is written \"\"".to_string()),
            _ => Ok((word.to_string(), rest)),
        };
    };
    let mut word = String::new();
    let mut characters = quoted.char_indices();
    loop {
        match characters.next() {
            Some((at, '"')) => {
                let rest = quoted[at + 1..].trim_start();
                return match rest.chars().next() {
                    Some(c) if !delimiters.contains(&c) => Err(format!("there is \"{}\" after the closing quote", c.escape_debug())),
                    _ => Ok((word, rest)),
                };
            }
            Some((_, '\\')) => match characters.next() {
                Some((_, c @ ('"' | '\\'))) => word.push(c),
                _ => return Err("in quotes a backslash must precede a quote or a backslash".to_string()),
            },
            Some((_, c)) => word.push(c),
            None => return Err("a quote is not closed".to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_one_text() {
        for (text, want) in [
            ("", Ok(&[][..])),
            ("  ", Ok(&[])),
            ("a", Ok(&["a"])),
            (" a b ,c", Ok(&["a b", "c"])),
            ("\"a, b\", c", Ok(&["a, b", "c"])),
            (r#""\"\\" , """#, Ok(&["\"\\", ""])),
            ("a=b", Ok(&["a=b"])),
            ("é,\"é\"", Ok(&["é", "é"])),
            ("a,,b", Err("item is missing")),
            ("a,", Err("item is missing")),
            (",", Err("item is missing")),
            ("\"a", Err("not closed")),
            ("\"a\" b", Err("\"b\" after the closing")),
            ("\"\\n\"", Err("backslash")),
            ("\"\\", Err("backslash")),
        ] {
            match (items(text), want) {
                (Ok(found), Ok(want)) => assert_eq!(found, want, "{text}"),
                (Err(found), Err(want)) => assert!(found.contains(want), "{text}: {found}"),
                (found, want) => panic!("{text}: {found:?}, expected {want:?}"),
            }
        }
    }

    #[test]
    fn tables_in_one_text() {
        let pairs = |text| entries(text).map(|all| all.into_iter().map(|(k, v)| format!("{k}>{v}")).collect::<Vec<_>>().join(" "));
        for (text, want) in [
            ("", Ok("")),
            ("a=1", Ok("a>1")),
            ("a = 1, b = x=y", Ok("a>1 b>x=y")),
            ("\"a, =\" = \"\" , b=2", Ok("a, => b>2")),
            ("a", Err("\"a\" has no \"=\"")),
            ("a,b=1", Err("\"a\" has no \"=\"")),
            ("=1", Err("item is missing")),
            ("a=", Err("item is missing")),
            ("a=1,a=2", Err("\"a\" appears twice")),
        ] {
            match (pairs(text), want) {
                (Ok(found), Ok(want)) => assert_eq!(found, want, "{text}"),
                (Err(found), Err(want)) => assert!(found.contains(want), "{text}: {found}"),
                (found, want) => panic!("{text}: {found:?}, expected {want:?}"),
            }
        }
    }
}
