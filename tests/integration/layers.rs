//! The layers hold: every folder of the library imports only folders that come before it in the
//! declared order, no files or folders import each other in a circle, and files and functions stay
//! short.
//!
//! `source_tree` finds the imports. A failure names each offending line.

use crate::source_tree::{self, Import, rust_files};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The declared order. A file or folder of `src/` may import those of earlier lines, and nothing of
/// its own line or of later ones.
const ORDER: [&[&str]; 17] = [
    &["error", "fork_guard", "checksum", "sync"],
    &["dtype", "sys"],
    &["location", "options", "cast", "numa"],
    &["metrics", "timeline"],
    &["ring"],
    &["source"],
    &["checkpoint"],
    &["manifest", "plan"],
    &["checks"],
    &["tensor"],
    &["device"],
    &["cache"],
    &["engine"],
    &["load"],
    &["capi", "doctor"],
    &["internals"],
    &["bin"],
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The imports of the crate whose root file is `root`, with paths relative to the root's folder.
fn imports_of(root: &str) -> Vec<Import> {
    let root = repository().join(root);
    source_tree::imports(&root, root.parent().unwrap())
}

/// The file or folder of `src/` that `file` belongs to: `ring` for `ring/slot.rs`.
fn layer(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The import as a line of a report.
fn line(import: &Import) -> String {
    let Import { from, line, to, path } = import;
    format!("{}:{line} imports `{path}` of {}", from.display(), to.display())
}

/// The imports that go against `order`.
fn against(order: &[&[&str]], imports: &[Import]) -> Vec<String> {
    let rank = |name: &str| order.iter().position(|line| line.contains(&name));
    let mut offences = Vec::new();
    for import in imports {
        let (from, to) = (layer(&import.from), layer(&import.to));
        if from == to || from == "lib" {
            continue;
        }
        match (rank(&from), rank(&to)) {
            (Some(from), Some(to)) if to < from => {}
            (Some(_), Some(_)) => offences.push(line(import)),
            (None, _) => offences.push(format!("{from} is not in the declared order")),
            (_, None) => offences.push(format!("{to} is not in the declared order")),
        }
    }
    offences.sort();
    offences.dedup();
    offences
}

/// The imports that are part of a circle, among the entries of any one folder. An entry is a file,
/// with the folder of the same name if there is one, or a folder.
fn in_circles(imports: &[Import]) -> Vec<String> {
    let files = imports.iter().flat_map(|import| [&import.from, &import.to]);
    let folders: BTreeSet<PathBuf> =
        files.flat_map(|file| file.ancestors().skip(1)).map(Path::to_owned).collect();
    let mut offences = BTreeSet::new();
    for folder in &folders {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let within: Vec<_> = imports
            .iter()
            .filter_map(|import| {
                let from = layer(import.from.strip_prefix(folder).ok()?);
                let to = layer(import.to.strip_prefix(folder).ok()?);
                (from != to && from != "lib" && to != "lib").then_some((from, to, import))
            })
            .collect();
        for (from, to, _) in &within {
            edges.entry(from.clone()).or_default().insert(to.clone());
        }
        for (from, to, import) in within {
            if reaches(&edges, &to, &from) {
                offences.insert(format!(
                    "{from} <-> {to} in {}/: {}",
                    folder.display(),
                    line(import)
                ));
            }
        }
    }
    offences.into_iter().collect()
}

/// Whether `to` can be reached from `from`.
fn reaches(edges: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(node) = open.pop() {
        if node == to {
            return true;
        }
        if seen.insert(node) {
            open.extend(edges.get(node).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

fn assert_none(offences: &[String], rule: &str) {
    assert!(
        offences.is_empty(),
        "{} imports break this rule: {rule}\n{}",
        offences.len(),
        offences.join("\n")
    );
}

#[test]
fn folders_import_only_folders_before_them() {
    let imports = imports_of("src/lib.rs");
    assert!(imports.len() > 500, "only {} imports were found", imports.len());
    assert_none(&against(&ORDER, &imports), "a folder imports only those before it in ORDER");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let roots = ["src/lib.rs", "src/bin/ringload/main.rs", "python/src/lib.rs"];
    let offences: Vec<_> = roots.iter().flat_map(|root| in_circles(&imports_of(root))).collect();
    assert_none(&offences, "no circles among the files of a folder");
}

#[test]
fn files_have_at_most_400_lines_and_functions_at_most_70() {
    let mut offences = Vec::new();
    for file in rust_files(&repository().join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(repository()).unwrap().display();
        let lines = text.lines().count();
        if lines > 400 {
            offences.push(format!("{name} has {lines} lines"));
        }
        let mut functions = Functions::default();
        functions.visit_file(&syn::parse_file(&text).unwrap());
        let long = functions.0.into_iter().filter(|(_, lines)| *lines > 70);
        offences
            .extend(long.map(|(function, lines)| format!("{name}: {function} has {lines} lines")));
    }
    assert!(offences.is_empty(), "too long:\n{}", offences.join("\n"));
}

/// The functions of a file, each with its number of lines.
#[derive(Default)]
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (start, end) = (signature.span().start().line, block.span().end().line);
        self.0.push((signature.ident.to_string(), end - start + 1));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

/// A check that cannot fail checks nothing: forbidden imports in a small crate are found and named.
#[test]
fn planted_imports_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod ring; mod source; pub use ring::Slot;");
    write("ring/mod.rs", "mod slot; pub use slot::Slot; pub fn size() {}");
    write("ring/slot.rs", "pub struct Slot; fn f() { println!(\"{}\", crate::source::name()); }");
    write(
        "source.rs",
        "use crate::Slot; pub fn name() -> u8 { 1 }\n#[cfg(test)] mod tests { use crate::engine; }",
    );
    let imports = source_tree::imports(&directory.path().join("lib.rs"), directory.path());
    let order: [&[&str]; 2] = [&["ring"], &["source"]];
    let named = "ring/slot.rs:1 imports `crate::source::name` of source.rs".to_owned();
    assert_eq!(against(&order, &imports), std::slice::from_ref(&named));
    let circle = [
        format!("ring <-> source in /: {named}"),
        "source <-> ring in /: source.rs:1 imports `crate::Slot` of ring/slot.rs".to_owned(),
    ];
    assert_eq!(in_circles(&imports), circle);

    write("ring/slot.rs", "use super::size; pub struct Slot; fn f() { size() }");
    write("ring/mod.rs", "mod slot; pub use slot::Slot; pub fn size() -> Slot { todo!() }");
    let imports = source_tree::imports(&directory.path().join("lib.rs"), directory.path());
    let lines: Vec<_> = in_circles(&imports);
    assert!(lines.iter().any(|line| line.contains(": ring/mod.rs:1 imports `Slot`")), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains(": ring/slot.rs:1 imports `super::size`")),
        "{lines:?}"
    );
}
