//! Loads over the network: the CPU time of the client, compared with other clients of the same server.
//!
//! Server and clients share one core. The CPU time of the client is compared; the elapsed time is that
//! of both. With `--apart` the server runs alone on the first core. If two cores are threads of one
//! physical core, this increases the CPU time of every client.

use super::{case, own_limit, prepare, ringload, silent};
use crate::client::{Check, Client};
use crate::files::{Checkpoint, Shape};
use crate::lab::{Lab, Setting};
use crate::measured::Measured;
use crate::nginx;
use crate::peers::{self, Peer, Peers};
use crate::records::{Case, Figure, Role, Run};
use crate::server::Server;
use anyhow::{Context, Result};
use base64::Engine as _;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use std::fs;
use std::path::Path;

pub const CONNECTIONS: u64 = 16;
const TENSOR_BYTES: usize = 64 << 20;
/// The limit that all network cases have.
const LIMITED: &str = "--memory-limit=128MiB --connections=16";

pub const S3_PEERS: &[&Peer] = &[&peers::RUNAI_S3, &peers::OBJECT_STORE];

/// The object that is loaded; it is also in a bucket named `bucket`.
pub struct Object {
    pub checkpoint: Checkpoint,
    /// The directory whose only entry is the bucket.
    pub root: tempfile::TempDir,
}

impl Object {
    fn kept(lab: &Lab, bytes: u64) -> Result<Self> {
        let checkpoint = lab.checkpoint(Shape::of_bytes(bytes, TENSOR_BYTES))?;
        let root = tempfile::tempdir_in(&lab.tools.keep)?;
        fs::create_dir(root.path().join("bucket"))?;
        fs::hard_link(&checkpoint.path, root.path().join("bucket").join(checkpoint.name()))?;
        Ok(Self { checkpoint, root })
    }

    /// Half of the large checkpoint: 2 GiB by default.
    pub fn large(lab: &Lab) -> Result<Self> {
        Self::kept(lab, lab.size_bytes / 2)
    }

    /// Its path on a server of `root`.
    fn path(&self) -> String {
        format!("/bucket/{}", self.checkpoint.name())
    }

    /// Its URL on this server, such as `http://127.0.0.1:1234`; its location for `s3:/`.
    pub fn url(&self, server: &str) -> String {
        format!("{server}{}", self.path())
    }
}

pub fn http(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let object = Object::large(lab)?;
    let server = serve(lab, &object, "")?;
    let mut clients = web_clients(lab, peers, &object, &object.url(&server.http), None)?;
    let address = server.http.trim_start_matches("http://");
    let (path, bytes) = (object.path(), object.checkpoint.file_bytes()?);
    let recv = own_limit(&format!("recv {address} {path} {bytes} {CONNECTIONS}"))?;
    clients.push(Client::new("bare recv", Role::Limit, recv));
    web(lab, "http", &object, &server, clients)
}

pub fn https(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let object = Object::large(lab)?;
    let server = serve(lab, &object, "")?;
    let (url, certificate) = (object.url(&server.https), Some(server.certificate.as_path()));
    let clients = web_clients(lab, peers, &object, &url, certificate)?;
    web(lab, "https", &object, &server, clients)
}

fn web(
    lab: &mut Lab,
    scheme: &str,
    object: &Object,
    server: &Server,
    clients: Vec<Client>,
) -> Result<()> {
    let results = run(lab, scheme, object, server, clients)?;
    let cpu = results.of("ringload", |run| run.cpu_seconds_per_gigabyte());
    lab.reach(&format!("{scheme}.cpu"), cpu)?;
    let ratio = results.over("ringload", &CURLS, Figure::CpuSecondsPerGigabyte);
    lab.reach(&format!("{scheme}.curl"), ratio)
}

pub fn s3(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let object = Object::large(lab)?;
    let server = serve(lab, &object, "")?;
    let location = object.url("s3:/");
    let own = ringload(&lab.tools, &location, LIMITED);
    let mut clients = vec![own.clone(), own.again()];
    clients.extend(peers.clients(S3_PEERS, &location));
    let (variables, concurrency) = (s3_environment(&server.http), CONNECTIONS.to_string());
    let concurrency = ("RUNAI_STREAMER_CONCURRENCY", concurrency.as_str());
    for (name, value) in variables.into_iter().chain([concurrency]) {
        clients = clients.into_iter().map(|client| client.env(name, value)).collect();
    }
    let results = run(lab, "s3", &object, &server, clients)?;
    lab.reach("s3.cpu", results.of("ringload", |run| run.cpu_seconds_per_gigabyte()))?;
    let ratio = results.ratio("ringload", peers::RUNAI_S3.title, Figure::CpuSecondsPerGigabyte);
    lab.reach("s3.runai", ratio)
}

/// The variables that lead S3 clients to the server `endpoint`.
pub fn s3_environment(endpoint: &str) -> [(&'static str, &str); 8] {
    [
        ("AWS_ACCESS_KEY_ID", "perf"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ALLOW_HTTP", "true"),
        ("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", "0"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("RUNAI_STREAMER_S3_ENDPOINT", endpoint),
    ]
}

pub fn verify(lab: &mut Lab, _: &Peers) -> Result<()> {
    let object = Object::large(lab)?;
    let sum = object.checkpoint.sums.file_crc32.to_be_bytes();
    let sum = base64::engine::general_purpose::STANDARD.encode(sum);
    // A store that needs no signature and has the CRC-32 of the object.
    let headers = format!(
        "add_header x-amz-checksum-crc32 {sum}; add_header x-amz-checksum-type FULL_OBJECT;"
    );
    let server = serve(lab, &object, &headers)?;
    for (scheme, endpoint) in [("http", &server.http), ("https", &server.https)] {
        let client = |options: &str| {
            ringload(&lab.tools, object.url("s3:/"), &format!("{LIMITED} {options}"))
                .env("AWS_ENDPOINT_URL", endpoint)
                .env("RUNAI_STREAMER_S3_UNSIGNED", "1")
                .env("AWS_CA_BUNDLE", &server.certificate)
        };
        let clients = vec![client(""), client("--verify").named("ringload --verify")];
        let title = format!("{} over {scheme}, with and without its checksum", sized(&object));
        let results = in_turns(lab, case("verify", scheme, title), &object, &server, clients)?;
        let cpu = |run: &Run| run.cpu_seconds_per_gigabyte();
        lab.reach(&format!("verify.{scheme}"), results.more("ringload --verify", "ringload", cpu))?;
    }
    Ok(())
}

/// Peak memory at two sizes under three limits.
pub fn memory(lab: &mut Lab, _: &Peers) -> Result<()> {
    let mut above = f64::NEG_INFINITY;
    for bytes in [lab.size_bytes / 8, lab.size_bytes / 2] {
        let object = Object::kept(lab, bytes)?;
        let server = serve(lab, &object, "")?;
        for limit_mib in [64, 128, 256] {
            let options = format!("--memory-limit={limit_mib}MiB --connections={CONNECTIONS}");
            let client = ringload(&lab.tools, object.url(&server.http), &options);
            let name = format!("{limit_mib} MiB, {:.1} GB", bytes as f64 / 1e9);
            let title = format!("{} over http through {limit_mib} MiB", sized(&object));
            let case = case("remote-memory", &name, title);
            let results = in_turns(lab, case, &object, &server, vec![client])?;
            let peak = results.peak_mib("ringload").context("ringload reports its peak memory")?;
            above = above.max(peak - allowed_mib(limit_mib));
        }
    }
    lab.target("memory.above", above, None, None)
}

/// The memory limit, and the memory that a load over the network may use in addition.
pub fn allowed_mib(limit_mib: u64) -> f64 {
    limit_mib as f64 + 32.0 + CONNECTIONS as f64 * 64.0 / 1024.0
}

const CURLS: [&str; 2] = ["curl", "curl, 16 ranges"];

/// ringload, curl and object_store, loading `url`.
fn web_clients(
    lab: &Lab,
    peers: &Peers,
    object: &Object,
    url: &str,
    certificate: Option<&Path>,
) -> Result<Vec<Client>> {
    let bytes = object.checkpoint.file_bytes()?;
    let own = ringload(&lab.tools, url, LIMITED);
    let curl = Invocation::new("curl").words("--silent --fail").arg(url);
    let whole = silent(CURLS[0], curl.clone().words("--output /dev/null"), bytes);
    // One range per connection.
    let step = bytes.div_ceil(CONNECTIONS);
    let mut ranges = Invocation::new("curl").words("--parallel --parallel-max 16");
    for (number, start) in (0..bytes).step_by(step as usize).enumerate() {
        let next = if number > 0 { "--next" } else { "" };
        let range = format!("{start}-{}", (start + step).min(bytes) - 1);
        let options = format!("{next} --silent --fail --range {range} --output /dev/null");
        ranges = ranges.words(&options).arg(url);
    }
    let ranges = silent(CURLS[1], ranges, bytes);
    let mut clients = vec![own.clone(), own.again(), whole.checked_by(Check::Output(curl)), ranges];
    clients.extend(peers.clients(&[&peers::OBJECT_STORE], url));
    Ok(match certificate {
        // curl reads SSL_CERT_FILE, too.
        Some(path) => clients.into_iter().map(|it| it.env("SSL_CERT_FILE", path)).collect(),
        None => clients,
    })
}

pub fn serve(lab: &Lab, object: &Object, more: &str) -> Result<Server> {
    nginx::start(object.root.path(), lab.tools.server_core(lab.apart), more)
}

fn sized(object: &Object) -> String {
    format!("{:.2} GB", object.checkpoint.shape.gigabytes())
}

fn run(
    lab: &mut Lab,
    scheme: &str,
    object: &Object,
    server: &Server,
    clients: Vec<Client>,
) -> Result<Measured> {
    let title = format!(
        "{} over {scheme} from nginx, {CONNECTIONS} connections, client and server on {}",
        sized(object),
        if lab.apart { "a core each" } else { "one core" }
    );
    in_turns(lab, case(scheme, "loopback", title), object, server, clients)
}

/// Runs the clients on their core. The file of the server is in the page cache.
pub fn in_turns(
    lab: &mut Lab,
    case: Case,
    object: &Object,
    server: &Server,
    clients: Vec<Client>,
) -> Result<Measured> {
    prepare(CacheState::Warm, &object.checkpoint.path)?;
    let core = lab.tools.client_core();
    let clients = clients.into_iter().map(|client| Client { core, ..client }).collect();
    let sums = Some(&object.checkpoint.sums);
    lab.case(case, clients, &Setting { sums, server: Some(server), ..Setting::default() })
}
