//! The speed of the disk as measured by `fio`, if it is installed. It only reads.

use ringload_measure::figures::Figures;
use ringload_measure::process::Invocation;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

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
    figures(&ended.json()?)
        .ok_or_else(|| io::Error::other("the output of fio has no figures; is it version 3.x?"))
}

/// The file names in fio's syntax: separated by colons, with colons in names escaped.
fn names(files: &[PathBuf]) -> String {
    let name = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:");
    files.iter().map(|path| name(path)).collect::<Vec<_>>().join(":")
}

/// The figures of the only job.
fn figures(answer: &Value) -> Option<Figures> {
    let number = |pointer| answer.pointer(pointer)?.as_f64();
    let bytes = number("/jobs/0/read/io_bytes")? as u64;
    let seconds = number("/jobs/0/read/runtime")? / 1e3;
    let cpu_percent = number("/jobs/0/usr_cpu")? + number("/jobs/0/sys_cpu")?;
    let cpu_seconds = seconds * cpu_percent / 100.0;
    let figures = Figures { bytes, seconds, cpu_seconds, ..Figures::default() };
    (bytes > 0 && seconds > 0.0).then_some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_s_figures_are_read() {
        let text = r#"{"jobs": [{"read": {"io_bytes": 4000, "runtime": 2000}, "usr_cpu": 1.5, "sys_cpu": 3.5}]}"#;
        let run = figures(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((run.bytes, run.seconds), (4000, 2.0));
        assert!((run.cpu_seconds - 0.1).abs() < 1e-9);
        assert!(figures(&Value::Null).is_none());
    }

    #[test]
    fn colons_in_names_are_escaped() {
        assert_eq!(names(&["/a:b".into(), "/c".into()]), "/a\\:b:/c");
    }
}
