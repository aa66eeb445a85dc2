//! The clients and their names.

/// A client that ringload is compared with, or ringload itself in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Run:ai Model Streamer, through its `SafetensorsStreamer`.
    RunaiStreamer,
    /// The library of Run:ai Model Streamer alone, from S3.
    RunaiS3,
    Safetensors,
    /// The version to come, with `prefetch`.
    SafetensorsNext,
    Fastsafetensors,
    InstantTensor,
    Tensorizer,
    /// The Rust crate.
    ObjectStore,
    /// ringload's `SafetensorsStreamer`, for a program that changed its import.
    RingloadPython,
    /// `ringload.stream`.
    RingloadStream,
    /// Run:ai's package on our `libringload.so`.
    RingloadLibrary,
}

impl Peer {
    /// The name in reports.
    pub fn title(self) -> &'static str {
        match self {
            Self::RunaiStreamer => "Run:ai",
            Self::RunaiS3 => "Run:ai, library alone",
            Self::Safetensors => "safetensors",
            Self::SafetensorsNext => "safetensors (next)",
            Self::Fastsafetensors => "fastsafetensors",
            Self::InstantTensor => "InstantTensor",
            Self::Tensorizer => "Tensorizer",
            Self::ObjectStore => "object_store",
            Self::RingloadPython => "ringload, drop-in",
            Self::RingloadStream => "ringload.stream",
            Self::RingloadLibrary => "Run:ai on libringload",
        }
    }

    /// Whether it loads onto GPUs alone.
    pub fn needs_gpu(self) -> bool {
        self == Self::InstantTensor
    }

    /// The file suffix of its own format, if it has one.
    pub(super) fn own_format(self) -> Option<&'static str> {
        (self == Self::Tensorizer).then_some(".tensors")
    }

    /// Whether it is ringload, called from Python.
    pub fn is_own(self) -> bool {
        matches!(self, Self::RingloadPython | Self::RingloadStream)
    }

    pub(super) fn is_python(self) -> bool {
        self != Self::ObjectStore
    }

    /// Its name in perf/peers/client.py.
    pub(super) fn client(self) -> &'static str {
        match self {
            Self::RunaiStreamer | Self::RingloadLibrary => "runai",
            Self::RunaiS3 => "runai-s3",
            Self::Safetensors => "safetensors",
            Self::SafetensorsNext => "safetensors-next",
            Self::Fastsafetensors => "fastsafetensors",
            Self::InstantTensor => "instanttensor",
            Self::Tensorizer => "tensorizer",
            Self::ObjectStore => "object-store",
            Self::RingloadPython => "ringload",
            Self::RingloadStream => "ringload-stream",
        }
    }

    /// The package that has its version: on PyPI or crates.io.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::RunaiStreamer | Self::RingloadLibrary => "runai-model-streamer",
            Self::RunaiS3 => "runai-model-streamer-s3",
            Self::Safetensors | Self::SafetensorsNext => "safetensors",
            Self::Fastsafetensors => "fastsafetensors",
            Self::InstantTensor => "instanttensor",
            Self::Tensorizer => "tensorizer",
            Self::ObjectStore => "object_store",
            Self::RingloadPython | Self::RingloadStream => "ringload",
        }
    }

    /// The key of its version among those of all peers.
    pub(super) fn version_name(self) -> &'static str {
        if self == Self::SafetensorsNext { self.title() } else { self.package() }
    }
}
