//! The graph of what modules of our crates may reach, over every form of import and every path in
//! code.
//!
//! A name leads to the module that defines it, through re-exports, globs and renames. A type also
//! leads to every module with an `impl` for it: code that has a value can call its methods without
//! naming their module. A path that cannot be followed to its end leads to the last module known.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::OnceLock;

use crate::facts::{self, Child, Import, Module, Named};
use crate::tree::Tree;

/// The modules of all crates.
pub struct Graph {
    pub nodes: Vec<Node>,
    /// The root of each library crate, by the name that code uses.
    crates: BTreeMap<String, usize>,
}

/// A module: a file, or an inline module inside one.
pub struct Node {
    /// `modhost`, `module_api`, or the name of a module crate; the program's own root is
    /// `modhost_main`.
    pub krate: String,
    /// `["log", "levels"]`; empty at the root.
    pub path: Vec<String>,
    pub file: String,
    /// Where the files of its modules are.
    folder: String,
    facts: Module,
    parent: Option<usize>,
    root: usize,
    children: BTreeMap<String, usize>,
    /// Modules of ours that it may reach directly.
    pub edges: Vec<Edge>,
    /// Modules of ours whose names it only passes on: who uses the names has the edges.
    pub passed_on: Vec<Edge>,
    /// Paths into crates that are not ours, as far as they are written: `std::fs::read`, or
    /// `std::fs::*` for a glob.
    pub outside: Vec<(String, usize)>,
}

/// Where a module is.
struct Place<'a> {
    krate: &'a str,
    parent: Option<usize>,
    path: Vec<String>,
    file: &'a str,
    folder: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub to: usize,
    /// Where it is written: in the file of the module that the edge leaves, or in that of an `impl`
    /// that it leads to.
    pub line: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Ours(usize),
    Outside(String),
}

/// Modules that can be reached, each with the module before it on a shortest way, or itself, and
/// the line of that step.
pub type Reached = BTreeMap<usize, (usize, usize)>;

/// Names whose imports are being followed. An import that leads to itself ends there.
type Seen = HashSet<(usize, String)>;

impl Node {
    /// `modhost::log::levels`.
    pub fn name(&self) -> String {
        let start = std::slice::from_ref(&self.krate);
        start.iter().chain(&self.path).cloned().collect::<Vec<_>>().join("::")
    }

    /// Whether it is this module of the host or one inside it.
    pub fn is_in_host(&self, path: &[&str]) -> bool {
        self.krate == "modhost" && self.path.iter().map(String::as_str).take(path.len()).eq(path.iter().copied())
    }

    /// Methods that it calls.
    pub fn methods(&self) -> impl Iterator<Item = (&str, usize)> {
        self.facts.methods.iter().filter_map(|named| Some((named.segments.last()?.as_str(), named.line)))
    }

    /// Macros that it calls.
    pub fn macros(&self) -> impl Iterator<Item = (&str, usize)> {
        self.facts.macros.iter().filter_map(|named| Some((named.segments.last()?.as_str(), named.line)))
    }

    /// Lines of its `extern` blocks.
    pub fn foreign(&self) -> &[usize] {
        &self.facts.foreign
    }
}

impl Graph {
    /// The graph of the repository. Built once per test program.
    pub fn repository() -> &'static Self {
        static GRAPH: OnceLock<Graph> = OnceLock::new();
        GRAPH.get_or_init(|| Self::of(Tree::repository()))
    }

    pub fn of(tree: &Tree) -> Self {
        let mut graph = Self { nodes: Vec::new(), crates: BTreeMap::new() };
        let mut roots =
            vec![("modhost".to_owned(), "host/src/lib.rs".to_owned()), ("modhost_main".to_owned(), "host/src/main.rs".to_owned())];
        roots.push(("module_api".to_owned(), "module-api/src/lib.rs".to_owned()));
        roots.extend(tree.folders("modules").into_iter().map(|name| (name.replace('-', "_"), format!("modules/{name}/src/lib.rs"))));
        for (name, file) in roots {
            if let Some(text) = tree.text(&file) {
                let root = graph.nodes.len();
                let place = Place { krate: &name, parent: None, path: Vec::new(), file: &file, folder: folder_for_children(&file) };
                graph.add(tree, place, facts::of_file(&file, text));
                graph.crates.insert(name, root);
            }
        }
        graph.connect();
        graph
    }

    /// Adds a module of a crate and those below it.
    fn add(&mut self, tree: &Tree, place: Place<'_>, mut facts: Module) -> usize {
        let number = self.nodes.len();
        let Place { krate, parent, path, file, folder } = place;
        let children = std::mem::take(&mut facts.children);
        self.nodes.push(Node {
            krate: krate.to_owned(),
            path: path.clone(),
            file: file.to_owned(),
            folder: folder.clone(),
            facts,
            parent,
            root: parent.map_or(number, |parent| self.nodes[parent].root),
            children: BTreeMap::new(),
            edges: Vec::new(),
            passed_on: Vec::new(),
            outside: Vec::new(),
        });
        for Child { name, path: attribute, inline } in children {
            let path = [path.as_slice(), std::slice::from_ref(&name)].concat();
            let parent = Some(number);
            let added = if let Some(inline) = inline {
                self.add(tree, Place { krate, parent, path, file, folder: format!("{folder}/{name}") }, inline)
            } else if let Some(file) = child_file(tree, &self.nodes[number], &name, attribute.as_deref()) {
                let facts = facts::of_file(&file, tree.text(&file).unwrap_or_default());
                self.add(tree, Place { krate, parent, path, file: &file, folder: folder_for_children(&file) }, facts)
            } else {
                continue;
            };
            self.nodes[number].children.insert(name, added);
        }
        number
    }

    fn connect(&mut self) {
        let mut edges = vec![BTreeSet::new(); self.nodes.len()];
        for from in 0..self.nodes.len() {
            let (mut passed_on, mut outside) = (BTreeSet::new(), BTreeSet::new());
            let facts = &self.nodes[from].facts;
            for import in &facts.imports {
                let line = import.path.line;
                let is_used = !import.is_public || import.name.as_ref().is_none_or(|name| facts.words.contains(name));
                for target in self.resolve(from, &import.path.segments, &mut Seen::new()) {
                    match target {
                        Target::Ours(to) if !is_used => _ = passed_on.insert((to, line)),
                        Target::Ours(to) if import.name.is_some() => _ = edges[from].insert((to, line)),
                        // All that the module imports is brought in too.
                        Target::Ours(to) => edges[from].extend(self.imported(to).into_iter().chain([to]).map(|to| (to, line))),
                        Target::Outside(path) if import.name.is_some() => _ = outside.insert((path, line)),
                        Target::Outside(path) => _ = outside.insert((format!("{path}::*"), line)),
                    }
                }
            }
            for Named { segments, line } in facts.paths.iter().chain(&facts.macros) {
                for target in self.resolve(from, segments, &mut Seen::new()) {
                    match target {
                        Target::Ours(to) => _ = edges[from].insert((to, *line)),
                        Target::Outside(path) => _ = outside.insert((path, *line)),
                    }
                }
            }
            for Named { segments, line } in &facts.impls {
                for target in self.resolve(from, segments, &mut Seen::new()) {
                    if let Target::Ours(to) = target
                        && self.nodes[to].krate == self.nodes[from].krate
                    {
                        edges[to].insert((from, *line));
                    }
                }
            }
            self.nodes[from].passed_on = to_edges(passed_on, from);
            self.nodes[from].outside = outside.into_iter().collect();
        }
        for (number, edges) in edges.into_iter().enumerate() {
            self.nodes[number].edges = to_edges(edges, number);
        }
    }

    /// Where a path leads that is written in this module.
    fn resolve(&self, from: usize, segments: &[String], seen: &mut Seen) -> Vec<Target> {
        let Some((first, rest)) = segments.split_first() else { return Vec::new() };
        match first.as_str() {
            "" => self.in_crates(rest, seen),
            "Self" => Vec::new(),
            "crate" => self.descend(self.nodes[from].root, rest, seen),
            "self" => self.descend(from, rest, seen),
            "super" => self.nodes[from].parent.map_or_else(Vec::new, |parent| self.descend(parent, rest, seen)),
            name => {
                let found = self.look_up(from, name, rest, seen);
                if !found.is_empty() {
                    return found;
                }
                // The name of a macro counts in the whole crate.
                if let (Some(defining), true) = (self.macro_by_name(self.nodes[from].root, name), rest.is_empty()) {
                    return vec![Target::Ours(defining)];
                }
                let mut found = self.in_crates(segments, seen);
                if matches!(found.as_slice(), [Target::Outside(_)]) {
                    // It may come from a glob.
                    found.extend(self.globs(from, seen).into_iter().filter_map(|target| match target {
                        Target::Outside(path) => Some(Target::Outside(format!("{path}::{}", segments.join("::")))),
                        Target::Ours(_) => None,
                    }));
                }
                found
            }
        }
    }

    /// Where the globs of a module lead. Empty while they are being followed.
    fn globs(&self, node: usize, seen: &mut Seen) -> Vec<Target> {
        let mark = (node, "*".to_owned());
        if !seen.insert(mark.clone()) {
            return Vec::new();
        }
        let globs = self.nodes[node].facts.imports.iter().filter(|import| import.name.is_none());
        let found = globs.flat_map(|glob| self.resolve(node, &glob.path.segments, seen)).collect();
        seen.remove(&mark);
        found
    }

    /// Where a path leads that begins with the name of a crate.
    fn in_crates(&self, segments: &[String], seen: &mut Seen) -> Vec<Target> {
        match segments.split_first() {
            Some((name, rest)) if self.crates.contains_key(name) => self.descend(self.crates[name], rest, seen),
            _ => vec![Target::Outside(standard(segments))],
        }
    }

    fn descend(&self, node: usize, segments: &[String], seen: &mut Seen) -> Vec<Target> {
        match segments.split_first() {
            None => vec![Target::Ours(node)],
            Some((name, rest)) if name == "self" => self.descend(node, rest, seen),
            Some((name, rest)) if name == "super" => {
                self.nodes[node].parent.map_or_else(Vec::new, |parent| self.descend(parent, rest, seen))
            }
            Some((name, rest)) => {
                let found = self.look_up(node, name, rest, seen);
                if found.is_empty() { vec![Target::Ours(node)] } else { found }
            }
        }
    }

    /// What a name is in a module: a module in it, something defined or imported there, or a macro
    /// at the root of a crate.
    fn look_up(&self, node: usize, name: &str, rest: &[String], seen: &mut Seen) -> Vec<Target> {
        if !seen.insert((node, name.to_owned())) {
            return Vec::new();
        }
        let (module, mut found) = (&self.nodes[node], Vec::new());
        let child = module.children.get(name);
        if let Some(child) = child {
            found.extend(self.descend(*child, rest, seen));
        }
        let is_defined = module.facts.items.iter().any(|item| item == name);
        if is_defined && (rest.is_empty() || child.is_none()) {
            found.push(Target::Ours(node));
        }
        if module.parent.is_none() && rest.is_empty() {
            found.extend(self.macro_by_name(node, name).map(Target::Ours));
        }
        for Import { path, .. } in module.facts.imports.iter().filter(|import| import.name.as_deref() == Some(name)) {
            found.extend(self.resolve(node, &[path.segments.as_slice(), rest].concat(), seen));
        }
        if found.is_empty() {
            for target in self.globs(node, seen) {
                if let Target::Ours(from) = target {
                    found.extend(self.look_up(from, name, rest, seen));
                }
            }
        }
        seen.remove(&(node, name.to_owned()));
        found
    }

    /// The modules that what this module imports leads to.
    fn imported(&self, node: usize) -> Vec<usize> {
        let targets = self.nodes[node].facts.imports.iter().flat_map(|import| self.resolve(node, &import.path.segments, &mut Seen::new()));
        targets.filter_map(|target| if let Target::Ours(to) = target { Some(to) } else { None }).collect()
    }

    /// The module of a crate that defines a macro of this name.
    fn macro_by_name(&self, root: usize, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.root == root && node.facts.macro_rules.iter().any(|defined| defined == name))
    }

    /// These modules and all that their code may reach.
    pub fn reached(&self, starts: impl Iterator<Item = usize>) -> Reached {
        self.reached_from(starts.map(|start| (start, (start, 0))).collect())
    }

    /// The same, and all that the names lead to which these modules only pass on.
    pub fn reached_or_passed_on(&self, starts: impl Iterator<Item = usize>) -> Reached {
        let mut before: Reached = starts.map(|start| (start, (start, 0))).collect();
        for from in before.keys().copied().collect::<Vec<_>>() {
            for edge in &self.nodes[from].passed_on {
                before.entry(edge.to).or_insert((from, edge.line));
            }
        }
        self.reached_from(before)
    }

    fn reached_from(&self, mut before: Reached) -> Reached {
        let mut queue: VecDeque<usize> = before.keys().copied().collect();
        while let Some(from) = queue.pop_front() {
            for edge in &self.nodes[from].edges {
                before.entry(edge.to).or_insert_with(|| {
                    queue.push_back(edge.to);
                    (from, edge.line)
                });
            }
        }
        before
    }

    /// The way to a module that `reached` has found, as a finding: `host/src/a.rs:3: modhost::a →
    /// modhost::b`.
    pub fn way(&self, before: &Reached, to: usize) -> String {
        let (mut names, mut at, mut first_line) = (vec![self.nodes[to].name()], to, 0);
        while before[&at].0 != at {
            (at, first_line) = before[&at];
            names.push(self.nodes[at].name());
        }
        names.reverse();
        format!("{}:{first_line}: {}", self.nodes[at].file, names.join(" → "))
    }

    /// Modules of this crate of the host, at this path and below it.
    pub fn in_host<'a>(&'a self, path: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].is_in_host(path))
    }
}

fn to_edges(found: BTreeSet<(usize, usize)>, from: usize) -> Vec<Edge> {
    found.into_iter().filter(|(to, _)| *to != from).map(|(to, line)| Edge { to, line }).collect()
}

/// `std` for the parts of it that have another name too.
fn standard(segments: &[String]) -> String {
    let path = segments.join("::");
    match path.split_once("::") {
        Some(("core" | "alloc", rest)) => format!("std::{rest}"),
        _ => path,
    }
}

/// The file of a module that is declared in another.
fn child_file(tree: &Tree, declaring: &Node, name: &str, attribute: Option<&str>) -> Option<String> {
    if let Some(attribute) = attribute {
        return existing(tree, normal(&format!("{}/{attribute}", folder_of(&declaring.file))));
    }
    let folder = &declaring.folder;
    existing(tree, format!("{folder}/{name}.rs")).or_else(|| existing(tree, format!("{folder}/{name}/mod.rs")))
}

/// The folder for the modules that a file declares.
fn folder_for_children(file: &str) -> String {
    let stem = file.trim_end_matches(".rs");
    match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn existing(tree: &Tree, path: String) -> Option<String> {
    tree.has(&path).then_some(path)
}
/// A path without `..`.
pub fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => _ = parts.pop(),
            "." => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}
