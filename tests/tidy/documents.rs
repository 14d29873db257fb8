//! What pages and comments name exists: tests, files, parameters.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::tree::Tree;

/// Promises of `docs/lifecycle.md` that have a test. L28 and L29 are not kept yet.
fn promises() -> impl Iterator<Item = u32> {
    (1..=34).filter(|promise| !matches!(promise, 28 | 29))
}

/// Each promise is named with one test, which exists.
pub fn each_promise_has_its_test(tree: &Tree) -> Vec<String> {
    let names = test_names(tree);
    let page = tree.text("docs/lifecycle.md").unwrap_or_default();
    let named: Vec<&str> = quoted(page).filter(|word| is_promise(word)).collect();
    let mut found = Vec::new();
    for promise in promises() {
        let prefix = format!("l{promise:02}_");
        let of_promise: Vec<&&str> = named.iter().filter(|name| name.starts_with(&prefix)).collect();
        if of_promise.len() != 1 {
            found.push(format!("docs/lifecycle.md names these tests of L{promise:02}: {of_promise:?}"));
        }
        found.extend(of_promise.iter().filter(|name| !names.contains(***name)).map(|name| format!("there is no test {name}")));
    }
    found
}

/// Tests and files that pages and the host's comments name exist, and so do the files that pages
/// include.
pub fn what_is_named_exists(tree: &Tree) -> Vec<String> {
    let names = test_names(tree);
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
    let top = top.into_iter().filter_map(|page| Some((page, tree.text(page)?)));
    let mut missing = Vec::new();
    for (path, text) in tree.under("docs", "md").chain(top).chain(tree.under("host/src", "rs")) {
        for word in quoted(text) {
            let is_test = is_promise(word) || word.starts_with("golden_");
            if is_test && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !names.contains(word) {
                missing.push(format!("{path}: test {word}"));
            }
            let is_file = word.starts_with("tests/") && word.ends_with(".rs") && !word.contains('*');
            if is_file && !tree.has(word) && !tree.has(&format!("host/{word}")) {
                missing.push(format!("{path}: file {word}"));
            }
        }
        for included in text.split("{{#include ").skip(1).filter_map(|rest| rest.split("}}").next()) {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let file = included.split(':').next().unwrap_or_default();
            if path.ends_with(".md") && !tree.has(&crate::graph::normal(&format!("{folder}/{file}"))) {
                missing.push(format!("{path}: include {file}"));
            }
        }
    }
    missing
}

/// Parameters, as the host lists them in JSON, that a module's page does not name.
pub fn unlisted_parameters(page: &str, inspected: &serde_json::Value) -> Vec<String> {
    let module = inspected.as_array().map_or(inspected, |all| &all[0]);
    let params = module["params"].as_array().unwrap_or_else(|| panic!("no params in {inspected}"));
    let names = params.iter().map(|param| param["name"].as_str().expect("a name"));
    names.filter(|name| !page.contains(&format!("`{name}`"))).map(str::to_owned).collect()
}

/// No black-box test pauses: it waits for an event.
pub fn no_test_sleeps(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.under("tests", "rs").filter(|(path, _)| !path.starts_with("tests/bench/")) {
        let facts = crate::facts::of_whole_file(path, text);
        let called = facts.named().into_iter().filter(|named| named.segments.last().is_some_and(|name| name == "sleep"));
        found.extend(called.map(|named| format!("{path}:{}: {}", named.line, named.segments.join("::"))));
    }
    found
}

/// Names of all test functions, in macros too.
fn test_names(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (path, text) in ["tests", "host", "module-api"].into_iter().flat_map(|folder| tree.under(folder, "rs")) {
        find_tests(text.parse().unwrap_or_else(|error| panic!("{path}: {error}")), &mut names);
    }
    names
}

fn find_tests(tokens: TokenStream, names: &mut BTreeSet<String>) {
    let (mut is_marked, mut is_function) = (false, false);
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                is_marked |= group.delimiter() == Delimiter::Bracket && group.stream().to_string() == "test";
                find_tests(group.stream(), names);
            }
            TokenTree::Ident(word) if is_marked && is_function => {
                names.insert(word.to_string());
                (is_marked, is_function) = (false, false);
            }
            TokenTree::Ident(word) => is_function = word == "fn",
            _ => {}
        }
    }
}

/// What a text has between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `l05_register_procs_only_in_init_f`
fn is_promise(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 4 && bytes[0] == b'l' && bytes[1].is_ascii_digit() && bytes[2].is_ascii_digit() && bytes[3] == b'_'
}

#[cfg(test)]
mod breaches {
    use super::*;

    #[test]
    fn a_promise_without_a_test_is_found() {
        let names: Vec<String> = promises().map(|promise| format!("l{promise:02}_holds")).collect();
        let page: String = names.iter().map(|name| format!("| `{name}` |\n")).collect();
        let tests: String = names.iter().map(|name| format!("#[test]\n#[ignore]\nfn {name}() {{}}\n")).collect();
        let findings =
            |page: &str, tests: &str| each_promise_has_its_test(&Tree::of(&[("docs/lifecycle.md", page), ("tests/promises.rs", tests)]));
        assert_eq!(findings(&page, &tests), [""; 0]);
        assert_eq!(findings(&page, &tests.replace("l07_holds", "l07_breaks")), ["there is no test l07_holds"]);
        assert_eq!(findings(&page, &tests.replace("#[test]\n#[ignore]\nfn l07", "fn l07")), ["there is no test l07_holds"]);
        assert_eq!(findings(&page.replace("`l07_holds`", ""), &tests), ["docs/lifecycle.md names these tests of L07: []"]);
        let twice = format!("{page}`l07_holds` `l07_holds`");
        assert_eq!(findings(&twice, &tests).len(), 1);
    }

    #[test]
    fn what_is_named_and_not_there_is_found() {
        let findings = |path, text| {
            let tests = ("tests/golden.rs", "proptest! { #[test] fn golden_calls(a in 0..3) {} }\n#[test]\nfn l01_holds() {}\n");
            what_is_named_exists(&Tree::of(&[(path, text), tests, ("docs/quickstart.toml", ""), ("host/tests/killed.rs", "")]))
        };
        let whole = "`golden_calls` `l01_holds` `tests/golden.rs` `tests/killed.rs` `tests/*.rs` {{#include quickstart.toml:3}}";
        assert_eq!(findings("docs/a.md", whole), [""; 0]);
        assert_eq!(findings("docs/a.md", "see `golden_help`"), ["docs/a.md: test golden_help"]);
        assert_eq!(findings("host/src/a.rs", "/// Proven by `l01_hold`."), ["host/src/a.rs: test l01_hold"]);
        assert_eq!(findings("README.md", "`tests/gone.rs`"), ["README.md: file tests/gone.rs"]);
        assert_eq!(findings("docs/design/a.md", "{{#include quickstart.toml}}"), ["docs/design/a.md: include quickstart.toml"]);
    }

    #[test]
    fn a_parameter_that_is_not_listed_is_found() {
        let inspected = serde_json::json!([{ "params": [{ "name": "realm" }, { "name": "ttl" }] }]);
        assert_eq!(unlisted_parameters("| `realm` | ttl |", &inspected), ["ttl"]);
        assert_eq!(unlisted_parameters("`ttl`, `realm`", &inspected[0]), [""; 0]);
    }

    #[test]
    fn a_pause_is_found() {
        let pauses = |text| no_test_sleeps(&Tree::of(&[("tests/a.rs", text), ("tests/bench/src/a.rs", "use std::thread::sleep;")]));
        for form in [
            "use std::thread::sleep;",
            "#[test] fn f() { std::thread::sleep(D) }",
            "#[test] fn f() { wait!(thread::sleep(D)) }",
            "use std::thread::sleep as wait;",
        ] {
            assert_eq!(pauses(form).len(), 1, "{form}");
        }
        assert_eq!(pauses("// sleep(1)\nfn f() { run(\"sleep\"); }"), [""; 0]);
    }
}
