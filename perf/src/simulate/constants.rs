//! The constants of the simulation: the machine, the CPU cost of a gigabyte on each path, the store,
//! and the numbers that the design sets.
//!
//! A GB is 10^9 bytes. `Constants::default()` is the machine that docs/benchmarks.md are from;
//! [`Constants::one_h200`] and [`Constants::dgx_h200`] use the software costs measured there and
//! hardware figures of data sheets. [`super::origins`] has the origin of each value.

use serde::{Deserialize, Serialize};

/// All constants. Each number can be overridden by its path, such as `hardware.disk_gb_per_second`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constants {
    pub hardware: Hardware,
    pub costs: Costs,
    pub store: Store,
    pub design: Design,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    pub cores: f64,
    /// The speed of all local disks together, for large direct reads.
    pub disk_gb_per_second: f64,
    pub disk_latency_seconds: f64,
    /// The receive speed of all storage interfaces of the node together.
    pub network_gb_per_second: f64,
    /// The memory bandwidth of all sockets, reads and writes together.
    pub host_memory_gb_per_second: f64,
    /// Between the sockets, one way; used only if a ring is not at the socket of its GPU.
    pub cross_socket_gb_per_second: f64,
    /// The link of one GPU, from pinned host memory.
    pub gpu_copy_gb_per_second: f64,
    /// The receive speed of one GPU while all GPUs exchange data.
    pub gpu_exchange_gb_per_second: f64,
    /// Whether the disk continues while the kernel zeroes new memory.
    pub fresh_memory_overlaps_reads: bool,
}

/// The costs of a load besides bandwidth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// The time until the process starts to open the checkpoint.
    pub process_start_seconds: f64,
    /// The time for headers and plan; remote loads also wait for two replies.
    pub open_seconds: f64,
    /// The time until a GPU is ready for copies; meanwhile the ring fills.
    pub gpu_context_seconds: f64,
    pub pinning_seconds_per_gb: f64,
    /// The time from the end of a copy to the next read into its slot.
    pub slot_return_seconds: f64,
    pub direct_cpu_seconds_per_gb: f64,
    /// The cost of every read or range, independent of its size.
    pub request_cpu_seconds: f64,
    /// A copy from the page cache (or tmpfs).
    pub buffered_cpu_seconds_per_gb: f64,
    /// Memory used for the first time.
    pub fresh_memory_cpu_seconds_per_gb: f64,
    pub http_cpu_seconds_per_gb: f64,
    pub https_cpu_seconds_per_gb: f64,
    pub verify_cpu_seconds_per_gb: f64,
    pub verify_after_tls_cpu_seconds_per_gb: f64,
    pub cache_write_cpu_seconds_per_gb: f64,
    /// The checksums of its pages.
    pub cache_read_cpu_seconds_per_gb: f64,
    /// The cost of sending, for another node or (over loopback) the server of the test.
    pub serve_cpu_seconds_per_gb: f64,
    /// The number of times a byte crosses the host's memory bus on its way into a slot.
    pub direct_memory_passes: f64,
    pub buffered_memory_passes: f64,
    pub http_memory_passes: f64,
    pub https_memory_passes: f64,
}

/// An object store, and nodes that serve each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The speed for all nodes together; `None` if no limit is known.
    pub total_gb_per_second: Option<f64>,
    pub requests_per_second_per_prefix: f64,
    /// The number of prefixes over which the store distributes its load.
    pub prefixes: f64,
    pub connection_gb_per_second: f64,
    pub latency_seconds: f64,
    /// Between nodes, and over loopback.
    pub near_latency_seconds: f64,
}

/// The numbers that the design sets, per process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Design {
    pub ring_bytes: f64,
    pub chunk_bytes: f64,
    /// The minimum size of chunks for a small ring.
    pub chunk_bytes_least: f64,
    /// The number of local reads in flight.
    pub in_flight_bytes: f64,
    pub engines: f64,
    pub connections: f64,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            cores: 2.0,
            disk_gb_per_second: 2.1,
            disk_latency_seconds: 0.00003,
            network_gb_per_second: 1.25,
            host_memory_gb_per_second: 20.0,
            cross_socket_gb_per_second: 100.0,
            gpu_copy_gb_per_second: 55.0,
            gpu_exchange_gb_per_second: 360.0,
            fresh_memory_overlaps_reads: false,
        }
    }
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            process_start_seconds: 0.005,
            open_seconds: 0.007,
            gpu_context_seconds: 0.4,
            pinning_seconds_per_gb: 0.47,
            slot_return_seconds: 50e-6,
            direct_cpu_seconds_per_gb: 0.017,
            request_cpu_seconds: 42e-6,
            buffered_cpu_seconds_per_gb: 0.24,
            fresh_memory_cpu_seconds_per_gb: 0.197,
            http_cpu_seconds_per_gb: 0.23,
            https_cpu_seconds_per_gb: 0.64,
            verify_cpu_seconds_per_gb: 0.08,
            verify_after_tls_cpu_seconds_per_gb: 0.03,
            cache_write_cpu_seconds_per_gb: 0.15,
            cache_read_cpu_seconds_per_gb: 0.13,
            serve_cpu_seconds_per_gb: 0.25,
            direct_memory_passes: 1.0,
            buffered_memory_passes: 3.0,
            http_memory_passes: 4.0,
            https_memory_passes: 6.0,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            total_gb_per_second: None,
            requests_per_second_per_prefix: 5500.0,
            prefixes: 1.0,
            connection_gb_per_second: 0.0875,
            latency_seconds: 0.1,
            near_latency_seconds: 0.0005,
        }
    }
}

impl Default for Design {
    fn default() -> Self {
        Self {
            ring_bytes: (256 << 20) as f64,
            chunk_bytes: (8 << 20) as f64,
            chunk_bytes_least: (256 << 10) as f64,
            in_flight_bytes: (256 << 20) as f64,
            engines: 16.0,
            connections: 64.0,
        }
    }
}

impl Constants {
    /// A machine with one H200, a drive and 100 Gb/s.
    pub fn one_h200() -> Self {
        let dgx = Self::dgx_h200();
        let hardware = Hardware {
            cores: 16.0,
            disk_gb_per_second: 6.5,
            network_gb_per_second: 12.5,
            host_memory_gb_per_second: dgx.hardware.host_memory_gb_per_second / 4.0,
            ..dgx.hardware
        };
        Self { hardware, ..dgx }
    }

    /// A DGX H200 with one of its ports for storage in use, at 400 Gb/s.
    pub fn dgx_h200() -> Self {
        let hardware = Hardware {
            cores: 112.0,
            disk_gb_per_second: 52.0,
            disk_latency_seconds: 0.0001,
            network_gb_per_second: 50.0,
            host_memory_gb_per_second: 490.0,
            fresh_memory_overlaps_reads: true,
            ..Hardware::default()
        };
        Self { hardware, ..Self::default() }
    }
}
