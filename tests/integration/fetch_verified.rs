//! `ringload fetch` with `--verify` and `--manifest`.
//!
//! A fetched checkpoint was not compared with anything: the flags were refused, so that who had a
//! manifest had to load all files once more. Hazards: a damaged object becomes a plain file; what an
//! earlier attempt has left is not looked at; a damaged object stays on the disk, and every further
//! attempt fails; a fetch into the cache asks the store for bytes that the cache has.

use crate::common::command::{finish, ringload, run, sha256, start};
use crate::common::fault_server::{FaultServer, Reply, Request};
use crate::common::model::Model;
use crate::common::{Expected, cached_bytes, directory, paths, until};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: u64 = 4096;

/// The manifest of `model`, whose file is called `x.safetensors`.
fn manifest(model: &Model, directory: &Path, arguments: &[&str]) -> PathBuf {
    let [file, manifest] = paths(directory, ["x.safetensors", "manifest.json"]);
    fs::write(&file, &model.file).unwrap();
    let text = run(ringload().arg("sum").arg(&file).args(arguments)).quiet_success();
    fs::write(&manifest, text).unwrap();
    manifest
}

fn fetch(from: &str, arguments: &[&str], manifest: &Path, to: &Path) -> Command {
    let mut command = ringload();
    command.args(["fetch", from, "--json", "--manifest"]).arg(manifest).args(arguments).arg(to);
    command
}

/// The range of `file` that was requested.
fn part(file: &[u8], request: &Request, etag: &str) -> Reply {
    let (first, last) = request.range().unwrap();
    let (last, total) = (last.min(file.len() - 1), file.len());
    let range = format!("bytes {first}-{last}/{total}");
    let reply = Reply::new(206).with("ETag", etag).with("Content-Range", range);
    reply.body(&file[first..=last])
}

/// One bit of the last tensor is wrong until `is_right` is set.
fn damaging_server(model: &Model, is_right: &Arc<AtomicBool>) -> FaultServer {
    let (right, is_right) = (model.file.clone(), Arc::clone(is_right));
    FaultServer::start(right.clone(), move |_, request| {
        let mut file = right.clone();
        if !is_right.load(Ordering::Relaxed) {
            file[right.len() - 100_000] ^= 1;
        }
        part(&file, request, "\"one\"")
    })
}

#[test]
fn a_damaged_object_is_never_fetched_and_never_stays() {
    let model = Model::new(&[9_000_000, 300, 2_000_000]);
    for sha256 in [&[][..], &["--sha256"]] {
        for to in ["--to", "--cache-dir"] {
            let directory = directory();
            let manifest = manifest(&model, directory.path(), sha256);
            let is_right = Arc::new(AtomicBool::new(false));
            let server = damaging_server(&model, &is_right);
            let (url, at) = (server.url(), directory.path().join("to"));
            let damaged = run(&mut fetch(&url, &[to], &manifest, &at));
            assert_eq!(damaged.status.code(), Some(1), "{damaged:#?}");
            assert!(damaged.stderr.contains("x.safetensors is corrupt"), "{damaged:#?}");
            assert!(!at.join("x.safetensors").exists());
            assert_eq!(cached_bytes(&at, "/x.safetensors"), 0, "the damaged object is kept");
            is_right.store(true, Ordering::Relaxed);
            let fetched = run(&mut fetch(&url, &[to], &manifest, &at)).json();
            let [verified] = &fetched["verified_against"].as_array().unwrap()[..] else {
                panic!("{fetched:#}")
            };
            assert!(
                verified["against"].as_str().unwrap().contains("of the manifest"),
                "{fetched:#}"
            );
            if to == "--to" {
                assert!(fs::read(at.join("x.safetensors")).unwrap() == model.file);
            }
        }
    }
}

/// Bytes that an earlier attempt has left are compared, too, and not fetched again.
#[test]
fn a_verified_fetch_is_resumed() {
    let model = Model::new(&[20_000_000, 300]);
    let directory = directory();
    let manifest = manifest(&model, directory.path(), &[]);
    let (broken, gate) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (is_broken, opened) = (Arc::clone(&broken), Arc::clone(&gate));
    let server = FaultServer::start(model.file.clone(), move |_, request| {
        let late = request.range().is_some_and(|(first, _)| first > 8 << 20);
        match late && is_broken.load(Ordering::Relaxed) {
            true => Reply::new(403).once_open(&opened),
            false => request.right(),
        }
    });
    let (url, at) = (server.url(), directory.path().join("to"));
    let command = || fetch(&url, &["--to"], &manifest, &at);
    let fetching = start(&mut command());
    let staging = at.join(".ringload-download");
    until("the first part is on disk", || cached_bytes(&staging, "x.safetensors") > 1_000_000);
    gate.store(true, Ordering::Relaxed);
    finish(fetching).failure();
    broken.store(false, Ordering::Relaxed);
    let fetched = run(&mut command()).json();
    assert!(fetched["cached_bytes"].as_u64().unwrap() > 1_000_000, "{fetched:#}");
    assert_eq!(fetched["verified_against"].as_array().unwrap().len(), 1, "{fetched:#}");
    assert!(fs::read(at.join("x.safetensors")).unwrap() == model.file);
}

/// A local file is compared with the checksum beside it, and copied.
#[test]
fn local_files_are_verified_while_they_are_copied() {
    let (model, directory) = (Model::new(&[9_000_000, 300]), directory());
    let [file, to] = paths(directory.path(), ["x.safetensors", "to"]);
    fs::write(&file, &model.file).unwrap();
    let copy = || {
        let mut command = ringload();
        run(command.args(["fetch", "--verify", "--json"]).arg(&file).arg("--to").arg(&to))
    };
    assert!(copy().failure().contains("is a file without a checksum"));
    let sums = format!("{}  x.safetensors\n", sha256(&model.file));
    fs::write(directory.path().join("SHA256SUMS"), sums).unwrap();
    let copied = copy().json();
    assert_eq!(copied["verified_against"].as_array().unwrap().len(), 1, "{copied:#}");
    assert!(fs::read(to.join("x.safetensors")).unwrap() == model.file);
    fs::remove_dir_all(&to).unwrap();
    let changed = fs::File::options().write(true).open(&file).unwrap();
    changed.write_all_at(b"!", PAGE * 300 + 7).unwrap();
    let damaged = copy();
    assert_eq!(damaged.status.code(), Some(1), "{damaged:#?}");
    assert!(damaged.stderr.contains("x.safetensors is corrupt"), "{damaged:#?}");
    assert!(!to.exists(), "a damaged file was copied");
}

/// A fetch counted an object as cached because the cache had one of the same length, which had been
/// replaced.
#[test]
fn an_object_that_was_replaced_by_one_of_the_same_length_is_not_cached() {
    let versions = [1, 2].map(|seed| Model::of(&[Expected::of_bytes("t", 300_000, seed)]));
    assert_eq!(versions[0].file.len(), versions[1].file.len());
    let is_second = Arc::new(AtomicBool::new(false));
    let (files, second) = (versions.each_ref().map(|it| it.file.clone()), Arc::clone(&is_second));
    let server = FaultServer::start(files[0].clone(), move |_, request| {
        let version = usize::from(second.load(Ordering::Relaxed));
        part(&files[version], request, &format!("\"v{version}\""))
    });
    let directory = directory();
    let [cache, other] = paths(directory.path(), ["cache", "other"]);
    let fetch = |cache: &Path| {
        let mut command = ringload();
        run(command.args(["fetch", &server.url(), "--cache-dir"]).arg(cache))
    };
    assert!(fetch(&cache).status.success());
    is_second.store(true, Ordering::Relaxed);
    assert!(fetch(&other).status.success());
    // The entry of the second version cannot be written: a file is in its place.
    for address in fs::read_dir(&other).unwrap().map(|entry| entry.unwrap().path()) {
        let here = cache.join(address.file_name().unwrap());
        let entries = fs::read_dir(&address).into_iter().flatten().map(|entry| entry.unwrap());
        for name in entries.map(|entry| entry.file_name()).filter(|_| here.is_dir()) {
            if !here.join(&name).exists() {
                fs::write(here.join(name), "x").unwrap();
            }
        }
    }
    let told = fetch(&cache);
    assert_eq!(told.status.code(), Some(1), "{told:#?}");
    assert!(told.stderr.contains("not everything was cached"), "{told:#?}");
}
