//! The rules of the sources, as tests: who imports whom, where `unsafe` may stand, words, headers, and what the documentation names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::built;

/// One source file.
#[derive(Clone)]
struct Source {
    /// From the repository's root, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// Its code: without comments and string literals, and without what stands behind `#[cfg(test)]`.
    fn code(&self) -> String {
        let product = self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let mut code = String::new();
        for line in product.lines() {
            let line = without_strings(line);
            code.push_str(line.split("//").next().unwrap_or_default());
            code.push('\n');
        }
        code
    }

    /// The comment at its top.
    fn header(&self) -> String {
        self.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
    }
}

/// A line with its string literals emptied. Good enough for sources that rustfmt has seen.
fn without_strings(line: &str) -> String {
    let (mut kept, mut inside, mut escaped) = (String::new(), false, false);
    for character in line.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => {
                inside = !inside;
                kept.push('"');
            }
            _ if !inside => kept.push(character),
            _ => {}
        }
    }
    kept
}

/// Every source under a folder, without what was built.
fn sources(folder: &str, extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![built::root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(Source { path: relative(&path), text: fs::read_to_string(&path).expect("a text") });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no .{extension} under {folder}");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(built::root()).expect("a path in the repository").display().to_string()
}

/// The words of a code, a word being what can be an identifier.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_').filter(|word| !word.is_empty())
}

#[track_caller]
fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Lines of the files' code that contain one of the texts.
fn lines_with(sources: &[Source], texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.code().lines().enumerate() {
            if texts.iter().any(|text| line.contains(text)) {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    found
}

/// Dependencies by path in a crate's manifest.
fn path_dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(built::root().join(manifest)).expect("a manifest");
    let lines = text.lines().filter(|line| line.contains("path = \"../"));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn modules() -> Vec<String> {
    let folders = fs::read_dir(built::root().join("modules")).expect("modules").flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_interface_imports_nothing_of_ours_and_modules_only_the_interface() {
    assert_eq!(path_dependencies("module-api/Cargo.toml"), [""; 0]);
    assert_none("module-api knows the host", lines_with(&sources("module-api/src", "rs"), &["modhost::"]));
    for module in modules() {
        let manifest = format!("modules/{module}/Cargo.toml");
        if !built::root().join(&manifest).exists() {
            // In C: all it can include is the header.
            let includes = sources(&format!("modules/{module}"), "c");
            let foreign = includes
                .iter()
                .flat_map(|source| source.text.lines())
                .filter(|line| line.starts_with("#include \"") && !line.contains("modhost.h"));
            assert_eq!(foreign.count(), 0, "{module} includes something of ours");
            continue;
        }
        let mut dependencies = path_dependencies(&manifest);
        // Once for the module, once with its fakes for the module's unit tests.
        dependencies.dedup();
        assert_eq!(dependencies, ["module-api"], "{module}");
        assert_none("a module knows the host", lines_with(&sources(&format!("modules/{module}/src"), "rs"), &["modhost::"]));
    }
}

#[test]
fn nothing_imports_the_lifecycle() {
    let host = sources("host/src", "rs");
    let others: Vec<Source> =
        host.into_iter().filter(|source| !matches!(source.path.as_str(), "host/src/main.rs" | "host/src/lib.rs")).collect();
    assert_none("lifecycle composes, it is no library", lines_with(&others, &["crate::lifecycle", "super::lifecycle", "lifecycle::"]));
}

#[test]
fn the_supervisor_knows_no_module_and_takes_no_lock() {
    let forbidden = ["crate::module", "crate::shm", "crate::hostapi", "crate::state", "robust", "libloading", "Mutex"];
    assert_none("in supervise", lines_with(&sources("host/src/supervise", "rs"), &forbidden));
}

#[test]
fn pure_files_ask_nobody() {
    let pure = [
        "host/src/config/address.rs",
        "host/src/config/check.rs",
        "host/src/config/merge.rs",
        "host/src/config/parse.rs",
        "host/src/config/reader.rs",
        "host/src/module/elf.rs",
        "host/src/module/judge.rs",
        "host/src/module/order.rs",
        "host/src/module/params.rs",
        "host/src/module/relocation.rs",
        "host/src/module/table.rs",
        "host/src/supervise/policy.rs",
        "host/src/timer/queue.rs",
        "module-api/src/check/convert.rs",
        "module-api/src/check/mod.rs",
        "module-api/src/check/nearest.rs",
        "module-api/src/check/text.rs",
        "module-api/src/check/units.rs",
    ];
    let sources: Vec<Source> = [sources("host/src", "rs"), sources("module-api/src", "rs")]
        .concat()
        .into_iter()
        .filter(|source| pure.contains(&source.path.as_str()))
        .collect();
    assert_eq!(sources.len(), pure.len(), "a file of the list is gone");
    let world = [
        "Instant",
        "SystemTime",
        "std::env",
        "env::",
        "std::fs",
        "std::net::Udp",
        "std::process",
        "nix::",
        "libc::",
        "crate::sys",
        "tracing::",
    ];
    assert_none("a clock, the environment, a system call or the log", lines_with(&sources, &world));
}

#[test]
fn unsafe_stands_in_few_places() {
    let rooms = |path: &str| {
        path.starts_with("host/src/sys/")
            || matches!(path, "host/src/module/loader.rs" | "host/src/module/layout.rs" | "host/src/hostapi.rs" | "host/src/shm/arena.rs")
            || matches!(path, "host/src/hostapi/counting.rs" | "host/src/hostapi/datagrams.rs" | "host/src/hostapi/memory.rs" | "host/src/hostapi/processes.rs" | "host/src/hostapi/stream.rs")
            || matches!(
                path.strip_prefix("module-api/src/"),
                Some("abi.rs" | "export.rs" | "fake.rs" | "host.rs" | "mutex.rs" | "params.rs" | "phase.rs" | "stream.rs" | "udp.rs")
            )
            // Writes values to the targets of parameters, for the loader and for the fake host.
            || path == "module-api/src/check/write.rs"
            // The cell that a module lives in, and the targets of its parameters.
            || matches!(path, "module-api/src/export/cell.rs" | "module-api/src/params/types.rs")
            // The loader's part of the fake host, and its functions.
            || path == "module-api/src/testing/table.rs"
            || path.starts_with("module-api/src/fake/")
            // Counting: the one instruction that needs it, and what the host gives to read.
            || matches!(path, "module-api/src/stats/cells.rs" | "module-api/src/stats/read.rs")
            // Calls between modules, and the declarations of those that are of general use.
            || path == "module-api/src/interface.rs"
            || matches!(path, "module-api/src/interface/values.rs" | "module-api/src/interfaces/http.rs")
            || path.starts_with("module-api/src/shm/")
            // The SDK's own tests play the host.
            || path.starts_with("module-api/src/tests/")
            || path == "module-api/src/check/tests.rs"
    };
    let all = [sources("host/src", "rs"), sources("module-api/src", "rs"), sources("modules", "rs"), sources("tests/harness", "rs")];
    let uses = |source: &Source| words(&source.code()).any(|word| word == "unsafe") && !source.code().contains("forbid(unsafe_code)");
    let outside: Vec<String> =
        all.iter().flatten().filter(|source| uses(source) && !rooms(&source.path)).map(|source| source.path.clone()).collect();
    assert_none("unsafe", outside);
    for module in modules() {
        let library = built::root().join(format!("modules/{module}/src/lib.rs"));
        if library.exists() {
            assert!(fs::read_to_string(library).unwrap().contains("#![forbid(unsafe_code)]"), "{module} does not forbid unsafe");
        }
    }
}

#[test]
fn one_function_forks() {
    let product = sources("host/src", "rs").into_iter().filter(|source| !source.path.ends_with("/tests.rs"));
    let others: Vec<Source> = product.filter(|source| source.path != "host/src/sys/fork.rs").collect();
    let calls = ["unistd::fork", "libc::fork", "_Fork(", "libc::clone", "vfork", "SYS_clone", "process::Command", "posix_spawn"];
    assert_none("a second way to make a process", lines_with(&others, &calls));
    let forking = sources("host/src/sys", "rs").into_iter().find(|source| source.path.ends_with("/fork.rs")).expect("fork.rs");
    // The C library's two, in one expression.
    let code = forking.code();
    assert_eq!(["libc::fork()", "_Fork() }"].map(|call| code.matches(call).count()), [1, 1]);
    assert!(lines_with(&[forking], &["libc::fork()"]).iter().all(|line| line.contains("_Fork()")));
}

#[test]
fn tests_name_no_type_of_the_host() {
    assert_eq!(path_dependencies("tests/Cargo.toml"), [""; 0]);
    // Put together, so that this very line is not one.
    let host = ["mod", "host::"].concat();
    assert_none("a black box has no inside", lines_with(&sources("tests", "rs"), &[&format!(" {host}"), &format!("({host}")]));
}

#[test]
fn no_file_is_too_long() {
    let folders = ["host", "module-api", "modules", "tests"];
    let long: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder, "rs"))
        .filter(|source| source.text.lines().count() > 800)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    assert_none("more than 800 lines", long);
}

#[test]
fn every_file_of_the_host_says_what_it_is_where_it_runs_and_what_it_never_does() {
    let product =
        sources("host/src", "rs").into_iter().filter(|source| source.path != "host/src/lib.rs" && !source.path.ends_with("/tests.rs"));
    let without = |source: &Source| {
        let header = source.header();
        !(header.starts_with("//! ") && header.contains("*Runs in:*") && header.contains("*Never:*"))
    };
    assert_none("header", product.filter(without).map(|source| source.path).collect());
}

#[test]
fn no_empty_words() {
    let mut found = Vec::new();
    for source in ["host/src", "module-api/src", "modules", "tests"].iter().flat_map(|folder| sources(folder, "rs")) {
        let code = source.code();
        let all: Vec<&str> = words(&code).collect();
        for pair in all.windows(2) {
            let [keyword, name] = pair else { continue };
            let empty = ["manager", "helper", "util", "common"].iter().any(|word| name.to_lowercase().contains(word));
            // The service manager is somebody else, and is called that.
            let is_ours = *name != "ServiceManager";
            if matches!(*keyword, "struct" | "enum" | "trait" | "type" | "mod" | "union") && empty && is_ours {
                found.push(format!("{}: {keyword} {name}", source.path));
            }
            if *keyword == "fn" && name.starts_with("get_") {
                found.push(format!("{}: fn {name}", source.path));
            }
        }
    }
    assert_none("names that say nothing", found);
}

#[test]
fn no_test_sleeps() {
    let word = ["sle", "ep("].concat();
    let mut found = lines_with(&sources("tests", "rs"), &[&word]);
    found.retain(|line| !line.starts_with("tests/bench/"));
    assert_none("a test waits for an event", found);
}

#[test]
fn readmes_list_the_parameters() {
    let program = built::host();
    for module in modules() {
        let library = built::module_of_use(&module);
        let output = Command::new(&program).arg("inspect").arg("--json").arg(&library).output().expect("the host's program");
        let inspected: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let module_json = &inspected.as_array().map_or(&inspected, |all| &all[0]);
        let params = module_json["params"].as_array().unwrap_or_else(|| panic!("no params of {module} in {inspected}"));
        let readme = fs::read_to_string(built::root().join(format!("modules/{module}/README.md"))).expect("a README");
        for param in params {
            let name = param["name"].as_str().expect("a name");
            assert!(readme.contains(&format!("`{name}`")), "modules/{module}/README.md does not list the parameter {name}");
        }
    }
}

/// Names of all test functions.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in ["tests", "host", "module-api"].iter().flat_map(|folder| sources(folder, "rs")) {
        let mut marked = false;
        for line in source.text.lines().map(str::trim) {
            if line == "#[test]" {
                marked = true;
            } else if let (true, Some(rest)) = (marked, line.strip_prefix("fn ")) {
                names.insert(rest.split('(').next().unwrap_or_default().to_owned());
                marked = false;
            }
        }
    }
    names
}

/// What stands between backticks in a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_promise_has_its_test() {
    let names = test_names();
    let page = fs::read_to_string(built::root().join("docs/lifecycle.md")).expect("the page");
    let named: Vec<&str> = quoted(&page).filter(|word| is_promise(word)).collect();
    for promise in (1..=34).filter(|promise| !matches!(promise, 28 | 29)) {
        let prefix = format!("l{promise:02}_");
        let of_promise: Vec<&&str> = named.iter().filter(|name| name.starts_with(&prefix)).collect();
        assert_eq!(of_promise.len(), 1, "docs/lifecycle.md names these tests of L{promise:02}: {of_promise:?}");
        assert!(names.contains(*of_promise[0]), "there is no test {}", of_promise[0]);
    }
}

/// `l05_register_procs_only_in_init_f`
fn is_promise(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 4 && bytes[0] == b'l' && bytes[1].is_ascii_digit() && bytes[2].is_ascii_digit() && bytes[3] == b'_'
}

#[test]
fn what_is_named_exists() {
    let names = test_names();
    let mut missing = Vec::new();
    let mut pages = sources("docs", "md");
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"] {
        pages.push(Source { path: page.to_owned(), text: fs::read_to_string(built::root().join(page)).unwrap_or_default() });
    }
    // Sources name tests in comments.
    pages.extend(sources("host/src", "rs"));
    for page in &pages {
        for word in quoted(&page.text) {
            let is_test = is_promise(word) || word.starts_with("golden_");
            if is_test && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !names.contains(word) {
                missing.push(format!("{}: test {word}", page.path));
            }
            let is_file = word.starts_with("tests/") && word.ends_with(".rs") && !word.contains('*');
            if is_file && !built::root().join(word).exists() && !built::root().join("host").join(word).exists() {
                missing.push(format!("{}: file {word}", page.path));
            }
        }
        for included in page.text.split("{{#include ").skip(1).filter_map(|rest| rest.split("}}").next()) {
            let folder = PathBuf::from(&page.path).parent().map(Path::to_path_buf).unwrap_or_default();
            let file = included.split(':').next().unwrap_or_default();
            if page.path.ends_with(".md") && !built::root().join(folder).join(file).exists() {
                missing.push(format!("{}: include {file}", page.path));
            }
        }
    }
    assert_none("named and not there", missing);
}
