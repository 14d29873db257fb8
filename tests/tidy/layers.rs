//! Rules about reach: between crates, between the layers of the host, and from pure files.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use crate::graph::{Graph, Node, Reached};
use crate::tree::Tree;

/// The line in the header of a file that marks it as pure.
pub const PURE: &str = "//! *Pure:* no clock, no environment, no system call.";

/// Files that must carry the mark: parsers, checks, the restart policy, the timer queue.
const PURE_FILES: [&str; 17] = [
    "host/src/config/address.rs",
    "host/src/config/check.rs",
    "host/src/config/merge.rs",
    "host/src/config/parse.rs",
    "host/src/config/reader.rs",
    "host/src/module/findings.rs",
    "host/src/module/judge.rs",
    "host/src/module/order.rs",
    "host/src/module/params.rs",
    "host/src/module/table.rs",
    "host/src/process/restart.rs",
    "host/src/timer/queue.rs",
    "module-api/src/check/convert.rs",
    "module-api/src/check/mod.rs",
    "module-api/src/check/nearest.rs",
    "module-api/src/check/text.rs",
    "module-api/src/check/units.rs",
];

/// What a pure file does not reach outside our crates.
const IMPURE: [&str; 24] = [
    "getrandom",
    "libc",
    "libloading",
    "nix",
    "rustix",
    "std::arch::asm",
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os::linux::net",
    "std::os::unix::fs",
    "std::os::unix::net",
    "std::os::unix::process",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tracing",
];

/// Methods of `Path`, `Instant` and addresses that ask the system, and macros that write.
const IMPURE_METHODS: [&str; 12] = [
    "canonicalize",
    "elapsed",
    "exists",
    "is_dir",
    "is_file",
    "is_symlink",
    "metadata",
    "read_dir",
    "read_link",
    "symlink_metadata",
    "to_socket_addrs",
    "try_exists",
];
const IMPURE_MACROS: [&str; 6] = ["asm", "dbg", "eprint", "eprintln", "print", "println"];

/// `module-api` reaches nothing of ours; a module reaches `module-api` and nothing else of ours.
pub fn modules_know_only_the_api(tree: &Tree, graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for node in graph.nodes.iter().filter(|node| !node.krate.starts_with("modhost")) {
        let is_module = node.krate != "module_api";
        for edge in node.edges.iter().chain(&node.passed_on) {
            let to = &graph.nodes[edge.to];
            if to.krate != node.krate && !(is_module && to.krate == "module_api") {
                found.push(format!("{}:{}: {} reaches {}", node.file, edge.line, node.name(), to.name()));
            }
        }
        let folder = if is_module { "modules/" } else { "module-api/" };
        if !node.file.starts_with(folder) || (is_module && node.file.split('/').nth(1) != Some(&node.krate.replace('_', "-"))) {
            found.push(format!("{}: part of the crate {}", node.file, node.krate));
        }
    }
    found.extend(path_dependencies(tree, "module-api").into_iter().map(|path| format!("module-api/Cargo.toml: {path}")));
    for module in tree.folders("modules") {
        let folder = format!("modules/{module}");
        let dependencies = path_dependencies(tree, &folder).into_iter().filter(|path| path != "module-api");
        found.extend(dependencies.map(|path| format!("{folder}/Cargo.toml: {path}")));
        for (path, text) in ["c", "h"].iter().flat_map(|extension| tree.under(&folder, extension)) {
            // All that a module in C includes of ours are the public headers.
            let included = text.lines().filter_map(|line| line.trim_start().strip_prefix("#include \"")?.split('"').next());
            let others = included.filter(|name| *name != "modhost.h" && (!name.starts_with("modhost/") || name.contains("..")));
            found.extend(others.map(|name| format!("{path}: {name}")));
        }
    }
    found
}

/// What our crates depend on by path or by a repository: folders from the repository's root.
pub fn path_dependencies(tree: &Tree, folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Some(text) = tree.text(&format!("{folder}/Cargo.toml")) else { return found };
    let manifest = DeTable::parse(text).unwrap_or_else(|error| panic!("{folder}/Cargo.toml: {error}"));
    let mut tables = vec![manifest.get_ref()];
    let per_target = manifest.get_ref().get("target").and_then(|target| target.get_ref().as_table());
    tables.extend(per_target.into_iter().flat_map(|targets| targets.values()).filter_map(|value| value.get_ref().as_table()));
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = table.get(kind).and_then(|value| value.get_ref().as_table());
            for (name, value) in dependencies.into_iter().flatten() {
                let Some(dependency) = value.get_ref().as_table() else { continue };
                let text = |key: &str| dependency.get(key).and_then(|value| value.get_ref().as_str());
                if let Some(path) = text("path") {
                    found.insert(crate::graph::normal(&format!("{folder}/{path}")));
                } else if let Some(address) = text("git") {
                    found.insert(address.to_owned());
                } else if dependency.get("workspace").is_some_and(|value| matches!(value.get_ref(), DeValue::Boolean(true))) {
                    // The workspace says where it is; we have no such table.
                    found.insert(format!("{} of the workspace", name.get_ref()));
                }
            }
        }
    }
    found
}

/// Nothing of the host reaches `start` but the program: it composes, and is no library.
pub fn nothing_reaches_start(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for node in graph.nodes.iter().filter(|node| node.file != "host/src/program.rs" && !is_start(node)) {
        for edge in node.edges.iter().chain(&node.passed_on).filter(|edge| is_start(&graph.nodes[edge.to])) {
            found.push(format!("{}:{}: {} → {}", node.file, edge.line, node.name(), graph.nodes[edge.to].name()));
        }
    }
    found
}

fn is_start(node: &Node) -> bool {
    // Its name before it became a folder.
    node.is_in_host(&["start"]) || node.is_in_host(&["lifecycle"])
}

/// No source is brought in by `include!`: what it names could not be followed.
pub fn nothing_is_included(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for node in &graph.nodes {
        let included = node.macros().filter(|(name, _)| *name == "include");
        found.extend(included.map(|(_, line)| format!("{}:{line}: include!", node.file)));
    }
    found
}

/// The supervisor loads no module, looks into no shared memory of modules, and waits for no lock
/// that another process can hold.
pub fn supervisor_is_apart(graph: &Graph) -> Vec<String> {
    let reached = graph.reached_or_passed_on(graph.in_host(&["supervise"]));
    let mut found =
        first_findings(graph, &reached, |node| ["module", "shm", "state", "hostapi"].iter().any(|part| node.is_in_host(&[part])));
    found.extend(first_findings(graph, &reached, |node| node.outside.iter().any(|(path, _)| is_shared_lock(path))));
    for node in graph.in_host(&["supervise"]).map(|node| &graph.nodes[node]) {
        for (path, line) in &node.outside {
            if ["libloading", "std::sync::Mutex", "std::sync::RwLock", "std::sync::Condvar"].iter().any(|forbidden| may_be(path, forbidden))
            {
                found.push(format!("{}:{line}: {path}", node.file));
            }
        }
    }
    found
}

/// Whether this is the C library's lock for several processes, or what one is made with.
fn is_shared_lock(path: &str) -> bool {
    let name = path.rsplit("::").next().unwrap_or_default();
    name.starts_with("pthread_mutex") || name.starts_with("pthread_rwlock") || matches!(name, "PTHREAD_PROCESS_SHARED" | "SYS_futex")
}

/// The log is below the rest of the host: it reaches `sys` and the type of errors. `module-api` is
/// below the whole host.
pub fn log_is_lowest(graph: &Graph) -> Vec<String> {
    let reached = graph.reached_or_passed_on(graph.in_host(&["log"]));
    let is_above = |node: &Node| node.krate != "module_api" && !["log", "sys", "error"].iter().any(|part| node.is_in_host(&[part]));
    first_findings(graph, &reached, is_above)
}

/// The ways to modules that must not be reached, without those that lead on from another such
/// module.
fn first_findings(graph: &Graph, reached: &Reached, is_forbidden: impl Fn(&Node) -> bool) -> Vec<String> {
    let is_first = |to: usize| is_forbidden(&graph.nodes[to]) && !(reached[&to].0 != to && is_forbidden(&graph.nodes[reached[&to].0]));
    reached.keys().filter(|&&to| is_first(to)).map(|&to| graph.way(reached, to)).collect()
}

/// Files marked as pure reach no clock, no environment and no system call, themselves or through
/// others of ours.
pub fn pure_files(tree: &Tree, graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (path, _) in tree.all().filter(|(path, text)| path.ends_with(".rs") && is_marked_pure(text)) {
        let starts: Vec<usize> = (0..graph.nodes.len()).filter(|&node| graph.nodes[node].file == path).collect();
        if starts.is_empty() && path.contains("/src/") {
            found.push(format!("{path}: no module of a crate"));
        }
        let reached = graph.reached(starts.into_iter());
        for &to in reached.keys() {
            let node = &graph.nodes[to];
            let outside = node.outside.iter().filter(|(path, _)| IMPURE.iter().any(|forbidden| may_be(path, forbidden)));
            let mut reasons: Vec<String> = outside.map(|(path, line)| format!("{path} in line {line}")).collect();
            reasons.extend(
                node.methods().filter(|(name, _)| IMPURE_METHODS.contains(name)).map(|(name, line)| format!(".{name}() in line {line}")),
            );
            reasons.extend(
                node.macros().filter(|(name, _)| IMPURE_MACROS.contains(name)).map(|(name, line)| format!("{name}! in line {line}")),
            );
            reasons.extend(node.foreign().iter().map(|line| format!("an extern block in line {line}")));
            if !reasons.is_empty() {
                found.push(format!("{}: {}", graph.way(&reached, to), reasons.join(", ")));
            }
        }
    }
    found
}

/// Files whose purity others rely on carry the mark.
pub fn pure_files_are_marked(tree: &Tree) -> Vec<String> {
    let is_marked = |path: &str| tree.text(path).is_some_and(is_marked_pure);
    PURE_FILES.iter().filter(|path| !is_marked(path)).map(|path| format!("{path}: not there, or without the line {PURE}")).collect()
}

fn is_marked_pure(text: &str) -> bool {
    text.lines().take_while(|line| line.starts_with("//!")).any(|line| line == PURE)
}

/// Whether a path that code names can be this one, or something in it. A glob can be all that is in
/// it.
pub fn may_be(path: &str, forbidden: &str) -> bool {
    let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    within(path, forbidden) || path.strip_suffix("::*").is_some_and(|module| within(forbidden, module))
}

/// Black-box tests name no type of the host and depend on none of our crates.
pub fn tests_are_black_boxes(tree: &Tree) -> Vec<String> {
    let mut found: Vec<String> = path_dependencies(tree, "tests").into_iter().map(|path| format!("tests/Cargo.toml: {path}")).collect();
    for (path, text) in tree.under("tests", "rs") {
        let facts = crate::facts::of_whole_file(path, text);
        let named = facts
            .named()
            .into_iter()
            .filter(|named| named.segments.iter().find(|segment| !segment.is_empty()).is_some_and(|first| first == "modhost"));
        found.extend(named.map(|named| format!("{path}:{}: {}", named.line, named.segments.join("::"))));
    }
    found
}
