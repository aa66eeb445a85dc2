//! Loads of slices by the command: from files, a web server and the cache, to the host and to GPUs.
//!
//! Hazards: a rank gets bytes of another one; a store or a disk is read more often than the parts need;
//! parts that are cached are mixed up; a GPU's scatter writes beyond its part; a wrong rule loads whole
//! tensors without a word.

use crate::common::command::{digest_lines, ringload, run};
use crate::common::nginx::Nginx;
use crate::common::stand_in::stand_in;
use crate::common::{Expected, directory, write};
use ringload::Dtype;
use std::path::Path;
use std::process::Command;

const WORLD: usize = 4;

/// Rows, columns that are close together, columns that are far apart, tensors that are whole, and short
/// ones of each kind, which are read together.
fn tensors() -> Vec<Expected> {
    let mut tensors = vec![
        Expected::new("l.0.q_proj.weight", Dtype::BF16, &[1024, 512], 1),
        Expected::new("l.0.o_proj.weight", Dtype::BF16, &[512, 1024], 2),
        Expected::new("l.0.far.o_proj.weight", Dtype::F32, &[3, 4 << 18], 3),
        Expected::new("l.0.norm.weight", Dtype::F32, &[512], 4),
        Expected::new("l.1.q_proj.weight", Dtype::F16, &[1000, 33], 5),
        Expected::new("l.1.o_proj.weight", Dtype::F16, &[33, 1000], 6),
    ];
    for seed in 10..40 {
        let (name, shape): (&str, &[usize]) = match seed % 3 {
            0 => ("q_proj.weight", &[32, 24]),
            1 => ("o_proj.weight", &[24, 32]),
            _ => ("norm.weight", &[100]),
        };
        tensors.push(Expected::new(format!("s.{seed}.{name}"), Dtype::BF16, shape, seed));
    }
    tensors
}

const RULES: [&str; 4] =
    ["--slice", "*.o_proj.weight=1:RANK/4", "--slice", "*_proj.weight=0:RANK/4"];

fn rules(rank: usize) -> Vec<String> {
    RULES.iter().map(|rule| rule.replace("RANK", &rank.to_string())).collect()
}

/// The tensors as `rank` gets them.
fn parts(rank: usize) -> Vec<Expected> {
    let mut tensors = tensors();
    for tensor in &mut tensors {
        let dim = match tensor.name.as_str() {
            name if name.contains("o_proj") => 1,
            name if name.contains("q_proj") => 0,
            _ => continue,
        };
        let row = tensor.bytes.len() / tensor.shape[..dim].iter().product::<usize>();
        let part = row / WORLD;
        tensor.bytes =
            tensor.bytes.chunks(row).flat_map(|row| &row[rank * part..][..part]).copied().collect();
        tensor.shape[dim] /= WORLD;
    }
    tensors
}

/// `load --digest` of the part of `rank`.
fn load(location: &str, rank: usize, change: impl FnOnce(&mut Command)) -> String {
    let mut command = ringload();
    command.args(["load", location, "--digest"]).args(rules(rank));
    change(&mut command);
    run(&mut command).quiet_success()
}

fn model(directory: &Path) -> String {
    let file = directory.join("m.safetensors");
    write(&file, &tensors(), None);
    file.to_str().unwrap().to_owned()
}

#[test]
fn each_rank_gets_its_part_from_files_and_on_gpus_whatever_the_options() {
    let directory = directory();
    let file = model(directory.path());
    for arguments in [
        &[][..],
        &["--memory-limit", "min"],
        &["--read-path", "buffered", "--engines", "3"],
        &["--read-path", "direct", "--drop", "--memory-limit", "4MiB"],
        &["--device", "cuda"],
        &["--device", "cuda:1", "--memory-limit", "min"],
        &["--device-map", "*o_proj*=cuda", "--memory-limit", "8MiB"],
    ] {
        for rank in 0..WORLD {
            let found = load(&file, rank, |command| {
                command.args(arguments).env("LD_LIBRARY_PATH", stand_in());
            });
            assert_eq!(found, digest_lines(&parts(rank)), "rank {rank} {arguments:?}");
        }
    }
}

/// Casts on the GPU of columns give the bits that casts on the host give.
#[test]
fn parts_are_cast_on_gpus_as_on_the_host() {
    let directory = directory();
    let file = model(directory.path());
    let cast = |device: &str| {
        load(&file, 2, |command| {
            command.args(["--dtype", "f32", "--device", device]);
            command.env("LD_LIBRARY_PATH", stand_in());
        })
    };
    let on_host = cast("cpu");
    assert_eq!(on_host, cast("cuda"));
    assert_ne!(on_host, digest_lines(&parts(2)));
}

/// A store sends the parts, gaps of less than 1 MiB between their rows, and no more; the cache then has
/// the pages of the part and lends them to another rank.
#[test]
fn a_store_sends_only_the_parts_and_the_cache_keeps_them() {
    let put = |root: &Path| write(&root.join("m.safetensors"), &tensors(), None);
    let Some(nginx) = Nginx::start("", put) else { return };
    let url = nginx.url("m.safetensors");
    let cache = directory();
    for rank in [1, 1, 2] {
        let found = load(&url, rank, |command| {
            command.arg("--cache-dir").arg(cache.path());
        });
        assert_eq!(found, digest_lines(&parts(rank)), "rank {rank}");
    }
}

#[test]
fn inspect_shows_what_a_rank_would_read() {
    let directory = directory();
    let file = model(directory.path());
    let inspect = |arguments: &[&str]| {
        let mut command = ringload();
        command.args(["inspect", &file]).args(rules(1)).args(arguments);
        run(&mut command)
    };
    let listing = inspect(&[]).quiet_success();
    assert!(listing.contains("[256, 512] of [1024, 512]"), "{listing}");
    assert!(listing.contains("loaded,"), "{listing}");
    let json = inspect(&["--json"]).json();
    let slice = |name: &str| {
        let tensors = json["tensors"].as_array().unwrap();
        let tensor = tensors.iter().find(|tensor| tensor["name"] == name).unwrap();
        tensor["slice"].clone()
    };
    let rows = slice("l.0.q_proj.weight");
    assert_eq!(
        (rows["bytes"].as_u64(), rows["read_bytes"].as_u64()),
        (Some(1 << 18), Some(1 << 18))
    );
    let columns = slice("l.0.o_proj.weight");
    assert_eq!(columns["shape"], serde_json::json!([512, 256]));
    // From the first run to the end of the last.
    assert_eq!(columns["read_bytes"].as_u64(), Some(511 * 2048 + 512));
    let far = slice("l.0.far.o_proj.weight");
    assert_eq!(far["bytes"], far["read_bytes"], "gaps of 3 MiB are skipped");
    let without = run(ringload().args(["inspect", "--json", &file])).json();
    assert!(without["tensors"][0].get("slice").is_none());
}

#[test]
fn rules_that_fit_nothing_are_errors_before_anything_is_read() {
    let directory = directory();
    let file = model(directory.path());
    let refused = |rule: &str| run(ringload().args(["load", &file, "--slice", rule]));
    for (rule, expected) in [
        ("x.*=0:0/4", "no tensor matches the slice x.*=0:0/4"),
        ("l.0.norm.weight=1:0/4", "tensor \"l.0.norm.weight\" of F32 [512]"),
        ("l.1.q_proj.weight=1:3/33", ""),
        ("*norm*=0:3/1000", ""),
        ("*norm*=0:900/1000", "rank 900 of 1000 gets nothing of dimension 0"),
    ] {
        if expected.is_empty() {
            refused(rule).quiet_success();
            continue;
        }
        let error = refused(rule).failure().replace('\n', " ");
        assert!(error.contains(expected), "{rule}: {error}");
    }
    let usage = refused("*=0:4/4").wrong_usage();
    assert!(usage.contains("rank 4 is not below the number of ranks, 4"), "{usage}");
}
