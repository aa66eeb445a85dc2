//! What each way of naming a checkpoint opens.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::tests::file_with;
use crate::error::ErrorKind;
use crate::location::IntoLocations;
use crate::options::CheckpointOptions;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A directory with a safetensors file for each of `names`, which holds a tensor of that name.
fn directory(names: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        fs::write(directory.path().join(name), file_with(&[name])).unwrap();
    }
    directory
}

fn write_index(directory: &TempDir, name: &str, shard: &str) {
    let text = format!(r#"{{"weight_map":{{"{shard}":"{shard}"}}}}"#);
    fs::write(directory.path().join(name), text).unwrap();
}

/// The file names of the shards of `locations`.
fn opened(locations: impl IntoLocations) -> Vec<String> {
    let checkpoint = Checkpoint::open(locations).unwrap();
    let name = |location: &Location| {
        let Location::File(path) = location else { panic!("{location} is no file") };
        path.file_name().unwrap().to_string_lossy().into_owned()
    };
    checkpoint.shards().iter().map(|shard| name(shard.location())).collect()
}

fn refused(locations: impl IntoLocations) -> (ErrorKind, String) {
    let error = Checkpoint::open(locations).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn files_keep_their_order_and_count_once() {
    let directory = directory(&["a.safetensors", "b.safetensors"]);
    let path = |name: &str| directory.path().join(name);
    symlink("a.safetensors", path("link.safetensors")).unwrap();
    assert_eq!(opened(path("a.safetensors")), ["a.safetensors"]);
    let named = [
        path("b.safetensors"),
        path("a.safetensors"),
        path("link.safetensors"),
        path("./b.safetensors"),
        directory.path().to_path_buf(),
    ];
    assert_eq!(opened(named), ["b.safetensors", "a.safetensors"]);
}

#[test]
fn a_directory_without_index_is_its_files() {
    let directory = directory(&["b.safetensors", "a.safetensors", ".hidden.safetensors", "c.bin"]);
    fs::create_dir(directory.path().join("d.safetensors")).unwrap();
    assert_eq!(opened(directory.path()), ["a.safetensors", "b.safetensors"]);
}

#[test]
fn a_directory_is_read_through_its_index() {
    let directory = directory(&["a.safetensors", "b.safetensors"]);
    write_index(&directory, "x.safetensors.index.json", "a.safetensors");
    assert_eq!(opened(directory.path()), ["a.safetensors"]);
    // Two, neither of which is preferred: the files.
    write_index(&directory, "y.safetensors.index.json", "b.safetensors");
    assert_eq!(opened(directory.path()), ["a.safetensors", "b.safetensors"]);
    write_index(&directory, "model.safetensors.index.json", "b.safetensors");
    assert_eq!(opened(directory.path()), ["b.safetensors"]);
    let named = ["y.safetensors.index.json", "x.safetensors.index.json"];
    let named = named.map(|name| directory.path().join(name));
    assert_eq!(opened(named), ["b.safetensors", "a.safetensors"]);
}

#[test]
fn an_empty_directory_is_refused() {
    let directory = directory(&["c.bin"]);
    let path = directory.path().display();
    let sentence = format!(
        "no *.safetensors file in the directory {path}; name the directory that holds the \
         checkpoint, or its files"
    );
    assert_eq!(refused(directory.path()), (ErrorKind::NotFound, sentence));
}

#[test]
fn patterns_match_as_a_shell_does() {
    let directory = directory(&["b.safetensors", "a.safetensors", ".h.safetensors", "[x].st"]);
    let path = |name: &str| directory.path().join(name);
    assert_eq!(opened(path("*.safetensors")), ["a.safetensors", "b.safetensors"]);
    assert_eq!(opened(path("?.safetensors")), ["a.safetensors", "b.safetensors"]);
    assert_eq!(opened(path("[b-z].safetensors")), ["b.safetensors"]);
    assert_eq!(opened(path("[x].st")), ["[x].st"], "a file of that name comes first");
    let text = path("*.safetensors").display().to_string();
    assert_eq!(opened(text), ["a.safetensors", "b.safetensors"]);

    let none = path("x*.safetensors");
    let sentence = format!("nothing matches the pattern {none:?}; check the path");
    assert_eq!(refused(none), (ErrorKind::NotFound, sentence));
    assert_eq!(refused(path("x[.safetensors")).0, ErrorKind::InvalidInput);
}

#[test]
fn a_pattern_of_directories_opens_each() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["m1", "m2"] {
        fs::create_dir(directory.path().join(name)).unwrap();
        let file = directory.path().join(format!("{name}/{name}.safetensors"));
        fs::write(file, file_with(&[name])).unwrap();
    }
    assert_eq!(opened(directory.path().join("m*")), ["m1.safetensors", "m2.safetensors"]);
}

#[test]
fn names_that_are_not_utf8_work() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join(OsStr::from_bytes(b"m\xff"));
    fs::create_dir(&below).unwrap();
    let file = below.join(OsStr::from_bytes(b"\xfe[.safetensors"));
    fs::write(&file, file_with(&["a"])).unwrap();
    assert_eq!(opened(&below).len(), 1);
    assert_eq!(opened(&file).len(), 1);
    assert_eq!(refused(below.join("*.safetensors")).0, ErrorKind::NotFound);
}

#[test]
fn what_is_not_there_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(refused(directory.path().join("x.safetensors")).0, ErrorKind::NotFound);
    assert_eq!(refused(directory.path().join("x.safetensors.index.json")).0, ErrorKind::NotFound);
    symlink("nowhere", directory.path().join("dangling.safetensors")).unwrap();
    assert_eq!(refused(directory.path()).0, ErrorKind::NotFound);
}

/// Directories of published models hold the same weights in several formats, the states of trainings
/// and parts of downloads. Loading all of it gave tensors twice or under two names, and half a
/// download loaded as if it were whole.
#[test]
fn a_directory_gives_one_checkpoint() {
    const S: &str = ".safetensors";
    let numbered = |number, count| format!("model-{number:05}-of-{count:05}{S}");
    let [one, two, only] = [numbered(1, 2), numbered(2, 2), numbered(1, 1)];
    let fp16 = "diffusion_pytorch_model.fp16.safetensors";
    let cases: &[(&[&str], &[&str])] = &[
        (&["model.safetensors", "consolidated.safetensors"], &["model.safetensors"]),
        (&["model.safetensors", "model.fp16.safetensors"], &["model.safetensors"]),
        (&["model.safetensors", "adapter_model.safetensors"], &["model.safetensors"]),
        (&["model.safetensors", "optimizer.safetensors"], &["model.safetensors"]),
        (&["model.safetensors", "other.safetensors"], &["model.safetensors"]),
        (&["diffusion_pytorch_model.safetensors", fp16], &["diffusion_pytorch_model.safetensors"]),
        (&["consolidated.safetensors", "adapter_model.safetensors"], &["consolidated.safetensors"]),
        (&["adapter_model.safetensors", "optimizer.safetensors"], &["adapter_model.safetensors"]),
        (&["optimizer.safetensors"], &["optimizer.safetensors"]),
        (&[&one, &two], &[&one, &two]),
        (&[&one, &two, "consolidated.safetensors", "mtp.safetensors"], &[&one, &two]),
        (&[&only, &one], &[&only]),
        (
            &["a-1-of-1.safetensors", "b-1-of-1.safetensors"],
            &["a-1-of-1.safetensors", "b-1-of-1.safetensors"],
        ),
    ];
    for (names, expected) in cases {
        let directory = directory(names);
        assert_eq!(opened(directory.path()), *expected, "{names:?}");
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.left_out().len(), names.len() - expected.len(), "{names:?}");
        let all = CheckpointOptions { all_files: true, ..CheckpointOptions::default() };
        let locations = directory.path().into_locations().unwrap();
        let checkpoint = Checkpoint::open_with(&Opener::default(), &all, locations).unwrap();
        assert_eq!(checkpoint.shards().len(), names.len(), "{names:?}");
        assert!(checkpoint.left_out().is_empty());
    }
    for (names, kind, part) in [
        (
            vec![one.as_str()],
            ErrorKind::NotFound,
            "has 1 of the 2 shards of \"model\"; shard 2 is missing",
        ),
        (
            vec![&one, &two, &only],
            ErrorKind::InvalidCheckpoint,
            "has two complete sets of shards of \"model\"",
        ),
        (
            vec![fp16],
            ErrorKind::NotFound,
            "are of a variant (\"fp16\"); choose one with the option variant",
        ),
    ] {
        let (got, sentence) = refused(directory(&names).path());
        assert!(got == kind && sentence.contains(part), "{names:?}: {got:?} {sentence}");
    }
}

#[test]
fn a_variant_is_its_index_its_file_or_its_shards() {
    let directory = directory(&[
        "model.safetensors",
        "model.fp16.safetensors",
        "model.bf16-00001-of-00001.safetensors",
        "model-00001-of-00001.fp8.safetensors",
    ]);
    write_index(&directory, "model.safetensors.index.int4.json", "model.fp16.safetensors");
    let open = |variant: &str| {
        let options =
            CheckpointOptions { variant: Some(variant.into()), ..CheckpointOptions::default() };
        let locations = directory.path().into_locations().unwrap();
        let checkpoint = Checkpoint::open_with(&Opener::default(), &options, locations)?;
        Ok::<_, Error>(checkpoint.tensors()[0].name().to_owned())
    };
    for (variant, tensor) in [
        ("fp16", "model.fp16.safetensors"),
        ("bf16", "model.bf16-00001-of-00001.safetensors"),
        ("fp8", "model-00001-of-00001.fp8.safetensors"),
        ("int4", "model.fp16.safetensors"),
    ] {
        assert_eq!(open(variant).unwrap(), tensor);
    }
    let named = directory.path().join("model.safetensors.index.int4.json");
    assert_eq!(opened(named), ["model.fp16.safetensors"]);
    let error = open("fp32").unwrap_err().to_string();
    assert!(
        error.contains(
            "no *.safetensors file of the variant \"fp32\"; there are files without a variant and \
             files of other variants (\"bf16\", "
        ),
        "{error}"
    );
}

/// An index whose `weight_map` is empty hid the complete `model.safetensors` beside it, and the load
/// gave no tensor and exit status 0.
#[test]
fn an_empty_index_hides_no_file() {
    let directory = directory(&["model.safetensors"]);
    fs::write(directory.path().join("model.safetensors.index.json"), r#"{"weight_map":{}}"#)
        .unwrap();
    assert_eq!(opened(directory.path()), ["model.safetensors"]);
}
