//! Tests without a network: a shell script stands in for the Python of an environment.

use super::*;
use std::os::unix::fs::PermissionsExt;

/// Logs its calls; all packages can be installed, except one.
const PYTHON: &str = r#"#!/bin/sh
echo "$@" >> "$0.log"
case "$*" in
*"pip "*fastsafetensors==*)
    echo 'WARNING: slow' >&2
    echo 'ERROR: No matching distribution found for fastsafetensors' >&2
    echo 'hint: see above' >&2
    exit 1;;
*"pip freeze"*) echo torch==2.15.0; echo pip==1;;
esac
"#;

struct Scene {
    directory: tempfile::TempDir,
    python: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let python = directory.path().join("perf/peers/python/bin/python");
        fs::create_dir_all(python.parent().unwrap()).unwrap();
        fs::write(&python, PYTHON).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, python }
    }

    fn prepare(&self, with: Option<&Path>, wanted: &[&'static Peer]) -> Peers {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let tools = Tools::of(root.to_owned(), self.directory.path().to_owned());
        Peers::prepare(&tools, with, wanted).unwrap()
    }

    /// How often Python was called with these arguments.
    fn calls(&self, what: &str) -> usize {
        let log = fs::read_to_string(self.python.with_extension("log")).unwrap();
        log.lines().filter(|line| line.contains(what)).count()
    }
}

const WANTED: [&Peer; 4] = [&RUNAI, &SAFETENSORS, &SAFETENSORS_NEXT, &FASTSAFETENSORS];

fn names(clients: &[Client]) -> Vec<&str> {
    clients.iter().map(|client| client.name.as_str()).collect()
}

#[test]
fn what_is_installed_is_ready_and_the_rest_is_skipped_with_the_reason() {
    let scene = Scene::new();
    let peers = scene.prepare(None, &WANTED);
    let versions: Vec<_> = peers.versions.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(versions, [("safetensors (next)", "0.9.0rc1"), ("torch", "2.15.0")]);
    let why = "No matching distribution found for fastsafetensors".to_owned();
    assert_eq!(peers.skipped, [("fastsafetensors", why)]);
    let clients = peers.clients(&[&RUNAI, &FASTSAFETENSORS, &TENSORIZER], "/a");
    assert_eq!(names(&clients), ["Run:ai"], "one cannot be installed, one was not asked for");
}

#[test]
fn what_is_up_to_date_is_not_installed_again() {
    let scene = Scene::new();
    scene.prepare(None, &WANTED);
    scene.prepare(None, &WANTED);
    assert_eq!(scene.calls("safetensors==0.9.0rc1"), 1);
    assert_eq!(scene.calls(" fastsafetensors=="), 2, "it may be available by now");
    assert!(scene.calls("--constraint") > 6);
}

#[test]
fn nothing_is_installed_into_an_environment_that_is_given() {
    let scene = Scene::new();
    let peers = scene.prepare(Some(&scene.python), &[&SAFETENSORS, &FASTSAFETENSORS]);
    assert_eq!(scene.calls(" install "), 0);
    assert_eq!(peers.skipped, []);
    let clients = peers.clients(&WANTED, "/a");
    assert_eq!(names(&clients), ["safetensors", "fastsafetensors"]);
}

#[test]
fn the_next_version_comes_first_for_its_client_alone() {
    let scene = Scene::new();
    let peers = scene.prepare(None, &WANTED);
    let clients = peers.clients(&[&SAFETENSORS, &SAFETENSORS_NEXT], "/a/file");
    let has_path = |client: &Client| format!("{:?}", client.invocation).contains("peers/next");
    assert_eq!(clients.iter().map(has_path).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_format_of_its_own_is_written_once() {
    let scene = Scene::new();
    let peers = scene.prepare(None, &[&TENSORIZER, &SAFETENSORS]);
    let file = scene.directory.path().join("a.safetensors");
    fs::write(&file, "data").unwrap();
    let location = file.to_str().unwrap();
    let converted = format!("{location}.tensors");
    let clients = || peers.clients(&[&SAFETENSORS, &TENSORIZER], location);
    let reads: Vec<_> = clients().into_iter().filter_map(|client| client.reads).collect();
    assert_eq!(reads, [file.clone(), PathBuf::from(&converted)]);
    assert_eq!(scene.calls("--convert"), 1);
    fs::write(&converted, "data").unwrap();
    clients();
    assert_eq!(scene.calls("--convert"), 1);
}

#[test]
fn the_lists_of_the_repository_are_read() {
    let list: List = toml::from_str(include_str!("../../peers.toml")).unwrap();
    assert_eq!(list.python["runai-model-streamer"], "0.17.0");
    assert_eq!(list.python["safetensors"], "0.8.0");
    assert_eq!(list.python_next["safetensors"], "0.9.0rc1");
    assert!(toml::from_str::<List>("python = {}").is_err());
    let whole = "python = {}\npython-next = {}\ngpu = {}";
    assert!(toml::from_str::<List>(whole).is_ok());
    assert!(toml::from_str::<List>(&format!("{whole}\nruby = {{}}")).is_err());
    // On a machine with a GPU, the same versions are compared.
    let host = |name: &String| list.python_next.get(name).or(list.python.get(name));
    let others: Vec<_> = list.gpu.iter().filter(|(name, of)| host(name) != Some(of)).collect();
    assert_eq!(others.len(), 1, "InstantTensor alone is for GPUs only: {others:?}");
    let manifest = include_str!("../../peers/object-store/Cargo.toml");
    assert_eq!(crate_version(manifest).unwrap(), "0.14.2");
}

#[test]
fn the_reason_of_a_failure_is_one_line() {
    assert_eq!(reason("pip ended with 1: WARNING: a\nERROR: no network\nhint: b"), "no network");
    assert_eq!(reason("Traceback:\n ...\nImportError: no libx.so\n"), "ImportError: no libx.so");
    assert_eq!(reason("sh ended with exit status: 3"), "sh ended with exit status: 3");
}
