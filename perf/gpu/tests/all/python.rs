//! The steps that are scripts in Python, with the environment and the wheel that `tests/python.sh` has
//! made, and with the wheels of peers. They run in the full size of the tests.

use super::pack::*;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const STEPS: [&str; 5] = ["right-bindings", "peers", "web", "sanitizer", "timeline"];

/// Of the bindings, ringload among the peers, HTTP, the sanitizer, and the timeline.
const WANTED_CHECKS: usize = 10 + 2 + 1 + 5 + 1;

const NEED_A_GPU: [&str; 3] = [
    "peers: InstantTensor: ",
    "peers: InstantTensor, buffered: ",
    "peers: safetensors, prefetch: ",
];

/// What NVIDIA's tool is replaced with: it runs the program, and finds what it is told to find.
const SANITIZER: &str = r#"#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift $(( $# > 1 ? 2 : 1 )); done
"$@" || exit
echo "========= ERROR SUMMARY: ${SANITIZER_FINDS:-0} errors"
[ -z "$SANITIZER_FINDS" ] || exit 86
"#;

/// The folder of the tests' Python packages; none if they are not installed.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("python");
    let is_required = std::env::var_os("RINGLOAD_TEST_FULL").is_some();
    let is_there = folder.join("venv/bin/python3").exists() && folder.join("dist").exists();
    assert!(is_there || !is_required, "tests/python.sh has not made {}", folder.display());
    is_required.then_some(folder)
}

struct Scene {
    pack: PathBuf,
    path: String,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// A pack for the Python of the tests, and a sanitizer.
    fn new() -> Option<Self> {
        let folder = python()?;
        let wheels = std::fs::read_dir(folder.join("dist")).unwrap().flatten();
        let wheel = wheels.map(|entry| entry.path()).next().unwrap();
        let program = "import sys; print('%d.%d' % sys.version_info[:2])";
        let bin = folder.join("venv/bin");
        let version =
            Command::new(bin.join("python3")).args(["-c", program]).output().unwrap().stdout;
        let version = String::from_utf8(version).unwrap();
        let directory = directory();
        let [packed, tools] = ["pack", "tools"].map(|name| directory.path().join(name));
        pack(Some(&wheel), version.trim(), &packed);
        std::fs::create_dir(&tools).unwrap();
        let sanitizer = tools.join("compute-sanitizer");
        std::fs::write(&sanitizer, SANITIZER).unwrap();
        std::fs::set_permissions(&sanitizer, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}:/usr/bin:/bin", tools.display(), bin.display());
        Some(Self { pack: packed, path, _directory: directory })
    }

    fn run(&self, steps: &[&str], plant: &[(&str, &str)]) -> Results {
        let mut run = Run::new(&self.pack, steps).with(plant);
        run.command.env("PATH", &self.path);
        run.results()
    }
}

const FLIPPED: &[(&str, &str)] = &[("CUDA_STAND_IN_FLIP", "1")];

/// A step, the variables that plant a fault in it, and the words by which it is reported.
type Fault = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const FAULTS: [Fault; 5] = [
    ("right-bindings", FLIPPED, "Python: every type and shape, ring of 144KiB: "),
    ("peers", FLIPPED, "peers: the bytes of ringload: "),
    ("web", FLIPPED, "HTTP: the bytes on the GPU: "),
    ("sanitizer", &[("SANITIZER_FINDS", "2")], "2 found"),
    (
        "timeline",
        &[("CUDA_STAND_IN_FAIL", "cuMemcpyHtoDAsync_v2@run:1:CUDA_ERROR_ILLEGAL_ADDRESS")],
        "a timeline of a load: ",
    ),
];

#[test]
fn the_steps_in_python_run_and_find_faults() {
    let Some(scene) = Scene::new() else {
        eprintln!("skipped: only in the full size of the tests");
        return;
    };
    let manifest = std::fs::read_to_string(scene.pack.join("MANIFEST")).unwrap();
    for named in ["wheels/ringload-", "wheels/instanttensor-", "capi-gpu", "libringload.so.gz"] {
        assert!(manifest.contains(named), "{named}: {manifest}");
    }
    assert!(manifest.ends_with("missing: nothing\n"), "{manifest}");

    let ran = scene.run(&STEPS, &[]);
    for step in STEPS {
        assert_eq!(ran.ended(step), Some("done"), "{step}: {}", ran.told);
    }
    // Three clients do nothing without a GPU.
    let faults = ran.faults();
    let begins = |line: &str| NEED_A_GPU.iter().any(|name| line.starts_with(name));
    assert!(faults.lines().all(begins) && faults.lines().count() == 3, "{faults}\n{}", ran.told);
    assert_eq!(ran.list("checks").len(), WANTED_CHECKS, "{}", ran.table);
    let figures = ran.list("figures").iter().map(|one| one["name"].as_str().unwrap());
    let figures: Vec<_> = figures.collect();
    for part in [
        "from tmpfs by Run:ai, .to",
        "from the page cache by safetensors",
        "from tmpfs: seconds of ringload / of the quickest peer of the turn",
        "from the disk by fastsafetensors",
        "HTTP on loopback to the GPU / to host memory",
        "timeline: copies under way / the load",
    ] {
        assert!(figures.contains(&part), "{part}: {figures:#?}");
    }

    assert_eq!(FAULTS.map(|(step, ..)| step), STEPS);
    for (step, plant, words) in FAULTS {
        let ran = scene.run(&[step], plant);
        assert!(ran.faults().contains(words), "{step}: {:?}\n{}", ran.faults(), ran.told);
        assert_eq!(ran.status.code(), Some(1), "{step}: {}", ran.told);
    }
}
