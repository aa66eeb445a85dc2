//! The figures of one run. A measured program prints them as one JSON object; the program that
//! started it reads them. `ringload load --json` prints the same names among others.

use crate::process::began_nanoseconds;
use crate::system::{bytes_in, read_text};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::{Duration, Instant};

/// The figures of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The bytes that were loaded.
    pub bytes: u64,
    /// As reported by the program, from its first call to the last byte; otherwise of the process.
    pub seconds: f64,
    /// The user and system time of all threads in that time.
    pub cpu_seconds: f64,
    /// From the start of the process to its end; its parent measures it.
    #[serde(default)]
    pub process_seconds: f64,
    /// From the start of the process to the first tensor, if it is measured.
    #[serde(default)]
    pub first_tensor_seconds: Option<f64>,
    /// From the start of the process to the last tensor, if it is measured.
    #[serde(default)]
    pub last_tensor_seconds: Option<f64>,
    /// The peak resident memory of the process.
    pub peak_rss_bytes: Option<u64>,
}

impl Figures {
    /// Units of 10^9 bytes.
    pub fn gigabytes(&self) -> f64 {
        self.bytes.max(1) as f64 / 1e9
    }

    /// Speed in units of 10^9 bytes a second.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.gigabytes() / self.seconds.max(1e-9)
    }

    /// CPU seconds for each 10^9 bytes.
    pub fn cpu_seconds_per_gigabyte(&self) -> f64 {
        self.cpu_seconds / self.gigabytes()
    }
}

/// Measures a part of this process.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    cpu_seconds: f64,
}

impl Stopwatch {
    /// Measures from now on.
    ///
    /// # Errors
    /// When the kernel does not report CPU time.
    pub fn start() -> io::Result<Self> {
        Ok(Self { began: Instant::now(), cpu_seconds: cpu_seconds()? })
    }

    /// Measures the time from now on, and the CPU time of the whole process.
    pub fn of_process() -> Self {
        Self { began: Instant::now(), cpu_seconds: 0.0 }
    }

    /// The figures up to now, over `bytes`.
    ///
    /// # Errors
    /// When the kernel does not report CPU time.
    pub fn figures(&self, bytes: u64) -> io::Result<Figures> {
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(Figures {
            bytes,
            seconds,
            cpu_seconds: cpu_seconds()? - self.cpu_seconds,
            peak_rss_bytes: peak_rss_bytes(),
            ..Figures::default()
        })
    }
}

/// User and system time of this process.
///
/// # Errors
/// When the kernel does not report it.
pub fn cpu_seconds() -> io::Result<f64> {
    usage_seconds(UsageWho::RUSAGE_SELF)
}

/// User and system time of the children that this process has waited for.
///
/// # Errors
/// When the kernel does not report it.
pub fn children_cpu_seconds() -> io::Result<f64> {
    usage_seconds(UsageWho::RUSAGE_CHILDREN)
}

fn usage_seconds(who: UsageWho) -> io::Result<f64> {
    let usage = getrusage(who)?;
    let time = usage.user_time() + usage.system_time();
    Ok(time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
}

/// The peak resident memory of this process. (`ru_maxrss` is not suitable: it includes the memory
/// that the parent had between fork and exec.)
pub fn peak_rss_bytes() -> Option<u64> {
    bytes_in(&read_text("/proc/self/status")?, "VmHWM:")
}

/// The time of the monotonic clock, which all processes share.
pub(crate) fn monotonic() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// The seconds since an [`Invocation`](crate::process::Invocation) started this process; `None` in a
/// process that was started otherwise.
pub fn since_start_seconds() -> Option<f64> {
    let began = Duration::from_nanos(began_nanoseconds()?);
    Some(monotonic().ok()?.checked_sub(began)?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_load_are_read() {
        let json = r#"{"bytes": 2000000000, "tensors": 1, "seconds": 0.5, "cpu_seconds": 0.4,
                       "peak_rss_bytes": null, "read_path": "direct"}"#;
        let run: Figures = serde_json::from_str(json).unwrap();
        assert!((run.gigabytes_per_second() - 4.0).abs() < 1e-9);
        assert!((run.cpu_seconds_per_gigabyte() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn a_stopwatch_tells_time_and_memory() {
        let stopwatch = Stopwatch::start().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let figures = stopwatch.figures(7).unwrap();
        assert!(figures.seconds >= 0.02 && figures.cpu_seconds < 0.02, "{figures:?}");
        assert!(figures.peak_rss_bytes > Some(100_000), "{figures:?}");
        assert!(Stopwatch::of_process().figures(7).unwrap().cpu_seconds > 0.0);
    }
}
