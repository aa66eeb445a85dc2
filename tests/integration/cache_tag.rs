//! The tag of a cache, without which nothing in its directory is deleted.
//!
//! Hazards: a directory stays without its tag for good; something is said to be freed that is not;
//! leftovers grow; files of others are deleted.

use crate::common::command::{Finished, ringload, run};
use crate::common::directory;
use crate::common::fault_server::FaultServer;
use crate::common::model::Model;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TAG: &str = "CACHEDIR.TAG";

fn serve(model: &Model) -> FaultServer {
    FaultServer::start(model.file.clone(), |_, request| request.right())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn fetch(url: &str, into: &str, directory: &Path) -> Finished {
    run(ringload().args(["fetch", url, into]).arg(directory))
}

/// A process that may not write a byte to a file, or one on a full disk, left an empty CACHEDIR.TAG.
/// From then on every fetch to the directory warned several times that "it was not empty when it became
/// a cache", `.ringload-download` was never removed, and a fetch into a cache failed although all was
/// there. The beginning of a tag must be completed.
#[test]
fn a_tag_that_could_not_be_written_is_completed_later() {
    let model = Model::new(&[300_000]);
    let server = serve(&model);
    for into in ["--to", "--cache-dir"] {
        let parent = directory();
        let target = parent.path().join("target");
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringload")]);
        run(limited.args(["fetch", &server.url(), into]).arg(&target));
        fetch(&server.url(), into, &target).quiet_success();
        if into == "--to" {
            assert_eq!(names(&target), ["x.safetensors"]);
        } else {
            assert!(fs::read_to_string(target.join(TAG)).unwrap().contains("cache of ringload"));
        }
    }
    // A cache that an earlier version left so, with entries.
    let directory = directory();
    fetch(&server.url(), "--cache-dir", directory.path()).quiet_success();
    for tag in ["", "Signature: 8a4"] {
        fs::write(directory.path().join(TAG), tag).unwrap();
        fetch(&server.url(), "--cache-dir", directory.path()).quiet_success();
        assert!(fs::read_to_string(directory.path().join(TAG)).unwrap().contains("ringload"));
    }
}

/// The beginning of a tag counts only where everything else is a cache's own, so that an empty file of
/// this name does not permit deleting among files of others.
#[test]
fn an_empty_tag_beside_other_files_is_not_completed() {
    let model = Model::new(&[300_000]);
    let server = serve(&model);
    let directory = directory();
    fs::write(directory.path().join(TAG), "").unwrap();
    fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let fetched = fetch(&server.url(), "--cache-dir", directory.path());
    assert!(fetched.stderr.contains("was not empty when it became a cache"), "{fetched:#?}");
    assert_eq!(fs::read(directory.path().join(TAG)).unwrap(), b"");
}

/// In a directory with other files, `cache prune` and `cache rm` said "1 object removed, 4.78 MiB freed".
/// They had only renamed the entry, and each load and prune that followed added another copy.
#[test]
fn where_nothing_is_deleted_nothing_is_said_to_be_freed() {
    let model = Model::new(&[300_000]);
    let server = serve(&model);
    let directory = directory();
    fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let fetched = fetch(&server.url(), "--cache-dir", directory.path());
    assert!(fetched.stderr.contains("was not empty when it became a cache"), "{fetched:#?}");
    // The fetch itself said "not everything was cached" and failed, although it was.
    assert_eq!(fetched.status.code(), Some(0), "{fetched:#?}");
    let before = names(directory.path());
    for action in [&["prune", "--cache-size", "1"][..], &["rm", &server.url()]] {
        let mut command = ringload();
        command.arg("cache").args(action).arg("--cache-dir").arg(directory.path());
        let told = run(&mut command);
        assert_eq!((told.status.code(), &*told.stdout), (Some(1), ""), "{told:#?}");
        assert!(told.stderr.contains("so nothing in it is deleted"), "{told:#?}");
        fetch(&server.url(), "--cache-dir", directory.path());
        assert_eq!(names(directory.path()), before, "{action:?}");
    }
    // The load replaces a damaged entry where it may delete; here it must not leave copies.
    let entry = glob::glob(&format!("{}/*/*/pages", directory.path().display())).unwrap();
    let pages: Vec<PathBuf> = entry.map(Result::unwrap).collect();
    fs::write(&pages[0], "short").unwrap();
    fetch(&server.url(), "--cache-dir", directory.path());
    assert_eq!(names(directory.path()), before);
}
