//! Invalid input is refused with a message that names the file, the fact and the remedy. The library
//! and the command use the same words.
//!
//! Hazards: a header with false lengths, offsets, shapes or names; an index that does not match its
//! shards; a FIFO or device instead of a file, which must not hang or be read without end. There is
//! never a panic and never output on standard output.

use crate::common::command::{ringload, run};
use crate::common::{Expected, directory, in_time, raw_file, write, write_index};
use ringload::{Checkpoint, ErrorKind, Loader};
use std::error::Error as _;
use std::fs::{self, File};
use std::path::Path;

/// Checks the error of library and command for `location`. `{}` in `sentence` stands for the
/// location, `{dir}` for its directory.
#[track_caller]
fn assert_refused(location: &Path, kind: ErrorKind, sentence: &str) {
    let directory = location.parent().unwrap_or(location).to_str().unwrap();
    let sentence = sentence.replace("{}", location.to_str().unwrap()).replace("{dir}", directory);
    let path = location.to_path_buf();
    let error = in_time("opening", move || Checkpoint::open(&path)).expect_err("it was accepted");
    assert_eq!(error.to_string(), sentence);
    assert_eq!(error.kind(), kind, "{error:?}");
    let mut report = format!("error: {error}\n");
    if let Some(cause) = error.source().map(ToString::to_string) {
        report += &format!("caused by: {cause}\n");
    }
    for subcommand in ["load", "inspect"] {
        let message = run(ringload().arg(subcommand).arg(location)).failure();
        assert!(message.starts_with(&report), "{message}\nis not\n{report}");
    }
}

/// Checks the error for a file of these bytes.
#[track_caller]
fn assert_bytes_refused(bytes: &[u8], sentence: &str) {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    fs::write(&path, bytes).unwrap();
    assert_refused(&path, ErrorKind::InvalidCheckpoint, sentence);
}

/// The header entry of a U8 tensor.
fn entry(name: &str, begin: u64, end: u64) -> String {
    let len = end.saturating_sub(begin);
    format!(r#""{name}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#)
}

/// What follows a fact about a header, and one about an index.
const OF_HEADER: &str = "; download the file again, or write it again with the safetensors library";
const OF_INDEX: &str = "; download the index again, or name its shards instead of it";

/// Checks the error for a file with these entries and `data_bytes` after the header. The remedy follows
/// the `sentence`, unless that asks whether the download was finished.
#[track_caller]
fn assert_entries_refused(entries: &[String], data_bytes: usize, sentence: &str) {
    let header = format!("{{{}}}", entries.join(","));
    let remedy = if sentence.ends_with('?') { "" } else { OF_HEADER };
    assert_bytes_refused(&raw_file(header, &vec![1; data_bytes]), &format!("{sentence}{remedy}"));
}

#[test]
fn what_is_missing_is_named() {
    let directory = directory();
    let missing = directory.path().join("a.safetensors");
    let sentence = "cannot open {}: no such file or directory; check the path";
    assert_refused(&missing, ErrorKind::NotFound, sentence);
    assert_refused(
        directory.path(),
        ErrorKind::NotFound,
        "no *.safetensors file in the directory {}; name the directory that holds the checkpoint, \
         or its files",
    );
    assert_refused(
        &directory.path().join("model-*.safetensors"),
        ErrorKind::NotFound,
        "nothing matches the pattern \"{}\"; check the path",
    );
    fs::write(&missing, raw_file("{}", b"")).unwrap();
    assert_refused(
        &missing.join("b.safetensors"),
        ErrorKind::NotFound,
        "cannot open {}: a part of the path is not a directory; check the path",
    );
}

#[test]
fn special_files_are_refused_without_being_read() {
    let directory = directory();
    let [fifo, below, link] = crate::common::paths(
        directory.path(),
        ["fifo.safetensors", "below.safetensors", "loop.safetensors"],
    );
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let sentence = "{} is a FIFO; name a regular safetensors file";
    assert_refused(&fifo, ErrorKind::InvalidInput, sentence);
    assert_refused(
        Path::new("/dev/zero"),
        ErrorKind::InvalidInput,
        "{} is a device; name a regular safetensors file",
    );
    std::os::unix::fs::symlink(&link, &link).unwrap();
    assert_refused(
        &link,
        ErrorKind::InvalidInput,
        "cannot open {}: too many symbolic links; check the path for a loop of links",
    );
    // An index may name a directory.
    fs::create_dir(&below).unwrap();
    let index = directory.path().join("model.safetensors.index.json");
    write_index(&index, [("below.safetensors", &[Expected::of_bytes("t", 1, 0)][..])]);
    assert_refused(
        &index,
        ErrorKind::InvalidInput,
        "{} names the shard \"below.safetensors\" for tensor \"t\", and this shard is no regular file; \
         put the file there, or name the files to load instead of the index",
    );
    let told = run(ringload().arg("load").arg(&index)).failure();
    let cause = "/below.safetensors is a directory; name a regular safetensors file";
    assert!(told.contains(cause), "{told}");
}

#[test]
fn other_schemes_and_bad_urls_are_refused() {
    for (location, sentence) in [
        (
            "foo://x",
            "foo:// locations are not supported; give a local path, a file:// URL, or one of \
             http://, https://, s3://, gs://, az://, hf://, anyscale://",
        ),
        ("s3://", "the s3:// location names no bucket; write s3://bucket/path"),
        ("", "the location is empty; give a path or a file:// URL"),
        ("file://x", "\"file://x\" has no path; write file:///absolute/path"),
    ] {
        assert_eq!(Checkpoint::open(location).unwrap_err().to_string(), sentence);
        // An argument that is no location is wrong usage, whatever files there are.
        let message = run(ringload().args(["load", location])).wrong_usage();
        assert_eq!(message, format!("error: {sentence}\n"));
    }
}

#[test]
fn a_file_that_is_too_short_for_its_header_is_refused() {
    assert_bytes_refused(b"", "{}: the file is empty; was its download finished?");
    assert_bytes_refused(
        &[2, 0, 0, 0, 0, 0, 0],
        "{}: the file has 7 bytes, too few for the 8 bytes that a safetensors file begins with; \
         was its download finished?",
    );
    let whole = raw_file(format!("{{{}}}", entry("t", 0, 10)), &[1; 10]);
    assert_bytes_refused(
        &whole[..30],
        &format!(
            "{{}}: the first 8 bytes give a header of {} bytes, but 22 bytes follow; the file \
             is truncated or not a safetensors file",
            whole.len() - 18
        ),
    );
    assert_bytes_refused(
        &whole[..whole.len() - 3],
        "{}: the file is truncated: the header describes 10 bytes of tensor data, the file has 7 \
         bytes: 3 bytes missing; was its download finished?",
    );
}

#[test]
fn an_impossible_header_length_is_refused_before_memory_is_allocated() {
    for (length, size) in [
        (1_u64 << 63, "8192 PiB"),
        (u64::MAX, "16384.00 PiB (18446744073709551615 bytes)"),
        (100_000_001, "95.37 MiB (100000001 bytes)"),
    ] {
        let directory = directory();
        let path = directory.path().join("a.safetensors");
        fs::write(&path, length.to_le_bytes()).unwrap();
        // A sparse file that is long enough for the header it claims, or for a large part of it.
        File::options().write(true).open(&path).unwrap().set_len(200_000_000).unwrap();
        let sentence = format!(
            "{{}}: the first 8 bytes give a header of {size}, above the limit of 95.37 MiB \
             (100000000 bytes); it is not a safetensors file"
        );
        assert_refused(&path, ErrorKind::InvalidCheckpoint, &sentence);
    }
    assert_bytes_refused(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "{}: the first 8 bytes give a header of 2075.61 PiB (2336927755350992246 bytes), above \
         the limit of 95.37 MiB (100000000 bytes); it looks like a Git LFS pointer: fetch the file itself with git lfs pull",
    );
}

#[test]
fn a_header_that_is_not_a_json_object_of_tensors_is_refused() {
    for (header, fact) in [
        (&b""[..], "the header is empty; the shortest valid header is {}"),
        (b"[1]", "the header begins with '[' instead of '{'"),
        (
            b"{\"t\":",
            "the header is invalid: tensor \"t\": EOF while parsing a value at line 1 column 5",
        ),
        (b"{} x", "the header is invalid: trailing characters at line 1 column 4"),
        (b"{\"\xff\":1}", "the header is not UTF-8 at byte 2 of the header"),
        (
            br#"{"t":{"dtype":"F128","shape":[],"data_offsets":[0,16]}}"#,
            "the header is invalid: tensor \"t\": dtype: \"F128\" is not a known element type at \
             line 1 column 20",
        ),
        (
            br#"{"t":{"shape":[],"data_offsets":[0,16]}}"#,
            "the header is invalid: tensor \"t\": missing field `dtype` at line 1 column 39",
        ),
        (
            br#"{"__metadata__":{"a":1}}"#,
            "the header is invalid: \"__metadata__\": \"a\": invalid type: integer `1`, expected a \
             string at line 1 column 22",
        ),
    ] {
        let directory = directory();
        let path = directory.path().join("a.safetensors");
        fs::write(&path, raw_file(header, b"")).unwrap();
        let sentence = format!("{}: {fact}{OF_HEADER}", path.display());
        let error = Checkpoint::open(&path).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidCheckpoint, sentence));
        let message = run(ringload().arg("load").arg(&path)).failure();
        assert_eq!(message, format!("error: {error}\n"));
    }
}

#[test]
fn offsets_that_do_not_fill_the_file_are_refused() {
    assert_entries_refused(
        &[entry("t", 4, 2)],
        4,
        "{}: tensor \"t\" has data_offsets [4, 2], which end before they begin",
    );
    assert_entries_refused(
        &[entry("a", 0, 8), entry("b", 4, 12)],
        12,
        "{}: tensor \"b\" begins at byte 4 of the data, but tensor \"a\" before it ends at 8: they \
         overlap",
    );
    assert_entries_refused(
        &[entry("a", 0, 8), entry("b", 9, 12)],
        12,
        "{}: tensor \"b\" begins at byte 9 of the data, but tensor \"a\" before it ends at 8: \
         there is a hole",
    );
    assert_entries_refused(
        &[entry("a", 1, 8)],
        8,
        "{}: tensor \"a\", the first of the data, begins at byte 1 instead of 0",
    );
    assert_entries_refused(
        &[entry("a", 0, 1 << 60)],
        8,
        "{}: the file is truncated: the header describes 1024 PiB of tensor data, \
         the file has 8 bytes: 1024.00 PiB (1152921504606846968 bytes) missing; was its download finished?",
    );
    assert_entries_refused(
        &[entry("a", 0, 8)],
        9,
        "{}: the header describes 8 bytes of tensor data, the file has 9 bytes: 1 byte too many",
    );
}

#[test]
fn shapes_that_do_not_fit_their_offsets_are_refused() {
    let of = |dtype: &str, shape: &str, end: u64| {
        vec![format!(r#""t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}"#)]
    };
    assert_entries_refused(
        &of("F32", "[2,2]", 15),
        15,
        "{}: tensor \"t\" has shape [2, 2] of F32, which is 16 bytes, but data_offsets [0, 15] \
         give 15 bytes",
    );
    assert_entries_refused(
        &of("F32", "[4294967296,4294967296]", 0),
        0,
        "{}: tensor \"t\" has shape [4294967296, 4294967296] of F32, whose size does not fit 64 \
         bits",
    );
    assert_entries_refused(
        &of("F4", "[3]", 2),
        2,
        "{}: tensor \"t\" has shape [3] of F4, which is 12 bits, not a whole number of bytes",
    );
    // A dimension that exceeds 64 bits, and a negative one.
    for (dimension, fact) in [
        ("18446744073709551616", "invalid type: floating point `1.8446744073709552e+19`"),
        ("-1", "invalid value: integer `-1`"),
    ] {
        let directory = directory();
        let path = directory.path().join("a.safetensors");
        let header = format!("{{{}}}", of("U8", &format!("[{dimension}]"), 0)[0]);
        fs::write(&path, raw_file(header, b"")).unwrap();
        let message = run(ringload().arg("load").arg(&path)).failure();
        let begin = format!(
            "error: {}: the header is invalid: tensor \"t\": shape: {fact}, expected usize",
            path.display()
        );
        assert!(message.starts_with(&begin), "{message}");
    }
}

#[test]
fn a_duplicate_name_is_refused() {
    assert_entries_refused(
        &[entry("t", 0, 4), entry("t", 4, 8)],
        8,
        "{}: tensor \"t\" occurs twice in the header",
    );
    let directory = directory();
    let [first, second] =
        crate::common::paths(directory.path(), ["a.safetensors", "b.safetensors"]);
    write(&first, &[Expected::of_bytes("t", 10, 1), Expected::of_bytes("u", 10, 1)], None);
    write(&second, &[Expected::of_bytes("t", 10, 2)], None);
    assert_refused(
        directory.path(),
        ErrorKind::InvalidCheckpoint,
        "tensor \"t\" is both in {}/a.safetensors and in {}/b.safetensors; name only files that \
         belong to one checkpoint",
    );
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    let directory = directory();
    let index = directory.path().join("model.safetensors.index.json");
    let [first, second] =
        crate::common::paths(directory.path(), ["a.safetensors", "b.safetensors"]);
    let (t, u) = (Expected::of_bytes("t", 10, 1), Expected::of_bytes("u", 10, 2));
    write_index(
        &index,
        [("a.safetensors", std::slice::from_ref(&t)), ("b.safetensors", std::slice::from_ref(&u))],
    );
    write(&first, std::slice::from_ref(&t), None);
    assert_refused(
        &index,
        ErrorKind::NotFound,
        "{} names the shard \"b.safetensors\", which does not exist; tensor \"u\" should be in it; \
         download it, or name the files to load instead of the index",
    );
    write(&second, &[Expected::of_bytes("v", 10, 2)], None);
    // Only with `strict`: published checkpoints have indexes that name tensors of no shard.
    let strictly = |fact: &str| {
        let error = Loader::new().strict(true).open(&index).unwrap_err();
        let sentence = format!(
            "{}: the index says that tensor \"u\" is in the shard \"b.safetensors\", {fact}; load \
             it without the option strict to go by what the shards hold",
            index.display()
        );
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidCheckpoint, sentence));
    };
    strictly("which does not contain it");
    let checkpoint = Checkpoint::open(&index).unwrap();
    assert_eq!((checkpoint.missing(), checkpoint.tensors().len()), (&["u".to_owned()][..], 2));
    write(&first, &[t.clone(), u.clone()], None);
    strictly(&format!("but it is in {}/a.safetensors", directory.path().display()));
    let checkpoint = Checkpoint::open(&index).unwrap();
    assert_eq!((checkpoint.missing(), checkpoint.tensor("u").unwrap().shard()), (&[][..], 0));
    for (file, fact) in [
        ("../b.safetensors", "leaves the directory of the index with \"..\""),
        ("/b.safetensors", "is absolute; it must be relative to the directory of the index"),
        ("", "is empty"),
    ] {
        write_index(&index, [(file, std::slice::from_ref(&t))]);
        assert_refused(
            &index,
            ErrorKind::InvalidCheckpoint,
            &format!(
                "{{}}: the index gives tensor \"t\" the file {file:?}, which {fact}{OF_INDEX}"
            ),
        );
    }
    for (text, fact) in [
        ("{}", "the index is invalid: missing field `weight_map` at line 1 column 2"),
        (
            r#"{"weight_map":{"t":1}}"#,
            "the index is invalid: weight_map: tensor \"t\": invalid type: integer `1`, expected a \
             string at line 1 column 20",
        ),
    ] {
        fs::write(&index, text).unwrap();
        let error = Checkpoint::open(&index).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {fact}{OF_INDEX}", index.display()));
    }
}
