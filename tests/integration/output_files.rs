//! The files that a user names for output may be anything.
//!
//! Past bugs: `--trace FIFO` without a reader said "the device is gone; check that the disk is still
//! attached", a link to a file that does not exist "no such file or directory; check the path", and a
//! reader that had ended "the operating system reported an error". Each has its own cause and remedy
//! now, and no load is begun for a file that cannot be written.

use crate::common::command::{finish, ringload, run, start};
use crate::common::{Expected, directory, sharded, write};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn model() -> (TempDir, PathBuf) {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    write(&path, &[Expected::of_bytes("t", 100_000, 1)], None);
    (directory, path)
}

fn traced(model: &Path, trace: &Path) -> Command {
    let mut command = ringload();
    command.arg("load").arg(model).arg("--trace").arg(trace);
    command
}

#[test]
fn a_trace_that_cannot_be_written_has_its_own_cause_and_remedy() {
    let (directory, model) = model();
    let at = |name: &str| directory.path().join(name);
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    symlink("nowhere", at("link")).unwrap();
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("mine"), "kept").unwrap();
    for name in ["closed", "mine"] {
        fs::set_permissions(at(name), Permissions::from_mode(0o555)).unwrap();
    }
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let denied = "this user may not write to it; name another file, or check the owner and mode";
    let mut all = vec![
        (at("fifo"), "it is a FIFO that nobody reads; start its reader first"),
        (at("socket"), "it is a socket; name a file"),
        (
            at("link"),
            "it is a link to nowhere, which is not there; remove the link, or name another",
        ),
        (at("none/trace"), "its directory does not exist; create the directory"),
        (at("mine/trace"), "a part of the path is not a directory; check the path"),
        (at("closed"), "it is a directory; name a file in the directory"),
    ];
    if !geteuid().is_root() {
        all.extend([(at("closed/trace"), denied), (at("mine"), denied)]);
    }
    for (trace, cause) in all {
        let told = run(&mut traced(&model, &trace)).failure();
        let begin = format!("error: cannot write the trace to {}: {cause}", trace.display());
        assert!(told.starts_with(&begin), "{told}");
        // The trace is opened first.
        let told = run(&mut traced(&at("no model"), &trace)).failure();
        assert!(told.starts_with(&begin), "{told}");
    }
    assert_eq!(fs::read(at("mine")).unwrap(), b"kept");
    let told = run(&mut traced(&model, Path::new("/dev/full")));
    assert_eq!(told.status.code(), Some(1), "{told:#?}");
    assert!(told.stderr.contains("to /dev/full: the disk is full; free space"), "{told:#?}");
}

/// The other outputs that a user names are directories.
#[test]
fn a_directory_that_cannot_be_made_has_its_own_cause_and_remedy() {
    let (directory, model) = model();
    let at = |name: &str| directory.path().join(name);
    symlink("nowhere", at("link")).unwrap();
    fs::write(at("file"), "kept").unwrap();
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    for (to, cause) in [
        (at("file"), "it is a file; name a directory"),
        (at("fifo"), "it is a file; name a directory"),
        (at("link"), "a file or a link of this name is there already; remove it, or give another"),
        (at("file/below"), "a part of the path is not a directory; check the path"),
    ] {
        let told = run(ringload().arg("fetch").arg(&model).arg("--to").arg(&to)).failure();
        assert!(told.contains(cause), "{told}");
        let told = run(ringload().args(["bench", "--size", "300MiB", "--dir"]).arg(&to)).failure();
        let cause = "cannot create ";
        assert!(told.contains(cause) && !told.contains("operating system reported"), "{told}");
    }
    assert_eq!(fs::read(at("file")).unwrap(), b"kept");
}

#[test]
fn a_trace_goes_through_links_and_fifos_and_replaces_a_file() {
    let (directory, model) = model();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("old"), vec![b'x'; 100_000]).unwrap();
    symlink("old", at("link")).unwrap();
    run(&mut traced(&model, &at("link"))).quiet_success();
    let text = fs::read_to_string(at("old")).unwrap();
    assert!(text.starts_with('{') && text.ends_with("}\n"), "{text}");
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());

    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let fifo = at("fifo");
        move || fs::read_to_string(fifo).unwrap()
    });
    // Until the reader has opened its end, the FIFO is one that nobody reads.
    while !run(&mut traced(&model, &at("fifo"))).status.success() {}
    assert!(reader.join().unwrap().ends_with("}\n"));
}

#[test]
fn a_reader_of_a_trace_that_ends_is_named() {
    let directory = directory();
    let [path, fifo] = ["m.safetensors", "fifo"].map(|name| directory.path().join(name));
    let name = |i: u64| format!("{i:04}.{}", ["taken", "left"][i as usize % 2]);
    let tensors: Vec<_> = (0..2000).map(|i| Expected::of_bytes(name(i), 100, i)).collect();
    write(&path, &tensors, None);
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
    let mut reader = reader.unwrap();
    // Each tensor has a slot of its own, so that the trace does not fit a pipe.
    let child = start(traced(&path, &fifo).args(["--tensors", "*.taken"]));
    while !matches!(reader.read(&mut [0]), Ok(1)) {
        std::thread::yield_now();
    }
    drop(reader);
    let told = finish(child);
    told.assert_no_panic();
    assert_eq!(told.status.code(), Some(1), "{told:#?}");
    let begin =
        format!("error: cannot write the trace to {}: its reader has ended", fifo.display());
    assert!(told.stderr.starts_with(&begin), "{told:#?}");
}

/// `load m --trace m/model.safetensors` replaced the shard by the trace and reported a success: the
/// checkpoint was lost. The same went for the index, for a manifest, and for other names of a file.
#[test]
fn a_trace_never_replaces_a_file_of_the_load() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    for (name, bytes) in sharded(&["a", "b"].map(|name| Expected::of_bytes(name, 100, 1)), true) {
        fs::write(at(&name), bytes).unwrap();
    }
    let shard = at("one.safetensors");
    fs::copy(&shard, at("extra.safetensors")).unwrap();
    let sums = run(ringload().arg("sum").arg(directory.path())).quiet_success();
    fs::write(at("sums"), sums).unwrap();
    symlink(&shard, at("link")).unwrap();
    fs::hard_link(&shard, at("hard")).unwrap();
    for name in [
        "one.safetensors",
        "model.safetensors.index.json",
        "extra.safetensors",
        "link",
        "hard",
        "sums",
    ] {
        let before = fs::read(at(name)).unwrap();
        let mut command = traced(directory.path(), &at(name));
        let told = run(command.arg("--manifest").arg(at("sums")));
        let kept = fs::read(at(name)).unwrap() == before;
        let told = told.failure();
        assert!(kept && told.contains("which is read; name another file"), "{name}: {told}");
    }
    run(&mut traced(directory.path(), &at("trace"))).quiet_success();
}

/// `bench --size 100TiB` made the list of its tensors in memory until the memory was used up, and
/// `--size 1TiB` left an empty directory behind.
#[test]
fn a_checkpoint_that_fits_no_disk_is_refused_before_it_is_planned() {
    let directory = directory();
    let to = directory.path().join("new");
    for size in ["100TiB", "8000000TiB"] {
        let mut command = ringload();
        let told = run(command.args(["bench", "--size", size, "--dir"]).arg(&to)).failure();
        assert!(told.contains("give a smaller --size"), "{told}");
        assert!(!to.exists());
    }
}
