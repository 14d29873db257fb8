//! Patterns of keys: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a byte that stands for itself.

/// Whether the whole text is what the pattern says. Takes at most the product of both lengths in steps.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_rest, mut text_rest) = (pattern, text);
    // Behind the last star, and what of the text it has not taken: where to try again with one byte more in the star.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern_rest, text_rest) {
            ([b'*', tail @ ..], _) => {
                again = Some((tail, text_rest));
                pattern_rest = tail;
                continue;
            }
            ([], []) => return true,
            (_, []) => return false,
            ([], _) => None,
            (_, [byte, tail @ ..]) => one(pattern_rest, *byte).map(|pattern_tail| (pattern_tail, tail)),
        };
        match (step, again) {
            (Some(next), _) => (pattern_rest, text_rest) = next,
            (None, Some((behind, [_, taken @ ..]))) => {
                again = Some((behind, taken));
                (pattern_rest, text_rest) = (behind, taken);
            }
            (None, _) => return false,
        }
    }
}

/// What follows in the pattern if its beginning, which is no star, stands for this byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', tail @ ..] => Some(tail),
        [b'[', set @ ..] => class(set, byte),
        [b'\\', literal, tail @ ..] | [literal, tail @ ..] => (*literal == byte).then_some(tail),
        [] => None,
    }
}

/// As `one`, behind a `[`. A set that is not closed ends with the pattern.
fn class(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match set {
        [b'^', tail @ ..] => (true, tail),
        tail => (false, tail),
    };
    let mut found = false;
    let behind = loop {
        match rest {
            [] => break rest,
            [b']', tail @ ..] => break tail,
            [b'\\', literal, tail @ ..] => {
                found |= *literal == byte;
                rest = tail;
            }
            [from, b'-', to, tail @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest = tail;
            }
            [literal, tail @ ..] => {
                found |= *literal == byte;
                rest = tail;
            }
        }
    };
    (found != negated).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "abc"], &[]),
            ("a*c", &["ac", "abc", "acbc"], &["a", "abcd", "bac"]),
            ("*a*b", &["ab", "xaxb", "aab"], &["ba", "abx"]),
            ("h?llo", &["hello", "hxllo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo"], &["hello"]),
            ("h[a-c]", &["ha", "hc"], &["hd", "h-"]),
            ("h[c-a]", &["hb"], &["hd"]),
            ("[\\]]", &["]"], &["\\"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("a[", &[], &["a", "ab"]),
            ("a[b", &["ab"], &["a["]),
            ("a\\", &["a\\"], &["a"]),
        ] {
            for text in yes {
                assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
            }
            for text in no {
                assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
            }
        }
        // Many stars take no time that grows with their number's power.
        assert!(!matches(&b"*a".repeat(200), &b"a".repeat(190)));
    }
}
