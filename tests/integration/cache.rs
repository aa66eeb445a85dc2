//! The local file cache: a second load reads from disk, and its bytes are right, whatever happened to
//! the cache in between.
//!
//! Hazards: an object that was replaced; parts of an object loaded at different times; flipped bits in
//! data and metadata; entries that are evicted during a load; bytes that are requested although they
//! are cached.

use crate::common::fault_server::{FaultServer, Reply, Request};
use crate::common::model::{Model, loader};
use crate::common::nginx::Nginx;
use crate::common::{cached_bytes, directory, until};
use ringload::{CacheAdmin, CacheSize, CacheValidate, ErrorKind, Loader, MemoryLimit, ReadRequest};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A file that needs several reads and ends in mid-page.
fn model() -> Model {
    Model::new(&[3_000_000, 0, 17, 12_345_678, 1, 40_000, 4096, 5_000_000])
}

fn serve(model: &Model) -> FaultServer {
    FaultServer::start(model.file.clone(), |_, request| request.right())
}

fn cached(directory: &Path) -> Loader {
    loader().cache_dir(directory)
}

/// Loads `url` through the cache, and waits until everything is written to it.
#[track_caller]
fn load(model: &Model, directory: &Path, url: &str) -> ringload::Summary {
    let loader = cached(directory);
    let summary = model.load(&loader, url).unwrap();
    assert!(loader.flush(Some(crate::common::PATIENCE)), "the writer hangs");
    assert_eq!(loader.cache_warning(), None);
    summary
}

/// How many bytes were requested since request `from`, except by requests that open the object.
fn fetched_since(server: &FaultServer, from: usize) -> u64 {
    let requests = server.seen();
    let ranges =
        requests[from..].iter().filter(|request| request.header("if-none-match").is_none());
    ranges.filter_map(Request::range).map(|(first, last)| (last - first + 1) as u64).sum()
}

fn found(directory: &Path, name: &str) -> Vec<PathBuf> {
    let pattern = directory.join("*/*").join(name);
    glob::glob(pattern.to_str().unwrap()).unwrap().map(Result::unwrap).collect()
}

#[track_caller]
fn the(directory: &Path, name: &str) -> PathBuf {
    let mut found = found(directory, name);
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    // In place, as a broken disk would do it.
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&bytes[at..=at], at as u64).unwrap();
}

#[test]
fn a_second_load_comes_from_disk() {
    let (model, directory) = (model(), directory());
    let server = serve(&model);
    let summary = load(&model, directory.path(), &server.url());
    assert!(summary.cached_bytes <= 4096, "{summary:?}"); // of the header's page
    let file = the(directory.path(), "data.safetensors");
    assert!(fs::read(file).unwrap() == model.file, "other tools read something else");

    let before = server.seen().len();
    let summary = load(&model, directory.path(), &server.url());
    assert!(summary.cached_bytes > 20_000_000, "{summary:?}");
    assert!(!summary.read_bytes.contains_key("http"), "{summary:?}");
    let again = &server.seen()[before..];
    assert_eq!(again.len(), 1, "one request validates: {again:#?}");
    assert!(again[0].header("if-none-match").is_some());

    let url = server.url();
    drop(server);
    let offline = cached(directory.path()).cache_validate(CacheValidate::Never);
    model.load(&offline, &url).unwrap();
    let fresh = CacheValidate::Age(Duration::from_secs(3600));
    model.load(&cached(directory.path()).cache_validate(fresh), &url).unwrap();
    let old = CacheValidate::Age(Duration::ZERO);
    for validate in [CacheValidate::Always, old] {
        let asking = cached(directory.path()).cache_validate(validate);
        assert_eq!(model.load(&asking, &url).unwrap_err().kind(), ErrorKind::Unreachable);
    }
}

/// Whatever reads the memory limit leads to, they write whole pages.
#[test]
fn loads_with_every_memory_limit_fill_the_cache() {
    let model = model();
    let server = serve(&model);
    for (number, limit) in [MemoryLimit::Min, MemoryLimit::Bytes(13 << 20), MemoryLimit::Unlimited]
        .into_iter()
        .enumerate()
    {
        let directory = directory();
        let loader = cached(directory.path()).memory_limit(limit).cache_waits_for_disk(true);
        let loader = if number == 0 { loader.engines(2).connections(3) } else { loader };
        model.load(&loader, &server.url()).unwrap();
        assert!(loader.flush(Some(crate::common::PATIENCE)));
        let before = server.seen().len();
        let again = cached(directory.path()).memory_limit(limit);
        let summary = model.load(&again, &server.url()).unwrap();
        assert_eq!(fetched_since(&server, before), 0, "{limit:?}: {summary:?}");
        drop(loader);
        assert!(fs::read(the(directory.path(), "data.safetensors")).unwrap() == model.file);
    }
}

#[test]
fn parts_add_up() {
    let (model, directory) = (model(), directory());
    let server = serve(&model);
    let some = |globs: &[&str]| {
        let loader = cached(directory.path()).tensors(globs.iter().copied());
        for tensor in loader.load(server.url().as_str()).unwrap() {
            assert!(tensor.bytes() == model.tensors[tensor.name()].bytes, "{}", tensor.name());
        }
        assert!(loader.flush(Some(crate::common::PATIENCE)));
    };
    some(&["t0", "t5"]);
    let before = server.seen().len();
    some(&["t5", "t0"]);
    assert_eq!(fetched_since(&server, before), 0, "cached bytes were requested again");
    assert_eq!(found(directory.path(), "data.safetensors").len(), 0, "pages are missing");
    let admin = CacheAdmin::open(directory.path()).unwrap();
    let [entry] = &admin.entries()[..] else { panic!() };
    assert!(!entry.is_complete && entry.present_bytes > 3_000_000, "{entry:?}");
    assert!(entry.present_bytes < 3_200_000, "{entry:?}");

    let before = server.seen().len();
    let summary = load(&model, directory.path(), &server.url());
    assert!(summary.cached_bytes > 3_000_000, "{summary:?}");
    let fetched = fetched_since(&server, before);
    assert!(fetched < model.file.len() as u64 - 2_900_000, "{fetched}");
    the(directory.path(), "data.safetensors");
}

#[test]
fn a_replaced_object_is_never_served() {
    let (model, other, directory) = (model(), Model::new(&[5_000_000, 70_000]), directory());
    let put = |root: &Path| fs::write(root.join("x.safetensors"), &model.file).unwrap();
    let Some(nginx) = Nginx::start("", put) else { return };
    let url = nginx.url("x.safetensors");
    load(&model, directory.path(), &url);
    let summary = load(&model, directory.path(), &url);
    assert!(!summary.read_bytes.contains_key("http"), "{summary:?}");

    // Opened, replaced, then read: the load fails and does not mix the objects.
    let partial = crate::common::directory();
    let loader = cached(partial.path());
    let checkpoint = Arc::new(loader.open(url.as_str()).unwrap());
    fs::write(nginx.root().join("new"), &other.file).unwrap();
    fs::rename(nginx.root().join("new"), nginx.root().join("x.safetensors")).unwrap();
    assert_eq!(loader.load_checkpoint(checkpoint).unwrap_err().kind(), ErrorKind::Changed);
    // Loads that do not validate know of the replacement now.
    let never = cached(partial.path()).cache_validate(CacheValidate::Never);
    other.load(&never, &url).unwrap();

    // Without validation, a load reads the whole object that was cached last.
    let never = cached(directory.path()).cache_validate(CacheValidate::Never);
    model.load(&never, &url).unwrap();
    drop(never);
    load(&other, directory.path(), &url);
    assert!(fs::read(the(directory.path(), "data.safetensors")).unwrap() == other.file);
    let never = cached(directory.path()).cache_validate(CacheValidate::Never);
    other.load(&never, &url).unwrap();
}

#[test]
fn a_flipped_byte_of_data_is_one_page_fetched_again() {
    let (model, directory) = (model(), directory());
    let server = serve(&model);
    load(&model, directory.path(), &server.url());
    let len = model.file.len();
    for at in [len - 1, model.data_offset() + 5, 3_000_500, 8 << 20, 9, len / 2] {
        flip(&the(directory.path(), "data.safetensors"), at);
        let before = server.seen().len();
        load(&model, directory.path(), &server.url());
        let fetched = fetched_since(&server, before);
        assert!((1..=2 * 4096).contains(&fetched), "byte {at}: {fetched} bytes were fetched");
        let before = server.seen().len();
        load(&model, directory.path(), &server.url());
        assert_eq!(fetched_since(&server, before), 0, "byte {at} was not repaired");
    }
    assert!(fs::read(the(directory.path(), "data.safetensors")).unwrap() == model.file);
}

#[test]
fn any_flipped_byte_of_metadata_is_a_miss() {
    let (model, directory) = (Model::new(&[60_000, 0, 9_000]), directory());
    let server = serve(&model);
    load(&model, directory.path(), &server.url());
    let all = model.file.len() as u64;
    for name in ["entry", "pages"] {
        let len = fs::metadata(the(directory.path(), name)).unwrap().len() as usize;
        // A unit test flips every bit of `entry`.
        let step = if crate::common::is_long() || name == "pages" { 1 } else { 7 };
        for at in (0..len).step_by(step) {
            flip(&the(directory.path(), name), at);
            let before = server.seen().len();
            load(&model, directory.path(), &server.url());
            // A conditional request counts as no bytes.
            let fetched = fetched_since(&server, before);
            match name {
                "entry" => assert!(fetched >= all, "byte {at} of {name}: {fetched}"),
                _ => assert!((1..=2 * 4096).contains(&fetched), "byte {at} of {name}: {fetched}"),
            }
        }
        let data = fs::read(the(directory.path(), "data.safetensors")).unwrap();
        assert!(data == model.file, "after flips in {name}");
    }
    // Files that are missing, too short or too long.
    for name in ["entry", "pages", "data.safetensors"] {
        for change in [
            (&|path: &Path| fs::remove_file(path).unwrap()) as &dyn Fn(&Path),
            &|path| fs::write(path, "").unwrap(),
            &|path| fs::write(path, vec![b'x'; 100_000]).unwrap(),
        ] {
            change(&the(directory.path(), name));
            load(&model, directory.path(), &server.url());
            let before = server.seen().len();
            load(&model, directory.path(), &server.url());
            assert_eq!(fetched_since(&server, before), 0, "{name}");
        }
    }
}

/// Files of one entry that replace those of another are not mistaken for them.
#[test]
fn checksums_are_those_of_one_object() {
    let (one, two) = (Model::new(&[50_000, 50_010]), Model::new(&[50_010, 50_000]));
    assert!(one.file.len() == two.file.len() && one.file != two.file);
    let directory = directory();
    let (first, second) = (serve(&one), serve(&two));
    load(&one, directory.path(), &first.url());
    let data = the(directory.path(), "data.safetensors");
    load(&two, directory.path(), &second.url());
    let mut both = found(directory.path(), "data.safetensors");
    both.retain(|path| *path != data);
    let (a, b) = (data.parent().unwrap(), both[0].parent().unwrap());
    for name in ["pages", "data.safetensors"] {
        fs::copy(b.join(name), a.join(name)).unwrap();
    }
    load(&one, directory.path(), &first.url());
    load(&two, directory.path(), &second.url());
}

#[test]
fn entries_are_evicted_least_recently_used_first_and_never_while_in_use() {
    let models: Vec<_> =
        [1_000_000, 1_000_001, 1_000_002, 1_000_003].map(|size| Model::new(&[size])).into();
    let servers: Vec<_> = models.iter().map(serve).collect();
    let directory = directory();
    let limited = || cached(directory.path()).cache_size(CacheSize::Bytes(2_500_000));
    let put = |number: usize| {
        let loader = limited();
        models[number].load(&loader, &servers[number].url()).unwrap();
        assert!(loader.flush(Some(crate::common::PATIENCE)));
        loader.cache_warning()
    };
    let there = || -> Vec<usize> {
        let entries = CacheAdmin::open(directory.path()).unwrap().entries();
        let number = |location: &ringload::LocationText| {
            servers.iter().position(|s| s.url() == location.to_string()).unwrap()
        };
        entries.iter().filter(|e| e.is_complete).map(|e| number(&e.location)).collect()
    };
    assert_eq!([put(0), put(1)], [None, None]);
    assert_eq!(put(0), None); // used again
    assert_eq!(there(), [1, 0]);
    assert_eq!(put(2), None);
    assert_eq!(there(), [0, 2]);

    // Open and thus in use, by other loaders, as by other processes.
    let (user, other) = (limited(), limited());
    let zero = Arc::new(user.open(servers[0].url().as_str()).unwrap());
    let two = Arc::new(other.open(servers[2].url().as_str()).unwrap());
    assert!(put(3).unwrap().contains("in use"));
    assert_eq!(there(), [0, 2]);
    let before = servers[0].seen().len();
    user.load_checkpoint(zero).unwrap();
    assert_eq!(servers[0].seen().len(), before, "an entry in use was evicted");
    drop((user, two, other));
    assert_eq!(put(3), None);
    assert_eq!(there(), [2, 3]);
    // An object that cannot fit evicts nothing.
    let large = model();
    let server = serve(&large);
    let loader = limited();
    large.load(&loader, &server.url()).unwrap();
    loader.flush(None);
    assert!(loader.cache_warning().unwrap().contains("larger than the cache"));
    assert_eq!(there(), [2, 3]);
}

/// Loads whose entries are evicted meanwhile are right.
#[test]
fn eviction_under_load() {
    let models: Vec<_> =
        (0..4_usize).map(|i| Model::new(&[400_000, 1_000_000 + i, 300_000])).collect();
    let servers: Vec<_> = models.iter().map(serve).collect();
    let directory = directory();
    std::thread::scope(|scope| {
        for offset in 0..3_usize {
            let (models, servers, directory) = (&models, &servers, &directory);
            scope.spawn(move || {
                for turn in 0..12 {
                    let number = (offset + turn * (offset + 1)) % models.len();
                    let size = CacheSize::Bytes(3_600_000);
                    let loader = cached(directory.path()).cache_size(size);
                    models[number].load(&loader, &servers[number].url()).unwrap();
                }
            });
        }
    });
    let taken: u64 =
        CacheAdmin::open(directory.path()).unwrap().entries().iter().map(|e| e.disk_bytes).sum();
    assert!(taken <= 3_600_000 + 3 * (2 << 20), "{taken}");
    for (model, server) in models.iter().zip(&servers) {
        load(model, directory.path(), &server.url());
    }
}

/// Two loads of one loader at once: each page is fetched about once.
#[test]
fn loads_of_one_process_share_what_they_fetch() {
    let (model, directory) = (model(), directory());
    let server = FaultServer::start(model.file.clone(), |_, request| {
        request.right().body_after(Duration::from_millis(20))
    });
    let loader = cached(directory.path());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (loader, model, url) = (loader.clone(), &model, server.url());
            scope.spawn(move || model.load(&loader, &url).unwrap());
        }
    });
    let fetched = fetched_since(&server, 0);
    let all = model.file.len() as u64;
    assert!(fetched < all + all / 10 + (128 << 10), "{fetched} of {all}");
}

/// A load that fails or is dropped leaves no pages locked.
#[test]
fn the_next_load_fetches_what_a_failed_load_did_not() {
    let (model, directory) = (model(), directory());
    let broken = Arc::new(AtomicBool::new(true));
    let (is_broken, kept) = (Arc::clone(&broken), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&kept);
    let server = FaultServer::start(model.file.clone(), move |_, request| {
        let late = request.range().is_some_and(|(first, _)| first > 10 << 20);
        match late && is_broken.load(Ordering::Relaxed) {
            true => Reply::new(403).once_open(&gate),
            false => request.right(),
        }
    });
    let loader = cached(directory.path());
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| model.load(&loader, &server.url()));
        until("the first part is on disk", || cached_bytes(directory.path(), "") > 1_000_000);
        kept.store(true, Ordering::Relaxed);
        assert!(loading.join().unwrap().is_err());
    });
    // Takes the first tensor or error, and drops the rest.
    drop(loader.stream(server.url().as_str()).unwrap().next());
    broken.store(false, Ordering::Relaxed);
    loader.flush(None);
    let before = server.seen().len();
    load(&model, directory.path(), &server.url());
    let fetched = fetched_since(&server, before);
    assert!(fetched < model.file.len() as u64, "nothing was kept: {fetched}");
    the(directory.path(), "data.safetensors");
}

/// An object whose server sends no identity cannot be cached, which is reported.
#[test]
fn an_object_without_identity_is_not_cached() {
    let (model, directory) = (Model::small(), directory());
    let server =
        FaultServer::start(model.file.clone(), |_, request| request.right().without("ETag"));
    let loader = cached(directory.path()).unpinned(true);
    let summary = model.load(&loader, &server.url()).unwrap();
    loader.flush(None);
    assert!(summary.cache_warning.unwrap().contains("neither an ETag"));
    assert!(CacheAdmin::open(directory.path()).unwrap().entries().is_empty());
}

/// Listings are cached, too: a sharded checkpoint loads without a network.
#[test]
fn a_sharded_checkpoint_loads_offline() {
    let tensors = [
        crate::common::Expected::of_bytes("a", 300_000, 1),
        crate::common::Expected::of_bytes("b", 77, 2),
    ];
    let files = crate::common::sharded(&tensors, true);
    let directory = directory();
    let put = |root: &Path| {
        for (name, bytes) in &files {
            fs::write(root.join(name), bytes).unwrap();
        }
    };
    let Some(nginx) = Nginx::start("", put) else { return };
    let url = nginx.url("");
    let loader = cached(directory.path());
    assert_eq!(loader.load(url.as_str()).unwrap().len(), 2);
    loader.flush(None);
    drop(nginx);
    let offline = cached(directory.path()).cache_validate(CacheValidate::Never);
    let loaded = offline.load(url.as_str()).unwrap();
    for tensor in &tensors {
        assert!(loaded.get(&tensor.name).unwrap().bytes() == tensor.bytes);
    }
}

/// Ranges with any start and end, read into memory of any alignment.
#[test]
fn byte_ranges_come_from_the_cache() {
    let (model, directory) = (model(), directory());
    let server = serve(&model);
    let url = server.url();
    let ranges =
        [(0, 9), (5, 4091), (4095, 2), (100_001, 9_000_000), (1 << 20, 8192), (20_300_000, 90_352)];
    let read = |loader: &Loader| {
        for shift in [0, 1] {
            let mut buffers = ranges.map(|(_, len)| vec![0; len + 8192]);
            let requests = ranges.iter().zip(&mut buffers).map(|(&(offset, len), buffer)| {
                // Congruent to the offset, or not.
                let start = (offset + shift + 8192 - buffer.as_ptr() as usize % 4096) % 4096;
                let location = ringload::Location::parse(&url).unwrap();
                ReadRequest::new(location, offset as u64, &mut buffer[start..start + len])
            });
            let mut requests: Vec<_> = requests.collect();
            loader.read_into(&mut requests, |_| std::ops::ControlFlow::Continue(())).unwrap();
            drop(requests);
            for ((offset, len), buffer) in ranges.into_iter().zip(&buffers) {
                let start = (offset + shift + 8192 - buffer.as_ptr() as usize % 4096) % 4096;
                let right = buffer[start..start + len] == model.file[offset..offset + len];
                assert!(right, "{len} bytes from {offset}, shifted by {shift}");
            }
        }
    };
    let loader = cached(directory.path());
    read(&loader);
    assert!(loader.flush(Some(crate::common::PATIENCE)));
    let present = CacheAdmin::open(directory.path()).unwrap().entries()[0].present_bytes;
    assert!(present > 8_900_000, "the bytes read were not cached: {present}");
    load(&model, directory.path(), &url);
    let before = server.seen().len();
    read(&cached(directory.path()));
    assert_eq!(fetched_since(&server, before), 0);
    the(directory.path(), "data.safetensors");
}

/// Nothing is deleted in a directory that holds files of others, so a cache there grows beyond its size.
#[test]
fn a_directory_with_other_files_is_reported() {
    let (model, directory) = (model(), directory());
    fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let server = serve(&model);
    let loader = cached(directory.path());
    model.load(&loader, &server.url()).unwrap();
    let warning = loader.cache_warning().unwrap();
    assert!(warning.contains("was not empty when it became a cache"), "{warning}");
    assert_eq!(fs::read(directory.path().join("notes.txt")).unwrap(), b"mine");
}
