//! What the simulation reckons with: the machine, what the CPU pays for a gigabyte on each path,
//! the store, and the numbers that the design itself sets.
//!
//! A GB is 10^9 bytes. `Constants::default()` is the machine that docs/benchmarks.md are from;
//! [`Constants::one_h200`] and [`Constants::dgx_h200`] keep the costs of the software measured there
//! and take the hardware from data sheets. Where each value is from says [`super::origins`].

use serde::{Deserialize, Serialize};

/// All of them. Every number may be overridden by its path, as `hardware.disk_gb_per_second`.
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
    /// All local disks together, as large direct reads see them.
    pub disk_gb_per_second: f64,
    pub disk_latency_seconds: f64,
    /// What the node's interfaces to its storage take in, together.
    pub network_gb_per_second: f64,
    /// Of all sockets; reads and writes together.
    pub host_memory_gb_per_second: f64,
    /// Between the sockets, one way; counts only where a ring is not at its GPU's socket.
    pub cross_socket_gb_per_second: f64,
    /// One GPU's link, from pinned host memory.
    pub gpu_copy_gb_per_second: f64,
    /// What one GPU takes in from its peers while all of them exchange.
    pub gpu_exchange_gb_per_second: f64,
    /// Whether the disk goes on while the kernel zeroes memory that is new.
    pub fresh_memory_overlaps_reads: bool,
}

/// What a load pays besides bandwidth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Until the process has begun to open what it loads.
    pub process_start_seconds: f64,
    /// Headers and plan; remote ones wait for two answers besides.
    pub open_seconds: f64,
    /// Until a GPU can be copied to; meanwhile the ring fills.
    pub gpu_context_seconds: f64,
    pub pinning_seconds_per_gb: f64,
    /// From the end of a copy until its slot is read into again.
    pub slot_return_seconds: f64,
    pub direct_cpu_seconds_per_gb: f64,
    /// Of every read or range, whatever its size.
    pub request_cpu_seconds: f64,
    /// A copy out of the page cache (or tmpfs).
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
    /// What another node or, over loopback, the test's own server pays to send.
    pub serve_cpu_seconds_per_gb: f64,
    /// How often a byte crosses the bus of the host's memory on its way into a slot.
    pub direct_memory_passes: f64,
    pub buffered_memory_passes: f64,
    pub http_memory_passes: f64,
    pub https_memory_passes: f64,
}

/// An object store, and nodes that serve each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// For all nodes together; none where no limit is known.
    pub total_gb_per_second: Option<f64>,
    pub requests_per_second_per_prefix: f64,
    /// Prefixes that the store has split its load into.
    pub prefixes: f64,
    pub connection_gb_per_second: f64,
    pub latency_seconds: f64,
    /// Between nodes, and over loopback.
    pub near_latency_seconds: f64,
}

/// What the design sets, per process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Design {
    pub ring_bytes: f64,
    pub chunk_bytes: f64,
    /// Chunks never get smaller than this to suit a small ring.
    pub chunk_bytes_least: f64,
    /// Of local reads on their way at once.
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
