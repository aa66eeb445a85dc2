//! The synthetic checkpoint, which is written once and recognised by its manifest.
//!
//! ```text
//! DIR/llama/ringload-bench.json              the manifest: the files and their lengths
//!           model-00001-of-00004.safetensors ...
//!           model.safetensors.index.json
//! ```
//!
//! The manifest is an empty list while the other files are written. A directory with a manifest may be
//! overwritten, and one that does not hold the files of its manifest is not used. A directory with
//! other content is refused.

use super::model;
use crate::failure::{Failure, Outcome};
use crate::format;
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use ringload::internals::read_small;
use ringload::{Error, ErrorKind};
use ringload_measure::checkpoint::{self, Tensor};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "ringload-bench.json";
/// A file that cargo writes to every target directory.
const CARGO_FILE: &str = ".rustc_info.json";
/// The free space that must remain after the checkpoint is written.
const SPARE_BYTES: u64 = 256 << 20;

/// The name and length of each file.
type Manifest = Vec<(String, u64)>;

/// Returns a directory below `base` with a checkpoint of about `size_bytes`, which is written if
/// needed; `progress` is called with the bytes written and the total.
///
/// # Errors
/// When the size is too small for a model, the disk too full, or writing fails.
pub fn checkpoint(base: &Path, size_bytes: u64, progress: impl Fn(u64, u64)) -> Outcome<PathBuf> {
    if size_bytes < model::least_bytes() {
        let least = format::size(model::least_bytes());
        let sentence = format!("--size is too small for a model; give at least {least}");
        return Err(Failure::usage(sentence));
    }
    let layers = model::layers_for(size_bytes);
    let directory = base.join("llama");
    // Before the tensors are made, whose number grows with the size.
    check_space(&directory, model::bytes_of(layers), 0)?;
    let shards = model::shards(model::tensors(layers));
    let manifest = manifest(&shards).map_err(|error| cannot("write", &directory, error))?;
    if read_manifest(&directory).as_ref() != Some(&manifest) || !is_met(&manifest, &directory) {
        check_space(&directory, bytes_of(&manifest), SPARE_BYTES)?;
        clear(&directory)?;
        write(&directory, &manifest, &shards, progress)?;
    }
    Ok(directory)
}

fn manifest(shards: &[Vec<Tensor>]) -> std::io::Result<Manifest> {
    let file = |(number, shard): (usize, &Vec<Tensor>)| {
        let bytes = checkpoint::header(shard)?.len() as u64 + checkpoint::data_bytes(shard);
        Ok((checkpoint::shard_name(number, shards.len()), bytes))
    };
    shards.iter().enumerate().map(file).collect()
}

fn read_manifest(directory: &Path) -> Option<Manifest> {
    serde_json::from_slice(&read_small(&directory.join(MANIFEST), "manifest").ok()?).ok()
}

/// Whether every file exists with its length.
fn is_met(manifest: &Manifest, directory: &Path) -> bool {
    manifest.iter().all(|(name, bytes)| {
        fs::metadata(directory.join(name)).is_ok_and(|found| found.len() == *bytes)
    })
}

/// Creates `directory`, or empties it if it has a manifest.
fn clear(directory: &Path) -> Outcome {
    let occupied = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && read_manifest(directory).is_none() {
        let sentence = format!("{} holds other files; give another --dir", directory.display());
        return Err(Error::new(ErrorKind::InvalidInput, sentence).into());
    }
    if occupied {
        fs::remove_dir_all(directory).map_err(|error| cannot("remove", directory, error))?;
    }
    fs::create_dir_all(directory).map_err(|error| cannot("create", directory, error))
}

/// Checks that `bytes` and `spare_bytes` fit where `directory` is or will be. The checkpoint that it
/// holds is removed first.
fn check_space(directory: &Path, bytes: u64, spare_bytes: u64) -> Outcome {
    let held = read_manifest(directory).map_or(0, |manifest| bytes_of(&manifest));
    let there = directory.ancestors().map(|path| match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    });
    let disk = there.map(statvfs).find(|disk| !matches!(disk, Err(Errno::ENOENT | Errno::ENOTDIR)));
    let disk = disk.unwrap_or(Err(Errno::ENOENT));
    let disk = disk.map_err(|error| cannot("examine", directory, error.into()))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size()).saturating_add(held);
    if free >= bytes.saturating_add(spare_bytes) {
        return Ok(());
    }
    let sentence = format!(
        "the checkpoint needs {} and {} has {} free; give a smaller --size, or a --dir on another \
         disk",
        format::size(bytes),
        directory.display(),
        format::size(free)
    );
    Err(Error::new(ErrorKind::Io, sentence).into())
}

fn bytes_of(manifest: &Manifest) -> u64 {
    manifest.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
}

fn write(
    directory: &Path,
    manifest: &Manifest,
    shards: &[Vec<Tensor>],
    progress: impl Fn(u64, u64),
) -> Outcome {
    let save = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| cannot("write", &path, error))
    };
    save(MANIFEST, "[]".to_owned())?;
    let total = shards.iter().map(|shard| checkpoint::data_bytes(shard)).sum();
    let mut done = 0;
    for ((name, bytes), shard) in manifest.iter().zip(shards) {
        let path = directory.join(name);
        checkpoint::write(&path, shard, *bytes, |tensor, _| {
            done += tensor.bytes();
            progress(done, total);
        })
        .map_err(|error| cannot("write", &path, error))?;
    }
    let names = manifest.iter().map(|(name, _)| name.as_str());
    let index = checkpoint::index(names.zip(shards.iter().map(Vec::as_slice)));
    save("model.safetensors.index.json", index)?;
    save(MANIFEST, json!(manifest).to_string())
}

fn cannot(doing: &str, path: &Path, error: std::io::Error) -> Failure {
    Error::from_io(format_args!("{doing} {}", path.display()), error).into()
}

/// The default directory of synthetic checkpoints: in cargo's target directory if `executable` is in
/// one, otherwise in the temporary directory.
pub fn default_base(executable: &Path) -> PathBuf {
    let target = executable.ancestors().find(|directory| directory.join(CARGO_FILE).is_file());
    target.map_or_else(std::env::temp_dir, Path::to_path_buf).join("ringload-bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_met_by_files_of_its_lengths_alone() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = vec![("a".to_owned(), 3)];
        let is_met = || is_met(&manifest, directory.path());
        assert!(!is_met());
        fs::write(directory.path().join("a"), "1234").unwrap();
        assert!(!is_met());
        fs::write(directory.path().join("a"), "123").unwrap();
        assert!(is_met());
        write(directory.path(), &manifest, &[], |_, _| ()).unwrap();
        assert_eq!(read_manifest(directory.path()), Some(manifest));
    }

    #[test]
    fn the_files_of_others_are_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.txt"), "x").unwrap();
        assert!(clear(directory.path()).is_err());
        assert!(directory.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_full_disk_is_reported_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let message = check_space(directory.path(), u64::MAX / 2, 0).unwrap_err().to_string();
        assert!(message.contains("smaller --size"), "{message}");
    }

    #[test]
    fn the_target_directory_is_found_by_its_cargo_file() {
        let target = tempfile::tempdir().unwrap();
        let executable = target.path().join("release/ringload");
        assert_eq!(default_base(&executable), std::env::temp_dir().join("ringload-bench"));
        fs::write(target.path().join(CARGO_FILE), "").unwrap();
        assert_eq!(default_base(&executable), target.path().join("ringload-bench"));
    }
}
