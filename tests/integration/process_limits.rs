//! Limits of the process and of its container end a load with an error, and not with a signal.
//!
//! Past bugs: a write beyond `ulimit -f` killed the command (SIGXFSZ), a load beyond `ulimit -v`
//! aborted, and a load without a memory limit in a container that is too small was killed without a
//! word. The last two are predicted now, and refused with the memory limit that would do. Also, a
//! cache entry with a date in the future was not used by `--cache-validate never`.

use crate::common::command::{ringload, run};
use crate::common::fault_server::FaultServer;
use crate::common::{Expected, directory, skip, write};
use ringload::{ErrorKind, Loader, MemoryLimit};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A file of `count` tensors of 2 MiB.
fn model(path: &Path, count: u64) {
    let tensors = (0..count).map(|i| Expected::of_bytes(format!("t{i}"), 2 << 20, i));
    write(path, &tensors.collect::<Vec<_>>(), None);
}

/// `ringload ARGUMENTS` after the shell's `limit`.
fn limited(limit: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("{limit}; exec \"$0\" \"$@\"")).arg(ringload().get_program());
    command.args(arguments);
    command
}

#[test]
fn a_limit_of_file_sizes_is_an_error() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    model(&path, 4);
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (trace, cache, to) = (at("trace"), at("cache"), at("to"));
    let told = run(&mut limited("ulimit -f 1", &["load", &at("m.safetensors"), "--trace", &trace]));
    assert_eq!(told.status.code(), Some(1), "{told:#?}");
    let told = told.stderr;
    assert!(
        told.contains("cannot write the trace to") && told.contains("raise ulimit -f"),
        "{told}"
    );

    let server = FaultServer::start(fs::read(&path).unwrap(), |_, request| request.right());
    let url = format!("{}/m.safetensors", server.origin());
    // What cannot be cached is loaded all the same.
    let loaded = run(&mut limited("ulimit -f 1024", &["load", &url, "--cache-dir", &cache]));
    assert!(loaded.status.success(), "{loaded:#?}");
    assert!(
        loaded.stdout.contains("cache: ") && loaded.stdout.contains("ulimit -f"),
        "{loaded:#?}"
    );
    let told = run(&mut limited("ulimit -f 1024", &["fetch", &url, "--to", &to]));
    assert_eq!(told.status.code(), Some(1), "{told:#?}");
    assert!(told.stderr.contains("raise ulimit -f"), "{told:#?}");
}

#[test]
fn a_limit_of_the_address_space_is_an_error() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    model(&path, 80);
    let path = path.to_str().unwrap();
    let mut refused = 0;
    let (mut with_limit, mut hopeless) = (0, 0);
    for (kibibytes, options) in (48_000..300_000).step_by(12_000).flat_map(|kibibytes| {
        [&[][..], &["--memory-limit", "16MiB"]].map(|options| (kibibytes, options))
    }) {
        let arguments = [&["load", path][..], options].concat();
        let finished = run(&mut limited(&format!("ulimit -v {kibibytes}"), &arguments));
        finished.assert_no_panic();
        if !finished.status.success() {
            refused += 1;
            let told = finished.failure();
            assert!(told.contains("ulimit -v"), "{kibibytes}: {told}");
            // What is named fits, and where nothing is named, nothing does.
            let remedy = remedy(&told);
            let least = ["--memory-limit", "min", "--engines", "1"].map(String::from).to_vec();
            let (is_named, options) =
                (!remedy.is_empty(), if remedy.is_empty() { least } else { remedy });
            let arguments = ["load", path].into_iter().chain(options.iter().map(String::as_str));
            let arguments: Vec<_> = arguments.collect();
            let tried = run(&mut limited(&format!("ulimit -v {kibibytes}"), &arguments));
            assert_eq!(tried.status.success(), is_named, "{kibibytes}: {told} {tried:#?}");
            with_limit += usize::from(is_named);
            if let Some(bytes) =
                told.split_once("raise the limit to at least ").map(|(_, size)| bytes_of(size))
            {
                let tried =
                    run(&mut limited(&format!("ulimit -v {}", bytes.div_ceil(1024)), &arguments));
                assert!(tried.status.success(), "{kibibytes}: {told} {tried:#?}");
                hopeless += 1;
            }
        }
    }
    assert!(refused > 3, "only {refused} loads were refused");
    assert!(with_limit > 0 && hopeless > 0, "{with_limit} and {hopeless} of {refused}");
}

/// The options that a refusal names: a memory limit, a number of engines, or both.
fn remedy(told: &str) -> Vec<String> {
    let mut options = Vec::new();
    let limit = told.split_once("set a memory limit of ");
    if let Some((_, size)) = limit {
        options.extend(["--memory-limit".to_owned(), bytes_of(size).to_string()]);
    }
    if let Some((_, engines)) = told.split_once("(--engines ")
        && (limit.is_none() || told.contains(" and set a memory limit of "))
    {
        let engines = engines.split(')').next().unwrap();
        options.extend(["--engines".to_owned(), engines.to_owned()]);
    }
    options
}

/// The bytes of a size at the start of `text`: `16 MiB`, or `1.50 MiB (1572865 bytes)`.
fn bytes_of(text: &str) -> u64 {
    let words: Vec<_> = text.split_whitespace().take(3).collect();
    if let Some(exact) = words.get(2).and_then(|word| word.strip_prefix('(')) {
        return exact.parse().unwrap();
    }
    let unit = words[1].trim_end_matches([',', ';', '\n']);
    let unit = ["bytes", "KiB", "MiB", "GiB"].iter().position(|&name| name == unit).unwrap();
    words[0].parse::<u64>().unwrap() << (10 * unit)
}

/// Writes the files of a machine below `root`.
fn machine(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn a_load_that_does_not_fit_its_container_is_refused_with_a_limit_that_does() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    model(&path, 64); // 128 MiB
    let (v1, v2) = (directory.path().join("v1"), directory.path().join("v2"));
    machine(
        &v1,
        &[
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "33554432\n"),
        ],
    );
    machine(
        &v2,
        &[
            ("proc/self/cgroup", "0::/pod\n"),
            ("sys/fs/cgroup/pod/memory.max", "134217728\n"),
            ("sys/fs/cgroup/pod/memory.current", "67108864\n"),
            ("sys/fs/cgroup/pod/memory.stat", "inactive_file 33554432\n"),
        ],
    );
    for root in [v1, v2] {
        let loader = Loader::new().system_root(&root);
        let error = loader.load(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        let told = error.to_string();
        assert!(told.contains("96 MiB are left to this process"), "{told}");
        assert!(
            told.contains("may use 128 MiB") && told.contains(root.to_str().unwrap()),
            "{told}"
        );
        assert!(told.contains("set a memory limit of 48 MiB"), "{told}");
        let limited = loader.memory_limit(MemoryLimit::Bytes(48 << 20));
        assert_eq!(limited.stream(&path).unwrap().filter(Result::is_ok).count(), 64);
    }
}

#[test]
fn the_control_groups_of_this_machine_are_read() {
    // Version 1, or else version 2 with a memory controller.
    let name = format!("ringload-test-{}", std::process::id());
    let v1 = Path::new("/sys/fs/cgroup/memory").join(&name);
    let v2 = Path::new("/sys/fs/cgroup").join(&name);
    let (group, limit, members) = match (fs::create_dir(&v1), v1.exists()) {
        (Ok(()), true) => (v1, "memory.limit_in_bytes", "cgroup.procs"),
        _ if fs::create_dir(&v2).is_ok() => (v2, "memory.max", "cgroup.procs"),
        _ => return skip("control groups cannot be made here"),
    };
    if fs::write(group.join(limit), "134217728").is_err() {
        fs::remove_dir(&group).ok();
        return skip("control groups have no memory limit here");
    }
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    model(&path, 80); // 160 MiB
    let join = format!("echo $$ > {}", group.join(members).display());
    let path = path.to_str().unwrap();
    let told = run(&mut limited(&join, &["load", path]));
    let fits = run(&mut limited(&join, &["load", path, "--memory-limit", "48MiB"]));
    let doctor = run(&mut limited(&join, &["doctor", "/"]));
    fs::remove_dir(&group).unwrap();
    let told = told.failure();
    assert!(told.contains("may use 128 MiB") && told.contains("set a memory limit of"), "{told}");
    assert!(fits.status.success(), "{fits:#?}");
    assert!(doctor.stdout.contains("available under the cgroup limit"), "{}", doctor.stdout);
}

#[test]
fn a_cache_entry_of_the_future_is_used_where_no_date_counts() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    model(&path, 2);
    let cache = directory.path().join("cache");
    let server = FaultServer::start(fs::read(&path).unwrap(), |_, request| request.right());
    let url = format!("{}/m.safetensors", server.origin());
    let load = |validate: &str| {
        let mut command = ringload();
        command.args(["load", &url, "--cache-validate", validate, "--cache-dir"]).arg(&cache);
        run(&mut command)
    };
    load("always").quiet_success();
    set_dates(&cache, SystemTime::now() + Duration::from_secs(86_400));
    let requests = server.seen().len();
    load("never").quiet_success();
    assert_eq!(server.seen().len(), requests, "a server was asked");
    load("1h").quiet_success();
    assert!(server.seen().len() > requests, "a date in the future was taken for a recent one");
    set_dates(&cache, SystemTime::now() + Duration::from_secs(86_400));
    drop(server);
    load("never").quiet_success();
    assert!(!load("1h").status.success());
}

fn set_dates(folder: &Path, date: SystemTime) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_dates(&path, date);
        } else {
            File::options().write(true).open(&path).unwrap().set_modified(date).unwrap();
        }
    }
}
