//! The speed of the disk as measured by `fio`, if it is installed. It only reads.

use ringload_measure::figures::Figures;
use ringload_measure::process::Invocation;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// What fio prints.
#[derive(Deserialize)]
struct Answer {
    jobs: [Job; 1],
}

#[derive(Deserialize)]
struct Job {
    read: JobRead,
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Deserialize)]
struct JobRead {
    io_bytes: u64,
    /// In milliseconds.
    runtime: f64,
}

/// Whether `fio` is on the PATH.
pub fn is_installed() -> bool {
    Invocation::new("fio").arg("--version").run().is_ok()
}

/// Reads `files` once with `depth` direct reads of `chunk_bytes` in flight.
///
/// # Errors
/// When fio fails or its output cannot be parsed.
pub fn run(files: &[PathBuf], chunk_bytes: usize, depth: usize) -> io::Result<Figures> {
    let options = ["--readonly", "--name=limit", "--rw=read", "--ioengine=io_uring", "--direct=1"];
    let more = ["--thread", "--file_service_type=sequential", "--output-format=json"];
    let own = [format!("--bs={chunk_bytes}"), format!("--iodepth={depth}")];
    let fio = Invocation::new("fio").args(options).args(more).args(own);
    let ended = fio.arg(format!("--filename={}", names(files))).run()?;
    figures(ended.json()?).ok_or_else(|| io::Error::other("fio read nothing"))
}

/// The file names in fio's syntax: separated by colons, with colons in names escaped.
fn names(files: &[PathBuf]) -> String {
    let name = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:");
    files.iter().map(|path| name(path)).collect::<Vec<_>>().join(":")
}

fn figures(answer: Answer) -> Option<Figures> {
    let [Job { read, usr_cpu, sys_cpu }] = answer.jobs;
    let seconds = read.runtime / 1e3;
    let cpu_seconds = seconds * (usr_cpu + sys_cpu) / 100.0;
    let figures = Figures { bytes: read.io_bytes, seconds, cpu_seconds, ..Figures::default() };
    (figures.bytes > 0 && seconds > 0.0).then_some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_s_figures_are_read() {
        let text = r#"{"jobs": [{"read": {"io_bytes": 4000, "runtime": 2000}, "usr_cpu": 1.5, "sys_cpu": 3.5}]}"#;
        let run = figures(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((run.bytes, run.seconds), (4000, 2.0));
        assert!((run.cpu_seconds - 0.1).abs() < 1e-9);
        assert!(serde_json::from_str::<Answer>("{}").is_err());
    }

    #[test]
    fn colons_in_names_are_escaped() {
        assert_eq!(names(&["/a:b".into(), "/c".into()]), "/a\\:b:/c");
    }
}
