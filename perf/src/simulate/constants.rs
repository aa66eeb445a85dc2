//! The constants of the simulation, with their origins, in one list.
//!
//! The values are those of a DGX H200 ([`Constants::default`]): its hardware by data sheets or
//! assumption, the costs of the software as measured on the machine of docs/benchmarks.md, a store by
//! its documentation, and the numbers that ringload's own code sets. A GB is 10^9 bytes. Costs are
//! CPU-seconds or seconds; "passes" count how often a byte crosses the memory bus on its way into a
//! slot.

use anyhow::{Context, Result, bail};

/// Defines [`Constants`] from lines `name: value, "origin: source";`.
macro_rules! constants {
    ($($name:ident: $value:expr, $origin:literal;)*) => {
        /// All constants of one machine, store and design.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Constants {
            $(#[doc = $origin] pub $name: f64,)*
        }

        impl Default for Constants {
            fn default() -> Self {
                Self { $($name: $value,)* }
            }
        }

        impl Constants {
            /// The name, the value and the origin of each constant.
            pub fn list(&self) -> Vec<(&'static str, f64, &'static str)> {
                vec![$((stringify!($name), self.$name, $origin),)*]
            }

            fn get_mut(&mut self, name: &str) -> Option<&mut f64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

constants! {
    cores: 112.0, "published: docs.nvidia.com/dgx-basepod, Core Components: 2 x Xeon 8480C";
    disk_gb_per_second: 52.0, "assumed: the same page: 8 NVMe drives; 6.5 GB/s each is assumed";
    disk_latency_seconds: 0.0001, "assumed: NVMe drives";
    network_gb_per_second: 50.0, "published: the same page: 400 Gb/s; one port for storage in use";
    memory_gb_per_second: 490.0, "assumed: 80 % of 16 channels of DDR5-4800";
    gpu_copy_gb_per_second: 55.0, "published: NVIDIA nvbandwidth, host_to_device_memcpy_ce: 55.6";
    gpu_exchange_gb_per_second: 360.0,
        "published: all_gather of 8 H100, github.com/NVIDIA/nccl-tests/issues/326";

    start_seconds: 0.012, "measured: start of the process 0.005; headers and plan 0.007";
    gpu_context_seconds: 0.4, "assumed: 0.1 to 0.5 s, as CUDA contexts take";
    pinning_seconds_per_gb: 0.47, "assumed: half of 0.5 s for 512 MiB: memory is faulted in before";
    slot_return_seconds: 50e-6, "assumed: an event, a thread's wake-up";
    direct_cpu_seconds_per_gb: 0.017, "measured: under 256 MiB: 0.022, less the reads'";
    read_cpu_seconds: 42e-6, "measured: src/plan/sizes.rs: 2 MiB and 8 MiB reads, the difference";
    page_cache_cpu_seconds_per_gb: 0.24, "measured: a warm load less fresh memory: 0.434 - 0.197";
    cache_cpu_seconds_per_gb: 0.13, "measured: docs/benchmarks: 0.16 - 0.03, checksums of pages";
    http_cpu_seconds_per_gb: 0.23, "measured: docs/benchmarks: `http://`";
    https_cpu_seconds_per_gb: 0.64, "measured: docs/benchmarks: `https://`";
    serve_cpu_seconds_per_gb: 0.25, "assumed: sending to another node costs as much as receiving";
    direct_memory_passes: 1.0, "assumed: counted: the disk writes it";
    page_cache_memory_passes: 3.0, "assumed: counted: read, write, and the line read before it";
    http_memory_passes: 4.0, "assumed: counted: the network writes it, then a copy";
    https_memory_passes: 6.0, "assumed: counted: as http, then decrypted in place";

    store_gb_per_second: f64::INFINITY, "assumed: no limit for all nodes together is known";
    store_requests_per_second_per_prefix: 5500.0,
        "published: Amazon S3 User Guide, Performance guidelines: at least 5,500 GET/s a prefix";
    store_prefixes: 1.0, "assumed: a bucket that the store has not split yet";
    store_connection_gb_per_second: 0.0875,
        "published: Amazon S3 User Guide, Performance design patterns: 85 to 90 MB/s a request";
    store_latency_seconds: 0.1,
        "published: Amazon S3 User Guide, Performance design patterns: 100 to 200 ms to the first byte";
    node_latency_seconds: 0.0005, "assumed: between nodes, within a data centre";

    ring_mib: 256.0, "design: src/plan/sizes.rs: the default for GPUs, per process";
    chunk_mib: 8.0, "design: src/plan/sizes.rs: one read or range";
    chunk_mib_min: 0.25, "design: src/plan/sizes.rs: one read into a small ring";
    in_flight_mib: 256.0, "design: src/plan/sizes.rs: of local reads, per process";
    engines: 16.0, "design: src/plan/sizes.rs: at most, per process, one a core";
    connections: 64.0, "design: src/source/http/concurrency.rs: at most, per process";
}

impl Constants {
    /// A machine with one H200: an eighth of the GPUs of a DGX, a drive, 16 cores and 100 Gb/s.
    pub fn one_h200() -> Self {
        let dgx = Self::default();
        Self {
            cores: 16.0,
            disk_gb_per_second: dgx.disk_gb_per_second / 8.0,
            network_gb_per_second: dgx.network_gb_per_second / 4.0,
            memory_gb_per_second: dgx.memory_gb_per_second / 4.0,
            ..dgx
        }
    }

    /// The same constants with other values for some.
    ///
    /// # Errors
    /// If there is no such constant, or a value is not a number above 0.
    pub fn with(&self, values: &[(&str, f64)]) -> Result<Self> {
        let mut all = self.clone();
        for &(name, value) in values {
            if !(value.is_finite() && value > 0.0) {
                bail!("{name}={value}: use a number above 0");
            }
            *all.get_mut(name)
                .with_context(|| format!("{name} is no constant; perf/PLAN.md lists them"))? =
                value;
        }
        Ok(all)
    }
}
