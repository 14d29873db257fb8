//! What the rules need to know of a Rust source: its modules, and in each what it defines, imports
//! and names. Code for tests (`#[cfg(test)]`, `#[test]`) is left out.

use std::collections::BTreeSet;

use proc_macro2::{Ident, Spacing, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Meta, Path, TraitItem, UseTree};

/// A path as it is written: `crate::log::level` has three segments. The first is empty for
/// `::std::fs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub segments: Vec<String>,
    pub line: usize,
}

/// One leaf of a `use` declaration.
#[derive(Clone, Debug)]
pub struct Import {
    pub path: Named,
    /// The name that it introduces; a glob has none.
    pub name: Option<String>,
    /// Whether others may use the name through this module.
    pub is_public: bool,
}

/// A `mod` declaration.
#[derive(Clone, Debug)]
pub struct Child {
    pub name: String,
    /// The value of its `#[path]`.
    pub path: Option<String>,
    /// The module itself, when it is written in the same file.
    pub inline: Option<Module>,
}

#[derive(Clone, Debug, Default)]
pub struct Module {
    pub children: Vec<Child>,
    pub imports: Vec<Import>,
    /// Paths of two segments and more, in code, attributes and the arguments of macros.
    pub paths: Vec<Named>,
    /// Macros that are called.
    pub macros: Vec<Named>,
    /// Names of types, functions, constants, statics and traits.
    pub items: Vec<String>,
    /// Names of the `macro_rules!` here.
    pub macro_rules: Vec<String>,
    /// The types of `impl` blocks.
    pub impls: Vec<Named>,
    /// Identifiers in code, outside imports.
    pub words: BTreeSet<String>,
    /// Methods that are called.
    pub methods: Vec<Named>,
    /// Lines of `extern` blocks.
    pub foreign: Vec<usize>,
}

/// # Panics
/// The text is no Rust.
pub fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path}:{}: {error}", error.span().start().line))
}

/// The facts of one file's product code. Nothing at all if the whole file is for tests.
pub fn of_file(path: &str, text: &str) -> Module {
    let file = parse(path, text);
    if is_for_tests(&file.attrs) { Module::default() } else { collected(&file, Tests::LeftOut) }
}

/// The facts of one file with its tests.
pub fn of_whole_file(path: &str, text: &str) -> Module {
    collected(&parse(path, text), Tests::Included)
}

fn collected(file: &syn::File, tests: Tests) -> Module {
    let mut collector = Collector { module: Module::default(), tests };
    collector.visit_file(file);
    collector.module
}

impl Module {
    /// All paths that are imported, named or called as macros, also in the modules written inside
    /// this one.
    pub fn named(&self) -> Vec<&Named> {
        let imports = self.imports.iter().map(|import| &import.path);
        let inside = self.children.iter().filter_map(|child| child.inline.as_ref()).flat_map(Self::named);
        imports.chain(&self.paths).chain(&self.macros).chain(inside).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tests {
    Included,
    LeftOut,
}

struct Collector {
    module: Module,
    tests: Tests,
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if self.leaves_out(attributes(item)) {
            return;
        }
        match item {
            Item::Const(item) => self.define(&item.ident),
            Item::Enum(item) => self.define(&item.ident),
            Item::Fn(item) => self.define(&item.sig.ident),
            Item::Static(item) => self.define(&item.ident),
            Item::Struct(item) => self.define(&item.ident),
            Item::Trait(item) => self.define(&item.ident),
            Item::TraitAlias(item) => self.define(&item.ident),
            Item::Type(item) => self.define(&item.ident),
            Item::Union(item) => self.define(&item.ident),
            Item::ExternCrate(item) => {
                let name = item.rename.as_ref().map_or(&item.ident, |(_, name)| name);
                let segment = if item.ident == "self" { "crate".to_owned() } else { text_of(&item.ident) };
                let path = Named { segments: vec![segment], line: item.ident.span().start().line };
                self.module.imports.push(Import { path, name: Some(text_of(name)), is_public: is_public(&item.vis) });
                return;
            }
            Item::ForeignMod(item) => self.module.foreign.push(item.abi.extern_token.span.start().line),
            Item::Impl(item) => {
                if let syn::Type::Path(of) = &*item.self_ty {
                    self.module.impls.push(named(&of.path));
                }
            }
            Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    self.module.macro_rules.push(text_of(name));
                }
            }
            Item::Mod(item) => {
                let mut inline = Collector { module: Module::default(), tests: self.tests };
                if let Some((_, items)) = &item.content {
                    items.iter().for_each(|item| inline.visit_item(item));
                }
                let inline = item.content.is_some().then_some(inline.module);
                self.module.children.push(Child { name: text_of(&item.ident), path: path_attribute(&item.attrs), inline });
                return;
            }
            Item::Use(item) => {
                self.module.imports.extend(imports(item));
                return;
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !self.leaves_out(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if !matches!(item, TraitItem::Fn(item) if self.leaves_out(&item.attrs)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.segments.len() > 1 {
            self.module.paths.push(named(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.module.words.insert(text_of(ident));
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let line = call.method.span().start().line;
        self.module.methods.push(Named { segments: vec![text_of(&call.method)], line });
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.module.macros.push(named(&call.path));
        scan(call.tokens.clone(), &mut self.module);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("doc") {
            return;
        }
        if let Meta::List(list) = &attribute.meta {
            scan(list.tokens.clone(), &mut self.module);
            strings(list.tokens.clone(), &mut self.module);
        }
    }

    /// `pub(in crate::net)` names a module and reaches nothing of it.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

impl Collector {
    fn leaves_out(&self, attributes: &[Attribute]) -> bool {
        self.tests == Tests::LeftOut && is_for_tests(attributes)
    }

    fn define(&mut self, name: &Ident) {
        self.module.items.push(text_of(name));
    }
}

/// Whether what has these attributes is compiled for tests alone.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => demands_test(list.tokens.clone()),
        _ => false,
    })
}

/// `test`, or an `all(...)` that contains it.
fn demands_test(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    match tokens.as_slice() {
        [TokenTree::Ident(word)] => word == "test",
        [TokenTree::Ident(word), TokenTree::Group(group)] if word == "all" => {
            group.stream().into_iter().any(|token| matches!(token, TokenTree::Ident(word) if word == "test"))
        }
        _ => false,
    }
}

pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

fn text_of(name: &Ident) -> String {
    name.to_string().trim_start_matches("r#").to_owned()
}

fn named(path: &Path) -> Named {
    let mut segments: Vec<String> = path.segments.iter().map(|segment| text_of(&segment.ident)).collect();
    if path.leading_colon.is_some() {
        segments.insert(0, String::new());
    }
    let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
    Named { segments, line }
}

/// The leaves of an import: each group, glob, rename and `self` by itself.
fn imports(item: &syn::ItemUse) -> Vec<Import> {
    let mut found = Vec::new();
    leaves(&item.tree, item.leading_colon.as_ref().map(|_| String::new()).into_iter().collect(), &mut found);
    found.iter_mut().for_each(|import| import.is_public = is_public(&item.vis));
    found
}

fn leaves(tree: &UseTree, mut prefix: Vec<String>, found: &mut Vec<Import>) {
    let mut leaf = |mut segments: Vec<String>, ident: &Ident, name: Option<String>| {
        if ident != "self" || segments.is_empty() {
            segments.push(text_of(ident));
        }
        let name = name.or_else(|| segments.last().cloned());
        found.push(Import { path: Named { segments, line: ident.span().start().line }, name, is_public: false });
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(text_of(&path.ident));
            leaves(&path.tree, prefix, found);
        }
        UseTree::Name(name) => leaf(prefix, &name.ident, None),
        UseTree::Rename(rename) => leaf(prefix, &rename.ident, Some(text_of(&rename.rename))),
        UseTree::Glob(glob) => {
            let path = Named { segments: prefix, line: glob.star_token.span.start().line };
            found.push(Import { path, name: None, is_public: false });
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, prefix.clone(), found)),
    }
}

fn is_public(visibility: &syn::Visibility) -> bool {
    !matches!(visibility, syn::Visibility::Inherited)
}

/// Finds what tokens that are no syntax tree yet name: the arguments of macros, and the bodies of
/// `macro_rules!`.
fn scan(tokens: TokenStream, module: &mut Module) {
    // `$crate::log` is `crate::log` here.
    let tokens: Vec<TokenTree> = tokens.into_iter().filter(|token| !is_punct(Some(token), '$')).collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                scan(group.stream(), module);
                at += 1;
            }
            TokenTree::Ident(word) if word == "use" => {
                let end = tokens[at..].iter().position(|token| is_punct(Some(token), ';')).map_or(at, |length| at + length + 1);
                match syn::parse2::<syn::ItemUse>(tokens[at..end].iter().cloned().collect()) {
                    Ok(item) => {
                        module.imports.extend(imports(&item));
                        at = end;
                    }
                    Err(_) => at += 1,
                }
            }
            TokenTree::Ident(word) if word == "extern" => {
                let is_block = tokens[at + 1..].iter().take(2).any(|token| matches!(token, TokenTree::Group(_)));
                if is_block {
                    module.foreign.push(word.span().start().line);
                }
                at += 1;
            }
            TokenTree::Ident(_) => at = path_at(&tokens, at, Vec::new(), module),
            // An absolute path, unless it goes on with a type: `Vec::<u8>::new`.
            TokenTree::Punct(_) if is_colons(&tokens, at) && !is_punct(at.checked_sub(1).and_then(|before| tokens.get(before)), '>') => {
                at = match tokens.get(at + 2) {
                    Some(TokenTree::Ident(_)) => path_at(&tokens, at + 2, vec![String::new()], module),
                    _ => at + 2,
                };
            }
            _ => at += 1,
        }
    }
}

/// Takes the path that begins at this identifier, and returns where the tokens go on.
fn path_at(tokens: &[TokenTree], start: usize, mut segments: Vec<String>, module: &mut Module) -> usize {
    let line = tokens[start].span().start().line;
    let mut at = start;
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        module.words.insert(text_of(word));
        segments.push(text_of(word));
        at += 1;
        if !is_colons(tokens, at) {
            break;
        }
        match tokens.get(at + 2) {
            Some(TokenTree::Ident(_)) => at += 2,
            Some(token) if is_punct(Some(token), '*') => {
                let path = Named { segments: segments.clone(), line };
                module.imports.push(Import { path, name: None, is_public: false });
                break;
            }
            _ => break,
        }
    }
    let is_call = matches!(tokens.get(at), Some(TokenTree::Group(_)));
    let is_macro = is_punct(tokens.get(at), '!') && matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
    let after_dot = is_punct(start.checked_sub(1).and_then(|before| tokens.get(before)), '.');
    let path = Named { segments, line };
    if is_macro {
        module.macros.push(path);
    } else if path.segments.len() > 1 {
        module.paths.push(path);
    } else if after_dot && (is_call || is_colons(tokens, at)) {
        module.methods.push(path);
    }
    at
}

/// Paths in the strings of an attribute: `#[serde(with = "crate::log::level")]`.
fn strings(tokens: TokenStream, module: &mut Module) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => strings(group.stream(), module),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if let (true, Ok(path)) = (text.contains("::"), syn::parse_str::<Path>(text.trim_matches('"'))) {
                    module.paths.push(Named { line: literal.span().start().line, ..named(&path) });
                }
            }
            _ => {}
        }
    }
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// Whether `::` is at this place.
fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is_joint = matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint);
    is_joint && is_punct(tokens.get(at + 1), ':')
}
