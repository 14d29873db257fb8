//! Names of types and functions, and the types of parameters.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{FnArg, ImplItem, Item, Signature, TraitItem, Visibility};

use crate::facts;
use crate::graph::Graph;
use crate::tree::Tree;

/// The files of a crate, without those for tests.
fn files_of<'a>(graph: &'a Graph, krate: &str) -> BTreeSet<&'a str> {
    graph.nodes.iter().filter(|node| node.krate == krate).map(|node| node.file.as_str()).collect()
}

/// No name of a type is used twice in a crate. `abi::X` may be the C side of the SDK's `X`.
pub fn type_names_are_used_once(tree: &Tree, graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    let crates: BTreeSet<&str> = graph.nodes.iter().map(|node| node.krate.as_str()).collect();
    for krate in crates {
        let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in files_of(graph, krate) {
            let mut types = Types::default();
            types.visit_file(&facts::parse(file, tree.text(file).unwrap_or_default()));
            for (name, line) in types.found {
                places.entry(name).or_default().insert(format!("{file}:{line}"));
            }
        }
        for (name, mut places) in places {
            if krate == "module_api" && places.iter().any(|place| place.starts_with("module-api/src/abi")) {
                let first = places.iter().find(|place| place.starts_with("module-api/src/abi")).cloned().unwrap_or_default();
                places.remove(&first);
            }
            if places.len() > 1 {
                found.push(format!("{name}: {}", places.into_iter().collect::<Vec<_>>().join(", ")));
            }
        }
    }
    found
}

#[derive(Default)]
struct Types {
    found: Vec<(String, usize)>,
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item(&mut self, item: &'ast Item) {
        if facts::is_for_tests(facts::attributes(item)) {
            return;
        }
        let name = match item {
            Item::Enum(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::TraitAlias(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        self.found.extend(name.map(|name| (name.to_string(), name.span().start().line)));
        visit::visit_item(self, item);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.in_tokens(call.tokens.clone());
    }
}

impl Types {
    /// Types that the body of a macro defines under a fixed name.
    fn in_tokens(&mut self, tokens: TokenStream) {
        let mut after_keyword = false;
        for token in tokens {
            let was_after_keyword = std::mem::take(&mut after_keyword);
            match token {
                TokenTree::Group(group) => self.in_tokens(group.stream()),
                TokenTree::Ident(word) if was_after_keyword => self.found.push((word.to_string(), word.span().start().line)),
                TokenTree::Ident(word) => after_keyword = word == "struct" || word == "enum" || word == "trait",
                _ => {}
            }
        }
    }
}

/// No function that others call takes a `bool`, nor a closure that takes one: an enum of two
/// variants names both cases.
pub fn no_bool_parameters(tree: &Tree, graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for krate in ["modhost", "modhost_main", "module_api"] {
        for file in files_of(graph, krate) {
            let mut functions = BoolParameters { file, found: &mut found };
            functions.visit_file(&facts::parse(file, tree.text(file).unwrap_or_default()));
        }
    }
    found
}

struct BoolParameters<'a> {
    file: &'a str,
    found: &'a mut Vec<String>,
}

impl<'ast> Visit<'ast> for BoolParameters<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if facts::is_for_tests(facts::attributes(item)) {
            return;
        }
        match item {
            Item::Fn(item) if is_for_others(&item.vis) => self.check(&item.sig),
            Item::Trait(item) if is_for_others(&item.vis) => {
                for item in &item.items {
                    if let TraitItem::Fn(method) = item {
                        self.check(&method.sig);
                    }
                }
            }
            Item::Impl(item) => {
                for item in &item.items {
                    if let ImplItem::Fn(method) = item
                        && is_for_others(&method.vis)
                        && !facts::is_for_tests(&method.attrs)
                    {
                        self.check(&method.sig);
                    }
                }
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }
}

impl BoolParameters<'_> {
    fn check(&mut self, signature: &Signature) {
        // The parameters themselves, and what closures take that are passed in or returned.
        let mut inputs = Bools { count: 0, depth: 1 };
        for input in &signature.inputs {
            if let FnArg::Typed(input) = input {
                inputs.visit_type(&input.ty);
            }
        }
        inputs.depth = 0;
        inputs.visit_generics(&signature.generics);
        inputs.visit_return_type(&signature.output);
        if inputs.count > 0 {
            self.found.push(format!("{}:{}: fn {}", self.file, signature.ident.span().start().line, signature.ident));
        }
    }
}

/// Counts each `bool` that goes in.
struct Bools {
    count: usize,
    /// Whether a `bool` here is an argument: in a parameter's type, or in the arguments of a
    /// closure's type.
    depth: usize,
}

impl<'ast> Visit<'ast> for Bools {
    fn visit_type_path(&mut self, path: &'ast syn::TypePath) {
        if self.depth > 0 && path.path.is_ident("bool") {
            self.count += 1;
        }
        visit::visit_type_path(self, path);
    }

    /// What a function writes to is a result.
    fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
        if reference.mutability.is_none() {
            visit::visit_type_reference(self, reference);
        }
    }

    fn visit_parenthesized_generic_arguments(&mut self, arguments: &'ast syn::ParenthesizedGenericArguments) {
        self.arguments(arguments.inputs.iter());
    }

    fn visit_type_fn_ptr(&mut self, pointer: &'ast syn::TypeFnPtr) {
        self.arguments(pointer.inputs.iter());
    }
}

impl Bools {
    fn arguments<'ast>(&mut self, arguments: impl Iterator<Item = &'ast syn::NamedArg>) {
        self.depth += 1;
        arguments.for_each(|argument| self.visit_type(&argument.ty));
        self.depth -= 1;
    }
}

/// Whether code outside the module may call what has this visibility.
fn is_for_others(visibility: &Visibility) -> bool {
    match visibility {
        Visibility::Public(_) => true,
        Visibility::Restricted(restricted) => !restricted.path.is_ident("self"),
        Visibility::Inherited => false,
    }
}

/// No type or module is called Manager, Helper, Util or Common, and no function `get_`.
pub fn no_empty_words(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in ["host", "module-api", "modules", "tests"].iter().flat_map(|folder| tree.under(folder, "rs")) {
        let tokens = text.parse::<TokenStream>().unwrap_or_else(|error| panic!("{path}: {error}"));
        empty_words(path, tokens, &mut found);
    }
    found
}

fn empty_words(path: &str, tokens: TokenStream, found: &mut Vec<String>) {
    let mut keyword = String::new();
    for token in tokens {
        let before = std::mem::take(&mut keyword);
        match token {
            TokenTree::Group(group) => empty_words(path, group.stream(), found),
            TokenTree::Ident(word) => {
                let name = word.to_string();
                let is_empty = ["manager", "helper", "util", "common"].iter().any(|empty| name.to_lowercase().contains(empty));
                let is_named = matches!(before.as_str(), "struct" | "enum" | "trait" | "type" | "mod" | "union");
                // The service manager is somebody else, and is called that.
                if (is_named && is_empty && name != "ServiceManager") || (before == "fn" && name.starts_with("get_")) {
                    found.push(format!("{path}:{}: {before} {name}", word.span().start().line));
                }
                keyword = name;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod breaches {
    use super::*;

    fn findings(files: &[(&str, &str)], rule: fn(&Tree, &Graph) -> Vec<String>) -> Vec<String> {
        let tree = Tree::of(files);
        rule(&tree, &Graph::of(&tree))
    }

    #[test]
    fn a_type_name_that_is_used_twice_is_found() {
        let lib = ("host/src/lib.rs", "mod a; mod b;");
        let kinds = [
            "struct Row;",
            "pub(super) enum Row { A }",
            "trait Row {}",
            "type Row = u8;",
            "union Row { a: u8 }",
            "mod c { pub struct Row; }",
            "fn f() { struct Row; }",
            "macro_rules! rows { () => { pub struct Row(u8); } }",
        ];
        for kind in kinds {
            let found = findings(&[lib, ("host/src/a.rs", "pub struct Row<T>(T);"), ("host/src/b.rs", kind)], type_names_are_used_once);
            assert_eq!(found, ["Row: host/src/a.rs:1, host/src/b.rs:1"], "{kind}");
        }
        let harmless = [
            "#[cfg(test)] mod tests { struct Row; }",
            "impl Iterator for S { type Row = u8; }",
            "fn row() { let row = Row; }",
            "macro_rules! rows { ($Row:ident) => { struct $Row; } }",
        ];
        for source in harmless {
            let found = findings(&[lib, ("host/src/a.rs", "struct Row;"), ("host/src/b.rs", source)], type_names_are_used_once);
            assert_eq!(found, [""; 0], "{source}");
        }
    }

    #[test]
    fn the_abi_may_have_the_names_of_the_sdk_once() {
        let api = |name| {
            [
                ("module-api/src/lib.rs", "mod abi; mod udp; mod stream;"),
                ("module-api/src/abi.rs", "pub struct Host;"),
                (name, "pub struct Host;"),
            ]
        };
        assert_eq!(findings(&api("module-api/src/udp.rs"), type_names_are_used_once), [""; 0]);
        let twice = [api("module-api/src/udp.rs").as_slice(), &[("module-api/src/stream.rs", "pub struct Host;")]].concat();
        assert_eq!(findings(&twice, type_names_are_used_once).len(), 1);
        let modules = [("modules/a/src/lib.rs", "struct Row;"), ("modules/b/src/lib.rs", "struct Row;")];
        assert_eq!(findings(&modules, type_names_are_used_once), [""; 0]);
    }

    #[test]
    fn a_bool_that_is_passed_is_found() {
        let forms = [
            "pub fn f(is_open: bool) {}",
            "pub(crate) const unsafe fn f(_: &bool) {}",
            "pub(super) async fn f(first: u8, (a, b): (u8, Option<bool>)) {}",
            "pub fn f(call: impl Fn(bool) -> u8) {}",
            "pub fn f<F>(call: F) where F: FnMut(u8, bool) {}",
            "pub fn f<F: FnOnce(&[bool])>(call: F) {}",
            "pub fn f(call: Box<dyn Fn(u8, bool)>) {}",
            "pub fn f(call: extern \"C\" fn(bool)) {}",
            "pub fn f() -> impl Fn(bool) { |_| {} }",
            "struct S; impl S { pub fn f(&self, is_open: bool) {} }",
            "pub trait T { fn f(&self, is_open: bool); }",
            "mod inner { pub fn f(is_open: bool) {} }",
        ];
        for form in forms {
            assert_eq!(findings(&[("module-api/src/lib.rs", form)], no_bool_parameters), ["module-api/src/lib.rs:1: fn f"], "{form}");
        }
    }

    #[test]
    fn other_bools_are_not_found() {
        let forms = [
            "fn f(is_open: bool) {}",
            "pub(self) fn f(is_open: bool) {}",
            "trait T { fn f(&self, is_open: bool); }",
            "impl From<bool> for S { fn from(value: bool) -> S { S } }",
            "pub fn f(found: &mut bool) -> bool { true }",
            "pub fn f(test: impl Fn(u8) -> bool, with: fn() -> bool) -> Option<bool> { None }",
            "#[cfg(test)] mod tests { pub fn f(is_open: bool) {} }",
            "pub struct S { pub is_open: bool }",
        ];
        for form in forms {
            assert_eq!(findings(&[("host/src/lib.rs", form)], no_bool_parameters), [""; 0], "{form}");
        }
    }

    #[test]
    fn an_empty_name_is_found() {
        let empty = |text| no_empty_words(&Tree::of(&[("modules/a/src/lib.rs", text)]));
        for form in
            ["struct ModuleManager;", "mod utils {}", "fn f() { enum Helper {} }", "m! { type CommonName = u8; }", "fn get_value() {}"]
        {
            assert_eq!(empty(form).len(), 1, "{form}");
        }
        for form in
            ["struct ServiceManager;", "// struct Helper\nfn get() {}", "const TEXT: &str = \"fn get_value\";", "fn f() { get_value() }"]
        {
            assert_eq!(empty(form), [""; 0], "{form}");
        }
    }
}
