//! `ringload hold`: checkpoints that stay in the page cache.
//!
//! Hazards: pages are evicted all the same; the pages that are locked are copies of the process, which
//! no load uses; memory stays locked after the end; a budget or a limit is exceeded; a stop is not
//! obeyed while something loads; objects are held of which the cache has a part; a copy in huge pages is
//! left behind.

use crate::common::command::{finish, ringload, run, start};
use crate::common::fault_server::FaultServer;
use crate::common::model::Model;
use crate::common::seccomp::is_root;
use crate::common::{Expected, directory, evict, sharded, skip, write};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringload::internals::resident_bytes;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A `ringload hold` that runs.
struct Holder {
    child: Child,
    report: Value,
}

impl Holder {
    /// Starts `hold --json`, and waits until it holds.
    fn start(arguments: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = ringload();
        Self::of(start(arguments(command.args(["hold", "--json"]))))
    }

    fn of(mut child: Child) -> Self {
        let (mut text, mut byte) = (Vec::new(), [0]);
        let output = child.stdout.as_mut().unwrap();
        while !text.ends_with(b"\n}\n") {
            if output.read(&mut byte).unwrap() == 0 {
                panic!("it ended: {:#?}", finish(child));
            }
            text.push(byte[0]);
        }
        Self { child, report: serde_json::from_slice(&text).unwrap() }
    }

    /// What `hold --status` says about it.
    fn status(&self) -> Value {
        let status = run(ringload().args(["hold", "--status", "--json"])).json();
        let holders = status["holders"].as_array().unwrap();
        holders.iter().find(|holder| holder["pid"] == self.child.id()).cloned().unwrap()
    }

    fn stop(self) {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, Signal::SIGTERM).unwrap();
        let finished = finish(self.child);
        assert!(finished.status.success(), "{finished:#?}");
        assert!(finished.stderr.is_empty(), "{finished:#?}");
    }
}

fn resident(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    resident_bytes(&file, 0, file.metadata().unwrap().len()).unwrap()
}

/// A file with the model that is not in the page cache; `None`, and the test is skipped, where the file
/// system keeps its files in memory.
fn cold_file(directory: &Path, model: &Model) -> Option<PathBuf> {
    let path = directory.join("m.safetensors");
    fs::write(&path, &model.file).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    evict(&path);
    if resident(&path) > 0 {
        skip("the file system keeps its files in memory");
        return None;
    }
    Some(path)
}

#[test]
fn what_is_held_stays_in_memory_until_the_end() {
    let (model, directory) = (Model::new(&[9_000_000, 3_000_000]), directory());
    let Some(path) = cold_file(directory.path(), &model) else { return };
    let len_bytes = model.file.len() as u64;
    let notified = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    let socket = directory.path().join("notify");
    let holder = Holder::start(|command| command.arg(&path).env("NOTIFY_SOCKET", &socket));
    assert_eq!(holder.report["bytes"], len_bytes);
    assert_eq!(holder.report["held_bytes"], len_bytes);
    let mut message = [0; 4096];
    let n = notified.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..n]).into_owned();
    assert!(message.contains("READY=1\n") && message.contains("STATUS=holding "), "{message}");

    evict(&path);
    assert_eq!(resident(&path), len_bytes, "a locked page was evicted");
    let status = holder.status();
    assert_eq!(status["held_bytes"], len_bytes.next_multiple_of(4096));
    assert_eq!(status["files"][0]["path"], path.to_str().unwrap());
    assert_eq!(status["files"][0]["replaced"], false);
    let loaded = run(ringload().arg("load").arg(&path).args(["--json", "--read-path", "auto"]));
    assert_eq!(loaded.json()["read_path"], "buffered");
    fs::rename(&path, directory.path().join("old")).unwrap();
    fs::remove_file(directory.path().join("old")).unwrap();
    assert_eq!(holder.status()["files"][0]["replaced"], true);
    holder.stop();
}

#[test]
fn nothing_stays_locked_after_the_end() {
    let (model, directory) = (Model::small(), directory());
    let Some(path) = cold_file(directory.path(), &model) else { return };
    let holder = Holder::start(|command| command.arg(&path));
    holder.stop();
    evict(&path);
    assert_eq!(resident(&path), 0);
}

#[test]
fn a_budget_is_kept_to_in_the_order_of_the_files() {
    let directory = directory();
    for (seed, name) in ["a", "b"].into_iter().enumerate() {
        let tensor = Expected::of_bytes(name, 300_000, seed as u64);
        write(&directory.path().join(format!("{name}.safetensors")), &[tensor], None);
    }
    let holder =
        Holder::start(|command| command.arg(directory.path()).args(["--budget", "400KiB"]));
    let [first, second] = [0, 1].map(|file| holder.report["files"][file].clone());
    assert_eq!(holder.report["held_bytes"], 400 << 10);
    assert_eq!(first["held_bytes"], first["bytes"]);
    let rest = (400 << 10) - first["bytes"].as_u64().unwrap();
    assert_eq!(second["held_bytes"], rest);
    // The kernel counts whole pages.
    let locked = holder.status()["held_bytes"].as_u64().unwrap();
    assert!(((400 << 10)..(400 << 10) + 2 * 4096).contains(&locked), "{locked}");
    holder.stop();
}

#[test]
fn a_low_limit_is_named_before_anything_is_read() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    write(&path, &[Expected::of_bytes("t", 300_000, 1)], None);
    let drop_capability = if is_root() {
        "setpriv --inh-caps=-ipc_lock --bounding-set=-ipc_lock --ambient-caps=-all"
    } else {
        ""
    };
    let line = format!("ulimit -l 16; exec {drop_capability} \"$0\" hold \"$1\"");
    let mut command = Command::new("bash");
    command.arg("-c").arg(line).arg(ringload().get_program()).arg(&path);
    let finished = run(&mut command);
    finished.assert_no_panic();
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    for part in ["limits: locked memory 16.00 KiB", "may lock 16.00 KiB", "LimitMEMLOCK=infinity"] {
        assert!(finished.stderr.contains(part), "{part}: {finished:#?}");
    }
}

#[test]
fn objects_are_held_by_their_files_in_the_cache() {
    let (model, directory) = (Model::new(&[2_000_000, 300]), directory());
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let told = run(ringload().args(["hold", &server.url()])).wrong_usage();
    assert!(told.contains("--cache-dir"), "{told}");
    let url = server.url();
    let holder =
        Holder::start(|command| command.arg(&url).env("RINGLOAD_CACHE_DIR", directory.path()));
    assert_eq!(holder.report["held_bytes"], model.file.len());
    let file = &holder.report["files"][0];
    assert_eq!(file["location"], url);
    let path = Path::new(file["path"].as_str().unwrap());
    assert!(fs::read(path).unwrap() == model.file);
    evict(path);
    assert_eq!(resident(path), model.file.len() as u64);
    // An entry that is held is in use.
    let mut prune = ringload();
    prune.args(["cache", "prune", "--cache-size", "1", "--json"]);
    let pruned = run(prune.env("RINGLOAD_CACHE_DIR", directory.path())).json();
    assert_eq!(pruned["entries"], 0);
    assert!(path.exists());
    holder.stop();
}

/// A server that accepts and never answers kept other commands from ending.
#[test]
fn a_stop_is_obeyed_while_a_server_does_not_answer() {
    let (server, directory) = (TcpListener::bind("127.0.0.1:0").unwrap(), directory());
    let url = format!("http://{}/m.safetensors", server.local_addr().unwrap());
    let mut command = ringload();
    command.args(["hold", &url]).env("RINGLOAD_CACHE_DIR", directory.path());
    let child = start(&mut command);
    let accepted = server.accept().unwrap();
    let began = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let finished = finish(child);
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:#?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(accepted);
}

#[test]
fn a_copy_in_huge_pages_is_held_and_removed() {
    let (tensors, directory) =
        ([1, 2].map(|i| Expected::of_bytes(format!("t{i}"), 3 << 20, i)), directory());
    let model = directory.path().join("model");
    fs::create_dir(&model).unwrap();
    for (name, bytes) in sharded(&tensors, true) {
        fs::write(model.join(name), bytes).unwrap();
    }
    let huge = directory.path().join("huge");
    fs::create_dir(&huge).unwrap();
    let told = run(ringload().arg("hold").arg(&model).arg("--huge").arg(&huge));
    assert_eq!(told.status.code(), Some(2), "{told:#?}");
    assert!(told.stderr.contains("mount -t tmpfs -o huge=always"), "{told:#?}");
    if !is_root() {
        return skip("mounting a tmpfs needs root");
    }
    // A mount that no other process sees, which ends with this one.
    let line = "mount -t tmpfs -o huge=always,size=64M tmpfs \"$2\" || exit 9; \
                exec \"$0\" hold --json \"$1\" --huge \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", line]);
    let child = start(command.arg(ringload().get_program()).arg(&model).arg(&huge));
    let holder = Holder::of(child);
    let seen = Path::new("/proc").join(holder.child.id().to_string()).join("root");
    let seen = seen.join(huge.strip_prefix("/").unwrap());
    let bytes = |path: &Path| fs::read(path).unwrap();
    assert_eq!(names(&seen), names(&model));
    assert!(names(&model).iter().all(|name| bytes(&seen.join(name)) == bytes(&model.join(name))));
    assert_eq!(holder.status()["files"].as_array().unwrap().len(), 2);
    // The directory outlives the mount in this descriptor.
    let mount = File::open(&seen).unwrap();
    holder.stop();
    let left = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&mount).to_string());
    assert_eq!(names(&left), Vec::<String>::new());
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
