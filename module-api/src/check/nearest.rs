//! Proposes the known name that an unknown one was probably meant to be, if the two are similar
//! enough.
//!
//! *Pure:* no clock, no environment, no system call.

/// The name of `known` nearest to `written`, if one is near enough for a typing error.
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // The comparison is quadratic in the lengths; a name this long is not a typing error.
    if written.len() > 64 {
        return None;
    }
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    let folded = fold(written);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "..."?`; if no name is near, the known names; nothing if that would be a long
/// list.
pub fn hint<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None if known.is_empty() || known.len() > 16 => String::new(),
        None => format!("known: {}", known.join(", ")),
    }
}

/// Number of typing errors between two words. A shortened or lengthened word (`warning` for `warn`)
/// counts as one, however long the rest.
fn distance(a: &str, b: &str) -> usize {
    let shared_start = a.len().min(b.len()) >= 3 && (a.starts_with(b) || b.starts_with(a));
    if shared_start { usize::from(a != b) } else { strsim::osa_distance(a, b) }
}

/// Ignores case and the difference between `-` and `_`, the most common errors.
fn fold(name: &str) -> String {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposes_names_for_typing_errors_only() {
        let known = ["workers", "user", "group", "pid_file"];
        for (written, want) in [
            ("wrkers", Some("workers")),
            ("worker", Some("workers")),
            ("Workers", Some("workers")),
            ("pid-file", Some("pid_file")),
            ("suer", Some("user")),
            ("frobnicate", None),
            ("", None),
            ("work", Some("workers")),
            ("groups_of", Some("group")),
            ("x", None),
        ] {
            assert_eq!(nearest(written, known), want, "{written}");
        }
        assert_eq!(nearest(&"w".repeat(10_000), known), None);
    }

    #[test]
    fn hints() {
        assert_eq!(hint("usr", ["user", "group"]), "did you mean \"user\"?");
        assert_eq!(hint("frobnicate", ["user", "group"]), "known: user, group");
        assert_eq!(hint("x", []), "");
    }
}
