//! Failures around a good checkpoint have distinct, useful errors.
//!
//! Hazards: access that is refused; a disk that fails, or a file that changes, in mid-load; a limit
//! that no tensor fits; a command with wrong arguments; an invalid environment variable. Never a
//! panic, never a hang, and never any text on standard output.

use crate::common::command::{finish, of_program, ringload, run, start};
use crate::common::seccomp::{self, NOBODY, Refuse, can_filter, is_root};
use crate::common::{Expected, directory, evict, in_time, write};
use ringload::{Checkpoint, ErrorKind, Loader, MemoryLimit, ReadPath};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that every user can read, with a copy of the command in it.
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
fn refused_access_is_reported_with_what_to_check() {
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
        let refusals = [
            Refuse::io_uring(libc::EPERM),
            Refuse::preadv2(libc::ENOSYS),
            Refuse::large_preads(64 << 10, errno),
        ];
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
    // A read that the last backend refuses is a failure, too.
    let told = with_failure(libc::EOPNOTSUPP, &[]);
    assert!(told.contains("does not support this kind of read"), "{told}");
}

#[test]
fn a_header_that_cannot_be_read_is_reported() {
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
            "{} changed while it was being loaded: it shrank from 16.00 MiB ({len_bytes} bytes) to \
             10 MiB; load it again when nothing writes to it (replace checkpoints by renaming a \
             finished file)",
            path.display()
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
        let child = start(command.arg("load").arg(&path).args(["--read-path", read_path]));
        std::thread::sleep(std::time::Duration::from_millis(2 + 2 * round as u64));
        File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        let finished = finish(child);
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
        "error: the memory limit of 1000 KiB is smaller than the largest tensor of 1 MiB; set the \
         limit to at least 1 MiB, or to \"min\"\n"
    );
    let mapped = ["--memory-limit", "min", "--read-path", "mapped"];
    let told = run(ringload().arg("load").arg(&path).args(mapped)).failure();
    assert!(told.contains("the mapped read path uses the page cache"), "{told}");
    let told = run(ringload().arg("load").arg(&path).args(["--tensors", "none.*"])).failure();
    assert!(told.starts_with("error: no tensor matches none.*; "), "{told}");
    // An empty pattern was "no tensor matches ;".
    let told = run(ringload().arg("load").arg(&path).args(["--tensors", ""])).failure();
    assert!(told.starts_with("error: no tensor matches ''; "), "{told}");
    let told = run(ringload().arg("load").arg(&path).args(["--tensors", "[a"]));
    let told = told.wrong_usage();
    assert!(told.contains("'--tensors <GLOB>': \"[a\" is not a valid glob"), "{told}");
}

#[test]
fn wrong_arguments_and_failures_have_different_exit_codes() {
    for (arguments, word) in [
        (&["load"][..], "<LOCATION>"),
        (&["inspect"], "<LOCATION>"),
        (&["load", "x", "--frobnicate"], "--frobnicate"),
        (&["load", "x", "--memory-limit", "lots"], "\"lots\" is not a memory limit"),
        (&["load", "x", "--memory-limit", "0"], "\"0\" is not a memory limit"),
        (&["load", "x", "--read-path", "psychic"], "\"psychic\" is not a read path"),
        // "to pass '-1' as a value, use '-- -1'" was no help.
        (&["load", "x", "--engines", "-1"], "\"-1\" is not a whole number, at least 0"),
        (&["load", "x", "--memory-limit", "-4GiB"], "\"-4GiB\" is not a memory limit"),
        (&["load", "x", "--cache-size", "-1"], "\"-1\" is not a size for the cache"),
        (&["cache", "prune", "--cache-size", "-1"], "\"-1\" is not a size for the cache"),
        (&["bench", "--size", "-1"], "'-1' for '--size <BYTES>': use bytes"),
        (&["bench", "--runs", "-1"], "-1 is not in 1..=1000"),
        (&["load", "x", "--memory-limit", "16EiB"], "\"16EiB\" is too large; the maximum is"),
        (&["bench", "--size", "16EiB"], "\"16EiB\" is too large; the maximum is"),
        (&["load", "x", "--header", "a"], "; write a header as 'Name: value'"),
        (&["load", "x", "--all-files", "--variant", "fp16"], "--variant"),
        (&["inspect", "x", "--all-files", "--variant", "fp16"], "--variant"),
        (&["doctor", "https://host/"], "name a directory"),
        (&["bench", "ftp://x"], "ftp:// locations are not supported"),
        (&["bench", "--size", "1"], "--size is too small"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let told = run(ringload().args(arguments)).wrong_usage();
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
    // Two empty lines and the usage of another command followed.
    let told = run(ringload().args(["load", "x", "--header", "a"])).wrong_usage();
    assert_eq!(told.lines().count(), 1, "{told}");
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
