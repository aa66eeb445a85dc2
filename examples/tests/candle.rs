//! The candle example on real checkpoints: the statistics that it prints are those of the tensors
//! that were written.

#![allow(clippy::unwrap_used)]

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Name, type, shape and bytes of a tensor.
type Written = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn candle(location: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_candle")).arg(location).args(more).output().unwrap()
}

/// Returns the lines that a run prints, which has to succeed.
fn lines(location: &Path, more: &[&str]) -> Vec<String> {
    let output = candle(location, more);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Returns the standard error of a run that has to fail.
fn refusal(location: &Path, more: &[&str]) -> String {
    let output = candle(location, more);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn write(path: &Path, tensors: &[Written]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Returns the upper halves of floats, which are exact for small integers.
fn bfloats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec()).collect()
}

#[test]
fn figures_of_every_type_and_shard_are_those_written() {
    let dir = TempDir::new().unwrap();
    let one: Vec<Written> = vec![
        ("embed", Dtype::F32, vec![2, 3], floats(&[0.5, -1.0, 2.0, 3.5, 0.0, 1.0])),
        ("norm", Dtype::BF16, vec![4], bfloats(&[1.0, -2.0, 3.0, 4.0])),
        ("steps", Dtype::I64, vec![], (-7_i64).to_le_bytes().to_vec()),
    ];
    let two: Vec<Written> = vec![
        ("half", Dtype::F16, vec![2], vec![0x00, 0x3c, 0x00, 0xc0]), // 1 and -2
        ("double", Dtype::F64, vec![1, 1], 0.125_f64.to_le_bytes().to_vec()),
        ("bytes", Dtype::U8, vec![5], vec![0, 1, 2, 3, 254]),
        ("nothing", Dtype::F32, vec![0, 8], vec![]),
    ];
    write(&dir.path().join("model-00001-of-00002.safetensors"), &one);
    write(&dir.path().join("model-00002-of-00002.safetensors"), &two);
    let expected = [
        "bytes  u8 [5]  mean 52.000000  least 0  greatest 254",
        "double  f64 [1, 1]  mean 0.125000  least 0.125  greatest 0.125",
        "embed  f32 [2, 3]  mean 1.000000  least -1  greatest 3.5",
        "half  f16 [2]  mean -0.500000  least -2  greatest 1",
        "norm  bf16 [4]  mean 1.500000  least -2  greatest 4",
        "nothing  f32 [0, 8]  no elements",
        "steps  i64 []  mean -7.000000  least -7  greatest -7",
    ];
    assert_eq!(lines(dir.path(), &[]), expected);
}

/// candle's memory is aligned, but tensors in a file need not be.
#[test]
fn an_unaligned_tensor_is_read_correctly() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("odd.safetensors");
    let header = br#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}}"#;
    let len = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&len, &header[..], &[9, 9, 9], &floats(&[1.25, -4.0])].concat()).unwrap();
    let expected = [
        "a  u8 [3]  mean 9.000000  least 9  greatest 9",
        "b  f32 [2]  mean -1.375000  least -4  greatest 1.25",
    ];
    assert_eq!(lines(&path, &[]), expected);
}

/// All cores share one ring, so a core that has copied a tensor has to release its memory.
#[test]
fn a_model_larger_than_its_ring_passes_through() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.safetensors");
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let tensors: Vec<Written> = (0..names.len())
        .map(|i| (names[i], Dtype::U8, vec![1 << 20], vec![i as u8; 1 << 20]))
        .collect();
    write(&path, &tensors);
    let expected: Vec<_> = (0..names.len())
        .map(|i| format!("{}  u8 [1048576]  mean {i}.000000  least {i}  greatest {i}", names[i]))
        .collect();
    assert_eq!(lines(&path, &["--memory-limit", "2MiB"]), expected);
    assert_eq!(lines(&path, &["--memory-limit", "min"]), expected);
}

#[test]
fn a_type_that_candle_lacks_is_an_error_that_names_the_tensor() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.safetensors");
    write(&path, &[("mask", Dtype::BOOL, vec![2], vec![0, 1])]);
    assert_eq!(refusal(&path, &[]), "error: candle has no type for tensor mask of BOOL\n");
    let missing = refusal(&dir.path().join("none.safetensors"), &[]);
    assert!(missing.contains("none.safetensors"), "{missing}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_so() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.safetensors");
    write(&path, &[("one", Dtype::U8, vec![1], vec![1])]);
    assert!(refusal(&path, &["--device", "cuda"]).contains("--features cuda"));
}
