//! The files of a crate as a graph: which file imports what from which other one.
//!
//! ```text
//! root file -> `mod` declarations -> modules, each with its file, its names and its paths
//!                                       each path -> the file that defines what it names
//! ```
//!
//! Files are parsed with `syn`. Code under `#[cfg(test)]` is left out. A path is followed through
//! re-exports to the file that defines the item. A re-export by itself is no import: a `mod.rs` may
//! re-export what its children define.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// The first use of an item of another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub from: PathBuf,
    pub line: usize,
    pub to: PathBuf,
    /// The path as written.
    pub path: String,
}

/// A module of the crate: `crate` is `[]`, `crate::ring::slot` is `["ring", "slot"]`.
pub type ModulePath = Vec<String>;

/// A module, and what it says.
pub struct Module {
    file: PathBuf,
    pub items: Vec<Item>,
    /// Names that `use` declarations bring into the module, with the paths that they stand for.
    names: BTreeMap<String, Vec<String>>,
    /// The paths that make imports.
    paths: Vec<WrittenPath>,
}

#[derive(Clone)]
struct WrittenPath {
    segments: Vec<String>,
    line: usize,
    is_use: bool,
}

/// The imports between the files of the crate whose root is `root`, relative to `base`; of those from
/// one file to one other file, the first.
pub fn imports(root: &Path, base: &Path) -> Vec<Import> {
    let tree = Tree::read(root);
    let mut imports: Vec<Import> = Vec::new();
    for (module_path, module) in &tree.modules {
        for path in &module.paths {
            let Some(target) = tree.resolve(module_path, &path.segments) else { continue };
            let target = &tree.modules[&target.module].file;
            let from = module.file.strip_prefix(base).unwrap().to_owned();
            let to = target.strip_prefix(base).unwrap().to_owned();
            if from != to && !imports.iter().any(|other| other.from == from && other.to == to) {
                imports.push(Import { from, line: path.line, to, path: path.segments.join("::") });
            }
        }
    }
    imports
}

/// What a path names: a module, or an item of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Definition {
    pub module: ModulePath,
    pub item: Option<String>,
}

/// All modules of a crate.
pub struct Tree {
    pub modules: BTreeMap<ModulePath, Module>,
}

impl Tree {
    /// Reads the crate whose root file is `root`.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self { modules: BTreeMap::new() };
        tree.read_file(Vec::new(), root, root.parent().unwrap());
        tree
    }

    /// Reads `file`, which is the module `path`; files of its child modules are in `directory`.
    fn read_file(&mut self, path: ModulePath, file: &Path, directory: &Path) {
        let text = std::fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        let parsed = syn::parse_file(&text)
            .unwrap_or_else(|error| panic!("cannot parse {}: {error}", file.display()));
        self.read_items(path, file, directory, &parsed.items);
    }

    fn read_items(&mut self, path: ModulePath, file: &Path, directory: &Path, items: &[Item]) {
        let mut collected = Collected::default();
        for item in items {
            collected.visit_item(item);
        }
        // A name that a plain `use` brings in was counted there.
        let Collected { names, imported, mut paths } = collected;
        paths.retain(|path| path.is_use || !imported.contains(&path.segments[0]));
        let module = Module { file: file.to_owned(), items: items.to_vec(), names, paths };
        self.modules.insert(path.clone(), module);
        for item in items {
            let Item::Mod(child) = item else { continue };
            if is_for_tests(&child.attrs) {
                continue;
            }
            let name = child.ident.to_string();
            let mut child_path = path.clone();
            child_path.push(name.clone());
            let child_directory = directory.join(&name);
            match &child.content {
                Some((_, items)) => self.read_items(child_path, file, &child_directory, items),
                None => {
                    let flat = directory.join(format!("{name}.rs"));
                    let nested = child_directory.join("mod.rs");
                    let file = if flat.exists() { flat } else { nested };
                    self.read_file(child_path, &file, &child_directory);
                }
            }
        }
    }

    /// What `segments`, written in the module `within`, name; `None` for items of other crates.
    pub fn resolve(&self, within: &[String], segments: &[String]) -> Option<Definition> {
        self.follow(within, segments, 0)
    }

    fn follow(&self, within: &[String], segments: &[String], depth: usize) -> Option<Definition> {
        if depth > 16 {
            return None;
        }
        let mut module = within.to_vec();
        let mut rest = segments;
        let is_relative = !matches!(rest.first()?.as_str(), "crate" | "super" | "self");
        if is_relative && self.child(&module, &rest[0]).is_none() {
            let full = match self.modules[&module].names.get(&rest[0]) {
                Some(alias) if alias == segments => return None,
                Some(alias) => alias.iter().chain(&rest[1..]).cloned().collect::<Vec<_>>(),
                None => {
                    return self.modules[&module]
                        .defines(&rest[0])
                        .then(|| Definition { module, item: Some(rest[0].clone()) });
                }
            };
            return self.follow(within, &full, depth + 1);
        }
        while let Some((segment, others)) = rest.split_first() {
            match segment.as_str() {
                "crate" => module.clear(),
                "self" => {}
                "super" => drop(module.pop()),
                name => match self.child(&module, name) {
                    Some(child) => module = child,
                    None => {
                        let own = Definition { module: module.clone(), item: Some(name.into()) };
                        let alias = self.modules[&module].names.get(name);
                        return match alias {
                            Some(alias) => self.follow(&module, alias, depth + 1),
                            None => Some(own),
                        };
                    }
                },
            }
            rest = others;
        }
        Some(Definition { module, item: None })
    }

    fn child(&self, module: &[String], name: &str) -> Option<ModulePath> {
        let mut child = module.to_vec();
        child.push(name.to_owned());
        self.modules.contains_key(&child).then_some(child)
    }
}

impl Module {
    /// Whether it has an item called `name`.
    fn defines(&self, name: &str) -> bool {
        self.items.iter().any(|item| item_name(item).is_some_and(|own| own == name))
    }
}

/// What one module says.
#[derive(Default)]
struct Collected {
    names: BTreeMap<String, Vec<String>>,
    /// The names that are not re-exported.
    imported: BTreeSet<String>,
    paths: Vec<WrittenPath>,
}

impl Collected {
    fn use_tree(&mut self, tree: &UseTree, mut prefix: Vec<String>, is_import: bool) {
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix, is_import);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, prefix.clone(), is_import);
                }
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                let known_as =
                    if name == "self" { prefix.last().cloned() } else { Some(name.clone()) };
                if name != "self" {
                    prefix.push(name);
                }
                self.named(known_as.unwrap_or_default(), prefix, line, is_import);
            }
            UseTree::Rename(rename) => {
                prefix.push(rename.ident.to_string());
                self.named(rename.rename.to_string(), prefix, line, is_import);
            }
            UseTree::Glob(_) => {
                self.paths.push(WrittenPath { segments: prefix, line, is_use: true });
            }
        }
    }

    fn named(&mut self, name: String, segments: Vec<String>, line: usize, is_import: bool) {
        if is_import {
            self.paths.push(WrittenPath { segments: segments.clone(), line, is_use: true });
            self.imported.insert(name.clone());
        }
        self.names.insert(name, segments);
    }

    /// Paths in the arguments of macros, which `syn` does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut colons, mut line) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.token_path(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.token_path(&mut path, line);
                    self.tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.token_path(&mut path, line);
                    colons = 0;
                }
            }
        }
        self.token_path(&mut path, line);
    }

    fn token_path(&mut self, path: &mut Vec<String>, line: usize) {
        let segments = std::mem::take(path);
        if segments.len() > 1 {
            self.paths.push(WrittenPath { segments, line, is_use: false });
        }
    }
}

impl<'ast> Visit<'ast> for Collected {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).is_some_and(is_for_tests) {
            return;
        }
        match item {
            Item::Use(item) => {
                let is_import = matches!(item.vis, Visibility::Inherited);
                self.use_tree(&item.tree, Vec::new(), is_import);
            }
            Item::Mod(_) => {} // its own module
            item => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.span().start().line;
        self.paths.push(WrittenPath { segments, line, is_use: false });
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }
}

/// The name of an item that can be named.
pub fn item_name(item: &Item) -> Option<&syn::Ident> {
    Some(match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    })
}

pub fn attributes(item: &Item) -> Option<&[Attribute]> {
    Some(match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return None,
    })
}

/// Whether the attributes have `cfg(test)`, alone or among other conditions that must all hold.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if {
                let text = list.tokens.to_string();
                text == "test" || text.starts_with("all (test")
            })
    })
}

/// The lines of the code below `src/` that contain one of `calls`, without those of tests and of the
/// files and folders in `allowed`.
#[cfg(feature = "cli")]
pub fn calls_in_sources(calls: &[&str], allowed: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut offences = Vec::new();
    for file in rust_files(&root.join("src")) {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if name.contains("tests") || allowed.iter().any(|part| name.starts_with(part)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests are last in a file.
        let tests = ["#[cfg(test)]\nmod tests {", "\n#[test]"];
        let end = tests.iter().filter_map(|begin| text.find(begin)).min();
        let code = &text[..end.unwrap_or(text.len())];
        let lines = code.lines().enumerate();
        let is_code = |line: &str| !line.trim_start().starts_with("//");
        let found =
            lines.filter(|(_, line)| is_code(line) && calls.iter().any(|call| line.contains(call)));
        offences.extend(found.map(|(at, line)| format!("{name}:{}: {}", at + 1, line.trim())));
    }
    offences
}

/// The Rust files below `directory`, without those of tests.
pub fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Lists of cases may be long.
        let is_for_tests =
            path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
        if is_for_tests {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
