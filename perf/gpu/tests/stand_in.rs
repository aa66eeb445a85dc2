//! What `perf/gpu.sh` packs and runs, on the stand-in for the CUDA driver and with tiny sizes: every row
//! appears, the checks pass, the figures are figures. How fast anything is, only a GPU can say.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/common/shared_library.rs"]
mod shared_library;
#[path = "../../../tests/common/stand_in.rs"]
mod stand_in;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Beside the command that was built for this test.
fn built() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_ringload-gpu")).parent().unwrap();
    if !own.join("ringload").exists() {
        // Only this package is being tested.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "ringload", "--bin", "ringload"]);
        let target_directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let status = cargo.arg("--target-dir").arg(target_directory).status().unwrap();
        assert!(status.success(), "cannot build ringload: {status}");
    }
    own.to_owned()
}

/// A command with nothing in its environment but the stand-in and the system's own commands.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command.env("LD_LIBRARY_PATH", stand_in::stand_in());
    command
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// On a disk, so that files can be made cold.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn what_is_packed_checks_and_measures() {
    let directory = directory();
    let [pack, out, work] = ["pack", "out", "work"].map(|name| directory.path().join(name));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu.sh");
    let mut packing = Command::new(&script);
    packing.arg("pack").arg("--from").arg(built()).arg("--to").arg(&pack);
    let packed = packing.output().unwrap();
    assert!(packed.status.success(), "{:?}", texts(&packed));
    let version = std::fs::read_to_string(pack.join("VERSION")).unwrap();
    assert!(version.contains("version: ringload ") && version.contains("glibc: 2."), "{version}");

    let mut running = command(&pack.join("gpu.sh"));
    running.current_dir(directory.path()).arg("run").arg("--out").arg(&out);
    running.arg("--dir").arg(&work).args(["--machine", "no GPU", "--"]);
    running.args(["--size=6MiB", "--check-bytes=2MiB", "--adapter=1MiB", "--tiny=200"]);
    let ran = running.args(["--buffer=1MiB", "--turns=1"]).output().unwrap();
    let (table, told) = texts(&ran);
    let report = std::fs::read_to_string(out.join("gpu.json")).unwrap_or_else(|_| panic!("{told}"));
    assert_is_whole(&serde_json::from_str(&report).unwrap(), &told);
    assert_eq!(std::fs::read_to_string(out.join("gpu.md")).unwrap(), table);
    assert!(has_row(&table, &["machine", "no GPU"]), "{table}");
    // Whether targets are reached says nothing here, but the status has to say the same.
    assert_eq!(ran.status.success(), !table.contains("FAIL"), "{table}\n{told}");
    assert!(is_empty(&work), "files stay behind");
}

/// Whether a row of the tables begins with these cells.
fn has_row(table: &str, cells: &[&str]) -> bool {
    let begins = |line: &str| {
        let row = line.split('|').skip(1).map(str::trim);
        row.take(cells.len()).eq(cells.iter().copied())
    };
    table.lines().any(begins)
}

#[track_caller]
fn assert_is_whole(report: &Value, told: &str) {
    let list = |name: &str| report[name].as_array().unwrap_or_else(|| panic!("{name}: {report:#}"));
    let checks = list("checks");
    assert_eq!(checks.len(), 26, "{report:#}");
    for check in checks {
        let passed = check["error"].is_null() && check["cases"].as_u64() > Some(0);
        assert!(passed, "{check:#}\n{told}");
    }
    // Not every file system has direct reads, nor every sandbox a page cache that can be emptied.
    let only_disk = list("skipped").iter().all(|why| why.as_str().unwrap().contains("the disk"));
    assert!(only_disk, "{report:#}\n{told}");
    let figures = list("figures");
    for figure in figures {
        let number = figure["figure"].as_f64().unwrap_or_else(|| panic!("{figure:#}"));
        assert!(number.is_finite() && number > 0.0, "{figure:#}");
    }
    let judged = |part: &str| {
        let judged = figures.iter().filter(|figure| !figure["target"].is_null());
        judged.filter(|figure| figure["name"].as_str().unwrap().contains(part)).count()
    };
    let disk = usize::from(list("skipped").is_empty());
    let wanted = [
        ("crc64 / copy within the GPU", 1),
        ("cast ", 12),
        ("process start to last tensor / to plain copy", 1),
        ("/ as one tensor", 2),
        ("from tmpfs / pinned memory to the GPU", 1),
        ("from tmpfs, --memory-limit 512MiB / pinned memory to the GPU", 1),
        ("from the page cache / pinned memory to the GPU", 1),
        ("from the page cache, --memory-limit 512MiB / pinned memory to the GPU", 1),
        (": pinned", 4),
        ("from the disk / direct reads", disk),
        ("", 24 + disk),
    ];
    assert_eq!(wanted.map(|(part, _)| (part, judged(part))), wanted, "{report:#}");
}

#[test]
fn a_bit_that_is_wrong_on_the_gpu_is_found() {
    // Two copies to the GPU are made for each time that a kernel is checked: 3 times for crc64, once
    // for scatter, twice for each of 12 casts. The next is a load's first.
    for (copy, row) in [("1", "crc64 against the reference"), ("57", "load, every read path")] {
        let directory = directory();
        let mut checking = command(Path::new(env!("CARGO_BIN_EXE_ringload-gpu")));
        checking.args(["check", "--check-bytes=1MiB", "--dir"]).arg(directory.path());
        checking.arg("--tmpfs").arg(directory.path());
        let checked = checking.env("CUDA_STAND_IN_FLIP", copy).output().unwrap();
        let (table, told) = texts(&checked);
        assert_eq!(checked.status.code(), Some(1), "copy {copy}: {table}\n{told}");
        let failed: Vec<_> = table.lines().filter(|line| line.contains("FAIL")).collect();
        let found = failed.len() == 1 && has_row(failed[0], &[row]);
        assert!(found && failed[0].contains("bytes are wrong"), "copy {copy}: {table}\n{told}");
        assert!(is_empty(directory.path()), "files stay behind");
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let directory = directory();
    let mut running = command(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu.sh"));
    let ran = running.arg("run").env("CUDA_STAND_IN_DEVICES", "0").output().unwrap();
    // The script lies beside nothing that it could run.
    assert!(
        texts(&ran).1.contains("ringload-gpu does not run on this machine"),
        "{:?}",
        texts(&ran)
    );

    let mut checking = command(Path::new(env!("CARGO_BIN_EXE_ringload-gpu")));
    checking.args(["check", "--dir"]).arg(directory.path());
    let checked = checking.env("CUDA_STAND_IN_DEVICES", "0").output().unwrap();
    let (_, told) = texts(&checked);
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains("no CUDA driver") || told.contains("CUDA_ERROR_NO_DEVICE"), "{told}");
}
