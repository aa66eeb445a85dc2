//! The report that `ringload load` prints at its end, as text and as JSON.

use super::digest::Digests;
use crate::failure::Outcome;
use crate::format;
use ringload::{Downgrade, Error, LocationText, Summary, TensorStream};
use ringload_measure::figures::{cpu_seconds, peak_rss_bytes};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The figures of one load.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    summary: Summary,
    gigabytes_per_second: f64,
    read_path: String,
    /// User and system time of this process.
    cpu_seconds: f64,
    /// The peak resident memory of this process; `None` where the kernel does not report it.
    peak_rss_bytes: Option<u64>,
    /// The tensors that an index names and no shard contains.
    missing: Vec<String>,
    /// The safetensors files of directories that do not belong to the checkpoint.
    left_out: Vec<LocationText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digests: Option<Digests>,
}

impl Report {
    /// The figures so far. Call it after the last tensor, before the tensors are dropped.
    ///
    /// # Errors
    /// When the kernel does not report the CPU time of the process.
    pub fn of(stream: &TensorStream) -> Outcome<Self> {
        let cpu_seconds = cpu_seconds()
            .map_err(|error| Error::from_io("read the CPU time of this process", error))?;
        let checkpoint = stream.checkpoint();
        Ok(Report {
            missing: checkpoint.missing().to_vec(),
            left_out: checkpoint.left_out().iter().map(LocationText::from).collect(),
            ..Self::new(stream.summary(), cpu_seconds, peak_rss_bytes())
        })
    }

    fn new(summary: Summary, cpu_seconds: f64, peak_rss_bytes: Option<u64>) -> Self {
        let (gigabytes_per_second, read_path) =
            (summary.gigabytes_per_second(), summary.read_path());
        Report {
            summary,
            gigabytes_per_second,
            read_path,
            cpu_seconds,
            peak_rss_bytes,
            missing: Vec::new(),
            left_out: Vec::new(),
            digests: None,
        }
    }

    /// Adds a problem that the cache had after the load.
    pub fn with_cache_warning(mut self, warning: Option<String>) -> Self {
        self.summary.cache_warning = self.summary.cache_warning.or(warning);
        self
    }

    /// Adds the digests.
    pub fn with_digests(self, digests: Option<Digests>) -> Self {
        Report { digests, ..self }
    }

    /// Writes the report as text: two lines, and one for each notable event.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.headline())?;
        writeln!(out, "{}", self.costs())?;
        if let [one, ..] = &self.missing[..] {
            let count = format::count(self.missing.len(), "tensor");
            writeln!(out, "{count} of the index missing, such as {}", one.escape_debug())?;
        }
        if let [one, ..] = &self.left_out[..] {
            let count = format::count(self.left_out.len(), "safetensors file");
            writeln!(out, "{count} of the directory left out, such as {one} (--all-files)")?;
        }
        if self.summary.cast_tensors > 0 {
            writeln!(out, "{} cast", format::count(self.summary.cast_tensors, "tensor"))?;
        }
        for Downgrade { from, to, why } in &self.summary.downgrades {
            writeln!(out, "{from} -> {to}: {why}")?;
        }
        if !self.summary.retries.is_empty() {
            writeln!(out, "{}", self.repeated())?;
        }
        if self.summary.verified_objects > 0 {
            let objects = self.summary.verified_objects;
            let checksums = match objects {
                1 => "checksum of its store",
                _ => "checksums of their stores",
            };
            writeln!(out, "{} verified against the {checksums}", format::count(objects, "object"))?;
        }
        for (against, files) in self.files_verified() {
            writeln!(out, "{} verified against the {against}", format::count(files, "file"))?;
        }
        if self.summary.verified_tensors > 0 {
            let tensors = self.summary.verified_tensors;
            let tensors = format::count(usize::try_from(tensors).unwrap_or(usize::MAX), "tensor");
            writeln!(out, "{tensors} verified against the manifest")?;
        }
        if self.summary.verified_device_bytes > 0 {
            let size = format::size(self.summary.verified_device_bytes);
            writeln!(out, "{size} verified to be the same on the GPUs as in host memory")?;
        }
        if self.summary.cached_bytes > 0 {
            writeln!(out, "{} from the cache", format::size(self.summary.cached_bytes))?;
        }
        if self.summary.cache_left_out_bytes > 0 {
            let left_out = format::size(self.summary.cache_left_out_bytes);
            writeln!(out, "{left_out} not cached, because the disk of the cache was too slow")?;
        }
        if let Some(warning) = &self.summary.cache_warning {
            writeln!(out, "cache: {warning}")?;
        }
        Ok(())
    }

    /// How many files were verified against each checksum, without the objects of stores.
    fn files_verified(&self) -> BTreeMap<&str, usize> {
        let mut files = BTreeMap::new();
        for verified in &self.summary.verified_against {
            if !verified.against.ends_with(" of its store") {
                *files.entry(&*verified.against).or_default() += 1;
            }
        }
        files
    }

    fn headline(&self) -> String {
        format!(
            "{}, {}{} in {} ({}), {}, {}, {}",
            format::count(self.summary.tensors, "tensor"),
            format::size(self.summary.bytes),
            self.destinations(),
            format::duration(self.summary.seconds),
            format::speed(self.gigabytes_per_second),
            self.read_path,
            format::count(self.summary.engines, "engine"),
            self.summary.backend,
        )
    }

    /// ` to cuda:0`; ` to cpu (1.00 GiB) and cuda:0 (7.00 GiB)`; empty if all tensors are on the host.
    fn destinations(&self) -> String {
        let devices: Vec<_> = self.summary.device_bytes.iter().collect();
        match devices[..] {
            [] => String::new(),
            [(device, _)] if device.is_host() => String::new(),
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
        let all = usize::try_from(self.summary.retries.values().sum::<u64>()).unwrap_or(usize::MAX);
        let reasons: Vec<_> = self
            .summary
            .retries
            .iter()
            .map(|(reason, times)| format!("{times} {reason}"))
            .collect();
        format!("{} repeated: {}", format::count(all, "read"), reasons.join(", "))
    }

    fn costs(&self) -> String {
        let mut line = format!("CPU {}", format::duration(self.cpu_seconds));
        if let Some(bytes) = self.peak_rss_bytes {
            line += &format!(", peak memory {}", format::size(bytes));
        }
        if let Some(bytes) = self.summary.memory_limit_bytes {
            line += &format!(" under a limit of {}", format::size(bytes));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload::Device;
    use std::path::Path;

    fn summary() -> Summary {
        let mut summary = Summary::default();
        (summary.bytes, summary.seconds) = (4 << 30, 1.62);
        (summary.tensors, summary.engines) = (291, 2);
        summary.device_bytes = [(Device::Host, 4 << 30)].into();
        summary.backend = "uring+registered";
        summary.read_bytes = [("direct", 4 << 30)].into();
        summary
    }

    fn report(summary: Summary) -> Report {
        Report::new(summary, 0.4, Some(5 << 30))
    }

    fn printed(summary: Summary) -> String {
        let mut out = Vec::new();
        report(summary).write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_load_is_reported_in_two_lines() {
        assert_eq!(
            printed(summary()),
            "291 tensors, 4.00 GiB in 1.62 s (2.65 GB/s), direct, 2 engines, uring+registered\n\
             CPU 400.0 ms, peak memory 5.00 GiB\n"
        );
    }

    #[test]
    fn other_devices_than_the_host_are_named() {
        let with = |devices: &[(Device, u64)]| {
            let mut summary = summary();
            summary.device_bytes = devices.iter().copied().collect();
            printed(summary)
        };
        let gpu = with(&[(Device::cuda(1), 4 << 30)]);
        assert!(gpu.starts_with("291 tensors, 4.00 GiB to cuda:1 in 1.62 s"));
        let both = with(&[(Device::Host, 1 << 30), (Device::cuda(0), 3 << 30)]);
        assert!(both.contains("4.00 GiB to cpu (1.00 GiB) and cuda:0 (3.00 GiB) in "), "{both}");
    }

    #[test]
    fn limits_downgrades_and_retries_are_reported() {
        let why = "the file system refuses direct I/O".to_owned();
        let mut summary = summary();
        summary.memory_limit_bytes = Some(1 << 30);
        summary.downgrades = vec![Downgrade { from: "direct", to: "buffered", why }];
        summary.retries = [("reset", 2), ("throttled", 1)].into();
        (summary.verified_objects, summary.cast_tensors) = (3, 2);
        let text = printed(summary);
        assert!(text.contains("\n2 tensors cast\n"), "{text}");
        assert!(text.contains(" under a limit of 1.00 GiB\n"), "{text}");
        assert!(
            text.contains("direct -> buffered: the file system refuses direct I/O\n"),
            "{text}"
        );
        assert!(text.ends_with("\n3 objects verified against the checksums of their stores\n"));
        assert!(text.contains("3 reads repeated: 2 reset, 1 throttled\n"), "{text}");
    }

    /// A past fault: `1 object verified against the checksums of their stores`.
    #[test]
    fn one_verified_object_has_one_store() {
        let mut one = summary();
        one.verified_objects = 1;
        assert!(printed(one).ends_with("\n1 object verified against the checksum of its store\n"));
    }

    #[test]
    fn what_was_not_loaded_is_reported() {
        let mut report = report(summary());
        report.missing = vec!["mtp.fc.weight".into(), "x".into()];
        report.left_out = vec![LocationText::from(Path::new("/m/consolidated.safetensors"))];
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("\n2 tensors of the index missing, such as mtp.fc.weight\n"),
            "{text}"
        );
        assert!(
            text.contains("\n1 safetensors file of the directory left out, such as /m/con"),
            "{text}"
        );
    }

    #[test]
    fn json_has_digests_only_when_asked() {
        let plain = serde_json::to_value(report(summary())).unwrap();
        assert_eq!(plain["gigabytes_per_second"], (4_u64 << 30) as f64 / 1.62 / 1e9);
        assert_eq!(plain["device_bytes"]["cpu"], 4_u64 << 30);
        assert_eq!(plain["read_bytes"]["direct"], 4_u64 << 30);
        assert!(plain.get("digests").is_none());
        let digests = [("w".to_owned(), "00".to_owned())].into();
        let digested = report(summary()).with_digests(Some(digests));
        let digested = serde_json::to_value(digested).unwrap();
        assert_eq!(digested["digests"]["w"], "00");
    }
}
