//! Sizes of files, and the header of each file of the host.

use crate::tree::Tree;

/// Lines of any source, tests included.
const LINES: usize = 800;
/// The host's sources that may have more than `LONG_LINES`.
const LONG_FILES: usize = 5;
const LONG_LINES: usize = 400;
/// All of the host's sources have fewer.
const HOST_LINES: usize = 29_150;

pub fn no_file_is_too_long(tree: &Tree) -> Vec<String> {
    let sources = ["host", "module-api", "modules", "tests"].into_iter().flat_map(|folder| tree.under(folder, "rs"));
    let counted = sources.map(|(path, text)| (path, text.lines().count()));
    counted.filter(|(_, lines)| *lines > LINES).map(|(path, lines)| format!("{path}: {lines} lines")).collect()
}

pub fn the_host_stays_small(tree: &Tree) -> Vec<String> {
    let counted: Vec<(&str, usize)> = tree.under("host/src", "rs").map(|(path, text)| (path, text.lines().count())).collect();
    let mut found = Vec::new();
    let long: Vec<String> =
        counted.iter().filter(|(_, lines)| *lines > LONG_LINES).map(|(path, lines)| format!("{path}: {lines} lines")).collect();
    if long.len() > LONG_FILES {
        found.push(format!("{} files of more than {LONG_LINES} lines, {LONG_FILES} allowed", long.len()));
        found.extend(long);
    }
    let total: usize = counted.iter().map(|(_, lines)| lines).sum();
    if total >= HOST_LINES {
        found.push(format!("host/src: {total} lines, {HOST_LINES} are too many"));
    }
    found
}

/// Every file of the host says what it is, where it runs, and what it never does.
pub fn headers_have_three_parts(tree: &Tree) -> Vec<String> {
    let product = tree.under("host/src", "rs").filter(|(path, _)| *path != "host/src/lib.rs" && !is_test(path));
    let without = product.filter(|(_, text)| {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let says = |part: &str| header.iter().any(|line| line.contains(part));
        let what = header.first().and_then(|line| line.strip_prefix("//! "));
        !(what.is_some_and(|what| !what.starts_with('*')) && says("*Runs in:*") && says("*Never:*"))
    });
    without.map(|(path, _)| path.to_owned()).collect()
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[cfg(test)]
mod breaches {
    use super::*;

    #[test]
    fn a_long_file_is_found() {
        let tree = Tree::of(&[("modules/a/src/lib.rs", &"\n".repeat(801)), ("tests/b.rs", &"\n".repeat(800))]);
        assert_eq!(no_file_is_too_long(&tree), ["modules/a/src/lib.rs: 801 lines"]);
    }

    #[test]
    fn many_long_files_and_a_large_host_are_found() {
        let findings = |files: usize, lines: usize| {
            let files: Vec<(String, String)> = (0..files).map(|number| (format!("host/src/a{number}.rs"), "\n".repeat(lines))).collect();
            the_host_stays_small(&Tree::of(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>()))
        };
        assert_eq!(findings(5, 401), [""; 0]);
        assert_eq!(findings(6, 401)[0], "6 files of more than 400 lines, 5 allowed");
        let (most, lines) = (HOST_LINES.div_ceil(LONG_LINES) - 1, HOST_LINES.next_multiple_of(LONG_LINES));
        assert_eq!(findings(most, LONG_LINES), [""; 0]);
        assert_eq!(findings(most + 1, LONG_LINES), [format!("host/src: {lines} lines, {HOST_LINES} are too many")]);
    }

    #[test]
    fn a_missing_part_of_a_header_is_found() {
        let header = |parts: &str| format!("//! {parts}\nfn f() {{}}\n//! *Never:* too late.\n");
        let whole = "What it is.\n//!\n//! *Runs in:* main.\n//! *Never:* waits.";
        let tree = Tree::of(&[
            ("host/src/whole.rs", &header(whole)),
            ("host/src/what.rs", &header("*Runs in:* main. *Never:* waits.")),
            ("host/src/where.rs", &header("What it is.\n//!\n//! *Never:* waits.")),
            ("host/src/never.rs", &header("What it is.\n//!\n//! *Runs in:* main.")),
            ("host/src/none.rs", "fn f() {}\n"),
            ("host/src/net/tests.rs", "fn f() {}\n"),
        ]);
        assert_eq!(headers_have_three_parts(&tree), ["never", "none", "what", "where"].map(|name| format!("host/src/{name}.rs")));
    }
}
