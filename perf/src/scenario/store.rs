//! Loads from an emulated object store, which delivers slowly on each connection and after a long wait.
//!
//! Beside each figure is the ideal time, in closed form ([`Settings::ideal_seconds`]). The total rate
//! is low enough that two cores suffice for client and store.

use super::{case, ringload, silent};
use crate::client::Client;
use crate::files::Shape;
use crate::lab::{Lab, Setting};
use crate::measured::Measured;
use crate::peers::{self, Peer, Peers};
use crate::records::{Figure, Role, Run};
use crate::store::{Emulated, Settings};
use anyhow::Result;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use std::fs;
use std::path::Path;

pub const PEERS: &[&Peer] = &[&peers::RUNAI, &peers::OBJECT_STORE];

const SCENARIO: &str = "store";
/// The name of the ideal among the clients.
const IDEAL: &str = "ideal";
/// Of clients that are told how many connections they use: curl and object_store.
const PEER_CONNECTIONS: &str = "200";
const CURL_RANGE_BYTES: u64 = 8 << 20;
const SHARDS: usize = 100;

/// One store, and what is loaded from it.
struct Row {
    case: &'static str,
    settings: Settings,
    /// The memory limits, in MiB; `None` is a load without one.
    limits_mib: &'static [Option<u64>],
    /// Whether the peers are measured, too.
    with_peers: bool,
}

fn rows() -> Vec<Row> {
    let total = Some(1200.0);
    let store = |first_byte, each| Settings {
        first_byte,
        each: Some(each),
        total,
        late_times: 20.0,
        ..Settings::local()
    };
    let row =
        |case, settings, limits_mib, with_peers| Row { case, settings, limits_mib, with_peers };
    vec![
        row("slow", store(100.0, 10.0), &[Some(256), None], true),
        row("medium", store(60.0, 50.0), &[Some(64), Some(256), None], true),
        row("near", store(5.0, 1200.0), &[Some(64)], false),
        row(
            "tails",
            Settings { late: 0.05, stalled: 0.01, ..store(100.0, 10.0) },
            &[Some(256)],
            false,
        ),
        row(
            "refusing",
            Settings { requests: Some(300.0), ..store(100.0, 20.0) },
            &[Some(256)],
            false,
        ),
    ]
}

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    for row in rows() {
        bulk(lab, peers, &row)?;
    }
    adapter(lab)?;
    headers(lab)
}

/// The large checkpoint from the store of a row.
fn bulk(lab: &mut Lab, peers: &Peers, row: &Row) -> Result<()> {
    let checkpoint = lab.large()?;
    let root = bucket(&lab.tools.keep, &checkpoint.path)?;
    let store = Emulated::start(root.path(), None, &row.settings)?;
    let location = format!("s3://bucket/{}", checkpoint.name());
    let own = |limit: &Option<u64>| {
        let options = limit.map_or("--drop".to_owned(), |mib| format!("--memory-limit={mib}MiB"));
        ringload(&lab.tools, &location, &options).named(&named(*limit))
    };
    let mut clients: Vec<Client> = row.limits_mib.iter().map(own).collect();
    if row.with_peers {
        clients.extend(peers.clients(PEERS, &location));
        let url = format!("{}/bucket/{}", store.server.http, checkpoint.name());
        clients.push(curl(&url, checkpoint.file_bytes()?));
    }
    let settings = Settings { addresses: Vec::new(), ..row.settings.clone() };
    let title =
        format!("{:.2} GB from a store: {}", checkpoint.shape.gigabytes(), settings.words());
    // Memory that was idle is slow to use again, which a load without a limit would pay for.
    let settle = super::own_limit(&format!("settle {}", checkpoint.shape.bytes()))?;
    let ready = |_: &Client| {
        settle.run()?;
        super::prepare(CacheState::Warm, &checkpoint.path)
    };
    let setting =
        Setting { prepare: Some(&ready), sums: Some(&checkpoint.sums), ..Setting::default() };
    let ideal = row.settings.ideal_seconds(checkpoint.shape.bytes());
    let measured = from_store(lab, (row.case, title), clients, setting, (&store, ideal))?;
    for limit in row.limits_mib {
        let id = limit.map_or("none".to_owned(), |mib| mib.to_string());
        let ratio = measured.ratio(&named(*limit), IDEAL, Figure::Seconds);
        lab.reach(&format!("store.{}.{id}", row.case), ratio)?;
    }
    if row.case == "near" {
        let most = |run: &Run| run.server.map_or(0.0, |counts| counts.connections as f64);
        lab.reach("store.near.connections", measured.of(&named(Some(64)), most))?;
    }
    Ok(())
}

/// The name of ringload with this limit.
fn named(limit_mib: Option<u64>) -> String {
    limit_mib.map_or("ringload".to_owned(), |mib| format!("ringload, {mib} MiB"))
}

/// An adapter of 100 MiB: its time beyond its transfer and three round trips.
fn adapter(lab: &mut Lab) -> Result<()> {
    let checkpoint = lab.checkpoint(Shape { tensors: 400, tensor_bytes: 256 << 10 })?;
    let root = bucket(&lab.tools.keep, &checkpoint.path)?;
    let settings = Settings { first_byte: 60.0, total: Some(1200.0), ..Settings::local() };
    let store = Emulated::start(root.path(), None, &settings)?;
    let location = format!("s3://bucket/{}", checkpoint.name());
    let clients = vec![ringload(&lab.tools, &location, "")];
    let title = "adapter of 100 MiB from a store of 60 ms".to_owned();
    let setting = Setting { sums: Some(&checkpoint.sums), ..Setting::default() };
    let bytes = checkpoint.shape.bytes();
    let ideal = settings.ideal_seconds(bytes);
    let measured = from_store(lab, ("adapter", title), clients, setting, (&store, ideal))?;
    let allowed = settings.seconds_after(bytes, 3.0);
    let beyond = measured.of("ringload", |run| (run.seconds - allowed) * 1e3);
    lab.reach("store.adapter", beyond)
}

/// The headers of many shards: how many round trips it takes to list them.
fn headers(lab: &mut Lab) -> Result<()> {
    let checkpoint = lab.checkpoint(Shape { tensors: 1, tensor_bytes: 4096 })?;
    let root = tempfile::tempdir_in(&lab.tools.keep)?;
    let folder = root.path().join("bucket/model");
    fs::create_dir_all(&folder)?;
    for shard in 1..=SHARDS {
        // Each shard has a tensor with a name of its own.
        let mut bytes = fs::read(&checkpoint.path)?;
        let name = bytes.windows(7).position(|word| word == b".weight");
        if let Some(at) = name {
            bytes[at + 1..at + 4].copy_from_slice(format!("{shard:03}").as_bytes());
        }
        fs::write(folder.join(format!("model-{shard:05}-of-{SHARDS:05}.safetensors")), bytes)?;
    }
    let settings = Settings { first_byte: 100.0, ..Settings::local() };
    let store = Emulated::start(root.path(), None, &settings)?;
    let inspect = Invocation::new(&lab.tools.ringload).words("inspect s3://bucket/model/");
    let clients = vec![Client { role: Role::Own, ..silent("ringload", inspect, 1) }];
    let title = format!("the headers of {SHARDS} shards from a store of 100 ms");
    let ideal = settings.ideal_seconds(0);
    let measured =
        from_store(lab, ("headers", title), clients, Setting::default(), (&store, ideal))?;
    lab.reach("store.headers", measured.of("ringload", |run| run.seconds / 0.1))
}

/// Runs the clients with the variables that lead S3 clients to the store.
fn from_store(
    lab: &mut Lab,
    (name, title): (&str, String),
    clients: Vec<Client>,
    setting: Setting<'_>,
    (store, ideal_seconds): (&Emulated, f64),
) -> Result<Measured> {
    let mut clients = clients;
    let variables = super::remote::s3_environment(&store.server.http);
    for (name, value) in variables.into_iter().chain([("CONNECTIONS", PEER_CONNECTIONS)]) {
        clients = clients.into_iter().map(|client| client.env(name, value)).collect();
    }
    let server = Some(&store.server);
    let setting =
        Setting { server, counts: Some(store), ideal: Some((IDEAL, ideal_seconds)), ..setting };
    lab.case(case(SCENARIO, name, title), clients, &setting)
}

/// A directory whose only entry is a bucket with the file.
fn bucket(keep: &Path, file: &Path) -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir_in(keep)?;
    fs::create_dir(root.path().join("bucket"))?;
    let name = file.file_name().unwrap_or_default();
    fs::hard_link(file, root.path().join("bucket").join(name))?;
    Ok(root)
}

/// curl, loading ranges of 8 MiB on many connections.
fn curl(url: &str, bytes: u64) -> Client {
    let mut curl = Invocation::new("curl").words("--parallel --parallel-immediate --parallel-max");
    curl = curl.arg(PEER_CONNECTIONS);
    for (number, start) in (0..bytes).step_by(CURL_RANGE_BYTES as usize).enumerate() {
        let next = if number > 0 { "--next" } else { "" };
        let range = format!("{start}-{}", (start + CURL_RANGE_BYTES).min(bytes) - 1);
        let options = format!("{next} --silent --fail --range {range} --output /dev/null");
        curl = curl.words(&options).arg(url);
    }
    silent(&format!("curl, {PEER_CONNECTIONS} connections"), curl, bytes)
}
