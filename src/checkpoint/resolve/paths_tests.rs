//! What each way of naming a checkpoint opens.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::tests::file_with;
use crate::error::ErrorKind;
use crate::location::IntoLocations;
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
