//! Which files `auto` maps, and what that means for the tensors.

use crate::dlpack::Exporting;
use crate::{Dtype, ErrorKind, Loader, MemoryLimit, ReadPath};
use safetensors::tensor::TensorView;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const VALUE: u8 = 7;

fn written(path: &Path) {
    let data = vec![VALUE; 3 << 20];
    let view = || TensorView::new(safetensors::Dtype::BF16, vec![data.len() / 2], &data).unwrap();
    fs::write(path, safetensors::serialize([("a", view()), ("b", view())], None).unwrap()).unwrap();
}

/// Loads the file, and returns how its bytes were read.
fn read_path(loader: &Loader, path: &Path) -> String {
    let mut stream = loader.stream(path).unwrap();
    let tensors: Vec<_> = stream.by_ref().map(Result::unwrap).collect();
    assert_eq!(tensors.len(), 2);
    stream.summary().read_path()
}

fn in_hub_cache(directory: &Path, name: &str) -> PathBuf {
    let blobs = directory.join("models--o--m/blobs");
    let snapshot = directory.join("models--o--m/snapshots/1");
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    written(&blobs.join(name));
    let link = snapshot.join(format!("{name}.safetensors"));
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), &link).unwrap();
    link
}

#[test]
fn files_are_mapped_only_by_the_word_of_the_caller_or_the_name_of_a_blob() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    written(&path);
    assert_ne!(read_path(&Loader::new(), &path), "mapped");
    assert_eq!(read_path(&Loader::new().immutable(true), &path), "mapped");
    let blob = in_hub_cache(directory.path(), &"5a".repeat(32));
    assert_eq!(read_path(&Loader::new(), &blob), "mapped");
    assert_eq!(read_path(&Loader::new().read_path(ReadPath::Buffered), &blob), "buffered");
    // A blob that is named by Git's SHA-1, which is not that of its bytes alone.
    let small = in_hub_cache(directory.path(), &"5a".repeat(20));
    assert_ne!(read_path(&Loader::new(), &small), "mapped");
}

#[test]
fn what_a_mapping_cannot_give_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    written(&path);
    let immutable = || Loader::new().immutable(true);
    for loader in [
        immutable().memory_limit(MemoryLimit::Bytes(64 << 20)),
        immutable().dtype(Dtype::F32),
        immutable().check_finite(true),
        immutable().read_path(ReadPath::Direct),
    ] {
        assert_ne!(read_path(&loader, &path), "mapped", "{loader:?}");
    }
}

/// A program that writes to its weights must change neither the blob nor what others load from it.
#[test]
#[allow(unsafe_code)]
fn tensors_of_an_immutable_file_are_written_to_without_changing_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    written(&path);
    let before = fs::read(&path).unwrap();
    let loader = Loader::new().immutable(true);
    let (one, other) = (loader.load(&path).unwrap(), loader.load(&path).unwrap());
    {
        // SAFETY: nobody has a slice of the tensor.
        let export =
            unsafe { one.get("a").unwrap().export_writable(Exporting::default()) }.unwrap();
        assert!(!export.is_read_only());
        // SAFETY: the tensor has more than one byte, and nobody else uses it.
        unsafe { (export.address() as *mut u8).write(9) };
    }
    assert_eq!(one.get("a").unwrap().to_vec().unwrap()[..2], [9, VALUE]);
    assert_eq!(other.get("a").unwrap().to_vec().unwrap()[..2], [VALUE, VALUE]);
    assert_eq!(loader.load(&path).unwrap().get("a").unwrap().bytes()[..2], [VALUE, VALUE]);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_changed_after_it_was_opened_is_an_error_of_the_load() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    written(&path);
    let loader = Loader::new().immutable(true);
    let checkpoint = loader.open(&path).unwrap();
    std::thread::sleep(Duration::from_millis(20)); // the clock of inodes has ticks
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() = 1;
    fs::write(&path, bytes).unwrap();
    let error = loader.load_checkpoint(checkpoint.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
}
