//! The local file cache: its cost for a first load, and the time of a second load.
//!
//! The server is limited to half of the write speed of the disk, which is measured first, so that the
//! disk is at least twice as fast. No process is bound to a core. A second load is compared with a
//! load of the plain file, which is the data file of the cache: the same blocks of the same disk, not
//! in the page cache in both cases.

use super::remote::{CONNECTIONS, Object, allowed_mib};
use super::{case, prepare, ringload};
use crate::client::Client;
use crate::lab::{Lab, Setting};
use crate::nginx;
use crate::peers::Peers;
use crate::records::Figure;
use anyhow::{Context, Result, ensure};
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const LIMIT_MIB: u64 = 256;
/// A faster server would need more of two cores than the cache does.
const RATE_MAX: f64 = 0.4e9;

/// Loads without a limit, and under one: the name in the targets, and the options.
const WAYS: [(&str, &str); 2] = [("resident", ""), ("capped", "--memory-limit=256MiB")];

/// The object, its URL on the limited server, and the directory of the cache.
struct Cached {
    object: Object,
    url: String,
    kept: PathBuf,
}

pub fn run(lab: &mut Lab, _: &Peers) -> Result<()> {
    let object = Object::large(lab)?;
    let disk = disk_rate(&lab.tools.keep)?;
    let rate = RATE_MAX.min(disk / 2.0);
    let limit = format!("limit_rate {};", (rate / CONNECTIONS as f64) as u64);
    let server = nginx::start(object.root.path(), None, &limit)?;
    let directory = tempfile::tempdir_in(&lab.tools.keep)?;
    let (url, kept) = (object.url(&server.http), directory.path().join("cache"));
    let cached = Cached { object, url, kept };
    let speeds =
        format!("the disk writes {:.2} GB/s, the server sends {:.2} GB/s", disk / 1e9, rate / 1e9);
    for (way, options) in WAYS {
        first(lab, &cached, way, options, &speeds)?;
    }
    let data = fill(lab, &cached)?;
    for (way, options) in WAYS {
        second(lab, &cached, &data, way, options)?;
    }
    Ok(())
}

fn first(lab: &mut Lab, cached: &Cached, way: &str, options: &str, speeds: &str) -> Result<()> {
    let options = format!("{options} --connections=16");
    let without = ringload(&lab.tools, &cached.url, &options);
    let with = cached.client(lab, &options, "ringload, cache on");
    let title =
        format!("first load, {way}: written to the cache behind the load, or not; {speeds}");
    let clear = |_: &Client| match fs::remove_dir_all(&cached.kept) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    };
    let sums = Some(&cached.object.checkpoint.sums);
    let setting = Setting { prepare: Some(&clear), sums, ..Setting::default() };
    let case = case("cache", &format!("first, {way}"), title);
    let results = lab.case(case, vec![without, with], &setting)?;
    let ratio = results.ratio("ringload, cache on", "ringload", Figure::Seconds);
    lab.reach(&format!("cache.first.{way}"), ratio)?;
    if way == "capped" {
        let peak = results.peak_mib("ringload, cache on").context("no peak memory")?;
        lab.target("cache.peak", peak - allowed_mib(LIMIT_MIB), None, None)?;
    }
    Ok(())
}

fn second(lab: &mut Lab, cached: &Cached, data: &Path, way: &str, options: &str) -> Result<()> {
    let options = format!("{options} --drop");
    let plain = ringload(&lab.tools, data, &options).named("ringload, plain file");
    let again = cached.client(lab, &options, "ringload, second load");
    for client in [&plain, &again] {
        prepare(CacheState::Cold, data)?;
        reads_directly(client)?;
    }
    let title = format!("second load, {way}: from the cache, compared with its own data file");
    let cold = |_: &Client| prepare(CacheState::Cold, data);
    let sums = Some(&cached.object.checkpoint.sums);
    let setting = Setting { prepare: Some(&cold), sums, more_turns: 2, ..Setting::default() };
    let clients = vec![plain.clone(), again, plain.again()];
    let results = lab.case(case("cache", &format!("second, {way}"), title), clients, &setting)?;
    let ratio = results.ratio("ringload, second load", "ringload, plain file", Figure::Seconds);
    lab.reach(&format!("cache.second.{way}"), ratio)
}

impl Cached {
    /// ringload, loading the object with the cache.
    fn client(&self, lab: &Lab, options: &str, name: &str) -> Client {
        let client = ringload(&lab.tools, &self.url, options).named(name);
        let invocation = client.invocation.arg("--cache-dir").arg(&self.kept);
        Client { invocation, ..client }
    }
}

/// Fills the cache and returns its data file.
fn fill(lab: &Lab, cached: &Cached) -> Result<PathBuf> {
    let command = |words: &str| Invocation::new(&lab.tools.ringload).words(words);
    let fetch = command("fetch --json").arg(&cached.url).arg("--cache-dir");
    fetch.arg(&cached.kept).run()?;
    let listed: Value = command("cache ls --json --cache-dir").arg(&cached.kept).run()?.json()?;
    let path = listed["entries"][0]["path"].as_str().context("the cache lists its entry")?;
    let path = PathBuf::from(path);
    let is_whole = fs::metadata(&path)?.len() == cached.object.checkpoint.file_bytes()?;
    ensure!(is_whole, "{} is not the whole object", path.display());
    Ok(path)
}

/// Both sides have to use the same read path.
fn reads_directly(client: &Client) -> Result<()> {
    let results: Value = client.invocation.run()?.json()?;
    let direct = results["read_bytes"]["direct"].as_f64().unwrap_or_default();
    let all = results["bytes"].as_f64().unwrap_or_default();
    ensure!(direct > 0.99 * all, "{} read {direct} of {all} bytes directly", client.name);
    Ok(())
}

/// The speed of direct writes to the disk, in bytes a second: the slowest of three GiB.
fn disk_rate(directory: &Path) -> Result<f64> {
    let target = tempfile::NamedTempFile::new_in(directory)?;
    let dd = "if=/dev/zero bs=8M count=128 oflag=direct conv=fsync";
    let dd = Invocation::new("dd").words(dd).arg(format!("of={}", target.path().display()));
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        least = least.min((1_u64 << 30) as f64 / dd.run()?.seconds);
    }
    Ok(least)
}
