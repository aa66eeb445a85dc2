//! Builds with fewer features: files are loaded with each, and what was left out says which feature it
//! needs. `check_features` of `tests/support/checkers.sh` runs this for each feature by itself.

#![allow(clippy::unwrap_used)] // Clippy sees helpers of a test binary as no tests

use ringload::{Device, ErrorKind, Loader};
use std::path::PathBuf;

/// A checkpoint with the tensor `a` of 7 bytes.
fn checkpoint(directory: &tempfile::TempDir) -> PathBuf {
    let path = directory.path().join("model.safetensors");
    let header = br#"{"a":{"dtype":"U8","shape":[7],"data_offsets":[0,7]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&path, [&length[..], header, b"weights"].concat()).unwrap();
    path
}

#[test]
fn files_are_loaded_with_any_features() {
    let directory = tempfile::tempdir().unwrap();
    let model = Loader::new().tensors(["[a-c]"]).load(checkpoint(&directory)).unwrap();
    assert_eq!(model.get("a").unwrap().bytes(), b"weights");
    let manifest = Loader::new().sum(checkpoint(&directory), false).unwrap();
    Loader::new().manifest(manifest).load(checkpoint(&directory)).unwrap();
}

/// An error that says nothing of features looks like a wrong location.
#[test]
fn a_scheme_that_was_left_out_names_its_feature() {
    for (location, feature, is_there) in [
        ("http://localhost/a.safetensors", "http", cfg!(feature = "http")),
        ("https://localhost/a.safetensors", "http", cfg!(feature = "http")),
        ("s3://bucket/a.safetensors", "s3", cfg!(feature = "s3")),
        ("gs://bucket/a.safetensors", "gcs", cfg!(feature = "gcs")),
        ("az://container/a.safetensors", "azure", cfg!(feature = "azure")),
        ("hf://user/model/a.safetensors", "hub", cfg!(feature = "hub")),
    ] {
        if is_there {
            continue;
        }
        let error = Loader::new().load(location).unwrap_err();
        let named = format!("needs the feature {feature} of ringload");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(&named), "{location}: {error}");
    }
}

#[test]
fn a_gpu_or_a_sha256_that_was_left_out_names_its_feature() {
    let directory = tempfile::tempdir().unwrap();
    let path = checkpoint(&directory);
    let (on_gpu, sum) = (Loader::new().device(Device::cuda(1)), Loader::new().sum(&path, true));
    if cfg!(not(feature = "cuda")) {
        let error = on_gpu.load(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("cuda:1 needs the feature cuda of ringload"), "{error}");
        assert_eq!(ringload::gpus().unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert_eq!(sum.is_ok(), cfg!(feature = "sha256"));
    if let Err(error) = sum {
        let named = "SHA-256 needs the feature sha256 of ringload";
        assert!(error.to_string().contains(named), "{error}");
    }
}
