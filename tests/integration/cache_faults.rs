//! The local file cache when processes and disks fail.
//!
//! Hazards: a kill at any instant; a full, read-only, or inaccessible disk; many processes that load
//! one object at once, of which one dies or stops in the middle; a disk slower than the network.

use crate::common::command::{Finished, ringload, run, start, wait};
use crate::common::fault_server::{End, FaultServer, Reply, Request};
use crate::common::model::Model;
use crate::common::seccomp::{NOBODY, is_root};
use crate::common::{directory, is_long, skip, until};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn command(url: &str, cache: &Path) -> Command {
    let mut command = ringload();
    command.args(["load", "--json", "--digest", "--drop", "--cache-dir"]).arg(cache).arg(url);
    command
}

/// Checks every byte of a finished load, and gives its report.
#[track_caller]
fn right(model: &Model, finished: Finished) -> Value {
    finished.assert_no_panic();
    assert!(finished.status.success(), "{finished:#?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let expected = model.tensors.values().map(|tensor| {
        (tensor.name.clone(), Value::String(crate::common::command::sha256(&tensor.bytes)))
    });
    assert_eq!(report["digests"], Value::Object(expected.collect()));
    report
}

fn found(cache: &Path, name: &str) -> Vec<PathBuf> {
    let pattern = cache.join("*/*").join(name);
    glob::glob(pattern.to_str().unwrap()).unwrap().map(Result::unwrap).collect()
}

fn fetched(requests: &[Request]) -> u64 {
    let ranges = requests.iter().filter(|request| request.header("if-none-match").is_none());
    ranges.filter_map(Request::range).map(|(first, last)| (last - first + 1) as u64).sum()
}

fn slowly(request: &Request) -> Reply {
    request.right().dripping(256 << 10, Duration::from_millis(2))
}

#[test]
fn killed_at_any_instant() {
    let (model, other) = (Model::new(&[9_000_000, 0, 3_000_017, 5]), Model::new(&[100_000]));
    let server = FaultServer::start(model.file.clone(), |_, request| slowly(request));
    let done = FaultServer::start(other.file.clone(), |_, request| request.right());
    let directory = directory();
    let cache = directory.path().join("cache");
    let whole = Instant::now();
    right(&model, run(&mut command(&server.url(), &cache)));
    let whole = whole.elapsed();
    let times = if is_long() { 200 } else { 20 };
    let mut complete = 0;
    for turn in 0..times {
        if turn % 4 == 0 {
            // From an empty cache; else from what killed processes left.
            fs::remove_dir_all(&cache).unwrap();
            right(&other, run(&mut command(&done.url(), &cache)));
        }
        let before: HashSet<_> = found(&cache, "data.safetensors").into_iter().collect();
        let mut child = start(&mut command(&server.url(), &cache));
        sleep(whole.mul_f64(fastrand::f64() * 1.2));
        child.kill().ok(); // SIGKILL; it may have ended
        wait(&mut child);
        let after: HashSet<_> = found(&cache, "data.safetensors").into_iter().collect();
        assert!(before.is_subset(&after), "turn {turn}: a complete entry was lost");
        complete += usize::from(after.len() > before.len());

        // Data files with the name of complete ones are complete; pages with checksums are right.
        for file in &after {
            let bytes = fs::read(file).unwrap();
            assert!(bytes == model.file || bytes == other.file, "turn {turn}: {file:?}");
        }
        let verified =
            run(ringload().args(["cache", "verify", "--json", "--cache-dir"]).arg(&cache));
        assert!(verified.status.success(), "turn {turn}: {verified:#?}");
        if turn % 4 == 3 {
            right(&model, run(&mut command(&server.url(), &cache)));
            let asked = server.seen().len();
            right(&model, run(&mut command(&server.url(), &cache)));
            assert_eq!(fetched(&server.seen()[asked..]), 0, "turn {turn}");
        }
        let asked = done.seen().len();
        right(&other, run(&mut command(&done.url(), &cache)));
        assert_eq!(fetched(&done.seen()[asked..]), 0, "turn {turn}: a complete entry was lost");
    }
    eprintln!("{complete} of {times} loads ended before they were killed");
}

/// The header by which the server tells processes apart.
const PROCESS: &str = "x-process";

fn command_of(process: usize, url: &str, cache: &Path) -> Command {
    let mut command = command(url, cache);
    command.args(["--header", &format!("{PROCESS}: {process}")]);
    command
}

fn is_of(request: &Request, process: usize) -> bool {
    request.header(PROCESS) == Some(&process.to_string())
}

/// Whether the request asks for a range after the load has opened its object.
fn is_range(request: &Request) -> bool {
    request.nth > 0 && request.header("if-none-match").is_none()
}

/// A server whose first process gets some ranges, and none of the others that it requests: it
/// stays in the middle of its load, and holds the locks of the pages that it waits for.
fn server_that_stops_answering(process: usize, model: &Model) -> FaultServer {
    let answered = AtomicUsize::new(0);
    FaultServer::start(model.file.clone(), move |_, request| {
        let stops = is_of(request, process)
            && is_range(request)
            && answered.fetch_add(1, Ordering::Relaxed) >= 2;
        if stops { request.right().cut(1000, End::Hang) } else { slowly(request) }
    })
}

/// Waits until a process has requested this many ranges.
fn until_ranges_of(server: &FaultServer, process: usize, count: usize) {
    until(&format!("process {process} requests {count} ranges"), || {
        let seen = server.seen();
        seen.iter().filter(|request| is_of(request, process) && is_range(request)).count() >= count
    });
}

/// One process dies in the middle, and the others take over. Each page is fetched by one of them,
/// except those that a load under a memory limit left out because the disk was too slow.
#[test]
fn eight_processes_fetch_an_object_about_once() {
    const DIES: usize = 0;
    let model = Model::new(&[30_000_000, 17, 20_000_000]);
    let server = server_that_stops_answering(DIES, &model);
    let directory = directory();
    let mut dies = start(&mut command_of(DIES, &server.url(), directory.path()));
    until_ranges_of(&server, DIES, 3);
    let live = 1..8;
    let children: Vec<_> = live
        .clone()
        .map(|process| {
            let mut command = command_of(process, &server.url(), directory.path());
            if process % 3 == 1 {
                command.args(["--memory-limit", "min"]); // other reads
            }
            std::thread::spawn(move || run(&mut command))
        })
        .collect();
    until("all processes request something", || {
        let seen = server.seen();
        live.clone().all(|process| seen.iter().any(|request| is_of(request, process)))
    });
    dies.kill().unwrap();
    wait(&mut dies);
    let reports = children.into_iter().map(|child| right(&model, child.join().unwrap()));
    let left_out: u64 =
        reports.map(|report| report["cache_left_out_bytes"].as_u64().unwrap()).sum();
    let (all, seen) = (model.file.len() as u64, server.seen());
    let (of_dead, of_live): (Vec<_>, Vec<_>) =
        seen.into_iter().partition(|request| is_of(request, DIES));
    let (lost, fetched) = (fetched(&of_dead), fetched(&of_live));
    eprintln!("{fetched} bytes of {all} fetched; {left_out} left out, {lost} by one that died");
    // Pages that two extents share, and the requests that open the object, are fetched in addition.
    assert!(fetched + lost >= all && fetched < all + left_out + (1 << 20), "{fetched} of {all}");
    assert_eq!(found(directory.path(), "data.safetensors").len(), 1);
}

/// Others do not wait forever for a process that holds fetch locks and makes no progress.
#[test]
fn a_process_that_stops_does_not_stop_others() {
    if !is_long() {
        return skip("waiting for a process that stops takes half a minute; --long does");
    }
    let model = Model::new(&[20_000_000]);
    let server = server_that_stops_answering(0, &model);
    let directory = directory();
    let mut stopped = start(&mut command_of(0, &server.url(), directory.path()));
    until_ranges_of(&server, 0, 3);
    let pid = nix::unistd::Pid::from_raw(stopped.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let finished = run(&mut command_of(1, &server.url(), directory.path()));
    stopped.kill().unwrap();
    wait(&mut stopped);
    right(&model, finished);
}

/// A temporary file system, unmounted when this is dropped.
struct Mount {
    directory: tempfile::TempDir,
}

impl Mount {
    /// `None` where mounting is not permitted.
    fn tmpfs(options: &str) -> Option<Self> {
        let mount = Self { directory: directory() };
        mount.mount(&["-t", "tmpfs", "-o", options, "tmpfs"]).then_some(mount)
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let mut mount = Command::new("mount");
        let done = mount.args(arguments).arg(self.directory.path()).output();
        let works = done.is_ok_and(|done| done.status.success());
        if !works {
            skip("nothing can be mounted here");
        }
        works
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("cache")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).output();
    }
}

/// Asserts that a load succeeded without the cache, and logged the reason once.
#[track_caller]
fn complains(model: &Model, finished: Finished, why: &str) {
    let warnings = finished.stderr.lines().filter(|line| line.contains("WARN")).count();
    assert_eq!(warnings, 1, "{finished:#?}");
    let report = right(model, finished);
    let warning = report["cache_warning"].as_str().unwrap();
    assert!(warning.contains(why), "{warning}");
}

#[test]
fn a_full_disk_means_loading_uncached() {
    let Some(mount) = Mount::tmpfs("size=8m") else { return };
    let (model, small) = (Model::new(&[6_000_000, 9_000_000]), Model::new(&[2_000_000]));
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let other = FaultServer::start(small.file.clone(), |_, request| request.right());
    assert_eq!(
        right(&small, run(&mut command(&other.url(), &mount.path())))["cache_warning"],
        Value::Null
    );
    complains(&model, run(&mut command(&server.url(), &mount.path())), "full");
    // The pages that were written are used, and the rest is fetched again.
    let again = run(&mut command(&server.url(), &mount.path()));
    complains(&model, again, "full");
    // Entries that are not in use are evicted.
    right(&small, run(&mut command(&other.url(), &mount.path())));
}

#[test]
fn a_read_only_disk_is_read() {
    let Some(mount) = Mount::tmpfs("size=64m") else { return };
    let (model, new) = (Model::new(&[3_000_000, 1]), Model::new(&[70_000]));
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let other = FaultServer::start(new.file.clone(), |_, request| request.right());
    right(&model, run(&mut command(&server.url(), &mount.path())));
    if !mount.mount(&["-o", "remount,ro"]) {
        return;
    }
    let asked = server.seen().len();
    let hit = run(&mut command(&server.url(), &mount.path()));
    assert_eq!(fetched(&server.seen()[asked..]), 0, "{hit:#?}");
    complains(&model, hit, "read-only");
    complains(&new, run(&mut command(&other.url(), &mount.path())), "read-only");
    let listed = run(ringload().args(["cache", "ls", "--json", "--cache-dir"]).arg(mount.path()));
    assert_eq!(listed.json()["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn a_forbidden_directory_means_loading_uncached() {
    let model = Model::new(&[200_000]);
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let directory = tempfile::tempdir().unwrap(); // reachable by everyone
    let cache = directory.path().join("cache");
    right(&model, run(&mut command(&server.url(), &cache)));
    // A copy of the command that another user can run.
    let copy = directory.path().join("ringload");
    fs::copy(env!("CARGO_BIN_EXE_ringload"), &copy).unwrap();
    let as_nobody = |arguments: &[&Path]| {
        let mut command = crate::common::command::of_program(&copy);
        command.args(["load", "--json", "--digest", "--drop", "--cache-dir"]).args(arguments);
        command.arg(server.url()).uid(NOBODY).gid(NOBODY);
        command
    };
    if !is_root() {
        return skip("only root can become another user");
    }
    use std::os::unix::fs::PermissionsExt;
    let set =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(directory.path(), 0o755);
    // Entries of root are read where everyone may read them, as in the image of a container.
    let all = format!("{}/**/*", cache.display());
    for path in glob::glob(&all).unwrap().map(Result::unwrap).chain([cache.clone()]) {
        set(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    let asked = server.seen().len();
    complains(&model, run(&mut as_nobody(&[&cache])), "permission");
    assert_eq!(fetched(&server.seen()[asked..]), 0);
    set(&cache, 0o700);
    complains(&model, run(&mut as_nobody(&[&cache])), "permission");
    // The path of a file.
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    complains(&model, run(&mut command(&server.url(), &file)), "directory");
}

/// A load that is verified against its store's checksums reads every byte from the store.
#[cfg(feature = "s3")]
#[test]
fn verified_loads_do_not_use_the_cache() {
    use crate::common::nginx::Nginx;
    use base64::Engine;
    let model = Model::new(&[3_000_000, 12_345_678]);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &model.file) as u32;
    let crc = base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes());
    let body = format!(
        "add_header x-amz-checksum-crc32 {crc}; add_header x-amz-checksum-type FULL_OBJECT;"
    );
    let started = Nginx::start(&body, |root| {
        fs::create_dir(root.join("bucket")).unwrap();
        fs::write(root.join("bucket/x.safetensors"), &model.file).unwrap();
    });
    let Some(nginx) = started else { return };
    let cache = directory();
    let load = |arguments: &[&str]| {
        let mut command = command("s3://bucket/x.safetensors", cache.path());
        command.args(arguments).env("RUNAI_STREAMER_S3_UNSIGNED", "1");
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", nginx.port()));
        right(&model, run(&mut command))
    };
    load(&[]);
    assert!(load(&[])["cached_bytes"].as_u64() > Some(15_000_000));
    let report = load(&["--verify"]);
    assert_eq!((&report["verified_objects"], &report["cached_bytes"]), (&1.into(), &0.into()));
}
