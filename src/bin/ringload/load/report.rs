//! The report that `ringload load` prints at its end, as text and as JSON.

use super::digest::Digests;
use crate::failure::{Failure, Outcome};
use crate::format;
use crate::system::{bytes_in, read_text};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use ringload::{Device, Downgrade, Summary, TensorStream};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The figures of one load.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The bytes of the tensors as they were delivered.
    bytes: u64,
    tensors: usize,
    /// How many tensors were cast to another type.
    cast_tensors: usize,
    /// The bytes of the tensors by device.
    device_bytes: BTreeMap<String, u64>,
    seconds: f64,
    gigabytes_per_second: f64,
    /// User and system time of this process.
    cpu_seconds: f64,
    /// The peak resident memory of this process; `None` where the kernel does not report it.
    peak_rss_bytes: Option<u64>,
    read_path: String,
    engines: usize,
    backend: &'static str,
    /// The NUMA node of the GPUs, to which engines and ring were bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    numa_node: Option<usize>,
    read_bytes: BTreeMap<&'static str, u64>,
    memory_limit_bytes: Option<u64>,
    ring_bytes: u64,
    downgrades: Vec<DowngradeEntry>,
    retries: BTreeMap<&'static str, u64>,
    verified_objects: usize,
    verified_device_bytes: u64,
    cached_bytes: u64,
    cache_left_out_bytes: u64,
    cache_trouble: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digests: Option<Digests>,
}

/// One step down the fallback chain.
#[derive(Debug, Serialize)]
struct DowngradeEntry {
    from: &'static str,
    to: &'static str,
    why: String,
}

impl Report {
    /// The figures so far. Call it after the last tensor, before the tensors are dropped.
    ///
    /// # Errors
    /// When the kernel does not report the CPU time of the process.
    pub fn of(stream: &TensorStream) -> Outcome<Self> {
        Ok(Self::new(stream.summary(), cpu_seconds()?, peak_rss_bytes()))
    }

    fn new(summary: Summary, cpu_seconds: f64, peak_rss_bytes: Option<u64>) -> Self {
        Report {
            gigabytes_per_second: summary.gigabytes_per_second(),
            read_path: summary.read_path(),
            bytes: summary.bytes,
            tensors: summary.tensors,
            cast_tensors: summary.cast_tensors,
            device_bytes: by_name(summary.device_bytes),
            seconds: summary.seconds,
            cpu_seconds,
            peak_rss_bytes,
            engines: summary.engines,
            backend: summary.driver,
            numa_node: summary.numa_node,
            read_bytes: summary.read_bytes,
            memory_limit_bytes: summary.memory_limit_bytes,
            ring_bytes: summary.ring_bytes,
            downgrades: summary.downgrades.into_iter().map(DowngradeEntry::from).collect(),
            retries: summary.retries,
            verified_objects: summary.verified_objects,
            verified_device_bytes: summary.verified_device_bytes,
            cached_bytes: summary.cached_bytes,
            cache_left_out_bytes: summary.cache_left_out_bytes,
            cache_trouble: summary.cache_trouble,
            digests: None,
        }
    }

    /// Adds a problem that the cache met after the load.
    pub fn with_cache_trouble(self, trouble: Option<String>) -> Self {
        Report { cache_trouble: self.cache_trouble.or(trouble), ..self }
    }

    /// Adds the digests.
    pub fn with_digests(self, digests: Option<Digests>) -> Self {
        Report { digests, ..self }
    }

    /// Writes the report as text: two lines, and one for each notable event.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.headline())?;
        writeln!(out, "{}", self.costs())?;
        if self.cast_tensors > 0 {
            writeln!(out, "{} cast", format::count(self.cast_tensors, "tensor"))?;
        }
        for DowngradeEntry { from, to, why } in &self.downgrades {
            writeln!(out, "{from} -> {to}: {why}")?;
        }
        if !self.retries.is_empty() {
            writeln!(out, "{}", self.repeated())?;
        }
        if self.verified_objects > 0 {
            let objects = format::count(self.verified_objects, "object");
            writeln!(out, "{objects} verified against the checksums of their stores")?;
        }
        if self.verified_device_bytes > 0 {
            let size = format::size(self.verified_device_bytes);
            writeln!(out, "{size} verified to be the same on the GPUs as in host memory")?;
        }
        if self.cached_bytes > 0 {
            writeln!(out, "{} from the cache", format::size(self.cached_bytes))?;
        }
        if self.cache_left_out_bytes > 0 {
            let left_out = format::size(self.cache_left_out_bytes);
            writeln!(out, "{left_out} not cached, because the disk of the cache was too slow")?;
        }
        if let Some(trouble) = &self.cache_trouble {
            writeln!(out, "cache: {trouble}")?;
        }
        Ok(())
    }

    fn headline(&self) -> String {
        format!(
            "{}, {}{} in {} ({}), {}, {}, {}",
            format::count(self.tensors, "tensor"),
            format::size(self.bytes),
            self.destinations(),
            format::duration(self.seconds),
            format::speed(self.gigabytes_per_second),
            self.read_path,
            format::count(self.engines, "engine"),
            self.backend,
        )
    }

    /// ` to cuda:0`; ` to cpu (1.00 GiB) and cuda:0 (7.00 GiB)`; empty if all tensors are on the host.
    fn destinations(&self) -> String {
        let devices: Vec<_> = self.device_bytes.iter().collect();
        match devices[..] {
            [] => String::new(),
            [(device, _)] if device == "cpu" => String::new(),
            [(device, _)] => format!(" to {device}"),
            _ => {
                let parts: Vec<_> = devices
                    .iter()
                    .map(|&(device, &bytes)| format!("{device} ({})", format::size(bytes)))
                    .collect();
                format!(" to {}", parts.join(" and "))
            }
        }
    }

    /// `3 reads were repeated: 2 reset, 1 throttled`
    fn repeated(&self) -> String {
        let all = usize::try_from(self.retries.values().sum::<u64>()).unwrap_or(usize::MAX);
        let reasons: Vec<_> =
            self.retries.iter().map(|(reason, times)| format!("{times} {reason}")).collect();
        format!("{} repeated: {}", format::count(all, "read"), reasons.join(", "))
    }

    fn costs(&self) -> String {
        let mut line = format!("CPU {}", format::duration(self.cpu_seconds));
        if let Some(bytes) = self.peak_rss_bytes {
            line += &format!(", peak memory {}", format::size(bytes));
        }
        if let Some(bytes) = self.memory_limit_bytes {
            line += &format!(" under a limit of {}", format::size(bytes));
        }
        line
    }
}

fn by_name(bytes: BTreeMap<Device, u64>) -> BTreeMap<String, u64> {
    bytes.into_iter().map(|(device, bytes)| (device.to_string(), bytes)).collect()
}

impl From<Downgrade> for DowngradeEntry {
    fn from(Downgrade { from, to, why, .. }: Downgrade) -> Self {
        DowngradeEntry { from, to, why }
    }
}

/// User and system time of this process so far.
///
/// # Errors
/// When the kernel does not report it.
pub fn cpu_seconds() -> Outcome<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(Failure::system("read the CPU time of this process"))?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The peak resident memory of this process; `None` where the kernel does not report it.
pub fn peak_rss_bytes() -> Option<u64> {
    bytes_in(&read_text("/proc/self/status")?, "VmHWM:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            bytes: 4 << 30,
            tensors: 291,
            cast_tensors: 0,
            device_bytes: [("cpu".to_owned(), 4 << 30)].into(),
            seconds: 1.62,
            gigabytes_per_second: 2.6512,
            cpu_seconds: 0.4,
            peak_rss_bytes: Some(5 << 30),
            read_path: "direct".into(),
            engines: 2,
            backend: "uring+registered",
            numa_node: None,
            read_bytes: [("direct", 4 << 30)].into(),
            memory_limit_bytes: None,
            ring_bytes: 0,
            downgrades: Vec::new(),
            retries: BTreeMap::new(),
            verified_objects: 0,
            verified_device_bytes: 0,
            cached_bytes: 0,
            cache_left_out_bytes: 0,
            cache_trouble: None,
            digests: None,
        }
    }

    fn printed(report: &Report) -> String {
        let mut out = Vec::new();
        report.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_load_is_reported_in_two_lines() {
        assert_eq!(
            printed(&report()),
            "291 tensors, 4.00 GiB in 1.62 s (2.65 GB/s), direct, 2 engines, uring+registered\n\
             CPU 400.0 ms, peak memory 5.00 GiB\n"
        );
    }

    #[test]
    fn other_devices_than_the_host_are_named() {
        let gpu = Report { device_bytes: [("cuda:1".to_owned(), 4 << 30)].into(), ..report() };
        assert!(printed(&gpu).starts_with("291 tensors, 4.00 GiB to cuda:1 in 1.62 s"));
        let both = [("cpu".to_owned(), 1 << 30), ("cuda:0".to_owned(), 3 << 30)].into();
        let both = printed(&Report { device_bytes: both, ..report() });
        assert!(both.contains("4.00 GiB to cpu (1.00 GiB) and cuda:0 (3.00 GiB) in "), "{both}");
    }

    #[test]
    fn limits_downgrades_and_retries_are_reported() {
        let why = "the file system refuses direct I/O".to_owned();
        let text = printed(&Report {
            memory_limit_bytes: Some(1 << 30),
            downgrades: vec![DowngradeEntry { from: "direct", to: "buffered", why }],
            retries: [("reset", 2), ("throttled", 1)].into(),
            verified_objects: 3,
            cast_tensors: 2,
            ..report()
        });
        assert!(text.contains("\n2 tensors cast\n"), "{text}");
        assert!(text.contains(" under a limit of 1.00 GiB\n"), "{text}");
        assert!(
            text.contains("direct -> buffered: the file system refuses direct I/O\n"),
            "{text}"
        );
        assert!(text.ends_with("\n3 objects verified against the checksums of their stores\n"));
        assert!(text.contains("3 reads repeated: 2 reset, 1 throttled\n"), "{text}");
    }

    #[test]
    fn json_has_digests_only_when_asked() {
        let plain = serde_json::to_value(report()).unwrap();
        assert_eq!(plain["gigabytes_per_second"], 2.6512);
        assert_eq!(plain["read_bytes"]["direct"], 4_u64 << 30);
        assert!(plain.get("digests").is_none());
        let digests = [("w".to_owned(), "00".to_owned())].into();
        let digested = serde_json::to_value(report().with_digests(Some(digests))).unwrap();
        assert_eq!(digested["digests"]["w"], "00");
    }
}
