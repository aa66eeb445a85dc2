//! `ringload cache` and `ringload fetch`.
//!
//! Hazards: the cache is listed wrongly; corruption is not reported; an object cannot be removed by
//! the location it was loaded from; a fetch leaves an incomplete file under its final name, loses the
//! index, starts from the beginning again, or resumes with bytes of another object.

use crate::common::command::{finish, ringload, run, start};
use crate::common::fault_server::{FaultServer, Reply};
use crate::common::model::Model;
use crate::common::nginx::Nginx;
use crate::common::{Expected, cached_bytes, directory, sharded, until};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn cache(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = ringload();
    command.arg("cache").args(arguments).arg("--json").env("RINGLOAD_CACHE_DIR", directory);
    command
}

fn fetch(arguments: &[&str]) -> Command {
    let mut command = ringload();
    command.arg("fetch").args(arguments);
    command
}

#[test]
fn a_fetched_object_is_listed_checked_and_removed() {
    let (model, directory) = (Model::new(&[2_000_000, 300]), directory());
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let none = run(&mut cache(&directory.path().join("none"), &["ls"])).failure();
    assert!(none.contains("no such file"), "{none}");
    let url = server.url();
    for arguments in [&["fetch", url.as_str()][..], &["cache", "ls"], &["cache", "prune"]] {
        let told = run(ringload().args(arguments)).wrong_usage();
        assert!(told.contains("RINGLOAD_CACHE_DIR"), "{told}");
    }

    let mut command = fetch(&[&server.url(), "--json"]);
    let fetched = run(command.env("RINGLOAD_CACHE_DIR", directory.path())).json();
    assert_eq!(fetched["bytes"], model.file.len());
    let listed = run(&mut cache(directory.path(), &["ls"])).json();
    let [entry] = &listed["entries"].as_array().unwrap()[..] else { panic!("{listed:#}") };
    assert_eq!(entry["location"], server.url());
    assert_eq!((&entry["complete"], &entry["present_bytes"]), (&true.into(), &entry["bytes"]));
    let data = entry["path"].as_str().unwrap();
    assert!(fs::read(data).unwrap() == model.file);

    let verified = run(&mut cache(directory.path(), &["verify"])).json();
    assert_eq!(verified["entries"][0]["checked_bytes"], model.file.len());
    fs::File::options().write(true).open(data).unwrap().write_all_at(b"!", 1_000_000).unwrap();
    let verified = run(&mut cache(directory.path(), &["verify"]));
    assert_eq!(verified.status.code(), Some(1), "{verified:#?}");
    assert!(verified.stderr.contains("1 corrupt page"), "{verified:#?}");
    assert!(verified.stdout.contains("999424"), "{verified:#?}");
    // The page now counts as missing, and the next load fetches it.
    assert!(run(&mut cache(directory.path(), &["verify"])).status.success());
    let mut command = ringload();
    command.args(["load", "--drop", &server.url()]).env("RINGLOAD_CACHE_DIR", directory.path());
    assert!(run(&mut command).quiet_success().contains("from the cache"));
    assert!(fs::read(data).unwrap() == model.file);

    let kept = run(&mut cache(directory.path(), &["prune", "--cache-size", "1GiB"])).json();
    assert_eq!(kept["entries"], 0);
    let refused = run(&mut cache(directory.path(), &["rm", "s3://other/x.safetensors"])).failure();
    assert!(refused.contains("is not in the cache"), "{refused}");
    let removed = run(&mut cache(directory.path(), &["rm", &server.origin()])).json();
    assert_eq!((&removed["entries"], &removed["left_bytes"]), (&1.into(), &0.into()));
    let listed = run(&mut cache(directory.path(), &["ls"])).json();
    assert_eq!(listed["entries"].as_array().unwrap().len(), 0);
}

#[test]
fn pruning_removes_the_least_recently_used_objects() {
    let directory = directory();
    let models = [Model::new(&[500_000]), Model::new(&[500_001])];
    let servers = models
        .each_ref()
        .map(|model| FaultServer::start(model.file.clone(), |_, request| request.right()));
    for server in &servers {
        let mut command = fetch(&[&server.url()]);
        run(command.env("RINGLOAD_CACHE_DIR", directory.path())).quiet_success();
    }
    fs::create_dir(directory.path().join(".0123456789abcdef")).unwrap(); // an entry in the making is too new to be removed
    let pruned = run(&mut cache(directory.path(), &["prune", "--cache-size", "600kB"])).json();
    assert_eq!(pruned["entries"], 1);
    let listed = run(&mut cache(directory.path(), &["ls"])).json();
    assert_eq!(listed["entries"][0]["location"], servers[1].url());
    let text =
        run(ringload().args(["cache", "ls", "--cache-dir"]).arg(directory.path())).quiet_success();
    assert!(text.contains("1 object, ") && text.contains(&servers[1].url()), "{text}");
}

#[test]
fn plain_files_keep_their_names_and_their_index() {
    let tensors = [Expected::of_bytes("a", 3_000_000, 1), Expected::of_bytes("b", 77, 2)];
    let files = sharded(&tensors, true);
    let put = |root: &Path| {
        for (name, bytes) in &files {
            fs::write(root.join(name), bytes).unwrap();
        }
    };
    let Some(nginx) = Nginx::start("", put) else { return };
    let directory = directory();
    let to = directory.path().join("to");
    let mut command = fetch(&[&nginx.url(""), "--json", "--to"]);
    let fetched = run(command.arg(&to)).json();
    assert_eq!(fetched["files"].as_array().unwrap().len(), 3, "{fetched:#}");
    for (name, bytes) in &files {
        assert!(fs::read(to.join(name)).unwrap() == *bytes, "{name}");
    }
    assert_eq!(fs::read_dir(&to).unwrap().count(), 3, "temporary files are left");
    // A local checkpoint is copied.
    let copy = directory.path().join("copy");
    run(fetch(&[]).arg(&to).arg("--to").arg(&copy)).quiet_success();
    for (name, bytes) in &files {
        assert!(fs::read(copy.join(name)).unwrap() == *bytes, "{name}");
        assert!(to.join(name).exists());
    }
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 3, "temporary files are left");
}

#[test]
fn an_interrupted_fetch_is_resumed() {
    let model = Model::new(&[4_000_000, 4_000_000, 12_000_000]);
    let broken = Arc::new(AtomicBool::new(true));
    let (is_broken, kept) = (Arc::clone(&broken), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&kept);
    let server = FaultServer::start(model.file.clone(), move |_, request| {
        let late = request.range().is_some_and(|(first, _)| first > 8 << 20);
        match late && is_broken.load(Ordering::Relaxed) {
            true => Reply::new(403).once_open(&gate),
            false => request.right(),
        }
    });
    let directory = directory();
    let file = directory.path().join("x.safetensors");
    let command = || {
        let mut command = fetch(&[&server.url(), "--json", "--to"]);
        command.arg(directory.path());
        command
    };
    let fetching = start(&mut command());
    until("the first part is on disk", || {
        cached_bytes(&directory.path().join(".ringload-download"), "x.safetensors") > 1_000_000
    });
    kept.store(true, Ordering::Relaxed);
    let told = finish(fetching).failure();
    assert!(
        told.contains(".ringload-download, and the same download goes on from there"),
        "{told}"
    );
    assert!(!file.exists(), "an incomplete file has its final name");
    broken.store(false, Ordering::Relaxed);
    let before = server.seen().len();
    let fetched = run(&mut command()).json();
    assert!(fetched["cached_bytes"].as_u64().unwrap() > 1_000_000, "{fetched:#}");
    let ranges = server.seen()[before..].iter().filter_map(|request| request.range()).count();
    assert!(ranges > 0);
    assert!(fs::read(&file).unwrap() == model.file);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "temporary files are left");
}

/// Ctrl-C during `fetch --to` said nothing of what had arrived, `load` of the target did not mention the
/// unfinished download, and another download that was completed left it there without a word.
#[test]
fn an_unfinished_download_is_mentioned() {
    use std::os::unix::process::ExitStatusExt;
    let model = Model::new(&[4_000_000, 12_000_000]);
    let server = FaultServer::start(model.file.clone(), move |_, request| {
        let late = request.range().is_some_and(|(first, _)| first > 8 << 20);
        if late { request.right().after(crate::common::PATIENCE) } else { request.right() }
    });
    let small = Model::small();
    let other = FaultServer::start(small.file.clone(), |_, request| request.right());
    let directory = directory();
    let to = |url: &str| {
        let mut command = fetch(&[url, "--to"]);
        command.arg(directory.path());
        command
    };
    let fetching = start(&mut to(&server.url()));
    let kept = directory.path().join(".ringload-download");
    until("the first part is on disk", || cached_bytes(&kept, "x.safetensors") > 1_000_000);
    let process = nix::unistd::Pid::from_raw(fetching.id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = finish(fetching);
    assert_eq!(ended.status.signal(), Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("and the same download goes on from there"), "{ended:#?}");
    let told = run(ringload().arg("load").arg(directory.path())).failure();
    assert!(told.contains("unfinished download in .ringload-download"), "{told}");
    let told = run(&mut to(&other.url())).quiet_success();
    let kept = format!("kept in {}:\n  {}\n", kept.display(), server.url());
    assert!(told.contains(&kept), "{told}");
}

/// `fetch` of local files said "2 files, ..." and cached nothing.
#[test]
fn a_fetch_of_local_files_says_that_they_are_not_cached() {
    let directory = directory();
    let [from, to] = crate::common::paths(directory.path(), ["m.safetensors", "cache"]);
    fs::write(&from, &Model::small().file).unwrap();
    let told = run(fetch(&[]).arg(&from).arg("--cache-dir").arg(&to)).quiet_success();
    assert_eq!(told, "1 local file not copied to the cache; loads read local files directly\n");
    let told = run(fetch(&["--json"]).arg(&from).arg("--cache-dir").arg(&to)).json();
    assert_eq!((&told["objects"], &told["bytes"]), (&0.into(), &0.into()), "{told:#}");
    assert_eq!(told["not_copied"].as_array().unwrap().len(), 1, "{told:#}");
}

/// Queries may be secret and are not displayed, so both URLs look alike. They are two objects.
#[test]
fn an_interrupted_fetch_does_not_resume_with_another_query() {
    let large = Model::new(&[4_000_000]);
    let later = Model { file: large.file.iter().rev().copied().collect(), ..large.clone() };
    let tensors = [Expected::of_bytes("a", 9_000_000, 7), Expected::of_bytes("b", 1, 8)];
    let other = sharded(&tensors, false);
    let other = other.into_iter().find(|(name, _)| name == "one.safetensors").unwrap().1;
    let header = large.data_offset();
    let second = [&large.file[..header], &later.file[..4_000_000]].concat();
    let (first, bodies) = (large.file.clone(), [second.clone(), other]);
    let kept = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&kept);
    let server = FaultServer::start(first, move |_, request| {
        let (body, etag) = match request.target.as_str() {
            "/m?v=1" => return request.right(),
            "/m?v=2" => (&bodies[0], "\"two\""),
            _ => (&bodies[1], "\"three\""),
        };
        let (first, last) = request.range().unwrap();
        if std::ptr::eq(body, &bodies[1]) && first > 1 << 20 {
            return Reply::new(403).once_open(&gate);
        }
        let (last, total) = (last.min(body.len() - 1), body.len());
        let range = format!("bytes {first}-{last}/{total}");
        let reply = Reply::new(206).with("ETag", etag).with("Content-Range", range);
        reply.body(&body[first..=last])
    });
    let directory = directory();
    let at = |target: &str| format!("{}/{target}", server.origin());
    let to = |locations: &[&str]| {
        let mut command = fetch(locations);
        start(command.arg("--to").arg(directory.path()))
    };
    let fetching = to(&[&at("m?v=1"), &at("other")]);
    until("the first version is on disk", || {
        cached_bytes(&directory.path().join(".ringload-download"), "/m") >= 4_000_000
    });
    kept.store(true, Ordering::Relaxed);
    finish(fetching).failure();
    assert!(!directory.path().join("m").exists());
    finish(to(&[&at("m?v=2")])).quiet_success();
    assert!(fs::read(directory.path().join("m")).unwrap() == second, "this is not version 2");
}

/// `cache ls` of any directory said "0 objects" and made it a cache, `verify` said that all was well.
#[test]
fn only_a_cache_is_taken_for_one() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("models")).unwrap();
    fs::write(at("models/model.safetensors"), "x").unwrap();
    for action in ["ls", "verify", "prune"] {
        let told = run(&mut cache(&at("models"), &[action])).failure();
        assert!(told.contains("models is not a cache of ringload"), "{action}: {told}");
        assert!(told.contains("check --cache-dir"), "{action}: {told}");
    }
    assert_eq!(fs::read_dir(at("models")).unwrap().count(), 1, "files were made in it");
    // Another program's cache.
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    let told = run(&mut cache(&at("other"), &["ls"])).failure();
    assert!(told.contains("is not a cache of ringload"), "{told}");
    // An empty directory is an empty cache, and a file is none.
    fs::create_dir(at("empty")).unwrap();
    let listed = run(&mut cache(&at("empty"), &["ls"])).json();
    assert_eq!(listed["entries"].as_array().unwrap().len(), 0);
    let told = run(&mut cache(&at("models/model.safetensors"), &["ls"])).failure();
    assert!(told.contains("not a directory"), "{told}");
    // A cache in a directory that has other files.
    let model = Model::new(&[3000]);
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let mut command = fetch(&[&server.url()]);
    run(command.env("RINGLOAD_CACHE_DIR", at("models")));
    let listed = run(&mut cache(&at("models"), &["ls"]));
    assert!(listed.status.success() && listed.stdout.contains(&server.url()), "{listed:#?}");
}

/// The first load with a cache said that the header came from the cache, and the first `fetch` that it
/// was on disk already: the load finds on disk what opening the object has just downloaded. For small
/// objects that was all of it, and the time of `fetch` did not include the download.
#[test]
fn what_a_command_has_downloaded_itself_is_not_counted_as_cached() {
    let model = Model::new(&[3_000_000, 300]);
    let small = Model::new(&[300]);
    for model in [model, small] {
        let pause = Duration::from_millis(300);
        let server = FaultServer::start(model.file.clone(), move |number, request| {
            if number == 0 { request.right().after(pause) } else { request.right() }
        });
        let directory = directory();
        let [fetched, loaded] = crate::common::paths(directory.path(), ["fetched", "loaded"]);
        let url = server.url();
        let mut command = fetch(&[&url, "--json", "--cache-dir"]);
        let first = run(command.arg(&fetched)).json();
        assert_eq!(first["cached_bytes"], 0, "{first:#}");
        assert!(first["seconds"].as_f64().unwrap() >= pause.as_secs_f64(), "{first:#}");
        let mut command = fetch(&[&url, "--json", "--cache-dir"]);
        let second = run(command.arg(&fetched)).json();
        assert!(second["cached_bytes"].as_u64().unwrap() > 0, "{second:#}");
        let load = || run(ringload().args(["load", &url, "--cache-dir"]).arg(&loaded));
        let first = load().quiet_success();
        assert!(!first.contains("from the cache") && !first.contains("buffered"), "{first}");
        let second = load().quiet_success();
        assert!(second.contains("from the cache"), "{second}");
    }
}

/// The message was about a file that exists, and named no remedy.
#[test]
fn plain_files_go_to_a_directory() {
    let directory = directory();
    let [from, to] = crate::common::paths(directory.path(), ["m.safetensors", "file"]);
    fs::write(&from, &Model::small().file).unwrap();
    fs::write(&to, "x").unwrap();
    let told = run(fetch(&[]).arg(&from).arg("--to").arg(&to)).failure();
    assert!(told.contains("it is a file; name a directory"), "{told}");
    assert_eq!(fs::read(&to).unwrap(), b"x");
}

/// A failed download of which nothing had arrived left a lock and the tag of a cache behind.
#[test]
fn a_fetch_that_got_nothing_leaves_nothing() {
    let model = Model::new(&[300_000]);
    let server = FaultServer::start(model.file.clone(), |_, request| match request.nth {
        0 => request.right().with("ETag", "W/\"weak\""),
        _ => Reply::new(403),
    });
    let directory = directory();
    let to = directory.path().join("to");
    let failed = run(fetch(&[&server.url(), "--to"]).arg(&to));
    assert_eq!(failed.status.code(), Some(1), "{failed:#?}");
    let told = failed.stderr;
    assert!(told.contains("403") && !told.contains("goes on from there"), "{told}");
    assert!(told.contains("marks its ETag as weak (W/) and sends no Last-Modified"), "{told}");
    assert!(!to.exists(), "something is left over");
    // The directories above it were created for the download, too.
    let deep = directory.path().join("above/below");
    assert_eq!(run(fetch(&[&server.url(), "--to"]).arg(&deep)).status.code(), Some(1));
    assert!(!directory.path().join("above").exists(), "something is left over");
    // A directory that was there stays.
    fs::create_dir(&to).unwrap();
    assert_eq!(run(fetch(&[&server.url(), "--to"]).arg(&to)).status.code(), Some(1));
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "something is left over");
}

/// `fetch --to` said of an object that it "cannot be cached", though plain files need no cache.
#[test]
fn a_download_without_a_cache_does_not_speak_of_one() {
    let model = Model::small();
    let server = FaultServer::start(model.file.clone(), |_, request| {
        request.right().without("ETag").without("Last-Modified")
    });
    let directory = directory();
    let mut command = fetch(&[&server.url(), "--unpinned", "--to"]);
    let fetched = run(command.arg(directory.path()));
    assert!(fetched.status.success(), "{fetched:#?}");
    assert!(!fetched.stderr.contains("cached"), "{fetched:#?}");
    assert!(fetched.stderr.contains("if the download is interrupted"), "{fetched:#?}");
}

/// With `--pin etag`, an object whose ETag is weak was said to be left out of the cache because --pin
/// leaves out the header that identifies it. It compares that very header.
#[test]
fn a_weak_etag_is_named_as_the_reason_for_not_caching() {
    let model = Model::small();
    let server = FaultServer::start(model.file.clone(), |_, request| {
        request.right().with("ETag", "W/\"one\"").with("Last-Modified", "Mon")
    });
    let directory = directory();
    let mut command = ringload();
    command.args(["load", &server.url(), "--pin", "etag", "--cache-dir"]).arg(directory.path());
    let loaded = run(&mut command);
    assert!(loaded.status.success(), "{loaded:#?}");
    assert!(loaded.stderr.contains("marks its ETag as weak"), "{loaded:#?}");
    assert!(!loaded.stderr.contains("leaves out the header"), "{loaded:#?}");
}

/// A FIFO in the place of a file of the cache was answered with a remedy against other users.
#[test]
fn what_stands_in_the_place_of_a_file_of_the_cache_is_named() {
    let model = Model::small();
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    type Make = fn(&Path);
    let kinds: [(Make, &str); 3] = [
        (
            |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "it is not a regular file; remove it",
        ),
        (|path| fs::create_dir(path).unwrap(), "it is not a regular file; remove it"),
        (|path| std::os::unix::fs::symlink("x", path).unwrap(), "it is a symbolic link"),
    ];
    for (make, says) in kinds {
        let directory = directory();
        make(&directory.path().join("lock"));
        let mut command = ringload();
        command.args(["load", &server.url(), "--cache-dir"]).arg(directory.path());
        let loaded = run(&mut command);
        assert!(loaded.status.success(), "{loaded:#?}");
        assert!(
            loaded.stderr.contains(&format!("lock is not used for the cache: {says}")),
            "{loaded:#?}"
        );
        assert!(!loaded.stderr.contains("--cache-shared"), "{loaded:#?}");
    }
}

/// Of an object of more than 16 TiB it was said that its server sends no ETag.
#[test]
fn an_object_that_is_too_large_for_the_cache_is_named_as_such() {
    let model = Model::small();
    let server = FaultServer::start(model.file.clone(), |_, request| {
        let (_, last) = request.range().unwrap();
        let range = format!("bytes 0-{last}/{}", 17_u64 << 40);
        let mut first = Model::small().file;
        first.resize(last + 1, 0);
        Reply::new(206).with("ETag", "\"one\"").with("Content-Range", range).body(&first)
    });
    let directory = directory();
    let mut command = ringload();
    command.args(["inspect", &server.url(), "--cache-dir"]).arg(directory.path());
    let told = run(&mut command).stderr;
    assert!(told.contains("is larger than 16 TiB, the most that the cache takes"), "{told}");
    assert!(!told.contains("ETag"), "{told}");
}
