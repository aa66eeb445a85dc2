//! Scenarios: the model, its source, the nodes and processes; and the presets.

use super::constants::Constants;

/// The source of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Local disks, read directly.
    Disk,
    /// The page cache, or tmpfs.
    PageCache,
    /// The local file cache, filled by an earlier load.
    Cache,
    /// An object store without TLS.
    Http,
    Https,
    /// Each node reads its part from the store over TLS, and the rest from the other nodes.
    Peers,
    /// A server on the same cores, without and with TLS, as measured here.
    Loopback,
    LoopbackTls,
}

impl Source {
    /// Whether each chunk is a range request.
    pub fn is_remote(self) -> bool {
        !matches!(self, Self::Disk | Self::PageCache | Self::Cache)
    }

    /// Whether the source is a store that all nodes share.
    pub fn is_store(self) -> bool {
        matches!(self, Self::Http | Self::Https | Self::Peers)
    }

    pub fn is_loopback(self) -> bool {
        matches!(self, Self::Loopback | Self::LoopbackTls)
    }

    pub fn is_disk(self) -> bool {
        matches!(self, Self::Disk | Self::Cache)
    }
}

/// The part of the model that each process of a node reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Share {
    /// Only its own part.
    Own,
    /// Its own part; then the GPUs exchange their parts, so that each has received everything.
    Exchange,
    /// Everything.
    Everything,
}

/// The destination of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Gpus,
    /// Host memory that is reused: a ring.
    Stream,
    /// New host memory.
    Resident,
}

/// One load.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub model_bytes: f64,
    pub nodes: f64,
    /// The processes of each node; they start together, each with its own ring and engines.
    pub processes: usize,
    /// The GPUs of a node, divided among its processes.
    pub gpus: usize,
    pub source: Source,
    pub share: Share,
    pub destination: Destination,
    pub verify: bool,
    pub fills_cache: bool,
    /// The share of bytes to GPUs that crosses to the other socket.
    pub cross_socket_share: f64,
}

/// A machine with a typical load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// The virtual machine of docs/benchmarks.md: 4 GiB from its disk through a ring.
    ThisMachine,
    /// One H200 and 100 Gb/s: 100 GB from the drive.
    OneH200,
    /// Eight H200, 400 Gb/s: 700 GB from the node's drives, a process a GPU.
    DgxH200,
    /// 1,000 of these at once, from one bucket.
    Fleet,
}

impl Preset {
    pub fn constants(self) -> Constants {
        match self {
            Self::ThisMachine => Constants::default(),
            Self::OneH200 => Constants::one_h200(),
            Self::DgxH200 | Self::Fleet => Constants::dgx_h200(),
        }
    }

    pub fn scenario(self) -> Scenario {
        let here = Scenario {
            model_bytes: (4_u64 << 30) as f64,
            nodes: 1.0,
            processes: 1,
            gpus: 1,
            source: Source::Disk,
            share: Share::Own,
            destination: Destination::Stream,
            verify: false,
            fills_cache: false,
            cross_socket_share: 0.0,
        };
        let one = Scenario { model_bytes: 100e9, destination: Destination::Gpus, ..here.clone() };
        let dgx = Scenario { model_bytes: 700e9, processes: 8, gpus: 8, ..one.clone() };
        match self {
            Self::ThisMachine => here,
            Self::OneH200 => one,
            Self::DgxH200 => dgx,
            Self::Fleet => Scenario { nodes: 1000.0, source: Source::Https, ..dgx },
        }
    }
}
