//! The work of each stage of a load, and lower bounds: no load is faster than one of its stages alone.
//!
//! ```text
//! source (disk | store -> network)  ->  engines (cores)  ->  ring  ->  GPUs' links  ->  exchange
//!     latency, connections                  host memory
//! ```
//!
//! [`super::pipeline`] runs the stages concurrently, and so includes their interaction.

use super::constants::Constants;
use super::load::{Load, Share, Source};

pub const MIB: f64 = 1_048_576.0;

/// The name of a stage.
pub type Stage = &'static str;

/// One path of chunks from the source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Route {
    pub latency_seconds: f64,
    /// The least time of one connection, or of one engine; 0: none.
    pub flow_seconds_per_byte: f64,
}

/// A load as numbers for the pipeline. "Of the node" means shared by its processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    pub processes: usize,
    /// Per process.
    pub bytes: f64,
    pub chunk_bytes: f64,
    pub chunks: usize,
    pub slots: usize,
    pub read_tasks: usize,
    /// One in this many chunks takes the `far` route; 1: all.
    pub far_every: usize,
    pub far: Route,
    pub near: Route,
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
    /// Of the process.
    pub copy_seconds_per_byte: f64,
    pub slot_return_seconds: f64,
    pub exchange_seconds_per_byte: f64,
    /// The time of the first read.
    pub reads_from_seconds: f64,
    /// The time of the first copy: the GPU's context exists and the ring is pinned.
    pub copies_from_seconds: f64,
}

/// The time for one byte at this speed in GB/s.
fn of_gb_per_second(rate: f64) -> f64 {
    1.0 / (rate * 1e9)
}

impl Demand {
    pub fn of(constants: &Constants, load: &Load) -> Self {
        let (processes, source) = (load.processes.max(1), load.source);
        let per_node = processes as f64;
        let bytes = match load.share {
            Share::Own | Share::Exchange => load.model_bytes / per_node,
            Share::Everything => load.model_bytes,
        };
        let ring = (constants.ring_mib * MIB).min(bytes);
        let chunk_bytes = chunk_bytes(constants, source, ring);
        let slots = (ring / chunk_bytes).max(1.0) as usize;
        let in_flight = (bytes / 16.0).max(64.0 * MIB).min(constants.in_flight_mib * MIB);
        let read_tasks = match source.is_store() {
            true => constants.connections,
            false => in_flight / chunk_bytes,
        };
        let cpu = cpu_seconds_per_byte(constants, load);
        let cores = constants.cores / per_node;
        let engines = constants.engines.min(cores);
        let mut engine_seconds_per_byte = cpu / engines;
        if source == Source::Peers {
            let serve = constants.serve_cpu_seconds_per_gb / 1e9;
            engine_seconds_per_byte = engine_seconds_per_byte.max((cpu + serve) / cores);
        }
        let (far, near, far_every) = routes(constants, load, cpu);
        let of_store = if source.is_store() { load.nodes } else { 0.0 };
        let of_disk = f64::from(u8::from(source.is_disk()));
        let of_network = f64::from(u8::from(source.is_store()));
        let of_exchange = match load.share {
            Share::Exchange => load.gpus as f64 - 1.0,
            Share::Own | Share::Everything => 0.0,
        };
        let gpus = (load.gpus as f64 / per_node).max(1.0);
        let memory = of_gb_per_second(constants.memory_gb_per_second);
        Self {
            processes,
            bytes,
            chunk_bytes,
            chunks: (bytes / chunk_bytes * (1.0 - 1e-12)).ceil().max(1.0) as usize,
            slots,
            read_tasks: (read_tasks.max(1.0) as usize).min(slots),
            far_every,
            far,
            near,
            disk_seconds_per_byte: of_disk * of_gb_per_second(constants.disk_gb_per_second),
            store_seconds_per_byte: of_store * of_gb_per_second(constants.store_gb_per_second),
            store_seconds_per_request: of_store
                / (constants.store_requests_per_second_per_prefix * constants.store_prefixes),
            network_seconds_per_byte: of_network
                * of_gb_per_second(constants.network_gb_per_second),
            engine_seconds_per_byte,
            engine_seconds_per_chunk: of_disk * constants.read_cpu_seconds / engines,
            memory_in_seconds_per_byte: memory * memory_passes(constants, source),
            memory_out_seconds_per_byte: memory,
            copy_seconds_per_byte: of_gb_per_second(constants.gpu_copy_gb_per_second) / gpus,
            slot_return_seconds: constants.slot_return_seconds,
            exchange_seconds_per_byte: of_exchange
                * of_gb_per_second(constants.gpu_exchange_gb_per_second),
            reads_from_seconds: constants.start_seconds + of_network * 2.0 * far.latency_seconds,
            copies_from_seconds: constants.start_seconds
                + constants.gpu_context_seconds
                + constants.pinning_seconds_per_gb * ring / 1e9,
        }
    }

    /// The least seconds of each stage alone, and of the start.
    pub fn bounds(&self) -> Vec<(Stage, f64)> {
        let node_bytes = self.bytes * self.processes as f64;
        let (chunks, far) = (self.chunks as f64, self.chunks.div_ceil(self.far_every) as f64);
        let far_share = far / chunks;
        let through = |route: Route, share: f64| {
            share * (chunks * route.latency_seconds + self.bytes * route.flow_seconds_per_byte)
        };
        let flows = through(self.far, far_share) + through(self.near, 1.0 - far_share);
        let copies = self.bytes * self.copy_seconds_per_byte;
        let copied = copies + chunks * self.slot_return_seconds;
        let engines =
            self.bytes * self.engine_seconds_per_byte + chunks * self.engine_seconds_per_chunk;
        let memory = self.memory_in_seconds_per_byte + self.memory_out_seconds_per_byte;
        let requests = far * self.processes as f64;
        vec![
            ("start", self.reads_from_seconds.max(self.copies_from_seconds)),
            ("disk", node_bytes * self.disk_seconds_per_byte),
            ("store, bandwidth", node_bytes * far_share * self.store_seconds_per_byte),
            ("store, requests", requests * self.store_seconds_per_request),
            ("network", node_bytes * self.network_seconds_per_byte),
            ("reads in flight", flows / self.read_tasks as f64),
            ("engines", engines),
            ("ring", (flows + copied) / self.slots as f64),
            ("host memory", node_bytes * memory),
            ("GPU copies", copies),
            ("exchange", self.bytes * self.exchange_seconds_per_byte),
        ]
    }
}

/// The choice of the loader: at least eight reads in a full ring, or sixteen ranges of objects.
fn chunk_bytes(constants: &Constants, source: Source, ring: f64) -> f64 {
    let reads = if source.is_store() { 16.0 } else { 8.0 };
    (constants.chunk_mib * MIB).min((ring / reads).max(constants.chunk_mib_min * MIB))
}

/// The cost of a byte for the engines of the client.
fn cpu_seconds_per_byte(constants: &Constants, load: &Load) -> f64 {
    let of_store = 1.0 / load.nodes.max(1.0);
    let (http, https) = (constants.http_cpu_seconds_per_gb, constants.https_cpu_seconds_per_gb);
    let per_gb = match load.source {
        Source::Disk => constants.direct_cpu_seconds_per_gb,
        Source::PageCache => constants.page_cache_cpu_seconds_per_gb,
        Source::Cache => constants.direct_cpu_seconds_per_gb + constants.cache_cpu_seconds_per_gb,
        Source::Http => http,
        Source::Https => https,
        Source::Peers => of_store * https + (1.0 - of_store) * http,
    };
    per_gb / 1e9
}

fn memory_passes(constants: &Constants, source: Source) -> f64 {
    match source {
        Source::Disk => constants.direct_memory_passes,
        Source::Cache => constants.direct_memory_passes + 1.0,
        Source::PageCache => constants.page_cache_memory_passes,
        Source::Http | Source::Peers => constants.http_memory_passes,
        Source::Https => constants.https_memory_passes,
    }
}

/// The far route, the near route, and how often a chunk takes the far one.
fn routes(constants: &Constants, load: &Load, cpu_seconds_per_byte: f64) -> (Route, Route, usize) {
    let connection = of_gb_per_second(constants.store_connection_gb_per_second);
    let store = Route {
        latency_seconds: constants.store_latency_seconds,
        flow_seconds_per_byte: connection.max(cpu_seconds_per_byte),
    };
    let node = Route {
        latency_seconds: constants.node_latency_seconds,
        flow_seconds_per_byte: cpu_seconds_per_byte.max(constants.serve_cpu_seconds_per_gb / 1e9),
    };
    // A chunk is copied or checked by one core; a direct read is not.
    let local = |latency_seconds, flow_seconds_per_byte| {
        let route = Route { latency_seconds, flow_seconds_per_byte };
        (route, route, 1)
    };
    match load.source {
        Source::Disk => local(constants.disk_latency_seconds, 0.0),
        Source::Cache => local(constants.disk_latency_seconds, cpu_seconds_per_byte),
        Source::PageCache => local(0.0, cpu_seconds_per_byte),
        Source::Http | Source::Https => (store, store, 1),
        Source::Peers => (store, node, load.nodes.max(1.0) as usize),
    }
}
