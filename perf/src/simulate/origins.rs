//! The origin of each constant. A test checks that the list is complete.

use super::constants::Constants;
use super::forecast::numbers;
use super::table::{markdown, number};
use anyhow::Result;

/// The reliability of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Measured on the machine of docs/benchmarks.md.
    Measured,
    /// Published by the source.
    Published,
    /// An assumption of ours.
    Assumed,
    /// Set by the design of the program.
    Design,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Published => "published",
            Self::Assumed => "assumed",
            Self::Design => "design",
        }
    }
}

use Origin::{Assumed, Design, Measured, Published};

/// Constants, their origins and sources, on the machine of docs/benchmarks.md.
pub const HERE: &[(&str, Origin, &str)] = &[
    ("hardware.cores", Measured, "docs/benchmarks: 2 threads of a Xeon core, 2 GHz"),
    (
        "hardware.disk_gb_per_second",
        Measured,
        "bare io_uring and fio on a slow day: 2.07 s for 4.26 GB",
    ),
    ("hardware.disk_latency_seconds", Measured, "4 KiB direct reads, one at a time, median of 40"),
    ("hardware.network_gb_per_second", Assumed, "10 Gb/s; nothing here was measured over it"),
    (
        "hardware.host_memory_gb_per_second",
        Measured,
        "docs/benchmarks: reading memory takes 0.10 CPU-s/GB; two cores",
    ),
    ("hardware.cross_socket_gb_per_second", Assumed, "what UPI links leave of their 3 x 48 GB/s"),
    (
        "hardware.gpu_copy_gb_per_second",
        Published,
        "NVIDIA nvbandwidth, host_to_device_memcpy_ce: 55.6",
    ),
    (
        "hardware.gpu_exchange_gb_per_second",
        Published,
        "all_gather of 8 H100, github.com/NVIDIA/nccl-tests/issues/326",
    ),
    ("costs.process_start_seconds", Measured, "`ringload --version`: below 0.01 s"),
    ("costs.open_seconds", Measured, "a mapped load, which reads nothing else: 0.007 s"),
    ("costs.gpu_context_seconds", Assumed, "0.1 to 0.5 s, as CUDA contexts take"),
    (
        "costs.pinning_seconds_per_gb",
        Assumed,
        "half of 0.5 s for 512 MiB: memory is faulted in before",
    ),
    ("costs.slot_return_seconds", Assumed, "an event, a thread's wake-up"),
    ("costs.direct_cpu_seconds_per_gb", Measured, "under 256 MiB: 0.022, less the reads'"),
    (
        "costs.request_cpu_seconds",
        Measured,
        "src/plan/sizes.rs: 2 MiB and 8 MiB reads, the difference",
    ),
    ("costs.buffered_cpu_seconds_per_gb", Measured, "a warm load less fresh memory: 0.434 - 0.197"),
    (
        "costs.fresh_memory_cpu_seconds_per_gb",
        Measured,
        "fresh memory alone, `ringload bench`: 0.197",
    ),
    ("costs.http_cpu_seconds_per_gb", Measured, "docs/benchmarks: `http://`"),
    ("costs.https_cpu_seconds_per_gb", Measured, "docs/benchmarks: `https://`"),
    ("costs.verify_cpu_seconds_per_gb", Measured, "docs/benchmarks: `--verify` without TLS"),
    (
        "costs.verify_after_tls_cpu_seconds_per_gb",
        Measured,
        "docs/benchmarks: 0.03 in one session, within the noise in another",
    ),
    ("costs.cache_write_cpu_seconds_per_gb", Measured, "docs/benchmarks: 0.44 - 0.29"),
    ("costs.cache_read_cpu_seconds_per_gb", Measured, "docs/benchmarks: 0.16 - 0.03"),
    ("costs.serve_cpu_seconds_per_gb", Assumed, "as much as receiving"),
    ("costs.direct_memory_passes", Assumed, "counted: the disk writes it"),
    ("costs.buffered_memory_passes", Assumed, "counted: read, write, and the line read before it"),
    ("costs.http_memory_passes", Assumed, "counted: the network writes it, then a copy"),
    ("costs.https_memory_passes", Assumed, "counted: as http, then decrypted in place"),
    (
        "store.requests_per_second_per_prefix",
        Published,
        "Amazon S3 User Guide, Performance guidelines: at least 5,500 GET/s a prefix",
    ),
    ("store.prefixes", Assumed, "a bucket that the store has not split yet"),
    (
        "store.connection_gb_per_second",
        Published,
        "Amazon S3 User Guide, Performance design patterns: 85 to 90 MB/s a request",
    ),
    (
        "store.latency_seconds",
        Published,
        "Amazon S3 User Guide, Performance design patterns: 100 to 200 ms to the first byte",
    ),
    ("store.near_latency_seconds", Assumed, "within a data centre"),
    ("design.ring_bytes", Design, "the default for GPUs"),
    ("design.chunk_bytes", Design, "src/plan/sizes.rs"),
    ("design.chunk_bytes_least", Design, "src/plan/sizes.rs"),
    ("design.in_flight_bytes", Design, "src/plan/sizes.rs"),
    ("design.engines", Design, "src/plan/sizes.rs: at most, and one a core"),
    ("design.connections", Design, "src/source/http/gate.rs: at most, a process"),
];

/// The constants that differ on a DGX H200.
pub const DGX: &[(&str, Origin, &str)] = &[
    ("hardware.cores", Published, "docs.nvidia.com/dgx-basepod, Core Components: 2 x Xeon 8480C"),
    (
        "hardware.disk_gb_per_second",
        Assumed,
        "the same page: 8 NVMe drives; 6.5 GB/s each is assumed",
    ),
    ("hardware.disk_latency_seconds", Assumed, "NVMe drives"),
    (
        "hardware.network_gb_per_second",
        Published,
        "the same page: 400 Gb/s; one port for storage in use",
    ),
    ("hardware.host_memory_gb_per_second", Assumed, "80 % of 16 channels of DDR5-4800"),
];

/// The origin of a value of another machine than that of docs/benchmarks.md.
const GIVEN: &str = "from the records, the preset or --set";

/// The constants of a preset, next to those of a DGX H200.
///
/// # Errors
/// Never for constants of this program.
pub fn table(constants: &Constants) -> Result<String> {
    let known = numbers(&Constants::default())?;
    let dgx = numbers(&Constants::dgx_h200())?;
    let mut lines = Vec::new();
    for (name, value) in numbers(constants)? {
        let of = |list: &[(&str, Origin, &str)]| {
            let found = list.iter().find(|(listed, ..)| *listed == name);
            found.map(|(_, origin, source)| format!("{}: {source}", origin.name()))
        };
        let there = dgx.iter().find(|(listed, _)| *listed == name).map(|(_, value)| *value);
        let (there, why) = match (there, of(DGX)) {
            (Some(there), Some(why)) => (number(there), format!("; DGX: {why}")),
            _ => (String::new(), String::new()),
        };
        let is_own = known.iter().any(|(listed, own)| *listed == name && *own == value);
        let origin = of(HERE).filter(|_| is_own).unwrap_or_else(|| GIVEN.to_owned());
        lines.push(vec![name, number(value), there, origin + &why]);
    }
    Ok(markdown(&["constant", "here", "DGX H200", "origin"], &lines))
}
