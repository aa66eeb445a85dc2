//! Loads over the network: the CPU time of the client, compared with other clients of the same server.
//!
//! Server and clients share one core. The CPU time of the client is compared; the elapsed time is that
//! of both. With `--apart` the server runs alone on the first core. If two cores are threads of one
//! physical core, this increases the CPU time of every client.

use super::{case, ringload, silent};
use crate::child::Invocation;
use crate::client::{Check, Client};
use crate::files::{Checkpoint, Shape};
use crate::lab::{Lab, Setting};
use crate::measured::Measured;
use crate::nginx::Server;
use crate::page_cache::Warmth;
use crate::peers::{Peer, Peers};
use crate::records::{Case, Figure, Role, Run};
use crate::tools::Tools;
use anyhow::{Context, Result};
use base64::Engine as _;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

pub const CONNECTIONS: u64 = 16;
const TENSOR_BYTES: usize = 64 << 20;
const LIMIT_MIB: u64 = 128;

/// The object that is loaded; it is also in a bucket named `bucket`.
pub struct Object {
    pub checkpoint: Checkpoint,
    /// The directory whose only entry is the bucket.
    pub root: tempfile::TempDir,
}

impl Object {
    pub fn kept(tools: &Tools, bytes: u64) -> Result<Self> {
        let shape = Shape::of_bytes(bytes, TENSOR_BYTES);
        let checkpoint = Checkpoint::kept(&tools.keep.join("objects"), shape)?;
        let root = tempfile::tempdir_in(&tools.keep)?;
        fs::create_dir(root.path().join("bucket"))?;
        fs::hard_link(&checkpoint.path, root.path().join("bucket").join(checkpoint.name()))?;
        Ok(Self { checkpoint, root })
    }

    /// Its path on a server of `root`.
    pub fn path(&self) -> String {
        format!("/bucket/{}", self.checkpoint.name())
    }
}

/// Half of the large checkpoint: 2 GiB by default.
pub fn object(lab: &Lab) -> Result<Object> {
    Object::kept(&lab.tools, lab.size_bytes / 2)
}

pub fn http(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let object = object(lab)?;
    let server = serve(lab, &object, "")?;
    let url = format!("{}{}", server.http, object.path());
    let mut clients = web_clients(lab, peers, &object, &url, None)?;
    let bytes = object.checkpoint.file_bytes()?.to_string();
    let address = server.http.trim_start_matches("http://");
    let recv =
        lab.tools.limit(&["recv", address, &object.path(), &bytes, &CONNECTIONS.to_string()]);
    clients.push(Client::new("bare recv", Role::Limit, recv));
    let results = run(lab, "http", &object, &server, clients)?;
    lab.reach("http.cpu", results.of("ringload", Run::cpu_seconds_per_gigabyte))?;
    lab.reach("http.curl", results.over("ringload", &CURLS, Figure::CpuSecondsPerGigabyte))
}

pub fn https(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let object = object(lab)?;
    let server = serve(lab, &object, "")?;
    let url = format!("{}{}", server.https, object.path());
    let clients = web_clients(lab, peers, &object, &url, Some(&server.certificate))?;
    let results = run(lab, "https", &object, &server, clients)?;
    lab.reach("https.cpu", results.of("ringload", Run::cpu_seconds_per_gigabyte))?;
    lab.reach("https.curl", results.over("ringload", &CURLS, Figure::CpuSecondsPerGigabyte))
}

pub fn s3(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let object = object(lab)?;
    let server = serve(lab, &object, "")?;
    let location = format!("s3:/{}", object.path());
    let pairs = s3_environment(&server.http);
    let own = loading(&lab.tools, &location, &[]);
    let mut clients = vec![own.clone(), own.again()];
    clients.extend(super::clients(peers, &[Peer::RunaiS3, Peer::ObjectStore], &location)?);
    for client in &mut clients {
        client.invocation = client.invocation.clone().envs(&pairs);
    }
    let results = run(lab, "s3", &object, &server, clients)?;
    lab.reach("s3.cpu", results.of("ringload", Run::cpu_seconds_per_gigabyte))?;
    let ratio = results.ratio("ringload", Peer::RunaiS3.title(), Figure::CpuSecondsPerGigabyte);
    lab.reach("s3.runai", ratio)
}

pub fn verify(lab: &mut Lab) -> Result<()> {
    let object = object(lab)?;
    let sum = object.checkpoint.sums.file_crc32.to_be_bytes();
    let sum = base64::engine::general_purpose::STANDARD.encode(sum);
    // A store that needs no signature and has the CRC-32 of the object.
    let headers = format!(
        "add_header x-amz-checksum-crc32 {sum}; add_header x-amz-checksum-type FULL_OBJECT;"
    );
    let server = serve(lab, &object, &headers)?;
    let location = format!("s3:/{}", object.path());
    for (scheme, endpoint) in [("http", &server.http), ("https", &server.https)] {
        let certificate = server.certificate.to_string_lossy().into_owned();
        let plain = |client: Client| {
            let invocation = client.invocation.env("AWS_ENDPOINT_URL", endpoint);
            let invocation = invocation.env("RUNAI_STREAMER_S3_UNSIGNED", "1");
            Client { invocation: invocation.env("AWS_CA_BUNDLE", &certificate), ..client }
        };
        let own = plain(loading(&lab.tools, &location, &[]));
        let verifying = plain(loading(&lab.tools, &location, &["--verify"]));
        let verifying = Client { name: "ringload --verify".into(), ..verifying };
        let title = format!("{} over {scheme}, with and without its checksum", sized(&object));
        let case = case("verify", scheme, title);
        let results = in_turns(lab, case, &object, &server, vec![own, verifying])?;
        let more = results.more("ringload --verify", "ringload", Run::cpu_seconds_per_gigabyte);
        lab.reach(&format!("verify.{scheme}"), more)?;
    }
    Ok(())
}

/// Peak memory at two sizes under three limits.
pub fn memory(lab: &mut Lab) -> Result<()> {
    let mut above: Option<f64> = None;
    for bytes in [lab.size_bytes / 8, lab.size_bytes / 2] {
        let object = Object::kept(&lab.tools, bytes)?;
        let server = serve(lab, &object, "")?;
        let url = format!("{}{}", server.http, object.path());
        for limit_mib in [64, 128, 256] {
            let options =
                [format!("--memory-limit={limit_mib}MiB"), format!("--connections={CONNECTIONS}")];
            let client = ringload(&lab.tools, &url, &[&options[0], &options[1]]);
            let name = format!("{limit_mib} MiB, {:.1} GB", bytes as f64 / 1e9);
            let title = format!("{} over http through {limit_mib} MiB", sized(&object));
            let results =
                in_turns(lab, case("remote-memory", &name, title), &object, &server, vec![client])?;
            let peak =
                results.peak_bytes("ringload").context("ringload reports its peak memory")?;
            let excess = peak as f64 / (1 << 20) as f64 - allowed_mib(limit_mib);
            above = Some(above.map_or(excess, |above| above.max(excess)));
        }
    }
    above.map_or(Ok(()), |above| lab.target("memory.above", above, None, None))
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
    let own = loading(&lab.tools, url, &[]);
    let mut clients = vec![
        own.clone(),
        own.again(),
        curl(url, bytes, certificate),
        curl_ranges(url, bytes, certificate),
    ];
    clients.extend(super::clients(peers, &[Peer::ObjectStore], url)?);
    if let Some(certificate) = certificate {
        for client in &mut clients {
            client.invocation = client.invocation.clone().env("SSL_CERT_FILE", certificate);
        }
    }
    Ok(clients)
}

/// ringload under the limit that all network cases have.
fn loading(tools: &Tools, location: &str, more: &[&str]) -> Client {
    let (limit, connections) =
        (format!("--memory-limit={LIMIT_MIB}MiB"), format!("--connections={CONNECTIONS}"));
    ringload(tools, location, &[&[limit.as_str(), &connections], more].concat())
}

fn curl_base(certificate: Option<&Path>) -> Vec<OsString> {
    let mut base: Vec<OsString> = vec!["--silent".into(), "--fail".into()];
    base.extend(certificate.into_iter().flat_map(|path| ["--cacert".into(), path.into()]));
    base
}

fn curl(url: &str, bytes: u64, certificate: Option<&Path>) -> Client {
    let base = Invocation::new("curl").args(curl_base(certificate));
    let invocation = base.clone().args(["--output", "/dev/null", url]);
    silent("curl", Role::Peer, invocation, bytes).checked_by(Check::Output(base.arg(url)))
}

/// One curl with one range per connection.
fn curl_ranges(url: &str, bytes: u64, certificate: Option<&Path>) -> Client {
    let mut invocation =
        Invocation::new("curl").args(["--parallel", "--parallel-max", &CONNECTIONS.to_string()]);
    let step = bytes.div_ceil(CONNECTIONS);
    for (number, start) in (0..bytes).step_by(step as usize).enumerate() {
        let range = format!("{start}-{}", (start + step).min(bytes) - 1);
        invocation = if number > 0 { invocation.arg("--next") } else { invocation };
        invocation = invocation.args(curl_base(certificate)).args([
            "--range",
            &range,
            "--output",
            "/dev/null",
            url,
        ]);
    }
    silent("curl, 16 ranges", Role::Peer, invocation, bytes)
}

fn s3_environment(endpoint: &str) -> Vec<(String, String)> {
    let pairs = [
        ("AWS_ACCESS_KEY_ID", "perf"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ALLOW_HTTP", "true"),
        ("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", "0"),
        ("RUNAI_STREAMER_CONCURRENCY", "16"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("RUNAI_STREAMER_S3_ENDPOINT", endpoint),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn serve(lab: &Lab, object: &Object, more: &str) -> Result<Server> {
    Server::start(object.root.path(), lab.tools.server_core(lab.apart), more)
}

fn sized(object: &Object) -> String {
    format!("{:.2} GB", object.checkpoint.shape.bytes() as f64 / 1e9)
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
fn in_turns(
    lab: &mut Lab,
    case: Case,
    object: &Object,
    server: &Server,
    clients: Vec<Client>,
) -> Result<Measured> {
    Warmth::Warm.prepare(&object.checkpoint.path)?;
    let core = lab.tools.client_core();
    let clients = clients.into_iter().map(|client| client.on_core(core)).collect();
    let setting = Setting {
        prepare: &|_| Ok(()),
        sums: Some(&object.checkpoint.sums),
        server: Some(server),
        times: 1,
    };
    lab.case(case, clients, &setting)
}
