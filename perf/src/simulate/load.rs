//! A load to be simulated: the model, its source, and the nodes and processes that load it.

use super::constants::Constants;

/// The source of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Local disks, read directly
    Disk,
    /// The page cache, or tmpfs
    PageCache,
    /// The local file cache, filled by an earlier load
    Cache,
    /// An object store without TLS
    Http,
    /// An object store over TLS
    Https,
    /// Each node reads its part from the store over TLS, and the rest from the other nodes
    Peers,
}

impl Source {
    /// Whether all nodes share the source, and each chunk is a range request.
    pub fn is_store(self) -> bool {
        matches!(self, Self::Http | Self::Https | Self::Peers)
    }

    pub fn is_disk(self) -> bool {
        matches!(self, Self::Disk | Self::Cache)
    }
}

/// The part of the model that each process of a node reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Share {
    /// Only its own part
    Own,
    /// Its own part; then the GPUs exchange their parts, so that each has everything
    Exchange,
    /// Everything
    Everything,
}

/// One load to GPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    pub model_bytes: f64,
    pub nodes: f64,
    /// The processes of each node; they start together, each with its own ring and engines.
    pub processes: usize,
    /// The GPUs of a node, divided among its processes.
    pub gpus: usize,
    pub source: Source,
    pub share: Share,
}

/// A machine with a typical load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// One H200, 16 cores and 100 Gb/s: 100 GB from its drive
    OneH200,
    /// Eight H200, 112 cores and 400 Gb/s: 700 GB from the drives, a process a GPU
    DgxH200,
    /// 1,000 of these at once, over TLS from one bucket
    Fleet,
}

impl Preset {
    pub fn constants(self) -> Constants {
        match self {
            Self::OneH200 => Constants::one_h200(),
            Self::DgxH200 | Self::Fleet => Constants::default(),
        }
    }

    pub fn load(self) -> Load {
        let (source, share) = (Source::Disk, Share::Own);
        let one = Load { model_bytes: 100e9, nodes: 1.0, processes: 1, gpus: 1, source, share };
        let dgx = Load { model_bytes: 700e9, processes: 8, gpus: 8, ..one };
        match self {
            Self::OneH200 => one,
            Self::DgxH200 => dgx,
            Self::Fleet => Load { nodes: 1000.0, source: Source::Https, ..dgx },
        }
    }

    /// The typical load, from another source.
    pub fn load_from(self, source: Source) -> Load {
        Load { source, ..self.load() }
    }
}
