//! What is not a checkpoint must be refused with a sentence that says where, what, and what to do:
//! through the library and, word for word, through the command.
//!
//! Hazards: a header that lies about anything; an index that does not fit its shards; what is not
//! a file at all (a FIFO must not hang, a device must not be read without end); access that is
//! refused; a disk that fails, or a file that changes, in mid-load; a command that was called
//! wrongly; a variable of the environment that nobody can find. Never a panic, never a hang, and
//! never a word on standard output.

#![allow(clippy::unwrap_used)]

mod common;

use common::command::{Finished, of_program, ringload, run, start, wait};
use common::seccomp::{self, NOBODY, Refuse, can_filter, is_root};
use common::{Expected, directory, evict, in_time, raw_file, write, write_index};
use ringload::{Checkpoint, ErrorKind, Loader, MemoryLimit, ReadPath};
use std::error::Error as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Checks what library and command say of `location`. `{}` in `sentence` stands for the location,
/// `{dir}` for the directory it is in.
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
        let told = run(ringload().arg(subcommand).arg(location)).failure();
        assert!(told.starts_with(&report), "{told}\nis not\n{report}");
    }
}

/// Checks what is said of a file of these bytes.
#[track_caller]
fn assert_bytes_refused(bytes: &[u8], sentence: &str) {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    fs::write(&path, bytes).unwrap();
    assert_refused(&path, ErrorKind::InvalidCheckpoint, sentence);
}

/// The entry of a tensor of U8.
fn entry(name: &str, begin: u64, end: u64) -> String {
    let len = end.saturating_sub(begin);
    format!(r#""{name}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#)
}

/// Checks what is said of a file with these entries and so many bytes behind the header.
#[track_caller]
fn assert_entries_refused(entries: &[String], data_bytes: usize, sentence: &str) {
    let header = format!("{{{}}}", entries.join(","));
    assert_bytes_refused(&raw_file(header, &vec![1; data_bytes]), sentence);
}

#[test]
fn what_is_not_there_is_named() {
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
fn what_is_no_regular_file_is_refused_without_reading_it() {
    let directory = directory();
    let [fifo, below, link] = common::paths(
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
    // An index may name what is a directory.
    fs::create_dir(&below).unwrap();
    let index = directory.path().join("model.safetensors.index.json");
    write_index(&index, [("below.safetensors", &[Expected::of_bytes("t", 1, 0)][..])]);
    assert_refused(
        &index,
        ErrorKind::InvalidInput,
        "{dir}/below.safetensors is a directory; name a regular safetensors file",
    );
}

#[test]
fn other_schemes_and_bad_urls_are_refused() {
    for (location, sentence) in [
        ("foo://x", "foo:// locations are not supported; give a local path or a file:// URL"),
        ("", "the location is empty; give a path or a file:// URL"),
        ("file://x", "\"file://x\" has no path; write file:///absolute/path"),
    ] {
        assert_eq!(Checkpoint::open(location).unwrap_err().to_string(), sentence);
        let told = run(ringload().args(["load", location])).failure();
        assert_eq!(told, format!("error: {sentence}\n"));
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
            "{{}}: the first 8 bytes give a header of {} bytes, but 22 follow; the file is \
             truncated or not a safetensors file",
            whole.len() - 18
        ),
    );
    assert_bytes_refused(
        &whole[..whole.len() - 3],
        "{}: the file is truncated: the header describes 10 bytes of tensor data, the file has 7: \
         3 are missing; was its download finished?",
    );
}

#[test]
fn a_length_that_no_header_has_is_refused_before_memory_is_taken() {
    for length in [1_u64 << 63, u64::MAX, 100_000_001] {
        let directory = directory();
        let path = directory.path().join("a.safetensors");
        fs::write(&path, length.to_le_bytes()).unwrap();
        // Sparse, and long enough for the header that it claims (or for a good part of it).
        File::options().write(true).open(&path).unwrap().set_len(200_000_000).unwrap();
        let sentence = format!(
            "{{}}: the first 8 bytes give a header of {length} bytes, above the limit of \
             100000000; it is not a safetensors file"
        );
        assert_refused(&path, ErrorKind::InvalidCheckpoint, &sentence);
    }
    assert_bytes_refused(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "{}: the first 8 bytes give a header of 2336927755350992246 bytes, above the limit of \
         100000000; it looks like a Git LFS pointer: fetch the file itself with git lfs pull",
    );
}

#[test]
fn a_header_that_is_no_json_object_of_tensors_is_refused() {
    for (header, fact) in [
        (&b""[..], "the header is empty; the least there can be is {}"),
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
        let sentence = format!("{}: {fact}", path.display());
        let error = Checkpoint::open(&path).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidCheckpoint, sentence));
        let told = run(ringload().arg("load").arg(&path)).failure();
        assert_eq!(told, format!("error: {error}\n"));
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
        "{}: the file is truncated: the header describes 1152921504606846976 bytes of tensor data, \
         the file has 8: 1152921504606846968 are missing; was its download finished?",
    );
    assert_entries_refused(
        &[entry("a", 0, 8)],
        9,
        "{}: the header describes 8 bytes of tensor data, the file has 9: 1 is too many",
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
         give 15",
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
    // A dimension that does not fit 64 bits, and one below zero.
    for (dimension, fact) in [
        ("18446744073709551616", "invalid type: floating point `1.8446744073709552e+19`"),
        ("-1", "invalid value: integer `-1`"),
    ] {
        let directory = directory();
        let path = directory.path().join("a.safetensors");
        let header = format!("{{{}}}", of("U8", &format!("[{dimension}]"), 0)[0]);
        fs::write(&path, raw_file(header, b"")).unwrap();
        let told = run(ringload().arg("load").arg(&path)).failure();
        let begin = format!(
            "error: {}: the header is invalid: tensor \"t\": shape: {fact}, expected usize",
            path.display()
        );
        assert!(told.starts_with(&begin), "{told}");
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    assert_entries_refused(
        &[entry("t", 0, 4), entry("t", 4, 8)],
        8,
        "{}: tensor \"t\" stands twice in the header",
    );
    let directory = directory();
    let [first, second] = common::paths(directory.path(), ["a.safetensors", "b.safetensors"]);
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
    let [first, second] = common::paths(directory.path(), ["a.safetensors", "b.safetensors"]);
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
    assert_refused(
        &index,
        ErrorKind::InvalidCheckpoint,
        "{}: the index says that tensor \"u\" is in the shard \"b.safetensors\", which does not \
         hold it",
    );
    write(&second, &[Expected::of_bytes("v", 10, 2)], None);
    write(&first, &[t.clone(), u.clone()], None);
    assert_refused(
        &index,
        ErrorKind::InvalidCheckpoint,
        "{}: the index says that tensor \"u\" is in the shard \"b.safetensors\", but it is in \
         {dir}/a.safetensors",
    );
    for (file, fact) in [
        ("../b.safetensors", "leaves the directory of the index with \"..\""),
        ("/b.safetensors", "is absolute; it must be relative to the directory of the index"),
        ("", "is empty"),
    ] {
        write_index(&index, [(file, std::slice::from_ref(&t))]);
        assert_refused(
            &index,
            ErrorKind::InvalidCheckpoint,
            &format!("{{}}: the index gives tensor \"t\" the file {file:?}, which {fact}"),
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
        assert_eq!(error.to_string(), format!("{}: {fact}", index.display()));
    }
}

/// A directory that everybody can reach, with a copy of the command in it.
fn public_directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("ringload-copy");
    let original = Path::new(env!("CARGO_BIN_EXE_ringload"));
    if fs::hard_link(original, &program).is_err() {
        fs::copy(original, &program).unwrap();
    }
    (directory, program)
}

#[test]
fn refused_access_is_told_with_what_to_check() {
    let (directory, program) = public_directory();
    let path = directory.path().join("secret.safetensors");
    write(&path, &[Expected::of_bytes("t", 10, 1)], None);
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let as_nobody = || {
        let mut command = of_program(&program);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let told = run(as_nobody().arg("load").arg(&path)).failure();
    let sentence = format!(
        "error: cannot open {}: permission denied; check the owner and mode of the file and of its \
         directories\n",
        path.display()
    );
    assert!(told.starts_with(&sentence), "{told}");

    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    let told = run(as_nobody().arg("load").arg(&closed)).failure();
    let sentence = format!("error: cannot list the directory {}: permission", closed.display());
    assert!(told.starts_with(&sentence), "{told}");
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
}

/// A file of sixteen tensors of 1 MiB.
fn write_sixteen(path: &Path) -> Vec<Expected> {
    let tensors: Vec<_> =
        (0..16).map(|i| Expected::of_bytes(format!("t{i:02}"), 1 << 20, i)).collect();
    write(path, &tensors, None);
    tensors
}

#[test]
fn a_disk_that_fails_in_mid_load_ends_it_with_the_reason() {
    if !can_filter() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write_sixteen(&path);
    let with_failure = |errno, arguments: &[&str]| {
        // Without io_uring tensors come by pread(2); the header's reads are smaller.
        let refusals = [Refuse::io_uring(libc::EPERM), Refuse::large_preads(64 << 10, errno)];
        let mut command = ringload();
        command.arg("load").arg(&path).args(arguments);
        run(seccomp::refuse(&mut command, &refusals)).failure()
    };
    for (errno, meaning) in [
        (
            libc::EIO,
            "the storage device reported an I/O error; check the kernel log and the disk's health",
        ),
        (libc::ESTALE, "the file was replaced on the file server; load it again"),
        (libc::ENXIO, "the device is gone; check that the disk is still attached"),
        (libc::EBADMSG, "the operating system reported an error"),
    ] {
        let cause = std::io::Error::from_raw_os_error(errno);
        let report =
            format!("error: cannot read {}: {meaning}\ncaused by: {cause}\n", path.display());
        assert_eq!(with_failure(errno, &[]), report);
        assert_eq!(with_failure(errno, &["--memory-limit", "min", "--digest"]), report);
        assert_eq!(with_failure(errno, &["--read-path", "direct", "--engines", "3"]), report);
    }
    // What is no failure for good is asked again, but not for ever.
    let told = with_failure(libc::EAGAIN, &[]);
    assert!(told.contains("the kernel had no resources for the read at that moment"), "{told}");
    // A read that is refused on the last rung is a failure too.
    let told = with_failure(libc::EOPNOTSUPP, &[]);
    assert!(told.contains("does not support this kind of read"), "{told}");
}

#[test]
fn a_header_that_cannot_be_read_is_told() {
    if !can_filter() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write_sixteen(&path);
    let mut command = ringload();
    command.arg("load").arg(&path);
    let told = run(seccomp::refuse(&mut command, &[Refuse::preads_of(8, libc::EIO)])).failure();
    let sentence = format!(
        "error: cannot read the header of {}: the storage device reported an I/O error; check the \
         kernel log and the disk's health\n",
        path.display()
    );
    assert!(told.starts_with(&sentence), "{told}");
}

#[test]
fn a_file_that_changes_before_or_during_a_load_is_never_taken_for_whole() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    let shrink = |path: &Path| {
        File::options().write(true).open(path).unwrap().set_len(10 << 20).unwrap();
    };
    for read_path in [ReadPath::Auto, ReadPath::Direct, ReadPath::Buffered] {
        let tensors = write_sixteen(&path);
        let len_bytes = fs::metadata(&path).unwrap().len();
        evict(&path);
        let loader = Loader::new().read_path(read_path).memory_limit(MemoryLimit::Min);
        let mut stream = loader.stream(&path).unwrap();
        let first = stream.next().unwrap().unwrap();
        shrink(&path);
        assert!(tensors.iter().any(|tensor| tensor.bytes == first.bytes()));
        drop(first);
        let error = in_time("reading on", move || stream.find_map(Result::err)).unwrap();
        let sentence = format!(
            "{} changed while it was being loaded: it shrank from {len_bytes} to {} bytes; load it \
             again when nothing writes to it (replace checkpoints by renaming a finished file)",
            path.display(),
            10 << 20
        );
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Changed, sentence));
    }
    for read_path in ReadPath::ALL {
        for replace in [false, true] {
            write_sixteen(&path);
            let checkpoint = std::sync::Arc::new(Checkpoint::open(&path).unwrap());
            if replace {
                let other = directory.path().join("other");
                fs::copy(&path, &other).unwrap();
                fs::rename(&other, &path).unwrap();
            } else {
                shrink(&path);
            }
            let error = Loader::new().read_path(read_path).load_checkpoint(checkpoint);
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Changed, "{read_path}");
        }
    }
}

#[test]
fn a_command_whose_file_shrinks_under_it_succeeds_or_says_so() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    for (round, read_path) in
        ["auto", "direct", "buffered", "mapped"].into_iter().cycle().take(12).enumerate()
    {
        write_sixteen(&path);
        evict(&path);
        let mut command = ringload();
        let mut child = start(command.arg("load").arg(&path).args(["--read-path", read_path]));
        std::thread::sleep(std::time::Duration::from_millis(2 + 2 * round as u64));
        File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        wait(&mut child);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let finished = Finished {
            status: output.status,
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        finished.assert_no_panic();
        if !finished.status.success() {
            let told = finished.failure();
            assert!(told.contains("changed while") || told.contains("truncated"), "{told}");
        }
    }
}

#[test]
fn a_limit_that_no_tensor_fits_names_both_sizes() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write_sixteen(&path);
    let told = run(ringload().arg("load").arg(&path).args(["--memory-limit", "1000KiB"])).failure();
    assert_eq!(
        told,
        "error: the memory limit of 1024000 bytes is smaller than the largest tensor of 1048576 \
         bytes; set the limit to at least 1048576, or to \"min\"\n"
    );
    let mapped = ["--memory-limit", "min", "--read-path", "mapped"];
    let told = run(ringload().arg("load").arg(&path).args(mapped)).failure();
    assert!(told.contains("the mapped read path uses the page cache"), "{told}");
    let told = run(ringload().arg("load").arg(&path).args(["--tensors", "none.*"])).failure();
    assert!(told.starts_with("error: no tensor matches none.*; "), "{told}");
    let told = run(ringload().arg("load").arg(&path).args(["--tensors", "[a"])).failure();
    assert!(told.starts_with("error: \"[a\" is not a valid glob\ncaused by: "), "{told}");
}

#[test]
fn a_wrong_call_is_told_apart_from_a_failure() {
    for (arguments, word) in [
        (&["load"][..], "<LOCATION>"),
        (&["inspect"], "<LOCATION>"),
        (&["load", "x", "--frobnicate"], "--frobnicate"),
        (&["load", "x", "--memory-limit", "lots"], "\"lots\" is not a memory limit"),
        (&["load", "x", "--memory-limit", "0"], "\"0\" is not a memory limit"),
        (&["load", "x", "--read-path", "psychic"], "\"psychic\" is not a read path"),
        (&["load", "x", "--engines", "-1"], "-1"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let told = run(ringload().args(arguments)).wrong_usage();
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
}

/// `load --json` of `path` under these variables.
fn with_variables(path: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = ringload();
    command.arg("load").arg(path).arg("--json").args(arguments).envs(variables.iter().copied());
    command
}

#[test]
fn variables_of_the_environment_count_unless_an_option_is_given() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write_sixteen(&path);
    const LIMIT: &str = "RINGLOAD_MEMORY_LIMIT";
    const RUNAI_LIMIT: &str = "RUNAI_STREAMER_MEMORY_LIMIT";
    const MIB: u64 = 1 << 20;
    for (variables, arguments, limit) in [
        (&[][..], &[][..], None),
        (&[(LIMIT, "2MiB")], &[], Some(2 * MIB)),
        (&[(LIMIT, "min")], &[], Some(MIB)),
        (&[(LIMIT, "unlimited"), (RUNAI_LIMIT, "0")], &[], None),
        (&[(LIMIT, "")], &[], None),
        (&[(RUNAI_LIMIT, "-1")], &[], None),
        (&[(RUNAI_LIMIT, "0")], &[], Some(MIB)),
        (&[(RUNAI_LIMIT, "3000000")], &[], Some(3_000_000)),
        (&[(LIMIT, "2MiB"), (RUNAI_LIMIT, "0")], &["--memory-limit", "4MiB"], Some(4 * MIB)),
        (&[(LIMIT, "nonsense")], &["--memory-limit", "unlimited"], None),
    ] {
        let report = run(&mut with_variables(&path, variables, arguments)).json();
        assert_eq!(report["memory_limit_bytes"].as_u64(), limit, "{variables:?} {arguments:?}");
        assert_eq!(report["bytes"], 16 * MIB);
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    for (variables, arguments, engines) in [
        (&[("RINGLOAD_CONCURRENCY", "3")][..], &[][..], 3),
        (&[("RUNAI_STREAMER_CONCURRENCY", "1")], &[], 1),
        (&[("RUNAI_STREAMER_CONCURRENCY", "9999")], &[], cores),
        (&[("RINGLOAD_CONCURRENCY", "3")], &["--engines", "2"], 2),
        (&[("RINGLOAD_CONCURRENCY", "nonsense")], &["--engines", "2"], 2),
    ] {
        let report = run(&mut with_variables(&path, variables, arguments)).json();
        assert_eq!(report["engines"], engines, "{variables:?} {arguments:?}");
    }
}

#[test]
fn a_bad_variable_is_named() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write_sixteen(&path);
    for variable in [
        ("RINGLOAD_MEMORY_LIMIT", "lots"),
        ("RINGLOAD_MEMORY_LIMIT", "0"),
        ("RUNAI_STREAMER_MEMORY_LIMIT", "-2"),
        ("RUNAI_STREAMER_MEMORY_LIMIT", "4GiB"),
        ("RINGLOAD_CONCURRENCY", "0"),
        ("RINGLOAD_CONCURRENCY", "many"),
        ("RUNAI_STREAMER_CONCURRENCY", "-1"),
    ] {
        let told = run(&mut with_variables(&path, &[variable], &[])).failure();
        assert!(told.contains(variable.0) && told.contains(variable.1), "{told}");
    }
    // Set to what is no text, it must not be taken for not set.
    use std::os::unix::ffi::OsStrExt;
    let mut command = with_variables(&path, &[], &[]);
    command.env("RINGLOAD_MEMORY_LIMIT", std::ffi::OsStr::from_bytes(b"4GiB\xff"));
    let told = run(&mut command).failure();
    assert!(told.contains("RINGLOAD_MEMORY_LIMIT"), "{told}");
}
