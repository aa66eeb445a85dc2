//! The report of `ringload bench`, as text and as JSON.

use super::rows::{Phase, Row};
use crate::doctor::file_system;
use crate::format::{self, Align};
use ringload::LocationText;
use ringload_measure::figures::Figures;
use ringload_measure::system;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// The results, and what was measured on which machine.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub machine: Machine,
    pub checkpoint: CheckpointInfo,
    pub runs: usize,
    pub rows: Vec<Row>,
    /// The rows that were not measured, and why.
    pub skipped: Vec<String>,
}

/// The properties of the machine that figures depend on.
#[derive(Debug, Serialize)]
pub struct Machine {
    kernel: Option<String>,
    cpu: Option<String>,
    cores: usize,
    memory_bytes: Option<u64>,
    file_system: Option<String>,
}

/// The checkpoint that was measured.
#[derive(Debug, Serialize)]
pub struct CheckpointInfo {
    pub location: LocationText,
    pub synthetic: bool,
    pub bytes: u64,
    pub shards: usize,
    pub tensors: usize,
    pub largest_tensor_bytes: u64,
}

impl Report {
    /// Writes the report as a table.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        use Align::{Left, Right};
        writeln!(out, "{}", self.checkpoint.describe())?;
        writeln!(
            out,
            "{}; median of {}\n",
            self.machine.describe(),
            format::count(self.runs, "run")
        )?;
        let columns = [Left, Left, Right, Right, Right, Right, Right, Right];
        format::table(out, columns, &self.table())?;
        for skipped in &self.skipped {
            writeln!(out, "\nnot measured: {skipped}")?;
        }
        Ok(())
    }

    fn table(&self) -> Vec<[String; 8]> {
        let limits = self.rows.iter().filter(|row| row.phase == Phase::Limit);
        let limit =
            limits.filter_map(|row| row.median(Figures::gigabytes_per_second)).reduce(f64::max);
        let header =
            ["FILES", "METHOD", "SECONDS", "GB/S", "CPU-S/GB", "PEAK", "OF LIMIT", "SPREAD"];
        let measured = self.rows.iter().filter(|row| !row.runs.is_empty());
        let rows = measured.map(|row| line(row, limit));
        std::iter::once(header.map(String::from)).chain(rows).collect()
    }
}

fn line(row: &Row, limit: Option<f64>) -> [String; 8] {
    let speed = row.median(Figures::gigabytes_per_second);
    let share = speed.zip(limit).filter(|_| row.phase == Phase::Cold);
    [
        row.phase.as_str().into(),
        row.name.clone(),
        number(row.median(|run| run.seconds), 3),
        number(speed, 2),
        number(row.median(Figures::cpu_seconds_per_gigabyte), 3),
        row.peak_bytes().map_or_else(String::new, format::size),
        share.map_or_else(String::new, |(speed, limit)| percent(speed / limit)),
        row.spread().map_or_else(String::new, percent),
    ]
}

impl CheckpointInfo {
    fn describe(&self) -> String {
        format!(
            "{}{}: {} in {}, {}, the largest {}",
            self.location,
            if self.synthetic { " (synthetic)" } else { "" },
            format::size(self.bytes),
            format::count(self.shards, "shard"),
            format::count(self.tensors, "tensor"),
            format::size(self.largest_tensor_bytes),
        )
    }
}

impl Machine {
    /// Describes this machine and the file system of `path`.
    pub fn of(path: &Path) -> Self {
        Self {
            kernel: system::read_text("/proc/sys/kernel/osrelease"),
            cpu: system::cpu_model(),
            cores: system::cores(),
            memory_bytes: system::memory_bytes(),
            file_system: file_system(path).ok(),
        }
    }

    fn describe(&self) -> String {
        let unknown = || "unknown".to_owned();
        format!(
            "{} x {}, {} of memory, Linux {}, {}",
            self.cores,
            self.cpu.clone().unwrap_or_else(|| "unknown CPU".into()),
            self.memory_bytes.map_or_else(unknown, format::size),
            self.kernel.clone().unwrap_or_else(unknown),
            self.file_system.clone().unwrap_or_else(|| "unknown file system".into()),
        )
    }
}

fn number(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".into(), |figure| format!("{figure:.digits$}"))
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::measured;
    use super::*;

    fn report() -> Report {
        let rows = vec![
            measured(Phase::Limit, &[0.5], 0.05, 0),
            measured(Phase::Cold, &[0.5, 0.6, 0.4], 0.1, 1 << 30),
            measured(Phase::Warm, &[], 0.1, 0),
        ];
        Report {
            version: "1",
            machine: Machine {
                kernel: Some("6.8".into()),
                cpu: None,
                cores: 2,
                memory_bytes: Some(8 << 30),
                file_system: Some("ext4".into()),
            },
            checkpoint: CheckpointInfo {
                location: LocationText::from(Path::new("/m")),
                synthetic: true,
                bytes: 1 << 30,
                shards: 4,
                tensors: 74,
                largest_tensor_bytes: 125 << 20,
            },
            runs: 3,
            rows,
            skipped: vec!["warm rows: no memory".into()],
        }
    }

    #[test]
    fn rows_without_runs_are_not_printed() {
        let mut out = Vec::new();
        report().write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("/m (synthetic): 1.00 GiB in 4 shards, 74 tensors,"), "{text}");
        let line = "cold   a row     0.500  2.00     0.100  1.00 GiB      100%     40%\n";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("\nwarm  "), "{text}");
        assert!(text.ends_with("not measured: warm rows: no memory\n"), "{text}");
    }

    #[test]
    fn json_has_every_run() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["rows"][1]["runs"][2]["seconds"], 0.4);
        assert_eq!(json["rows"][1]["phase"], "cold");
        assert_eq!(json["machine"]["cores"], 2);
    }
}
