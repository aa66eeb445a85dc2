//! The speed of the disk as measured by `fio`, if it is installed. It only reads.

use super::child::{self, Run};
use crate::failure::Outcome;
use ringload::{Error, ErrorKind};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Whether `fio` is on the PATH.
pub fn is_installed() -> bool {
    let mut version = Command::new("fio");
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Reads `files` once with `depth` direct reads of `chunk_bytes` in flight.
///
/// # Errors
/// When fio fails or its output cannot be parsed.
pub fn run(files: &[PathBuf], chunk_bytes: usize, depth: usize) -> Outcome<Run> {
    let mut command = Command::new("fio");
    command.args(["--readonly", "--name=limit", "--rw=read", "--ioengine=io_uring", "--direct=1"]);
    command.args(["--thread", "--file_service_type=sequential", "--output-format=json"]);
    command.arg(format!("--bs={chunk_bytes}")).arg(format!("--iodepth={depth}"));
    command.arg(format!("--filename={}", names(files)));
    let began = Instant::now();
    let output = child::output(&mut command)?;
    let process_seconds = began.elapsed().as_secs_f64();
    let figures = parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "the output of fio has no figures; is it version 3.x?")
    })?;
    Ok(Run { process_seconds, ..figures })
}

/// The file names in fio's syntax: separated by colons, with colons in names escaped.
fn names(files: &[PathBuf]) -> String {
    let name = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:");
    files.iter().map(|path| name(path)).collect::<Vec<_>>().join(":")
}

/// The figures of the only job. fio may print notes before its JSON.
fn parse(text: &str) -> Option<Run> {
    let answer: Value = serde_json::from_str(text.get(text.find('{')?..)?).ok()?;
    let job = answer.get("jobs")?.get(0)?;
    let read = job.get("read")?;
    let seconds = read.get("runtime")?.as_f64()? / 1e3;
    let cpu_percent = job.get("usr_cpu")?.as_f64()? + job.get("sys_cpu")?.as_f64()?;
    let bytes = read.get("io_bytes")?.as_u64()?;
    (bytes > 0 && seconds > 0.0).then_some(Run {
        bytes,
        seconds,
        cpu_seconds: seconds * cpu_percent / 100.0,
        peak_rss_bytes: None,
        process_seconds: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_s_figures_are_read() {
        let text = r#"fio: a note
            {"jobs": [{"read": {"io_bytes": 4000, "runtime": 2000}, "usr_cpu": 1.5, "sys_cpu": 3.5}]}"#;
        let run = parse(text).unwrap();
        assert_eq!((run.bytes, run.seconds), (4000, 2.0));
        assert!((run.cpu_seconds - 0.1).abs() < 1e-9);
        assert!(parse("{}").is_none());
        assert!(parse("no such option").is_none());
    }

    #[test]
    fn colons_in_names_are_escaped() {
        assert_eq!(names(&["/a:b".into(), "/c".into()]), "/a\\:b:/c");
    }
}
