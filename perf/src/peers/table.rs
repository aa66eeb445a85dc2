//! The table of all peers.

/// A client that ringload is compared with, or ringload itself in Python.
#[derive(Debug, PartialEq, Eq)]
pub struct Peer {
    /// The name in reports.
    pub title: &'static str,
    /// Its name in perf/peers/client.py.
    pub(super) client: &'static str,
    /// The package that has its version: on PyPI or crates.io.
    pub(super) package: &'static str,
    pub(super) layer: Layer,
    /// The file suffix of its own format, if it has one.
    pub(super) suffix: &'static str,
}

/// What a peer uses besides the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// Nothing.
    Plain,
    /// The packages of a later version.
    Next,
    /// Our own package.
    Package,
    /// Our own library, in place of Run:ai's.
    Library,
    /// No Python: a program of a crate.
    Crate,
}

const fn peer(
    title: &'static str,
    client: &'static str,
    package: &'static str,
    layer: Layer,
) -> Peer {
    Peer { title, client, package, layer, suffix: "" }
}

/// Run:ai Model Streamer, through its `SafetensorsStreamer`.
pub const RUNAI: Peer = peer("Run:ai", "runai", "runai-model-streamer", Layer::Plain);
/// The library of Run:ai Model Streamer alone, from S3.
pub const RUNAI_S3: Peer =
    peer("Run:ai, library alone", "runai-s3", "runai-model-streamer-s3", Layer::Plain);
/// The reference library, which maps files.
pub const SAFETENSORS: Peer = peer("safetensors", "safetensors", "safetensors", Layer::Plain);
/// Its version to come.
pub const SAFETENSORS_NEXT: Peer =
    peer("safetensors (next)", "safetensors-next", "safetensors", Layer::Next);
/// Reads whole files into one buffer.
pub const FASTSAFETENSORS: Peer =
    peer("fastsafetensors", "fastsafetensors", "fastsafetensors", Layer::Plain);
/// Has a format of its own.
pub const TENSORIZER: Peer =
    Peer { suffix: ".tensors", ..peer("Tensorizer", "tensorizer", "tensorizer", Layer::Plain) };
/// The Rust crate.
pub const OBJECT_STORE: Peer = peer("object_store", "", "object_store", Layer::Crate);
/// ringload's `SafetensorsStreamer`, for a program that changed its import.
pub const RINGLOAD_PYTHON: Peer = peer("ringload, drop-in", "ringload", "ringload", Layer::Package);
/// `ringload.stream`.
pub const RINGLOAD_STREAM: Peer =
    peer("ringload.stream", "ringload-stream", "ringload", Layer::Package);
/// Run:ai's package on our `libringload.so`.
pub const RINGLOAD_LIBRARY: Peer =
    peer("Run:ai on libringload", "runai", "runai-model-streamer", Layer::Library);
