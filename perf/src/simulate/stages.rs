//! The work of each stage in a scenario, and lower bounds: no load can be faster than any one of its
//! stages alone.
//!
//! ```text
//! source (disk | store -> network)  ->  engines (cores)  ->  ring  ->  GPUs' links  ->  exchange
//!     latency, connections                    host memory, between sockets
//! ```
//!
//! [`super::pipeline`] runs the stages concurrently, and so includes their interaction.

use super::constants::Constants;
use super::scenario::{Destination, Scenario, Share, Source};

/// The stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Start,
    Disk,
    StoreBandwidth,
    StoreRequests,
    Network,
    Connections,
    Engines,
    Ring,
    HostMemory,
    CrossSocket,
    GpuCopy,
    Exchange,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Disk => "disk",
            Self::StoreBandwidth => "store, bandwidth",
            Self::StoreRequests => "store, requests",
            Self::Network => "network",
            Self::Connections => "reads in flight",
            Self::Engines => "engines",
            Self::Ring => "ring",
            Self::HostMemory => "host memory",
            Self::CrossSocket => "between sockets",
            Self::GpuCopy => "GPU copies",
            Self::Exchange => "exchange",
        }
    }
}

/// One path of chunks from the source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    pub latency_seconds: f64,
    /// The least time of one connection, or of one engine, for a chunk; 0: none.
    pub flow_seconds_per_byte: f64,
}

/// A scenario as numbers for the pipeline. "Of the node" means shared by its processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    pub processes: usize,
    /// Per process.
    pub bytes: f64,
    pub chunk_bytes: f64,
    pub chunks: usize,
    /// `None` if memory is not reused.
    pub slots: Option<usize>,
    pub read_tasks: usize,
    /// One in this many chunks takes the `far` path; 1: all.
    pub far_every: usize,
    pub far: Way,
    pub near: Way,
    /// Of the node.
    pub disk_seconds_per_byte: f64,
    /// Of the node, for far chunks: its share of the speed of the store.
    pub store_seconds_per_byte: f64,
    /// Of the node: the time between two of its requests to the store.
    pub store_seconds_per_request: f64,
    /// Of the node.
    pub network_seconds_per_byte: f64,
    /// Of the process, all its engines together.
    pub engine_seconds_per_byte: f64,
    pub engine_seconds_per_chunk: f64,
    /// Of the node, when bytes arrive and when they are copied to GPUs.
    pub memory_in_seconds_per_byte: f64,
    pub memory_out_seconds_per_byte: f64,
    /// Of the node.
    pub cross_socket_seconds_per_byte: f64,
    /// Of the process; `None` without GPUs.
    pub copy: Option<ToGpus>,
    /// The time of the first read.
    pub reads_from_seconds: f64,
}

/// The path from the ring to the GPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToGpus {
    pub seconds_per_byte: f64,
    pub slot_return_seconds: f64,
    pub from_seconds: f64,
    pub exchange_seconds_per_byte: f64,
}

/// The time for one byte at this speed in GB/s.
fn of_gb_per_second(rate: f64) -> f64 {
    1.0 / (rate * 1e9)
}

impl Demand {
    pub fn of(constants: &Constants, scenario: &Scenario) -> Self {
        let Constants { hardware, costs, store, design } = constants;
        let (processes, source) = (scenario.processes.max(1), scenario.source);
        let per_node = processes as f64;
        let bytes = match scenario.share {
            Share::Own | Share::Exchange => scenario.model_bytes / per_node,
            Share::Everything => scenario.model_bytes,
        };
        let ring = match scenario.destination {
            Destination::Resident => bytes,
            Destination::Gpus | Destination::Stream => design.ring_bytes.min(bytes),
        };
        let chunk_bytes = chunk_bytes(constants, source, ring);
        let slots_all = (ring / chunk_bytes).max(1.0) as usize;
        let in_flight = (bytes / 16.0).max((64 << 20) as f64).min(design.in_flight_bytes);
        let read_tasks = match source.is_remote() {
            true => design.connections,
            false => in_flight / chunk_bytes,
        };
        let cpu = cpu_seconds_per_gb(constants, scenario) / 1e9;
        let serve = costs.serve_cpu_seconds_per_gb / 1e9;
        let cores = hardware.cores / per_node;
        let mut engine_seconds_per_byte = cpu / design.engines.min(cores);
        if source.is_loopback() || source == Source::Peers {
            engine_seconds_per_byte = engine_seconds_per_byte.max((cpu + serve) / cores);
        }
        let (far, near, far_every) = ways(constants, scenario, cpu);
        let store_share = if source.is_store() { scenario.nodes } else { 0.0 };
        let reads_from_seconds = costs.process_start_seconds
            + costs.open_seconds
            + if source.is_remote() { 2.0 * far.latency_seconds } else { 0.0 };
        let to_gpus = scenario.destination == Destination::Gpus;
        let crossing = if to_gpus { scenario.cross_socket_share } else { 0.0 };
        let memory = of_gb_per_second(hardware.host_memory_gb_per_second);
        Self {
            processes,
            bytes,
            chunk_bytes,
            chunks: (bytes / chunk_bytes * (1.0 - 1e-12)).ceil().max(1.0) as usize,
            slots: (scenario.destination != Destination::Resident).then_some(slots_all),
            read_tasks: (read_tasks.max(1.0) as usize).min(slots_all),
            far_every,
            far,
            near,
            disk_seconds_per_byte: disk_seconds_per_byte(constants, scenario),
            store_seconds_per_byte: store
                .total_gb_per_second
                .map_or(0.0, |rate| store_share * of_gb_per_second(rate)),
            store_seconds_per_request: store_share
                / (store.requests_per_second_per_prefix * store.prefixes),
            network_seconds_per_byte: match source.is_store() {
                true => of_gb_per_second(hardware.network_gb_per_second),
                false => 0.0,
            },
            engine_seconds_per_byte,
            engine_seconds_per_chunk: match source.is_disk() {
                true => costs.request_cpu_seconds / design.engines.min(cores),
                false => 0.0,
            },
            memory_in_seconds_per_byte: memory * passes(constants, scenario),
            memory_out_seconds_per_byte: memory,
            cross_socket_seconds_per_byte: crossing
                * of_gb_per_second(hardware.cross_socket_gb_per_second),
            copy: to_gpus.then(|| copy(constants, scenario, ring)),
            reads_from_seconds,
        }
    }

    /// The number of chunks on the far path.
    pub fn far_chunks(&self) -> usize {
        self.chunks.div_ceil(self.far_every)
    }

    /// The least seconds of each stage alone, and of the start.
    pub fn bounds(&self) -> Vec<(Stage, f64)> {
        let node_bytes = self.bytes * self.processes as f64;
        let (chunks, far) = (self.chunks as f64, self.far_chunks() as f64);
        let far_share = far / chunks;
        let flows = far * self.far.latency_seconds
            + (chunks - far) * self.near.latency_seconds
            + self.bytes * self.near.flow_seconds_per_byte * (1.0 - far_share)
            + self.bytes * self.far.flow_seconds_per_byte * far_share;
        let copied = self.copy.map_or(0.0, |copy| {
            self.bytes * copy.seconds_per_byte + chunks * copy.slot_return_seconds
        });
        let through_ring = self.slots.map_or(0.0, |slots| (flows + copied) / slots as f64);
        let memory = self.memory_in_seconds_per_byte
            + self.copy.map_or(0.0, |_| self.memory_out_seconds_per_byte);
        let far_requests = far * self.processes as f64;
        vec![
            (Stage::Start, self.start_seconds()),
            (Stage::Disk, node_bytes * self.disk_seconds_per_byte),
            (Stage::StoreBandwidth, node_bytes * far_share * self.store_seconds_per_byte),
            (Stage::StoreRequests, far_requests * self.store_seconds_per_request),
            (Stage::Network, node_bytes * self.network_seconds_per_byte),
            (Stage::Connections, flows / self.read_tasks as f64),
            (
                Stage::Engines,
                self.bytes * self.engine_seconds_per_byte + chunks * self.engine_seconds_per_chunk,
            ),
            (Stage::Ring, through_ring),
            (Stage::HostMemory, node_bytes * memory),
            (Stage::CrossSocket, node_bytes * self.cross_socket_seconds_per_byte),
            (Stage::GpuCopy, self.copy.map_or(0.0, |copy| self.bytes * copy.seconds_per_byte)),
            (
                Stage::Exchange,
                self.copy.map_or(0.0, |copy| self.bytes * copy.exchange_seconds_per_byte),
            ),
        ]
    }

    /// The time until bytes can reach their destination.
    fn start_seconds(&self) -> f64 {
        let copies_from = self.copy.map_or(0.0, |copy| copy.from_seconds);
        self.reads_from_seconds.max(copies_from)
    }
}

/// The choice of the loader: at least eight reads in a full ring, or sixteen ranges of objects.
fn chunk_bytes(constants: &Constants, source: Source, ring: f64) -> f64 {
    let design = &constants.design;
    let reads = if source.is_remote() { 16.0 } else { 8.0 };
    design.chunk_bytes.min((ring / reads).max(design.chunk_bytes_least))
}

fn disk_seconds_per_byte(constants: &Constants, scenario: &Scenario) -> f64 {
    if !scenario.source.is_disk() {
        return 0.0;
    }
    let is_fresh = scenario.destination == Destination::Resident;
    let zeroing = match is_fresh && !constants.hardware.fresh_memory_overlaps_reads {
        true => constants.costs.fresh_memory_cpu_seconds_per_gb / 1e9,
        false => 0.0,
    };
    of_gb_per_second(constants.hardware.disk_gb_per_second) + zeroing
}

/// The cost of a GB for the engines of the client.
fn cpu_seconds_per_gb(constants: &Constants, scenario: &Scenario) -> f64 {
    let costs = &constants.costs;
    let of_store = 1.0 / scenario.nodes.max(1.0);
    let path = match scenario.source {
        Source::Disk => costs.direct_cpu_seconds_per_gb,
        Source::PageCache => costs.buffered_cpu_seconds_per_gb,
        Source::Cache => costs.direct_cpu_seconds_per_gb + costs.cache_read_cpu_seconds_per_gb,
        Source::Http | Source::Loopback => costs.http_cpu_seconds_per_gb,
        Source::Https | Source::LoopbackTls => costs.https_cpu_seconds_per_gb,
        Source::Peers => {
            of_store * costs.https_cpu_seconds_per_gb
                + (1.0 - of_store) * costs.http_cpu_seconds_per_gb
        }
    };
    let verify = match scenario.source {
        _ if !scenario.verify => 0.0,
        Source::Https | Source::LoopbackTls => costs.verify_after_tls_cpu_seconds_per_gb,
        _ => costs.verify_cpu_seconds_per_gb,
    };
    let fills_cache = scenario.fills_cache && scenario.source.is_remote();
    let cache = if fills_cache { costs.cache_write_cpu_seconds_per_gb } else { 0.0 };
    let fresh = match scenario.destination {
        Destination::Resident => costs.fresh_memory_cpu_seconds_per_gb,
        Destination::Gpus | Destination::Stream => 0.0,
    };
    path + verify + cache + fresh
}

fn passes(constants: &Constants, scenario: &Scenario) -> f64 {
    let costs = &constants.costs;
    let path = match scenario.source {
        Source::Disk => costs.direct_memory_passes,
        Source::Cache => costs.direct_memory_passes + 1.0,
        Source::PageCache => costs.buffered_memory_passes,
        Source::Http | Source::Loopback | Source::Peers => costs.http_memory_passes,
        Source::Https | Source::LoopbackTls => costs.https_memory_passes,
    };
    path + f64::from(scenario.verify)
}

/// The far path, the near path, and how often a chunk takes the far one.
fn ways(
    constants: &Constants,
    scenario: &Scenario,
    cpu_seconds_per_byte: f64,
) -> (Way, Way, usize) {
    let store = &constants.store;
    let connection = of_gb_per_second(store.connection_gb_per_second);
    let of_store = Way {
        latency_seconds: store.latency_seconds,
        flow_seconds_per_byte: connection.max(cpu_seconds_per_byte),
    };
    let of_near = Way {
        latency_seconds: store.near_latency_seconds,
        flow_seconds_per_byte: cpu_seconds_per_byte
            .max(constants.costs.serve_cpu_seconds_per_gb / 1e9),
    };
    let local = |latency_seconds| Way {
        latency_seconds,
        // A chunk is copied or checked by one core; a direct read is not.
        flow_seconds_per_byte: match scenario.source {
            Source::Disk => 0.0,
            _ => cpu_seconds_per_byte,
        },
    };
    let all = |way: Way| (way, way, 1);
    match scenario.source {
        Source::Disk | Source::Cache => all(local(constants.hardware.disk_latency_seconds)),
        Source::PageCache => all(local(0.0)),
        Source::Http | Source::Https => all(of_store),
        Source::Loopback | Source::LoopbackTls => all(of_near),
        Source::Peers => (of_store, of_near, scenario.nodes.max(1.0) as usize),
    }
}

fn copy(constants: &Constants, scenario: &Scenario, ring: f64) -> ToGpus {
    let Constants { hardware, costs, .. } = constants;
    let gpus = (scenario.gpus as f64 / scenario.processes.max(1) as f64).max(1.0);
    let exchange = match scenario.share {
        Share::Exchange => {
            (scenario.gpus as f64 - 1.0) * of_gb_per_second(hardware.gpu_exchange_gb_per_second)
        }
        Share::Own | Share::Everything => 0.0,
    };
    ToGpus {
        seconds_per_byte: of_gb_per_second(hardware.gpu_copy_gb_per_second) / gpus,
        slot_return_seconds: costs.slot_return_seconds,
        from_seconds: costs.process_start_seconds
            + costs.gpu_context_seconds
            + costs.pinning_seconds_per_gb * ring / 1e9,
        exchange_seconds_per_byte: exchange,
    }
}
