//! The output of the command is an interface: scripts parse its JSON, compare its digests, and pipe
//! it into programs that may close the pipe early.
//!
//! Hazards: a JSON key is missing or has another meaning; digests are in another order, or those of
//! other tensors; tensors are lost or duplicated under a memory limit; the limit is exceeded; a
//! progress bar is printed to a log; a closed pipe causes a panic or a failure.

use crate::common::command::{digest_lines, ringload, run, start, wait};
use crate::common::{Expected, directory, write, write_index};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Two shards with an index; `tensors` are those of both.
struct Model {
    directory: TempDir,
    tensors: Vec<Expected>,
}

impl Model {
    fn new() -> Self {
        let directory = directory();
        let tensors: Vec<_> = (0..24)
            .map(|i| {
                let kind = if i % 2 == 0 { "layer" } else { "norm" };
                Expected::of_bytes(format!("{kind}.{i}"), 50_000 * (i % 5) + i, i as u64)
            })
            .collect();
        let (first, second) = tensors.split_at(10);
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        write(&directory.path().join("a.safetensors"), first, Some(metadata.clone()));
        write(&directory.path().join("b.safetensors"), second, Some(metadata));
        let index = directory.path().join("model.safetensors.index.json");
        write_index(&index, [("a.safetensors", first), ("b.safetensors", second)]);
        Model { directory, tensors }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum()
    }
}

#[test]
fn the_json_of_a_load_has_the_documented_keys() {
    let model = Model::new();
    let report = run(ringload().arg("load").arg(model.directory.path()).arg("--json")).json();
    assert_eq!(report["bytes"], model.bytes());
    assert_eq!(report["tensors"], model.tensors.len());
    for key in ["seconds", "gigabytes_per_second", "cpu_seconds"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} in {report:#}");
    }
    assert!(report["peak_rss_bytes"].as_u64().unwrap() > model.bytes(), "{report:#}");
    assert!(report["engines"].as_u64().unwrap() >= 1, "{report:#}");
    assert!(!report["read_path"].as_str().unwrap().is_empty(), "{report:#}");
    assert!(report["memory_limit_bytes"].is_null(), "{report:#}");
    assert!(report.get("digests").is_none(), "{report:#}");
}

#[test]
fn a_checkpoint_is_the_same_however_it_is_named() {
    let model = Model::new();
    let lines = digest_lines(&model.tensors);
    let [a, b] = ["a.safetensors", "b.safetensors"].map(|name| model.path(name));
    let url = format!("file://{}", model.directory.path().display()).into();
    for locations in [
        vec![model.directory.path().to_path_buf()],
        vec![model.path("model.safetensors.index.json")],
        vec![model.path("[ab].safetensors")],
        vec![a.clone(), b.clone()],
        vec![b, a.clone()],
        vec![model.directory.path().to_path_buf(), a],
        vec![url],
    ] {
        let printed = run(ringload().args(["load", "--digest"]).args(&locations)).quiet_success();
        assert_eq!(printed, lines, "{locations:?}");
    }
}

#[test]
fn digests_are_the_same_under_every_limit_and_read_path() {
    let model = Model::new();
    let lines = digest_lines(&model.tensors);
    let limits = ["unlimited", "min", "200024", "210001", "500000", "1MiB", "1GiB"];
    for limit in limits {
        for read_path in ["auto", "direct", "buffered"] {
            let mut command = ringload();
            command.args(["load", "--digest", "--memory-limit", limit, "--read-path", read_path]);
            let printed = run(command.arg(model.directory.path())).quiet_success();
            assert_eq!(printed, lines, "{limit} {read_path}");
        }
    }
    for read_size in ["1", "4096", "5000", "100GiB"] {
        let mut command = ringload();
        command.args(["load", "--digest", "--read-size", read_size]);
        assert_eq!(run(command.arg(model.directory.path())).quiet_success(), lines, "{read_size}");
    }
    let mapped = ["load", "--digest", "--read-path", "mapped"];
    assert_eq!(run(ringload().args(mapped).arg(model.directory.path())).quiet_success(), lines);
}

#[test]
fn only_the_tensors_asked_for_are_digested() {
    let model = Model::new();
    for (globs, wanted) in [
        (&["layer.*"][..], &["layer."][..]),
        (&["layer.*", "norm.1"], &["layer.", "norm.1\n"]),
        (&["norm.1?"], &["norm.11", "norm.13", "norm.15", "norm.17", "norm.19"]),
    ] {
        let is_wanted = |tensor: &&Expected| {
            let line_end = format!("{}\n", tensor.name);
            wanted.iter().any(|begin| line_end.starts_with(begin))
        };
        for limit in ["unlimited", "min"] {
            let mut command = ringload();
            command.args(["load", "--digest", "--memory-limit", limit]);
            command.args(globs.iter().flat_map(|glob| ["--tensors", glob]));
            let printed = run(command.arg(model.directory.path())).quiet_success();
            assert_eq!(printed, digest_lines(model.tensors.iter().filter(is_wanted)), "{globs:?}");
        }
    }
}

#[test]
fn the_system_s_own_sha256_agrees() {
    let model = Model::new();
    let (directory, tensor) = (crate::common::directory(), &model.tensors[4]);
    fs::write(directory.path().join(&tensor.name), &tensor.bytes).unwrap();
    let digests =
        run(ringload().args(["load", "--digest"]).arg(model.directory.path())).quiet_success();
    let mut check = std::process::Command::new("sha256sum");
    match check.arg(&tensor.name).current_dir(directory.path()).output() {
        Ok(output) => {
            assert!(digests.contains(std::str::from_utf8(&output.stdout).unwrap()));
        }
        Err(error) => crate::common::skip(&format!("no sha256sum here: {error}")),
    }
}

#[test]
fn an_inspection_lists_every_tensor() {
    let model = Model::new();
    let listing = run(ringload().arg("inspect").arg(model.directory.path()).arg("--json")).json();
    assert_eq!(listing["bytes"], model.bytes());
    assert_eq!(listing["metadata"]["format"], "pt");
    assert_eq!(listing["shards"].as_array().unwrap().len(), 2);
    let listed = listing["tensors"].as_array().unwrap();
    assert_eq!(listed.len(), model.tensors.len());
    for tensor in &model.tensors {
        let entry = listed.iter().find(|entry| entry["name"] == *tensor.name).unwrap();
        assert_eq!(entry["dtype"], "U8");
        assert_eq!(entry["shape"], serde_json::json!(tensor.shape));
        assert_eq!(entry["bytes"], tensor.bytes.len());
        // The reported offset is the offset in the file.
        let shard = &listing["shards"][entry["shard"].as_u64().unwrap() as usize];
        let file = fs::read(shard["location"].as_str().unwrap()).unwrap();
        let offset = entry["offset"].as_u64().unwrap() as usize;
        assert!(file[offset..][..tensor.bytes.len()] == tensor.bytes, "{}", tensor.name);
    }
    let printed = run(ringload().arg("inspect").arg(model.directory.path())).quiet_success();
    for tensor in &model.tensors {
        assert!(
            printed.lines().any(|line| line.starts_with(&format!("{} ", tensor.name))),
            "{printed}"
        );
    }
    assert!(printed.contains("24 tensors, ") && printed.contains(" in 2 shards\n"), "{printed}");
}

#[test]
fn names_with_control_characters_do_not_reach_the_terminal() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write(&path, &[Expected::of_bytes("a\x1b[31m\nb", 3, 1)], None);
    let printed = run(ringload().arg("inspect").arg(&path)).quiet_success();
    assert!(!printed.contains('\x1b') && printed.contains(r"a\u{1b}[31m\nb"), "{printed}");
}

#[test]
fn a_doctor_s_findings_have_level_topic_and_fact() {
    let directory = directory();
    let diagnosis = run(ringload().arg("doctor").arg(directory.path()).arg("--json")).json();
    assert_eq!(diagnosis["version"], env!("CARGO_PKG_VERSION"));
    let findings = diagnosis["findings"].as_array().unwrap();
    for topic in ["kernel", "io_uring", "locked memory", "file system", "direct I/O", "cores"] {
        let finding = findings.iter().find(|finding| finding["topic"] == topic);
        let finding = finding.unwrap_or_else(|| panic!("{topic} in {diagnosis:#}"));
        assert!(["ok", "warn", "info"].contains(&finding["level"].as_str().unwrap()));
        assert!(!finding["fact"].as_str().unwrap().is_empty(), "{finding:#}");
        let has_remedy = finding["remedies"].as_array().is_some_and(|it| !it.is_empty());
        assert_eq!(has_remedy, finding["level"] == "warn", "{finding:#}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "it left something behind");
    let missing = directory.path().join("missing");
    let printed = run(ringload().arg("doctor").arg(&missing)).failure();
    let sentence = format!("error: cannot examine {}: no such file", missing.display());
    assert!(printed.starts_with(&sentence), "{printed}");
}

#[test]
fn a_load_prints_two_lines_and_no_bar() {
    let model = Model::new();
    let printed = run(ringload().arg("load").arg(model.directory.path())).quiet_success();
    assert!(printed.starts_with("24 tensors, 2.19 MiB in "), "{printed}");
    assert!(printed.lines().nth(1).unwrap().starts_with("CPU "), "{printed}");
    assert!(!printed.contains('\r') && !printed.contains('\x1b'), "{printed}");
}

#[test]
fn the_log_goes_to_standard_error_when_asked_for() {
    let model = Model::new();
    let mut command = ringload();
    let arguments = ["load", "-v", "--read-path", "direct", "--json"];
    let finished = run(command.args(arguments).arg(model.directory.path()));
    assert!(finished.status.success());
    serde_json::from_str::<serde_json::Value>(&finished.stdout).unwrap();
    assert!(!finished.stderr.contains('\x1b'), "{}", finished.stderr);
}

/// Writes a sparse file: the header of `count` tensors of `each` bytes, and a hole for their data.
fn write_sparse(path: &Path, count: usize, each: u64) {
    let entries: Vec<_> = (0..count as u64)
        .map(|i| {
            let (begin, end) = (i * each, (i + 1) * each);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{each}],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    let header = crate::common::raw_file(format!("{{{}}}", entries.join(",")), b"");
    let mut file = File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(header.len() as u64 + count as u64 * each).unwrap();
}

#[test]
fn the_peak_of_memory_stays_near_the_limit() {
    const MIB: u64 = 1 << 20;
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write_sparse(&path, 64, 4 * MIB);
    for arguments in [&["--read-path", "direct"][..], &["--read-path", "buffered"], &["--digest"]] {
        let mut command = ringload();
        command.args(["load", "--json", "--memory-limit", "16MiB"]).args(arguments);
        let report = run(command.arg(&path)).json();
        assert_eq!(report["bytes"], 256 * MIB);
        assert_eq!(report["memory_limit_bytes"], 16 * MIB);
        let peak = report["peak_rss_bytes"].as_u64().unwrap();
        assert!(peak <= (16 + 64) * MIB, "{} MiB: {report:#}", peak / MIB);
    }
    let all = run(ringload().arg("load").arg(&path).arg("--json")).json();
    assert!(all["peak_rss_bytes"].as_u64().unwrap() >= 256 * MIB, "it is not resident: {all:#}");
}

#[test]
fn an_output_that_is_closed_early_is_quiet() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    // More output than the buffer of a pipe.
    write_sparse(&path, 5000, 1);
    for arguments in [&["inspect"][..], &["inspect", "--json"], &["load", "--digest"]] {
        let mut child = start(ringload().args(arguments).arg(&path));
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        drop(stdout);
        assert!(wait(&mut child).success(), "{arguments:?}");
        let mut printed = String::new();
        child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "", "{arguments:?}");
    }
}

#[test]
fn an_output_that_is_full_is_a_failure() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return crate::common::skip("no /dev/full here");
    };
    let model = Model::new();
    let mut command = ringload();
    command.arg("load").arg(model.directory.path()).stdout(full);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        printed.starts_with("error: cannot write to standard output\ncaused by: "),
        "{printed}"
    );
}

/// One table serves the command, C and Python. This test lists the options that one of them lacks or
/// spells differently on purpose.
#[test]
fn the_command_c_and_python_have_the_same_options() {
    let table: BTreeSet<&str> = ringload::Loader::options().iter().map(|own| own.name).collect();
    let without = |names: &[&str]| -> BTreeSet<String> {
        assert!(names.iter().all(|name| table.contains(name)), "{names:?}");
        table.iter().filter(|name| !names.contains(name)).map(ToString::to_string).collect()
    };

    let help = run(ringload().args(["load", "--help"])).quiet_success();
    let flags = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    let flags = flags.map(|flag| flag.trim_end_matches('.').replace('-', "_"));
    let of_command = ["digest", "drop", "help", "json", "trace", "verbose"].map(str::to_owned);
    let flags: BTreeSet<_> = flags.filter(|flag| !of_command.contains(flag)).collect();
    let no_flags = [
        "allocation", // the command keeps or drops all tensors, in an order that does not show
        "hold_timeout_seconds",
        "names",
        "order",
        "s3_access_key_id", // no secrets on command lines
        "s3_secret_access_key",
        "s3_session_token",
    ];
    assert_eq!(flags, without(&no_flags));

    let source = |path| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let between = |text: &str, begin: &str, end: &str| {
        let (_, rest) = text.split_once(begin).unwrap();
        rest.split_once(end).unwrap().0.to_owned()
    };
    let header = source("src/capi/ringload.h").unwrap();
    let list = between(&header, "Sets an option", "int ringload_loader_set");
    let listed = list.lines().filter_map(|line| line.strip_prefix(" * - ")?.split_once(": "));
    let listed = listed.flat_map(|(names, _)| names.split(", "));
    assert_eq!(listed.map(|name| name.replace('`', "")).collect::<BTreeSet<_>>(), without(&[]));

    // In Python the device map, the headers and the slices are dicts, and the keys are a tuple.
    let mut expected = without(&[
        "device_map",
        "header",
        "s3_access_key_id",
        "s3_secret_access_key",
        "s3_session_token",
        "slice",
    ]);
    expected
        .extend(["headers", "slices", "s3_credentials", "keep", "runai_env"].map(str::to_owned));
    let stub = source("python/ringload/_ringload.pyi").unwrap();
    let stub = between(&stub, "        *,\n        device:", ") -> Loader");
    let typed = stub.lines().filter_map(|line| line.trim().split_once(": "));
    let typed = typed.map(|(name, _)| name.to_owned()).chain(["device".to_owned()]);
    assert_eq!(typed.collect::<BTreeSet<_>>(), expected);
    let signature = source("python/src/loader.rs").unwrap();
    let signature = between(&signature, "text_signature = \"(*, device", ")\")]");
    let named = format!("device{signature}").replace("\\\n", "");
    let named = named.split(", ").filter_map(|own| own.trim().split_once('='));
    assert_eq!(named.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>(), expected);
}
