//! Where `unsafe` code and `libc` may be, and where a process is forked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::facts;
use crate::graph::Graph;
use crate::layers::may_be;
use crate::tree::Tree;

/// Whether a file may contain `unsafe` code and name `libc`.
fn is_room(path: &str) -> bool {
    if let Some(path) = path.strip_prefix("host/src/") {
        // System calls, the loader with the layout check, the call trampoline in both directions,
        // and the arena.
        return ["sys/", "hostapi/", "shm/arena/"].iter().any(|folder| path.starts_with(folder))
            || ["hostapi.rs", "module/call.rs", "module/layout.rs", "module/layout/tests.rs", "module/loader.rs", "shm/arena.rs"]
                .contains(&path);
    }
    if let Some(path) = path.strip_prefix("module-api/src/") {
        return MODULE_API.contains(&path) || path.starts_with("shm/") || path.starts_with("tests/");
    }
    TESTS.contains(&path)
}

/// Files of the SDK that turn raw pointers into safe values, or play the host in tests.
const MODULE_API: [&str; 24] = [
    "abi.rs",
    "check/tests.rs",
    "check/write.rs",
    "export.rs",
    "export/cell.rs",
    "fake.rs",
    "fake/counting.rs",
    "fake/datagrams.rs",
    "fake/memory.rs",
    "fake/processes.rs",
    "fake/stream.rs",
    "host.rs",
    "interface.rs",
    "interface/values.rs",
    "interfaces/http.rs",
    "mutex.rs",
    "params.rs",
    "params/types.rs",
    "phase.rs",
    "stats/cells.rs",
    "stats/read.rs",
    "stream.rs",
    "testing/table.rs",
    "udp.rs",
];

/// Programs that are not shipped: tests that fork and trace, what a fixture does wrong, and
/// measurements.
const TESTS: [&str; 18] = [
    "host/benches/shm.rs",
    "host/tests/as_main/mod.rs",
    "host/tests/killed_anywhere.rs",
    "host/tests/killed_counting.rs",
    "host/tests/steps/mod.rs",
    "tests/bench/src/bin/bare-fork.rs",
    "tests/bench/src/bin/bare-http.rs",
    "tests/bench/src/bin/bare-respawn.rs",
    "tests/bench/src/bin/bare-udp.rs",
    "tests/bench/src/bin/http-load.rs",
    "tests/bench/src/bin/respawn.rs",
    "tests/bench/src/bin/start.rs",
    "tests/bench/src/bin/udp-load.rs",
    "tests/bench/src/lib.rs",
    "tests/bench/src/proc.rs",
    "tests/modules/recorder/src/act.rs",
    "tests/modules/recorder/src/write.rs",
    "tests/modules/refused/changed_layout/src/lib.rs",
];

/// `unsafe` and `libc` anywhere in a file's tokens, also in macros and in tests.
pub fn unsafe_is_in_its_rooms(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in ["host", "module-api", "modules", "tests", "docs"].iter().flat_map(|folder| tree.under(folder, "rs")) {
        if !is_room(path) {
            let mut words = Vec::new();
            find_words(tokens(path, text), &["unsafe", "libc"], &mut words);
            found.extend(words.into_iter().map(|(word, line)| format!("{path}:{line}: {word}")));
        }
    }
    // The lists stay as short as they can be.
    let listed = MODULE_API.iter().map(|path| format!("module-api/src/{path}")).chain(TESTS.map(str::to_owned));
    for (path, text) in listed.filter_map(|path| Some((path.clone(), tree.text(&path)?))) {
        let mut words = Vec::new();
        find_words(tokens(&path, text), &["unsafe", "libc"], &mut words);
        if words.is_empty() {
            found.push(format!("{path}: listed, and without unsafe code"));
        }
    }
    for module in tree.folders("modules") {
        let library = format!("modules/{module}/src/lib.rs");
        if tree.text(&library).is_some_and(|text| !text.contains("\n#![forbid(unsafe_code)]\n")) {
            found.push(format!("{library}: does not forbid unsafe_code"));
        }
    }
    found
}

/// Ways to make a process.
const FORKS: [&str; 21] = [
    "libc::_Fork",
    "libc::clone",
    "libc::clone3",
    "libc::daemon",
    "libc::fork",
    "libc::forkpty",
    "libc::popen",
    "libc::posix_spawn",
    "libc::posix_spawnp",
    "libc::system",
    "libc::vfork",
    "libc::SYS_clone",
    "libc::SYS_clone3",
    "libc::SYS_fork",
    "libc::SYS_vfork",
    "nix::pty::forkpty",
    "nix::sched::clone",
    "nix::spawn",
    "nix::unistd::daemon",
    "nix::unistd::fork",
    "std::process::Command",
];

/// Names that nothing else has: declared in an `extern` block, they fork too.
const FORK_NAMES: [&str; 8] = ["_Fork", "vfork", "forkpty", "posix_spawn", "posix_spawnp", "clone3", "SYS_clone", "SYS_clone3"];

/// One function of the host forks, and it is in `sys`.
pub fn one_function_forks(tree: &Tree, graph: &Graph) -> Vec<String> {
    let mut functions: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| node.krate.starts_with("modhost")) {
        let text = tree.text(&node.file).unwrap_or_default();
        let outside = node.outside.iter().filter(|(path, _)| FORKS.iter().any(|fork| may_be(path, fork))).map(|(_, line)| *line);
        let mut names = Vec::new();
        find_words(tokens(&node.file, text), &FORK_NAMES, &mut names);
        let mut spans = Spans::default();
        spans.visit_file(&facts::parse(&node.file, text));
        for line in outside.chain(names.into_iter().map(|(_, line)| line)).filter(|line| !spans.declarations.contains(line)) {
            let function = spans.functions.iter().filter(|(_, lines)| lines.contains(&line)).map(|(name, _)| name.as_str()).next_back();
            functions.entry(format!("{}: {}", node.file, function.unwrap_or("outside a function"))).or_default().insert(line);
        }
    }
    let is_one = functions.len() == 1 && functions.keys().all(|place| place.starts_with("host/src/sys/"));
    if is_one { Vec::new() } else { functions.into_iter().map(|(place, lines)| format!("{place} in lines {lines:?}")).collect() }
}

/// The lines of functions, from outer to inner ones, and those that declare functions of C.
#[derive(Default)]
struct Spans {
    functions: Vec<(String, RangeInclusive<usize>)>,
    declarations: BTreeSet<usize>,
}

impl<'ast> Visit<'ast> for Spans {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_foreign_item_fn(&mut self, item: &'ast syn::ForeignItemFn) {
        self.declarations.insert(item.sig.ident.span().start().line);
    }
}

impl Spans {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = signature.ident.span().start().line..=block.brace_token.span.close().end().line;
        self.functions.push((signature.ident.to_string(), lines));
    }
}

fn tokens(path: &str, text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn find_words(tokens: TokenStream, words: &[&str], found: &mut Vec<(String, usize)>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => find_words(group.stream(), words, found),
            TokenTree::Ident(ident) if words.iter().any(|word| ident == word) => found.push((ident.to_string(), ident.span().start().line)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod breaches {
    use super::*;

    fn unsafe_in(files: &[(&str, &str)]) -> Vec<String> {
        unsafe_is_in_its_rooms(&Tree::of(files))
    }

    #[test]
    fn unsafe_code_outside_the_rooms_is_found() {
        let block = "pub fn f() { unsafe { g() } }\n";
        let found = unsafe_in(&[
            ("host/src/config/mod.rs", block),
            ("host/src/shm/heap.rs", block),
            ("module-api/src/shutdown.rs", block),
            ("modules/echo/src/lib.rs", "#![allow(unsafe_code)]\nunsafe impl Send for A {}\n"),
            ("tests/harness/lib.rs", "//! x\n\nunsafe extern \"C\" {\n    fn f();\n}\n"),
            ("host/src/sys/fork.rs", block),
            ("host/src/hostapi/memory.rs", block),
            ("host/src/shm/arena.rs", block),
            ("host/src/module/loader.rs", block),
            ("module-api/src/shm/owned.rs", block),
        ]);
        let expected = [
            "host/src/config/mod.rs:1: unsafe",
            "host/src/shm/heap.rs:1: unsafe",
            "module-api/src/shutdown.rs:1: unsafe",
            "modules/echo/src/lib.rs:2: unsafe",
            "tests/harness/lib.rs:3: unsafe",
            "modules/echo/src/lib.rs: does not forbid unsafe_code",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn unsafe_code_in_macros_and_tests_is_found() {
        let source = "//! unsafe\n\
            const TEXT: &str = \"unsafe libc\"; // unsafe\n\
            macro_rules! call { ($f:expr) => { unsafe { $f() } }; }\n\
            fn f() { assert!(unsafe { g() }); }\n\
            #[cfg(test)] mod tests { fn f() { unsafe { g() } } }\n";
        let found = unsafe_in(&[("host/src/net/mod.rs", source)]);
        assert_eq!(found, [3, 4, 5].map(|line| format!("host/src/net/mod.rs:{line}: unsafe")));
    }

    #[test]
    fn a_listed_file_without_unsafe_code_is_found() {
        let files = [("module-api/src/udp.rs", "//! unsafe\n"), ("tests/bench/src/proc.rs", "use libc::SYS_read;\n")];
        assert_eq!(unsafe_in(&files), ["module-api/src/udp.rs: listed, and without unsafe code"]);
    }

    #[test]
    fn libc_outside_the_rooms_is_found() {
        for source in ["use libc::c_int;", "use nix::libc as c;", "fn f() { log!(\"{}\", ::libc::getpid()); }", "pub use libc;"] {
            assert_eq!(unsafe_in(&[("host/src/net/mod.rs", source)]), ["host/src/net/mod.rs:1: libc"], "{source}");
        }
    }

    fn forks(files: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree::of(files);
        one_function_forks(&tree, &Graph::of(&tree))
    }

    const LIB: (&str, &str) = ("host/src/lib.rs", "pub mod sys;\npub mod net;\n");
    const SYS: (&str, &str) = ("host/src/sys/mod.rs", "pub mod fork;\n");
    const FORK: (&str, &str) = (
        "host/src/sys/fork.rs",
        "unsafe extern \"C\" {\n    fn _Fork() -> i32;\n}\npub fn fork() -> i32 {\n    if quick() { unsafe { _Fork() } } else { unsafe { libc::fork() } }\n}\n",
    );

    #[test]
    fn one_fork_is_none_too_many() {
        assert_eq!(forks(&[LIB, SYS, FORK, ("host/src/net/mod.rs", "pub fn f() { crate::sys::fork::fork(); }\n")]), [""; 0]);
    }

    #[test]
    fn a_second_way_to_make_a_process_is_found() {
        let sources = [
            "pub fn second() { unsafe { libc::fork() }; }",
            "use nix::unistd::{self as u, Pid};\npub fn second() { u::fork(); }",
            "use nix::unistd::fork as split;\npub fn second() { split(); }",
            "use libc::*;\npub fn second() { fork(); }",
            "use std::process as p;\npub fn second() { p::Command::new(\"sh\"); }",
            "pub fn second() { debug!(\"{}\", libc::vfork()); }",
            "extern \"C\" { fn _Fork() -> i32; }\npub fn second() { unsafe { _Fork() }; }",
            "macro_rules! split { () => { ::libc::clone(0) } }\npub fn second() { split!(); }",
        ];
        for source in sources {
            let found = forks(&[LIB, SYS, FORK, ("host/src/net/mod.rs", source)]);
            assert!(found.iter().any(|place| place.starts_with("host/src/net/mod.rs: ")), "{source}: {found:?}");
        }
    }

    #[test]
    fn a_second_function_in_the_same_file_is_found() {
        let twice = format!("{}fn again() {{ unsafe {{ libc::fork() }}; }}\n", FORK.1);
        let found = forks(&[LIB, SYS, (FORK.0, &twice), ("host/src/net/mod.rs", "")]);
        assert_eq!(found, ["host/src/sys/fork.rs: again in lines {7}", "host/src/sys/fork.rs: fork in lines {5}"]);
    }
}
