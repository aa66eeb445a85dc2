//! The local file cache: a second load comes from disk, and whatever happens to the cache in between,
//! its bytes are right.
//!
//! Hazards: an object that was replaced; a kill in mid-write; flipped bytes in data and metadata; a
//! full, read-only or forbidden directory; many processes at once; eviction under a load; a slow disk
//! that holds the load up.

#![allow(clippy::unwrap_used)]

mod common;

use common::directory;
use common::fault_server::{FaultServer, Request};
use common::model::{Model, loader};
use ringload::{CacheValidate, ErrorKind, Loader};
use std::path::Path;
use std::time::Duration;

/// Several reads, and an end in mid-page.
fn model() -> Model {
    Model::new(&[3_000_000, 0, 17, 12_345_678, 1, 40_000, 4096, 5_000_000])
}

fn cached(directory: &Path) -> Loader {
    loader().cache_dir(directory)
}

/// Bytes that the server was asked for, but for those of opening.
fn fetched(requests: &[Request]) -> u64 {
    let ranges = requests.iter().filter_map(Request::range);
    ranges.filter(|range| *range != (0, 65535)).map(|(first, last)| (last - first + 1) as u64).sum()
}

fn data(directory: &Path) -> Vec<std::path::PathBuf> {
    let pattern = directory.join("*/*/data.safetensors");
    glob::glob(pattern.to_str().unwrap()).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_second_load_comes_from_disk() {
    let (model, directory) = (model(), directory());
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let first = cached(directory.path());
    let summary = model.load(&first, &server.url()).unwrap();
    assert!(summary.cached_bytes <= 4096, "{summary:?}"); // of the header's page
    assert_eq!(summary.cache_trouble, None);
    assert!(first.flush(None));
    let [file] = &data(directory.path())[..] else { panic!("{:?}", data(directory.path())) };
    assert!(std::fs::read(file).unwrap() == model.file, "other tools read something else");

    let before = server.seen().len();
    let summary = model.load(&cached(directory.path()), &server.url()).unwrap();
    assert!(summary.cached_bytes > 20_000_000, "{summary:?}");
    assert!(!summary.read_bytes.contains_key("http"), "{summary:?}");
    let again = &server.seen()[before..];
    assert_eq!(again.len(), 1, "one request validates: {again:#?}");
    assert!(again[0].header("if-none-match").is_some());
    assert_eq!(fetched(again), 0);

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
