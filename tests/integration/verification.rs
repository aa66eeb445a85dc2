//! Damaged files are noticed while they are loaded.
//!
//! Users loaded shards that a disk or a copy had silently damaged, and served nonsense: nothing compared
//! local files with anything, although a checksum was often at hand: the name of the blob in the Hub's
//! cache, a SHA256SUMS beside the file, or one that they had written themselves. Right is: with
//! `--verify` or `--manifest`, a file with any wrong bit is an error that names it, on the host and on
//! GPUs, whatever reads it; and without a checksum to compare with, `--verify` is an error, too.

use crate::common::command::{Finished, ringload, run, sha256};
use crate::common::stand_in::stand_in;
use crate::common::{Expected, directory, write};
use ringload::Dtype;
use ringload::internals::crc64_nvme;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A tensor larger than a read under a small limit, odd and empty ones, and odd names.
fn tensors(seed: u64) -> Vec<Expected> {
    let sizes = [3, 0, 2_500_001, 40_000, 0, 4096, 1, 999_999];
    let named = |(i, &size): (usize, &usize)| {
        Expected::of_bytes(format!("t{i} \"é\\\n{seed}"), size, seed * 100 + i as u64)
    };
    sizes.iter().enumerate().map(named).collect()
}

/// A checkpoint of two shards whose headers end with padding.
pub struct Shards {
    directory: TempDir,
    pub files: [PathBuf; 2],
}

impl Shards {
    pub fn new() -> Self {
        let directory = directory();
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let files = names.map(|name| directory.path().join(name));
        for (number, file) in files.iter().enumerate() {
            for note in ["ab", "abc", "abcd"] {
                let metadata = Some([("note".to_owned(), note.to_owned())].into());
                write(file, &tensors(number as u64), metadata);
                if header(&fs::read(file).unwrap()).ends_with(b" ") {
                    break;
                }
            }
        }
        Self { directory, files }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn sum(&self, arguments: &[&str]) -> PathBuf {
        let manifest = self.path().join("manifest.json");
        let text = run(ringload().arg("sum").arg(self.path()).args(arguments)).quiet_success();
        fs::write(&manifest, text).unwrap();
        manifest
    }
}

fn header(file: &[u8]) -> &[u8] {
    &file[8..8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize]
}

/// Files that differ from `right` in one place of each kind, and that are valid checkpoints.
fn damaged(right: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let changed = |what, at: usize, to: u8| {
        let mut file = right.to_vec();
        assert_ne!(std::mem::replace(&mut file[at], to), to);
        (what, file)
    };
    let data = 8 + header(right).len();
    let note = right.windows(3).position(|bytes| bytes == b"\"ab").unwrap() + 2;
    let flipped = |what, at: usize| changed(what, at, right[at] ^ 1);
    vec![
        flipped("metadata", note),
        changed("padding", data - 1, b'\n'),
        flipped("the first tensor", data),
        flipped("a block's first byte", 4096 * 20),
        flipped("a block's last byte", 4096 * 300 - 1),
        flipped("the last byte", right.len() - 1),
    ]
}

fn load(path: &Path, arguments: &[&str]) -> Finished {
    let mut command = ringload();
    command.env("LD_LIBRARY_PATH", stand_in()).arg("load").arg(path).args(arguments);
    run(&mut command)
}

/// Ways to load a checkpoint.
const WAYS: [&[&str]; 6] = [
    &[],
    &["--memory-limit", "min", "--engines", "3"],
    &["--read-path", "direct", "--drop"],
    &["--read-path", "buffered", "--memory-limit", "3MiB"],
    &["--device", "cuda", "--memory-limit", "147456"],
    &["--device", "cuda", "--device-map", "t2*=cpu"],
];

/// Loads the right checkpoint and the damaged ones in every way; the second shard is damaged.
#[track_caller]
fn finds_damage(model: &Shards, path: &Path, file: &Path, options: &[&str], says: &str) {
    let right = fs::read(file).unwrap();
    for way in WAYS {
        let told = load(path, &[way, options].concat()).quiet_success();
        assert!(told.contains(says), "{way:?}: {told}");
    }
    for (number, (what, wrong)) in damaged(&right).into_iter().enumerate() {
        fs::write(file, wrong).unwrap();
        let way = WAYS[number % WAYS.len()];
        for way in [way, WAYS[(number + 3) % WAYS.len()]] {
            let told = load(path, &[way, options].concat()).failure();
            assert!(told.contains("corrupt"), "{what} {way:?}: {told}");
            assert!(told.contains("model-00002-of"), "{what} {way:?}: {told}");
        }
        // Nothing else notices.
        load(path, way).quiet_success();
    }
    fs::write(file, right).unwrap();
    let _ = model;
}

#[test]
fn damage_is_found_by_the_checksums_of_a_manifest() {
    let model = Shards::new();
    let manifest = model.sum(&[]);
    let options = ["--manifest", manifest.to_str().unwrap()];
    finds_damage(&model, model.path(), &model.files[1], &options, "16 tensors verified");
}

#[test]
fn damage_is_found_by_a_manifest_with_sha_256_too() {
    let model = Shards::new();
    let manifest = model.sum(&["--sha256"]);
    let options = ["--manifest", manifest.to_str().unwrap()];
    let says = "2 files verified against the SHA-256 of the manifest";
    finds_damage(&model, model.path(), &model.files[1], &options, says);
}

/// The CRCs of a manifest may be right by design of a forger; its SHA-256 is compared, too, where all of
/// a file is loaded.
#[test]
fn another_sha_256_in_a_manifest_is_found_in_whole_loads() {
    let model = Shards::new();
    let manifest = model.sum(&["--sha256"]);
    let right = fs::read_to_string(&manifest).unwrap();
    let sum = sha256(&fs::read(&model.files[1]).unwrap());
    let digit = if sum.starts_with('0') { "1" } else { "0" };
    fs::write(&manifest, right.replace(&sum, &format!("{digit}{}", &sum[1..]))).unwrap();
    for way in WAYS {
        let manifest = ["--manifest", manifest.to_str().unwrap()];
        let told = load(model.path(), &[way, &manifest].concat()).failure().replace('\n', " ");
        assert!(told.contains("model-00002-of-00002.safetensors is corrupt"), "{told}");
        assert!(told.contains("the SHA-256 of its bytes is"), "{told}");
        load(model.path(), &[way, &manifest, &["--tensors", "t2*"]].concat()).quiet_success();
    }
}

#[test]
fn damage_is_found_by_sha256sums_as_the_program_writes_it() {
    for tag in [&[][..], &["--tag"], &["--binary"]] {
        let model = Shards::new();
        let mut sums = Command::new("sha256sum");
        let names = model.files.iter().map(|file| file.file_name().unwrap());
        let text = run(sums.current_dir(model.path()).args(tag).args(names)).quiet_success();
        fs::write(model.path().join("SHA256SUMS"), text).unwrap();
        let says = "2 files verified against the SHA-256 of ";
        finds_damage(&model, model.path(), &model.files[1], &["--verify"], says);
    }
}

#[test]
fn damage_is_found_by_a_checksum_file_of_each_shard() {
    let model = Shards::new();
    for file in &model.files {
        let sum = sha256(&fs::read(file).unwrap());
        fs::write(format!("{}.sha256", file.display()), sum).unwrap();
    }
    let says = "1 file verified against the SHA-256 of ";
    finds_damage(&model, model.path(), &model.files[1], &["--verify"], says);
}

#[test]
fn damage_is_found_by_the_names_of_blobs_in_the_hubs_cache() {
    let model = Shards::new();
    let repository = model.path().join("models--a--b");
    let snapshot = repository.join("snapshots/main");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("blobs")).unwrap();
    let blobs = model.files.each_ref().map(|file| {
        let sum = sha256(&fs::read(file).unwrap());
        let blob = repository.join("blobs").join(&sum);
        fs::rename(file, &blob).unwrap();
        symlink(format!("../../blobs/{sum}"), snapshot.join(file.file_name().unwrap())).unwrap();
        blob
    });
    let says = "2 files verified against the SHA-256 of the name of its blob";
    finds_damage(&model, &snapshot, &blobs[1], &["--verify"], says);
}

/// A past fault: without a connection, `hf://` was refused with `--verify`, although the cache was
/// complete and its blobs are named by their SHA-256. They are verified as they are by their paths.
#[test]
fn offline_the_hubs_cache_is_verified_by_the_names_of_its_blobs() {
    let home = directory();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repository = home.path().join("models--me--x");
    let snapshot = repository.join("snapshots").join(commit);
    for folder in [&snapshot, &repository.join("blobs"), &repository.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), commit).unwrap();
    let whole = home.path().join("whole");
    write(&whole, &tensors(1), None);
    let mut bytes = fs::read(&whole).unwrap();
    let blob = repository.join("blobs").join(sha256(&bytes));
    let file = snapshot.join("model.safetensors");
    fs::rename(&whole, &blob).unwrap();
    symlink(&blob, &file).unwrap();
    let load = || {
        let mut command = ringload();
        command.env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", home.path());
        run(command.args(["load", "hf://me/x", "--verify"]))
    };
    let told = load().quiet_success();
    assert!(told.contains("1 file verified against the SHA-256 of the name of its blob"), "{told}");
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&blob, bytes).unwrap();
    let told = load().failure();
    assert!(told.contains("corrupt") && told.contains("model.safetensors"), "{told}");
    // A file that is not in Git LFS, whose blob has another name.
    let other = blob.with_file_name("0123456789abcdef0123456789abcdef01234567");
    fs::rename(&blob, &other).unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&other, &file).unwrap();
    let told = load().failure();
    assert!(told.contains("is a file without a checksum"), "{told}");
}

/// Names that sha256sum escapes, and files that it does not know.
#[test]
fn a_file_with_an_odd_name_is_found_among_the_checksums() {
    let directory = directory();
    let path = directory.path().join("a \\ b\nc).safetensors");
    write(&path, &[Expected::of_bytes("t", 10_000, 1)], None);
    let refused = load(&path, &["--verify"]).failure();
    assert!(refused.contains("without a checksum") && refused.contains("--manifest"), "{refused}");
    for tag in [&[][..], &["--tag"]] {
        let mut sums = Command::new("sha256sum");
        let name = path.file_name().unwrap();
        let text = run(sums.current_dir(directory.path()).args(tag).arg(name)).quiet_success();
        fs::write(directory.path().join("SHA256SUMS"), text).unwrap();
        let report = load(&path, &["--verify", "--json"]).json();
        let against = report["verified_against"].as_array().unwrap();
        assert_eq!(against.len(), 1, "{report}");
        // Programs get the name as it is, not as it is displayed.
        assert_eq!(against[0]["location"], path.to_str().unwrap(), "{report}");
        assert_eq!(report["verified_objects"], 0);
    }
    fs::write(directory.path().join("SHA256SUMS"), "").unwrap();
    load(&path, &["--verify"]).failure();
}

#[test]
fn sums_are_those_of_the_files_however_they_are_read() {
    let model = Shards::new();
    let ways = [
        &["--sha256"][..],
        &["--sha256", "--memory-limit", "min"],
        &["--sha256", "--engines", "3", "--read-path", "direct", "--read-size", "64KiB"],
        &["--sha256", "--read-path", "mapped"],
    ];
    let texts =
        ways.map(|way| run(ringload().arg("sum").args(&model.files).args(way)).quiet_success());
    texts.iter().for_each(|text| assert_eq!(*text, texts[0]));
    let manifest: serde_json::Value = serde_json::from_str(&texts[0]).unwrap();
    for (number, file) in model.files.iter().enumerate() {
        let bytes = fs::read(file).unwrap();
        let sums = &manifest["files"][number];
        assert_eq!(sums["name"], file.file_name().unwrap().to_str().unwrap());
        assert_eq!(sums["bytes"], bytes.len());
        assert_eq!(sums["crc64nvme"], format!("{:016x}", crc64_nvme(&bytes)));
        assert_eq!(sums["sha256"], sha256(&bytes));
        let found = sums["tensors"].as_array().unwrap();
        assert_eq!(found.len(), 8);
        for expected in tensors(number as u64) {
            let sum = found.iter().find(|sum| sum["name"] == expected.name).unwrap();
            assert_eq!(sum["crc64nvme"], format!("{:016x}", crc64_nvme(&expected.bytes)));
            let offset = sum["offset"].as_u64().unwrap() as usize;
            assert_eq!(bytes[offset..offset + expected.bytes.len()], expected.bytes);
        }
    }
}

/// A file that ends early, or cannot be read, leaves no half of a manifest.
#[test]
fn a_sum_that_fails_prints_nothing() {
    let model = Shards::new();
    let file = fs::File::options().write(true).open(&model.files[1]).unwrap();
    file.set_len(1 << 20).unwrap();
    let told = run(ringload().arg("sum").arg(model.path())).failure();
    assert!(told.contains("model-00002-of-00002.safetensors"), "{told}");
    run(ringload().args(["sum", "--device", "cuda"]).arg(model.path())).wrong_usage();
}

#[test]
fn the_mapped_read_path_is_refused() {
    let model = Shards::new();
    let manifest = model.sum(&[]);
    for option in [&["--manifest", manifest.to_str().unwrap()][..], &["--check-finite"]] {
        let told = load(model.path(), &[option, &["--read-path", "mapped"]].concat()).failure();
        assert!(told.contains("use another read path"), "{told}");
    }
}

/// Floats of every place: the first and the last of a tensor, behind an odd offset, where the pieces of
/// a GPU meet, and cast.
#[test]
fn tensors_with_nan_or_infinity_are_named() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    let plain = |name: &str, dtype: Dtype, len: usize| {
        let mut tensor = Expected::new(name, dtype, &[len], 1);
        tensor.bytes.fill(0x11);
        tensor
    };
    let mut all = vec![
        plain("a", Dtype::F64, 3),
        plain("b", Dtype::F32, 600_001),
        plain("c", Dtype::BF16, 300_001),
        plain("d", Dtype::F16, 5),
        plain("e", Dtype::F8_E8M0, 7),
        plain("z", Dtype::U8, 3),
    ];
    all[5].bytes.fill(0xFF);
    write(&path, &all, None);
    let cast: &[&str] = &["--dtype", "f16"];
    for way in WAYS.iter().chain([&cast]) {
        load(&path, &[way, &["--check-finite"][..]].concat()).quiet_success();
    }
    all[1].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    all[1].bytes[2_400_000..].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    all[2].bytes[600_000..].copy_from_slice(&0x7F80_u16.to_le_bytes());
    all[4].bytes[6] = 0xFF;
    write(&path, &all, None);
    for way in WAYS.iter().chain([&cast]) {
        let told = load(&path, &[way, &["--check-finite"][..]].concat()).failure();
        let expected = "3 tensors hold values that are not finite: ";
        assert!(told.replace('\n', " ").contains(expected), "{way:?}: {told}");
        for tensor in ["\"b\" (1 NaN, 1 infinite)", "\"c\" (0 NaN, 1 infinite)", "\"e\" (1 NaN,"] {
            assert!(told.replace('\n', " ").contains(tensor), "{way:?}: {told}");
        }
        load(&path, way).quiet_success();
    }
    let one = load(&path, &["--check-finite", "--tensors", "[ad]"]);
    one.quiet_success();
}
