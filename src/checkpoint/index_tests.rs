//! Indexes that do not fit their shards, or are none.

use super::super::tests::file_with;
use super::*;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::location::IntoLocations;
use crate::options::CheckpointOptions;

const REMEDY: &str = "; download the index again, or name its shards instead of it";

/// Two shards, `1.safetensors` with a and b, `2.safetensors` with c, and the index `text`.
fn open(text: impl AsRef<[u8]>) -> std::result::Result<Checkpoint, (ErrorKind, String)> {
    open_with(text, &CheckpointOptions::default())
}

fn open_strictly(text: impl AsRef<[u8]>) -> std::result::Result<Checkpoint, (ErrorKind, String)> {
    open_with(text, &CheckpointOptions { strict: true, ..CheckpointOptions::default() })
}

fn open_with(
    text: impl AsRef<[u8]>,
    options: &CheckpointOptions,
) -> std::result::Result<Checkpoint, (ErrorKind, String)> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("1.safetensors"), file_with(&["a", "b"])).unwrap();
    std::fs::write(path("2.safetensors"), file_with(&["c"])).unwrap();
    std::fs::create_dir(path("sub")).unwrap();
    std::fs::write(path("sub/3.safetensors"), file_with(&["d"])).unwrap();
    std::fs::write(path("m.safetensors.index.json"), text).unwrap();
    let prefix = format!("{}/", directory.path().display());
    let locations = path("m.safetensors.index.json").into_locations().unwrap();
    Checkpoint::open_with(&Opener::default(), options, locations)
        .map_err(|error| (error.kind(), error.to_string().replace(&prefix, "")))
}

fn weight_map(entries: &str) -> String {
    format!(r#"{{"metadata":{{"total_size":3}},"weight_map":{{{entries}}}}}"#)
}

#[test]
fn shards_are_the_files_that_the_index_names_sorted() {
    let checkpoint = open(weight_map(
        r#""d":"sub/3.safetensors","c":"2.safetensors","a":"1.safetensors","b":"./1.safetensors""#,
    ))
    .unwrap();
    let names: Vec<_> = checkpoint.tensors().iter().map(TensorInfo::name).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(checkpoint.shards().len(), 3);
}

#[test]
fn tensors_that_the_index_does_not_name_are_there_too() {
    let checkpoint = open(weight_map(r#""a":"1.safetensors""#)).unwrap();
    assert!(checkpoint.tensor("b").is_some());
    assert!(checkpoint.tensor("c").is_none());
}

#[test]
fn what_is_wrong_is_named() {
    let index = "m.safetensors.index.json: the index";
    for (text, kind, expected) in [
        (
            weight_map(r#""a":"1.safetensors","x":"2.safetensors""#),
            ErrorKind::InvalidCheckpoint,
            format!(
                "{index} says that tensor \"x\" is in the shard \"2.safetensors\", which does not \
                 contain it"
            ),
        ),
        (
            weight_map(r#""a":"2.safetensors","c":"2.safetensors","b":"1.safetensors""#),
            ErrorKind::InvalidCheckpoint,
            format!(
                "{index} says that tensor \"a\" is in the shard \"2.safetensors\", but it is in \
                 1.safetensors"
            ),
        ),
        (
            weight_map(r#""a":"1.safetensors","b":"9.safetensors""#),
            ErrorKind::NotFound,
            "m.safetensors.index.json names the shard \"9.safetensors\", which does not exist; \
             tensor \"b\" should be in it; download it, or name the files to load instead of the \
             index"
                .into(),
        ),
        (
            weight_map(r#""a":"1.safetensors","a":"1.safetensors""#),
            ErrorKind::InvalidCheckpoint,
            format!("{index} names tensor \"a\" twice"),
        ),
        (
            weight_map(r#""a":"/1.safetensors""#),
            ErrorKind::InvalidCheckpoint,
            format!(
                "{index} gives tensor \"a\" the file \"/1.safetensors\", which is absolute; it \
                 must be relative to the directory of the index"
            ),
        ),
        (
            weight_map(r#""a":"sub/../1.safetensors""#),
            ErrorKind::InvalidCheckpoint,
            format!(
                "{index} gives tensor \"a\" the file \"sub/../1.safetensors\", which leaves the \
                 directory of the index with \"..\""
            ),
        ),
        (
            weight_map(r#""a":"""#),
            ErrorKind::InvalidCheckpoint,
            format!("{index} gives tensor \"a\" the file \"\", which is empty"),
        ),
        (
            weight_map(r#""a":"\u0000""#),
            ErrorKind::InvalidCheckpoint,
            format!("{index} gives tensor \"a\" the file \"\\0\", which contains a zero byte"),
        ),
        (
            weight_map(r#""a":1"#),
            ErrorKind::InvalidCheckpoint,
            format!(
                "{index} is invalid: weight_map: tensor \"a\": invalid type: integer `1`, \
                 expected a string at line 1 column 48"
            ),
        ),
        (
            "{}".into(),
            ErrorKind::InvalidCheckpoint,
            format!("{index} is invalid: missing field `weight_map` at line 1 column 2"),
        ),
        (
            r#"{"weight_map":{},"weight_map":{}}"#.into(),
            ErrorKind::InvalidCheckpoint,
            format!("{index} is invalid: duplicate field `weight_map` at line 1 column 33"),
        ),
        (
            "[]".into(),
            ErrorKind::InvalidCheckpoint,
            format!(
                "{index} is invalid: invalid type: sequence, expected an object with a weight_map \
                 at line 1 column 0"
            ),
        ),
        (
            String::new(),
            ErrorKind::InvalidCheckpoint,
            format!("{index} is invalid: EOF while parsing a value at line 1 column 0"),
        ),
    ] {
        let remedy = match kind {
            ErrorKind::NotFound => "",
            _ if expected.contains(" says that ") => {
                "; load it without the option strict to go by what the shards hold"
            }
            _ => REMEDY,
        };
        assert_eq!(open_strictly(text).unwrap_err(), (kind, expected + remedy));
    }
    let (kind, sentence) = open(b"{\"\xff").unwrap_err();
    assert_eq!(kind, ErrorKind::InvalidCheckpoint);
    assert_eq!(sentence, format!("{index} is not UTF-8 at byte 2{REMEDY}"));
}

#[test]
fn an_index_without_tensors_is_an_empty_checkpoint() {
    let checkpoint = open(weight_map("")).unwrap();
    assert!(checkpoint.shards().is_empty() && checkpoint.tensors().is_empty());
}

/// Indexes of published checkpoints name tensors that their shards lack (`mtp.fc.weight`), and
/// tensors that another shard has. Such checkpoints load in transformers and vLLM.
#[test]
fn tensors_that_are_not_where_the_index_says_are_reported() {
    let checkpoint = open(weight_map(
        r#""a":"1.safetensors","x":"2.safetensors","w":"1.safetensors","c":"1.safetensors",
        "b":"2.safetensors""#,
    ))
    .unwrap();
    let names: Vec<_> = checkpoint.tensors().iter().map(TensorInfo::name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(checkpoint.missing(), ["w", "x"]);
    // A missing tensor that is named twice is still named twice.
    let twice = open(weight_map(r#""x":"1.safetensors","x":"2.safetensors""#)).unwrap_err();
    let told = format!("the index names tensor \"x\" twice{REMEDY}");
    assert!(twice.1.ends_with(&told), "{twice:?}");
}

/// An index may take a part of a shard that another checkpoint uses, too. The other tensors of that
/// shard may have the names of tensors of this checkpoint.
#[test]
fn the_index_decides_between_two_shards_with_a_tensor() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("1.safetensors"), file_with(&["a", "b"])).unwrap();
    std::fs::write(path("2.safetensors"), file_with(&["extra", "a", "c"])).unwrap();
    let index = |entries: &str| {
        std::fs::write(path("model.safetensors.index.json"), weight_map(entries)).unwrap();
        Checkpoint::open(directory.path())
    };
    for (entries, shards) in [
        (r#""a":"1.safetensors","b":"1.safetensors","c":"2.safetensors""#, [0, 0, 1, 1]),
        (r#""a":"2.safetensors","b":"1.safetensors","c":"2.safetensors""#, [1, 0, 1, 1]),
    ] {
        let checkpoint = index(entries).unwrap();
        let found = ["a", "b", "c", "extra"].map(|name| checkpoint.tensor(name).unwrap().shard());
        assert_eq!(found, shards);
        assert_eq!(checkpoint.tensors().len(), 4);
        let ranges: Vec<_> = checkpoint.shards().iter().map(|shard| shard.tensors()).collect();
        for (number, range) in ranges.into_iter().enumerate() {
            assert!(checkpoint.tensors()[range].iter().all(|tensor| tensor.shard() == number));
        }
    }
    let undecided = index(r#""b":"1.safetensors","c":"2.safetensors""#).unwrap_err();
    assert!(undecided.to_string().contains("tensor \"a\" is both in"), "{undecided}");
}
