//! Tests without a network: a shell script stands in for the Python of an environment.

use super::*;
use std::os::unix::fs::PermissionsExt;

/// Answers `--check` like a client, counts the calls, and installs only `safetensors`.
const PYTHON: &str = r#"#!/bin/sh
echo "$@" >> "$0.log"
case "$*" in
*"pip "*safetensors==*) mkdir -p "${0%/*}/made";;
*"pip "*) echo "ERROR: no network" >&2; exit 1;;
*" instanttensor --check --device cuda:0") echo '{"why": "RuntimeError: no GPU"}';;
*" runai --check --device cpu") echo '{"versions": {"runai-model-streamer": "0.17.0", "torch": "2.15.0"}}';;
*" safetensors --check --device cpu") echo '{"versions": {"safetensors": "0.8.0"}}';;
*" safetensors-next --check --device cpu")
    case "$PYTHONPATH" in */next) echo '{"versions": {"safetensors": "0.9.0rc1"}}';; esac;;
*" tensorizer "*" --convert") ;;
*" tensorizer --check --device cpu") echo '{"versions": {"tensorizer": "2.12.1"}}';;
*) echo "ImportError: cannot import it" >&2; exit 1;;
esac
"#;

struct Scene {
    directory: tempfile::TempDir,
    python: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let python = directory.path().join("python");
        std::fs::write(&python, PYTHON).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, python }
    }

    fn prepare(&self, wanted: &[Peer]) -> Peers {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let keep = self.directory.path().join("target/perf");
        Peers::prepare(root, &keep, Some(&self.python), wanted, |_| ()).unwrap()
    }

    /// How often Python was called with these arguments.
    fn calls(&self, what: &str) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("python.log")).unwrap();
        log.lines().filter(|line| line.contains(what)).count()
    }
}

const WANTED: [Peer; 5] = [
    Peer::RunaiStreamer,
    Peer::Safetensors,
    Peer::SafetensorsNext,
    Peer::InstantTensor,
    Peer::Fastsafetensors,
];

#[test]
fn what_runs_is_ready_and_the_rest_is_skipped_with_the_reason() {
    let scene = Scene::new();
    let peers = scene.prepare(&WANTED);
    let versions = peers.versions();
    let expected = [
        ("runai-model-streamer", "0.17.0"),
        ("safetensors", "0.8.0"),
        ("safetensors (next)", "0.9.0rc1"),
        ("torch", "2.15.0"),
    ];
    let versions: Vec<_> = versions.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(versions, expected);
    let skipped: Vec<_> = peers.skipped().iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let expected = [
        ("fastsafetensors", "ImportError: cannot import it"),
        ("InstantTensor", "RuntimeError: no GPU"),
    ];
    assert_eq!(skipped, expected);
    assert!(peers.command(Peer::RunaiStreamer, "/a").is_some());
    assert!(peers.command(Peer::InstantTensor, "/a").is_none());
    assert!(peers.command(Peer::Tensorizer, "/a").is_none(), "it was not asked for");
}

#[test]
fn a_second_start_asks_only_those_that_did_not_run() {
    let scene = Scene::new();
    let first = scene.prepare(&WANTED);
    let second = scene.prepare(&WANTED);
    assert_eq!(first.versions(), second.versions());
    assert_eq!(first.skipped(), second.skipped());
    assert_eq!(scene.calls(" pip "), 1);
    assert_eq!(scene.calls("runai --check"), 1);
    assert_eq!(scene.calls("instanttensor --check"), 2);
}

#[test]
fn what_comes_first_is_told_by_the_environment() {
    let scene = Scene::new();
    let peers = scene.prepare(&WANTED);
    let path = |peer| {
        let command = peers.command(peer, "/a/file").unwrap();
        let mut variables = command.get_envs();
        variables
            .find(|(name, _)| *name == "PYTHONPATH")
            .map(|(_, value)| value.unwrap().to_owned())
    };
    assert_eq!(path(Peer::Safetensors), None);
    assert!(path(Peer::SafetensorsNext).unwrap().to_str().unwrap().ends_with("/peers/next"));
}

#[test]
fn what_cannot_be_installed_is_skipped() {
    let scene = Scene::new();
    let peers = scene.prepare(&[Peer::RingloadStream]);
    assert_eq!(peers.skipped(), [("ringload.stream".to_owned(), "no network".to_owned())]);
    assert!(peers.versions().is_empty());
}

#[test]
fn a_format_of_its_own_is_written_once() {
    let scene = Scene::new();
    let peers = scene.prepare(&[Peer::Tensorizer, Peer::Safetensors]);
    let file = scene.directory.path().join("a.safetensors");
    std::fs::write(&file, "data").unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(peers.location(Peer::Safetensors, file).unwrap(), file);
    let converted = format!("{file}.tensors");
    assert_eq!(peers.location(Peer::Tensorizer, file).unwrap(), converted);
    assert_eq!(scene.calls("--convert"), 1);
    std::fs::write(&converted, "data").unwrap();
    assert_eq!(peers.location(Peer::Tensorizer, file).unwrap(), converted);
    assert_eq!(scene.calls("--convert"), 1);
}
