//! The public items of the crate are those listed in `tests/public_api.txt`, so that every change of
//! the public interface is seen in review.
//!
//! After an intended change, `RINGLOAD_TEST_WRITE=1 cargo test --test integration public_api` writes the list anew.
//! It has the items that a dependent crate can name, with their public fields, methods and trait
//! implementations. Items marked `#[doc(hidden)]` are not part of the interface; the C library's is in
//! its headers, which `capi_headers` checks.

use crate::source_tree::{Definition, ModulePath, Tree, attributes, is_for_tests, item_name};
#[allow(dead_code, reason = "shared with the test of the layers")]
use quote::ToTokens;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, Type, UseTree, Visibility};

#[test]
fn the_public_items_are_those_of_the_list() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = repository.join("tests/public_api.txt");
    let tree = Tree::read(&repository.join("src/lib.rs"));
    let found = Listing::of(&tree).text();
    if std::env::var_os("RINGLOAD_TEST_WRITE").is_some() {
        std::fs::write(&listed, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&listed).unwrap_or_default();
    let (expected, found): (BTreeSet<_>, BTreeSet<_>) =
        (expected.lines().collect(), found.lines().collect());
    let only = |lines: &BTreeSet<&str>, other: &BTreeSet<&str>, sign: char| -> String {
        lines.difference(other).map(|line| format!("{sign} {line}\n")).collect()
    };
    let changes = only(&expected, &found, '-') + &only(&found, &expected, '+');
    assert!(
        changes.is_empty(),
        "the public interface differs from tests/public_api.txt:\n{changes}If that is intended, \
         run: RINGLOAD_TEST_WRITE=1 cargo test --test integration public_api"
    );
}

/// A check that cannot fail checks nothing: what a small crate exports is listed, and no more.
#[test]
fn private_and_hidden_items_are_not_listed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("lib.rs");
    std::fs::write(
        &root,
        "mod inner { pub struct Shown { pub a: u8, b: u8 } impl Shown { pub fn go(&self) -> u8 { 1 } fn no(&self) {} }
         impl Drop for Shown { fn drop(&mut self) {} } pub struct Unnamed; pub(crate) struct Crate; }
         pub use inner::Shown; #[doc(hidden)] pub mod hidden { pub fn f() {} } pub mod seen { pub fn g() {} fn h() {} }",
    )
    .unwrap();
    let text = Listing::of(&Tree::read(&root)).text();
    let expected = "Shown: impl Drop\nShown: pub fn go(&self) -> u8\nShown: pub struct Shown { pub a: u8, .. }\n\
                    seen::g: pub fn g()\n";
    assert_eq!(text, expected);
}

/// The lines of the list.
struct Listing<'a> {
    tree: &'a Tree,
    lines: BTreeSet<String>,
    /// The public types, by where they are defined, with the names they are public as.
    types: BTreeMap<Definition, String>,
}

impl<'a> Listing<'a> {
    fn of(tree: &'a Tree) -> Self {
        let mut listing = Self { tree, lines: BTreeSet::new(), types: BTreeMap::new() };
        listing.module(&Vec::new(), "");
        listing.implementations();
        listing
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Lists the public items of `module`, which is public as `name`.
    fn module(&mut self, module: &ModulePath, name: &str) {
        for item in &self.tree.modules[module].items {
            let attributes = attributes(item).unwrap_or_default();
            if is_hidden(attributes) || is_for_tests(attributes) {
                continue;
            }
            match item {
                Item::Use(reexport) if is_public(&reexport.vis) => {
                    self.reexports(module, name, &reexport.tree, Vec::new());
                }
                Item::Mod(child) if is_public(&child.vis) && child.ident != "capi" => {
                    let mut path = module.clone();
                    path.push(child.ident.to_string());
                    self.module(&path, &joined(name, &child.ident.to_string()));
                }
                Item::Use(_) | Item::Mod(_) => {}
                item => {
                    if let Some(ident) = item_name(item) {
                        self.item(module, item, &joined(name, &ident.to_string()));
                    }
                }
            }
        }
    }

    fn reexports(
        &mut self,
        module: &ModulePath,
        name: &str,
        tree: &UseTree,
        mut path: Vec<String>,
    ) {
        match tree {
            UseTree::Path(segment) => {
                path.push(segment.ident.to_string());
                self.reexports(module, name, &segment.tree, path);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.reexports(module, name, tree, path.clone());
                }
            }
            UseTree::Name(item) => {
                path.push(item.ident.to_string());
                self.reexport(module, &path, &joined(name, &item.ident.to_string()));
            }
            UseTree::Rename(item) => {
                path.push(item.ident.to_string());
                self.reexport(module, &path, &joined(name, &item.rename.to_string()));
            }
            UseTree::Glob(_) => {
                panic!("a glob re-export in {module:?} cannot be listed; name the items")
            }
        }
    }

    fn reexport(&mut self, module: &ModulePath, path: &[String], name: &str) {
        match self.tree.resolve(module, path) {
            None => drop(self.lines.insert(format!("{name}: pub use {}", path.join("::")))),
            Some(Definition { module, item: None }) => self.module(&module, name),
            Some(Definition { module, item: Some(item) }) => {
                let items = &self.tree.modules[&module].items;
                for found in
                    items.iter().filter(|other| item_name(other).is_some_and(|own| *own == item))
                {
                    self.item(&module, found, name);
                }
            }
        }
    }

    /// Lists an item that is public as `name`.
    fn item(&mut self, module: &ModulePath, item: &Item, name: &str) {
        let definition =
            Definition { module: module.clone(), item: item_name(item).map(ToString::to_string) };
        let signature = match item {
            Item::Const(item) if is_public(&item.vis) => {
                format!("pub const {}: {}", item.ident, text(&item.ty))
            }
            Item::Fn(item) if is_public(&item.vis) => format!("pub {}", text(&item.sig)),
            Item::Type(item) if is_public(&item.vis) => {
                format!("pub type {}{} = {}", item.ident, text(&item.generics), text(&item.ty))
            }
            Item::Trait(item) if is_public(&item.vis) => {
                for member in &item.items {
                    if let syn::TraitItem::Fn(function) = member {
                        self.lines.insert(format!("{name}: {}", text(&function.sig)));
                    }
                }
                format!("pub trait {}", item.ident)
            }
            Item::Struct(item) if is_public(&item.vis) => {
                self.types.insert(definition, name.to_owned());
                self.derives(&item.attrs, name);
                format!(
                    "{}pub struct {}{}{}",
                    non_exhaustive(&item.attrs),
                    item.ident,
                    text(&item.generics),
                    fields(&item.fields)
                )
            }
            Item::Enum(item) if is_public(&item.vis) => {
                self.types.insert(definition, name.to_owned());
                self.derives(&item.attrs, name);
                for variant in &item.variants {
                    let variant = syn::Variant { attrs: Vec::new(), ..without_docs(variant) };
                    self.lines.insert(format!("{name}::{}", text(&variant)));
                }
                format!(
                    "{}pub enum {}{}",
                    non_exhaustive(&item.attrs),
                    item.ident,
                    text(&item.generics)
                )
            }
            _ => return,
        };
        self.lines.insert(format!("{name}: {signature}"));
    }

    fn derives(&mut self, attributes: &[Attribute], name: &str) {
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let paths = attribute.parse_args_with(
                syn::punctuated::Punctuated::<syn::Path, syn::Token![,]>::parse_terminated,
            );
            for path in paths.unwrap() {
                self.lines.insert(format!("{name}: impl {}", text(&path)));
            }
        }
    }

    /// Lists the methods and traits of the public types, wherever in the crate they are implemented.
    fn implementations(&mut self) {
        for (module, content) in &self.tree.modules {
            for item in &content.items {
                let Item::Impl(block) = item else { continue };
                if is_for_tests(&block.attrs) {
                    continue;
                }
                let Type::Path(target) = &*block.self_ty else { continue };
                let path: Vec<_> =
                    target.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
                let definition = self.tree.resolve(module, &path);
                if let Some(name) = definition.and_then(|definition| self.types.get(&definition)) {
                    let name = name.clone();
                    self.implementation(block, &name);
                }
            }
        }
    }

    fn implementation(&mut self, block: &ItemImpl, name: &str) {
        if let Some((_, path, _)) = &block.trait_ {
            self.lines.insert(format!("{name}: impl {}", text(path)));
            return;
        }
        for item in &block.items {
            let line = match item {
                ImplItem::Fn(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                    format!("{name}: pub {}", text(&item.sig))
                }
                ImplItem::Const(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                    format!("{name}: pub const {}: {}", item.ident, text(&item.ty))
                }
                _ => continue,
            };
            self.lines.insert(line);
        }
    }
}

fn joined(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("doc")
            && attribute.to_token_stream().to_string().contains("hidden")
    })
}

fn non_exhaustive(attributes: &[Attribute]) -> &'static str {
    let is = attributes.iter().any(|attribute| attribute.path().is_ident("non_exhaustive"));
    if is { "#[non_exhaustive] " } else { "" }
}

/// The public fields, with `..` for others.
fn fields(fields: &Fields) -> String {
    let public: Vec<_> = fields
        .iter()
        .filter(|field| is_public(&field.vis) && !is_hidden(&field.attrs))
        .map(|field| match &field.ident {
            Some(name) => format!("pub {name}: {}", text(&field.ty)),
            None => format!("pub {}", text(&field.ty)),
        })
        .collect();
    let others = if public.len() < fields.len() { [".."].as_slice() } else { &[] };
    let all: Vec<_> = public.iter().map(String::as_str).chain(others.iter().copied()).collect();
    if all.is_empty() { String::new() } else { format!(" {{ {} }}", all.join(", ")) }
}

fn without_docs(variant: &syn::Variant) -> syn::Variant {
    let mut variant = variant.clone();
    variant.fields.iter_mut().for_each(|field| field.attrs.clear());
    variant
}

/// Tokens as they are usually written, on one line.
fn text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" ::", "::"),
        (":: ", "::"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("> (", ">("),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" ,", ","),
        (" :", ":"),
        (" ;", ";"),
        ("& ", "&"),
        ("[ ", "["),
        (" ]", "]"),
        ("-> ", "-> "),
        (" ?", "?"),
        ("->", " -> "),
        ("  ", " "),
        ("> =", ">="),
        (",)", ")"),
        ("&mut(", "&mut ("),
        ("impl<", "impl <"),
        ("impl(", "impl ("),
        ("->  ", "-> "),
        ("  ->", " ->"),
        ("  ", " "),
        ("= =", "=="),
        ("dyn<", "dyn <"),
    ] {
        text = text.replace(from, to);
    }
    text
}
