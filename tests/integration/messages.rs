//! Messages name options as the caller writes them.
//!
//! Python programs were told to "load it with --pin length", a flag of a command that they do not
//! run. Messages of the library refer to options by `error::option("pin")`, which each interface
//! writes in its own way. Hazards: a flag in a text of the library; a reference to an option that
//! does not exist, as after a renaming.

use crate::source_tree::rust_files;
use proc_macro2::{TokenStream, TokenTree};
use ringload::Loader;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// The library's files, without the command and without tests.
fn library_files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_library = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let is_other = name.starts_with("bin/") || name.contains("benches/");
        !is_other && !name.ends_with("tests.rs") && !name.contains("tests/")
    };
    rust_files(&root).into_iter().filter(is_library).collect()
}

/// The texts of a file outside of its tests, and the names in calls of `option`.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    options: Vec<String>,
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {} // documentation

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.all.push(text.value());
    }

    /// The arguments of `format!` and the like.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && function.path.is_ident("option")
            && let Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. })) =
                call.args.first()
        {
            self.options.push(name.value());
        }
        visit::visit_expr_call(self, call);
    }
}

impl Texts {
    fn tokens(&mut self, tokens: TokenStream) {
        let mut last_is_option = false;
        for token in tokens {
            let is_option = matches!(&token, TokenTree::Ident(name) if name == "option");
            match token {
                TokenTree::Group(group) => {
                    if last_is_option && let Ok(name) = syn::parse2::<syn::LitStr>(group.stream()) {
                        self.options.push(name.value());
                    }
                    self.tokens(group.stream());
                }
                TokenTree::Literal(literal) => {
                    let literal = TokenStream::from(TokenTree::Literal(literal));
                    self.all.extend(syn::parse2::<syn::LitStr>(literal).map(|text| text.value()));
                }
                _ => {}
            }
            last_is_option = is_option;
        }
    }
}

fn texts_of(file: &Path) -> Texts {
    let mut texts = Texts::default();
    texts.visit_file(&syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap());
    texts
}

#[test]
fn no_text_of_the_library_has_a_flag_and_all_references_are_to_options() {
    let flags: Vec<_> = Loader::options()
        .iter()
        .map(|option| format!("--{}", option.name.replace('_', "-")))
        .collect();
    let mut references = 0;
    for file in library_files() {
        let texts = texts_of(&file);
        for text in &texts.all {
            let named = flags.iter().find(|flag| text.contains(flag.as_str()));
            assert_eq!(named, None, "{}: {text:?}; refer to it by option()", file.display());
        }
        for name in &texts.options {
            let known = Loader::options().iter().find(|option| option.name == name);
            assert!(known.is_some(), "{}: no option is called {name:?}", file.display());
        }
        references += texts.options.len();
    }
    assert!(references >= 15, "{references} references were found");
}
