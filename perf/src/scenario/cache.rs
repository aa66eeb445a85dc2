//! The local file cache: its cost for a first load, and the time of a second load.
//!
//! The server is limited to half of the write speed of the disk, which is measured first, so that the
//! disk is at least twice as fast. No process is bound to a core. A second load is compared with a
//! load of the plain file, which is the data file of the cache: the same blocks of the same disk, not
//! in the page cache in both cases.

use super::remote::{CONNECTIONS, Object, allowed_mib, object};
use super::{case, ringload};
use crate::child::Invocation;
use crate::client::Client;
use crate::lab::{Lab, Setting};
use crate::nginx::Server;
use crate::page_cache::Warmth;
use crate::records::Figure;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const LIMIT_MIB: u64 = 256;
/// A faster server would need more of two cores than the cache does.
const RATE_MAX: f64 = 0.4e9;

/// Loads without a limit, and under one: the name in the targets, and the options.
const WAYS: [(&str, &[&str]); 2] = [("resident", &[]), ("capped", &["--memory-limit=256MiB"])];

pub fn run(lab: &mut Lab) -> Result<()> {
    let object = object(lab)?;
    let disk = disk_rate(&lab.tools.keep)?;
    let rate = RATE_MAX.min(disk / 2.0);
    let limit = format!("limit_rate {};", (rate / CONNECTIONS as f64) as u64);
    let server = Server::start(object.root.path(), None, &limit)?;
    let url = format!("{}{}", server.http, object.path());
    let kept = tempfile::tempdir_in(&lab.tools.keep)?;
    let kept = kept.path().join("cache");
    let speeds =
        format!("the disk writes {:.2} GB/s, the server sends {:.2} GB/s", disk / 1e9, rate / 1e9);
    for (way, options) in WAYS {
        first(lab, &object, &url, &kept, way, options, &speeds)?;
    }
    let data = fill(lab, &object, &url, &kept)?;
    for (way, options) in WAYS {
        second(lab, &object, &url, &kept, &data, way, options)?;
    }
    Ok(())
}

fn first(
    lab: &mut Lab,
    object: &Object,
    url: &str,
    kept: &Path,
    way: &str,
    options: &[&str],
    speeds: &str,
) -> Result<()> {
    let without = ringload(&lab.tools, url, &[options, &["--connections=16"]].concat());
    let with = caching(&without, kept, "ringload, cache on");
    let title =
        format!("first load, {way}: written to the cache behind the load, or not; {speeds}");
    let forgets = |_: &Client| match fs::remove_dir_all(kept) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    };
    let setting =
        Setting { prepare: &forgets, sums: Some(&object.checkpoint.sums), server: None, times: 1 };
    let name = format!("first, {way}");
    let results = lab.case(case("cache", &name, title), vec![without, with], &setting)?;
    let ratio = results.ratio("ringload, cache on", "ringload", Figure::Seconds);
    lab.reach(&format!("cache.first.{way}"), ratio)?;
    if way == "capped" {
        let peak =
            results.peak_bytes("ringload, cache on").context("ringload reports its peak memory")?;
        lab.target(
            "cache.peak",
            peak as f64 / (1 << 20) as f64 - allowed_mib(LIMIT_MIB),
            None,
            None,
        )?;
    }
    Ok(())
}

fn second(
    lab: &mut Lab,
    object: &Object,
    url: &str,
    kept: &Path,
    data: &Path,
    way: &str,
    options: &[&str],
) -> Result<()> {
    let options = [options, &["--drop"]].concat();
    let plain =
        Client { name: "ringload, plain file".into(), ..ringload(&lab.tools, data, &options) };
    let cached = caching(&ringload(&lab.tools, url, &options), kept, "ringload, second load");
    for client in [&plain, &cached] {
        Warmth::Cold.prepare(data)?;
        reads_directly(client)?;
    }
    let title = format!("second load, {way}: from the cache, beside its own data file");
    let cold = |_: &Client| Warmth::Cold.prepare(data);
    let setting =
        Setting { prepare: &cold, sums: Some(&object.checkpoint.sums), server: None, times: 3 };
    let clients = vec![plain.clone(), cached, plain.again()];
    let results = lab.case(case("cache", &format!("second, {way}"), title), clients, &setting)?;
    let ratio = results.ratio("ringload, second load", "ringload, plain file", Figure::Seconds);
    lab.reach(&format!("cache.second.{way}"), ratio)
}

fn caching(client: &Client, kept: &Path, name: &str) -> Client {
    let invocation = client.invocation.clone().arg("--cache-dir").arg(kept);
    Client { name: name.into(), invocation, ..client.clone() }
}

/// Fills the cache and returns its data file.
fn fill(lab: &Lab, object: &Object, url: &str, kept: &Path) -> Result<PathBuf> {
    let fetch = Invocation::new(&lab.tools.ringload).args(["fetch", "--json", url, "--cache-dir"]);
    fetch.arg(kept).run(None)?;
    let ls = Invocation::new(&lab.tools.ringload).args(["cache", "ls", "--json", "--cache-dir"]);
    let listed: Value = serde_json::from_slice(&ls.arg(kept).run(None)?.output)?;
    let path =
        listed["entries"][0]["path"].as_str().context("the cache lists the path of its entry")?;
    let data = PathBuf::from(path);
    let bytes = fs::metadata(&data)?.len();
    ensure!(bytes == object.checkpoint.file_bytes()?, "{} is not the whole object", data.display());
    Ok(data)
}

/// Both sides have to use the same read path.
fn reads_directly(client: &Client) -> Result<()> {
    let results: Value = serde_json::from_slice(&client.invocation.run(None)?.output)?;
    let direct = results["read_bytes"]["direct"].as_f64().unwrap_or_default();
    let all = results["bytes"].as_f64().unwrap_or_default();
    ensure!(direct > 0.99 * all, "{} read {direct} of {all} bytes directly", client.name);
    Ok(())
}

/// The speed of direct writes to the disk, in bytes a second: the slowest of three GiB.
fn disk_rate(directory: &Path) -> Result<f64> {
    let target = tempfile::NamedTempFile::new_in(directory)?;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let dd = Invocation::new("dd").args([
            "if=/dev/zero",
            "bs=8M",
            "count=128",
            "oflag=direct",
            "conv=fsync",
        ]);
        let seconds = dd.arg(format!("of={}", target.path().display())).run(None)?.seconds;
        least = least.min((1_u64 << 30) as f64 / seconds);
    }
    Ok(least)
}
