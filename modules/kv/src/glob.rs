//! Glob patterns of keys: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a byte that is matched
//! literally.
//!
//! Pure.

/// Whether the pattern matches the whole text. Takes at most as many steps as the product of both
/// lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_rest, mut text_rest) = (pattern, text);
    // The pattern after the last star, and the text that this star has not matched. After a
    // mismatch the star matches one byte more.
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
            (None, Some((after_star, [_, tail @ ..]))) => {
                again = Some((after_star, tail));
                (pattern_rest, text_rest) = (after_star, tail);
            }
            (None, _) => return false,
        }
    }
}

/// Matches one byte with the first element of the pattern, which is not a star. Returns the rest of
/// the pattern.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', tail @ ..] => Some(tail),
        [b'[', set @ ..] => class(set, byte),
        [b'\\', literal, tail @ ..] | [literal, tail @ ..] => (*literal == byte).then_some(tail),
        [] => None,
    }
}

/// As `one`, for a set after its `[`. A set that is not closed ends with the pattern.
fn class(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match set {
        [b'^', tail @ ..] => (true, tail),
        tail => (false, tail),
    };
    let mut found = false;
    let after_set = loop {
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
    (found != negated).then_some(after_set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
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
        // The time does not grow exponentially with the number of stars.
        assert!(!matches(&b"*a".repeat(200), &b"a".repeat(190)));
    }
}
