//! The examples of README.md and docs/.
//!
//! ```text
//! ```sh, ```console   run by bash, one page in one directory    this file
//! ```c                compiled, linked with the library, run    this file, with the feature `capi`
//! ```python           run by python/tests/test_docs.py
//! ```rust             doc tests: src/lib.rs includes every page
//! ```
//!
//! A block whose info string says `no_run`, as in "```sh no_run", is shown and not run. In all others
//! `/models` becomes a directory with a small checkpoint, `llama-8b`, and `/mnt/nvme` an empty one.
//! `s3://bucket/llama-8b/` is the same checkpoint in a real S3 server (moto), GPUs are the driver's
//! stand-in, and `hf://openai-community/gpt2` is in a local cache of the Hub.

use crate::common::command::{Finished, of_program, run};
use crate::common::moto::Moto;
use crate::common::stand_in::stand_in;
use crate::common::{Expected, directory, sharded, skip};
use ringload::Dtype;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const README_LINES_MAX: usize = 150;
const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A fenced block of a page.
#[derive(Debug)]
struct Block {
    line: usize,
    language: String,
    runs: bool,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The paths of the pages in docs/, relative to the repository.
fn pages() -> Vec<String> {
    let files = fs::read_dir(root().join("docs")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<_> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.sort();
    assert!(pages.len() > 5, "{pages:?}");
    pages
}

fn readme_and_pages() -> Vec<String> {
    [vec!["README.md".to_owned()], pages()].concat()
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

fn blocks(page: &str) -> Vec<Block> {
    let text = read(page);
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let mut words = info.split([' ', ',']);
                let language = words.next().unwrap().to_owned();
                let runs = !words.any(|word| word == "no_run");
                open = Some(Block { line: number + 1, language, runs, text: String::new() });
            }
            (None, Some(block)) => block.text = format!("{}{line}\n", block.text),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    blocks
}

impl Block {
    fn is_shell(&self) -> bool {
        ["sh", "console"].contains(&self.language.as_str())
    }

    /// Whether some test runs it: these here, the Python tests, or the doc tests.
    fn is_tested(&self) -> bool {
        self.runs && (self.is_shell() || ["c", "python", "rust"].contains(&self.language.as_str()))
    }

    /// What bash is given: all lines, or those behind the prompts.
    fn script(&self) -> String {
        if self.language != "console" {
            return self.text.clone();
        }
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("$ "))
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

/// Where examples run: a small checkpoint on disk, in a local cache of the Hub and in a store.
struct Setting {
    directory: tempfile::TempDir,
    store: Option<Moto>,
}

impl Setting {
    fn new() -> Self {
        let directory = directory();
        let store = directory.path().join("store");
        let repository = directory.path().join("hub/models--openai-community--gpt2");
        let snapshot = repository.join("snapshots").join(COMMIT);
        let tensors = [
            Expected::new("model.layers.0.self_attn.q_proj.weight", Dtype::F32, &[512, 256], 1),
            Expected::new("model.norm.weight", Dtype::BF16, &[256], 2),
        ];
        for folder in
            [&directory.path().join("models/llama-8b"), &store.join("llama-8b"), &snapshot]
        {
            fs::create_dir_all(folder).unwrap();
            for (name, bytes) in sharded(&tensors, true) {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
        fs::create_dir(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), COMMIT).unwrap();
        fs::create_dir(directory.path().join("nvme")).unwrap();
        let store = Moto::start("bucket", &store);
        Self { directory, store }
    }

    /// `text` with the directories of this setting.
    fn with_directories(&self, text: &str) -> String {
        let own = |name: &str| self.directory.path().join(name).display().to_string();
        text.replace("/models", &own("models")).replace("/mnt/nvme", &own("nvme"))
    }

    /// A command that finds the store, the Hub's cache and the stand-in for GPUs as `text` needs them.
    /// `None` if the store is not installed.
    fn command(&self, program: &Path, text: &str) -> Option<Command> {
        let mut command = of_program(program);
        for (name, _) in std::env::vars_os() {
            let starts = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
            if ["AWS_", "HF_", "RINGLOAD_", "RUNAI_"].into_iter().any(starts) {
                command.env_remove(name);
            }
        }
        command.env("HF_HUB_CACHE", self.directory.path().join("hub")).env("HF_HUB_OFFLINE", "1");
        if text.contains("s3://") {
            let store = self.store.as_ref()?;
            command.env("AWS_ENDPOINT_URL", store.url()).env("AWS_EC2_METADATA_DISABLED", "true");
            command.env("AWS_ACCESS_KEY_ID", store.key("key"));
            command.env("AWS_SECRET_ACCESS_KEY", store.key("secret"));
        }
        if text.contains("cuda") {
            command.env("LD_LIBRARY_PATH", stand_in());
        }
        Some(command)
    }

    /// Runs a block in `place`; `None` if it needs what is not installed.
    fn run(&self, block: &Block, place: &Path) -> Option<Finished> {
        let text = self.with_directories(&block.script());
        let mut command = if block.is_shell() {
            let program = Path::new(env!("CARGO_BIN_EXE_ringload")).parent().unwrap();
            let path = std::env::var("PATH").unwrap();
            let mut command = self.command(Path::new("bash"), &text)?;
            command.args(["-euo", "pipefail", "-c", &text]);
            command.env("PATH", format!("{}:{path}", program.display()));
            command
        } else {
            let (source, program) = (place.join("example.c"), place.join("example"));
            fs::write(&source, &text).unwrap();
            crate::common::c_library::compile_c(&source, &program);
            self.command(&program, &text)?
        };
        Some(run(command.current_dir(place)))
    }
}

/// Runs the blocks that `is_wanted` in README.md and docs/; panics with those that failed.
fn run_blocks(is_wanted: impl Fn(&Block) -> bool) {
    let (setting, mut failed) = (Setting::new(), Vec::new());
    for page in readme_and_pages() {
        let place = directory();
        for block in blocks(&page).iter().filter(|block| block.runs && is_wanted(block)) {
            match setting.run(block, place.path()) {
                None => skip(&format!("{page}:{}", block.line)),
                Some(Finished { status, .. }) if status.success() => {}
                Some(finished) => failed.push(format!(
                    "{page}:{}: {}\n{}\n{}{}",
                    block.line, finished.status, block.text, finished.stdout, finished.stderr
                )),
            }
        }
    }
    assert!(failed.is_empty(), "examples fail\n\n{}", failed.join("\n"));
}

#[test]
fn shell_examples_run() {
    run_blocks(Block::is_shell);
}

#[cfg(feature = "capi")]
#[test]
fn c_examples_run() {
    run_blocks(|block| block.language == "c");
}

#[test]
fn every_page_opens_with_an_example_that_is_run() {
    for page in pages() {
        let (blocks, text) = (blocks(&page), read(&page));
        let first = blocks.first().unwrap_or_else(|| panic!("{page} has no example"));
        assert!(first.is_tested(), "{page}: no test runs the example of line {}", first.line);
        let before: Vec<_> =
            text.lines().take(first.line - 1).filter(|line| !line.is_empty()).collect();
        assert_eq!(before.len(), 2, "{page}: before the example there is a title and one sentence");
    }
}

#[test]
fn every_page_is_among_the_doc_tests() {
    let library = read("src/lib.rs");
    for page in readme_and_pages() {
        let included = library.contains(&format!("include_str!(\"../{page}\")"));
        assert!(
            included,
            "src/lib.rs does not include {page}, so its Rust examples are not tested"
        );
    }
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines; move something to docs/");
}

#[test]
fn relative_links_lead_somewhere() {
    let broken = broken_links(root());
    assert!(broken.is_empty(), "links lead nowhere: {broken:#?}");
}

/// A past fault: the C library's archive had docs/c.md alone, with links to pages and headers that were
/// not there or elsewhere, and nothing looked at the links of the other archives.
#[test]
fn relative_links_lead_somewhere_in_the_archives_of_a_release() {
    for (folder, headers) in [("share/doc/ringload", 0), ("share/doc/libringload", 2)] {
        let archive = directory();
        let pages = archive.path().join(folder);
        fs::create_dir_all(&pages).unwrap();
        // What the scripts of release/ have put there before.
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            fs::write(pages.join(licence), "").unwrap();
        }
        fs::create_dir(archive.path().join("include")).unwrap();
        for header in ["ringload.h", "runai_streamer.h"].iter().take(headers) {
            fs::write(archive.path().join("include").join(header), "").unwrap();
        }
        let mut copy = Command::new("python3");
        copy.arg(root().join("release/pages.py")).arg(archive.path()).arg(folder);
        run(&mut copy).quiet_success();
        let broken = broken_links(&pages);
        assert!(broken.is_empty(), "{folder}: links lead nowhere: {broken:#?}");
        let c = fs::read_to_string(pages.join("docs/c.md")).unwrap();
        assert_eq!(c.matches("](../../../../include/").count(), headers, "{folder}: {c}");
        assert!(links(&pages, "README.md").len() > 20, "the links of {folder} are gone");
    }
}

/// The description of the wheel is README.md, whose links led nowhere on the page of the package.
#[test]
fn the_description_of_the_wheel_has_no_links_to_files() {
    let directory = directory();
    let page = directory.path().join("README.md");
    fs::write(&page, read("README.md")).unwrap();
    assert!(links(directory.path(), "README.md").len() > 20);
    let mut change = Command::new("python3");
    run(change.arg(root().join("release/pages.py")).arg("--plain").arg(&page)).quiet_success();
    let left = links(directory.path(), "README.md");
    assert!(!left.is_empty() && left.iter().all(|link| link.starts_with('#')), "{left:?}");
}

/// The links of the pages below `root` that lead nowhere.
fn broken_links(root: &Path) -> Vec<String> {
    let others = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(String::from);
    let mut broken = Vec::new();
    for page in [readme_and_pages(), others.into()].concat() {
        for link in links(root, &page) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => root.join(&page),
                file => root.join(&page).parent().unwrap().join(file),
            };
            let has_anchor = || anchors(&target).contains(anchor);
            if !target.exists() || (!anchor.is_empty() && !has_anchor()) {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    broken
}

#[test]
fn the_layers_are_documented_as_they_are_checked() {
    let check = read("tests/integration/layers.rs");
    let order = check.split_once("const ORDER").unwrap().1.split_once("];\n").unwrap().0;
    let lines = order.lines().filter_map(|line| line.trim().strip_prefix("&["));
    let order: String = lines.map(|line| line.replace(['"'], "").replace("],", "\n")).collect();
    let design = blocks("docs/design.md");
    let documented = design.iter().any(|block| block.text == order);
    assert!(documented, "docs/design.md lacks the order of tests/integration/layers.rs:\n{order}");
}

#[test]
fn every_option_of_a_load_is_documented() {
    let help = run(of_program(Path::new(env!("CARGO_BIN_EXE_ringload"))).args(["load", "--help"]));
    let (help, page) = (help.quiet_success(), read("docs/command-line.md"));
    let words = help.split_whitespace().map(|word| word.trim_end_matches("..."));
    let options = words.filter(|word| word.starts_with("--") && *word != "--help");
    let missing: BTreeSet<_> =
        options.filter(|option| !page.contains(&format!("`{option}`"))).collect();
    assert!(missing.is_empty(), "docs/command-line.md does not have {missing:?}");
}

#[test]
fn every_part_of_a_summary_is_documented() {
    let page = read("docs/command-line.md");
    let summary = serde_json::to_value(ringload::Summary::default()).unwrap();
    let own = ["gigabytes_per_second", "read_path", "cpu_seconds", "peak_rss_bytes", "missing"];
    let keys = summary.as_object().unwrap().keys().map(String::as_str).chain(own);
    let missing: Vec<_> = keys.filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/command-line.md does not explain {missing:?}");
}

#[test]
fn rust_names_are_those_of_the_public_interface() {
    let interface = read("tests/public_api.txt");
    let has = |owner: &str, name: &str| {
        interface.lines().filter(|line| line.starts_with(&format!("{owner}:"))).any(|line| {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.skip(1).any(|word| word == name)
        })
    };
    let mut unknown = Vec::new();
    for page in readme_and_pages() {
        let text = read(&page);
        for code in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let Some((owner, name)) = code.split_once("::") else { continue };
            if owner.starts_with(char::is_uppercase) && !has(owner, name) {
                unknown.push(format!("{page}: {code}"));
            }
        }
    }
    assert!(unknown.is_empty(), "no public items of the crate: {unknown:#?}");
}

/// The lines of a page outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of the relative links of a page below `root`.
fn links(root: &Path, page: &str) -> Vec<String> {
    let path = root.join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let targets = prose(&text).flat_map(|line| line.split("](").skip(1));
    let targets =
        targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors that GitHub gives to the headings of a page.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = prose(&text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}
