//! Two locations that look alike are two objects.
//!
//! A broken-off `fetch --to U?v=1` was once continued by `fetch --to U?v=2`, which then wrote version 1
//! and exited with 0: the part on disk was found by the text that is displayed of a location, without
//! its query, user and endpoint. `cache rm` found its entries in the same way. Everything is now found
//! by the location itself.

use crate::common::command::{Finished, ringload, run};
use crate::common::directory;
use crate::common::fault_server::{FaultServer, Reply, Request};
use crate::common::model::Model;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Two files that differ in all of their data, and nowhere else.
fn versions() -> [Model; 2] {
    let one = Model::new(&[24_000_000]);
    let mut two = one.clone();
    let data = one.data_offset();
    two.file[data..].iter_mut().for_each(|byte| *byte = !*byte);
    [one, two]
}

/// Whether a request is for data behind the first nine megabytes.
fn is_late(request: &Request) -> bool {
    request.range().is_some_and(|(first, _)| first > 9 << 20)
}

/// Fetches `first`, which breaks off, and then `second` with the same display text. Returns the file
/// that the second fetch has written.
fn fetch_both(first: (&str, &[&str]), second: (&str, &[&str])) -> Vec<u8> {
    let directory = directory();
    let fetch = |(location, options): (&str, &[&str])| {
        let mut command = ringload();
        command.args(["fetch", location, "--connections", "1"]);
        command.args(options).env("RUNAI_STREAMER_S3_UNSIGNED", "1");
        run(command.arg("--to").arg(directory.path()))
    };
    fetch(first).failure();
    assert!(directory.path().join(".ringload-download").exists(), "nothing was kept");
    fetch(second).quiet_success();
    fs::read(directory.path().join("x.safetensors")).unwrap()
}

/// Serves version 1 to requests for which `is_first` holds, until it breaks off; version 2 to others.
/// Both have the same ETag.
fn both(is_first: impl Fn(&Request) -> bool + Send + Sync + 'static) -> (FaultServer, Vec<u8>) {
    let [one, two] = versions();
    let expected = two.file.clone();
    let server = FaultServer::start(one.file, move |_, request| {
        if !is_first(request) {
            let (first, last) = request.range().unwrap();
            let last = last.min(two.file.len() - 1);
            return request.right().body(&two.file[first..=last]);
        }
        match is_late(request) {
            true => Reply::new(403).after(Duration::from_millis(300)),
            false => request.right(),
        }
    });
    (server, expected)
}

#[test]
fn a_fetch_continues_neither_another_query_nor_another_user_nor_another_endpoint() {
    let (server, expected) = both(|request| request.target.contains("v=1"));
    let [one, two] = ["1", "2"].map(|version| format!("{}?v={version}", server.url()));
    assert!(fetch_both((&one, &[]), (&two, &[])) == expected, "another query");

    let (server, expected) =
        both(|request| request.header("authorization").unwrap().ends_with("dTo="));
    let [one, two] = ["u:", "us:"].map(|user| server.url().replace("//", &format!("//{user}@")));
    assert!(fetch_both((&one, &[]), (&two, &[])) == expected, "another user");

    let ((broken, _), (other, expected)) = (both(|_| true), both(|_| false));
    let location = "s3://bucket/x.safetensors";
    let (one, two) = (["--endpoint", &broken.origin()], ["--endpoint", &other.origin()]);
    assert!(fetch_both((location, &one), (location, &two)) == expected, "another endpoint");
}

fn cache(directory: &Path, arguments: &[&str]) -> Finished {
    let mut command = ringload();
    run(command.arg("cache").args(arguments).arg("--json").arg("--cache-dir").arg(directory))
}

#[test]
fn an_object_is_removed_from_the_cache_by_its_query_and_not_by_its_text() {
    let directory = directory();
    let model = Model::new(&[100_000]);
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let at = |query: &str| format!("{}{query}", server.url());
    let listed = || -> Vec<Value> {
        cache(directory.path(), &["ls"]).json()["entries"].as_array().unwrap().clone()
    };
    for query in ["?v=1", "?v=2", ""] {
        run(ringload().args(["fetch", &at(query), "--cache-dir"]).arg(directory.path()))
            .quiet_success();
    }
    assert_eq!(listed().len(), 3);
    assert_eq!(listed().iter().filter(|entry| entry["location"] == at("?...")).count(), 2);
    let refused = cache(directory.path(), &["rm", &at("?...")]).failure();
    assert!(refused.contains("does not show the users and queries"), "{refused}");
    assert_eq!(cache(directory.path(), &["rm", &at("?v=1")]).json()["entries"], 1);
    run(ringload()
        .args(["load", "--drop", "--cache-validate", "never", &at("?v=2")])
        .arg("--cache-dir")
        .arg(directory.path()))
    .quiet_success();
    assert_eq!(cache(directory.path(), &["rm", &at("")]).json()["entries"], 2);
    assert_eq!(listed().len(), 0);
}
