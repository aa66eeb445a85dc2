//! `ringload-perf limit`: measurements that a session starts as a separate process of this program.
//!
//! - `recv`: bare sockets. Each connection sends one request and receives the body into one reused
//!   buffer, the minimal work of a client.
//! - `adapter`: a load by the crate, as a server would embed it, timed from the start of the process.
//! - `plan`: opens and plans a checkpoint.
//! - `settle`: allocates and frees memory. A virtual machine may return memory that was free for a
//!   while to its host, and the next process that touches it would pay for that.

use crate::child::BEGAN_VARIABLE;
use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use ringload::internals::{PAGE_BYTES, Ring};
use ringload::internals::{Plan, Selection};
use ringload::{Checkpoint, DeviceMap, Loader, MemoryLimit};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub enum Limit {
    /// Bare sockets: HOST:PORT PATH BYTES CONNECTIONS
    Recv { address: String, path: String, bytes: u64, connections: u64 },
    /// A load by the crate, timed from the start of the process
    Adapter { file: PathBuf },
    /// Opens and plans a checkpoint
    Plan { checkpoint: PathBuf },
    /// Allocates and frees this many bytes
    Settle { bytes: usize },
}

/// Runs the measurement and prints its figures.
///
/// # Errors
/// When it fails.
pub fn run(limit: Limit) -> Result<()> {
    let began = Instant::now();
    match limit {
        Limit::Recv { address, path, bytes, connections } => {
            recv(&address, &path, bytes, connections.max(1))?;
            print_figures(bytes, began, json!({}))
        }
        Limit::Adapter { file } => adapter(file),
        Limit::Plan { checkpoint } => plan(checkpoint),
        Limit::Settle { bytes } => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ring::new(bytes, PAGE_BYTES)?.populate(bytes, cores)?;
            Ok(())
        }
    }
}

/// Prints the figures since `began`, and `more`.
fn print_figures(bytes: u64, began: Instant, more: serde_json::Value) -> Result<()> {
    let seconds = began.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let mut figures = json!({
        "bytes": bytes,
        "seconds": seconds,
        "cpu_seconds": of(usage.user_time()) + of(usage.system_time()),
        "peak_rss_bytes": peak_rss_bytes()?,
    });
    if let (Some(figures), Some(more)) = (figures.as_object_mut(), more.as_object()) {
        figures.extend(more.clone());
    }
    println!("{figures}");
    Ok(())
}

/// proc_pid_status(5): unlike getrusage(2) it does not remember the process that started this one.
fn peak_rss_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn recv(address: &str, path: &str, bytes: u64, connections: u64) -> Result<()> {
    let step = bytes.div_ceil(connections);
    std::thread::scope(|scope| {
        let parts = (0..connections).map(|i| (i * step, ((i + 1) * step).min(bytes)));
        let parts: Vec<_> = parts.filter(|(start, end)| start < end).collect();
        let all: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || recv_part(address, path, part)))
            .collect();
        all.into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

fn recv_part(address: &str, path: &str, (start, end): (u64, u64)) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let last = end - 1;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nRange: bytes={start}-{last}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut buffer = vec![0; 1 << 20];
    let mut head = Vec::new();
    let body = loop {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "{address} closed the connection within the head");
        head.extend_from_slice(&buffer[..count]);
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break head.len() - at - 4;
        }
    };
    ensure!(
        head.starts_with(b"HTTP/1.1 206"),
        "{address} answered {:?}",
        String::from_utf8_lossy(&head[..40.min(head.len())])
    );
    let mut left = (end - start).saturating_sub(body as u64);
    while left > 0 {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "{address} closed the connection {left} bytes early");
        left -= count as u64;
    }
    Ok(())
}

fn adapter(file: PathBuf) -> Result<()> {
    let began = Instant::now();
    let since_start = since_start()?;
    let (mut first, mut bytes) = (None, 0);
    for tensor in Loader::new().stream(file)? {
        bytes += tensor?.bytes().len() as u64;
        first.get_or_insert_with(&since_start);
    }
    let last = since_start();
    print_figures(
        bytes,
        began,
        json!({ "first_tensor_seconds": first, "last_tensor_seconds": last }),
    )
}

/// The seconds since this process was started.
fn since_start() -> Result<impl Fn() -> f64> {
    let began: i128 = std::env::var(BEGAN_VARIABLE).context(BEGAN_VARIABLE)?.parse()?;
    Ok(move || {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
        let now = now.map_or(began, |now| {
            i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec())
        });
        (now - began) as f64 / 1e9
    })
}

fn plan(checkpoint: PathBuf) -> Result<()> {
    let began = Instant::now();
    let checkpoint = Arc::new(Checkpoint::open(checkpoint)?);
    let tensors = checkpoint.tensors().len();
    let map = DeviceMap::default();
    let plan =
        Plan::new(checkpoint.clone(), MemoryLimit::Unlimited, &Selection::default(), &map, None)?;
    print_figures(checkpoint.data_bytes(), began, json!({ "tensors": tensors }))?;
    drop(plan);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that sends this many bytes on each connection.
    fn server(answers: usize, body: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for _ in 0..answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(b"HTTP/1.1 206 Partial Content\r\n\r\n").unwrap();
                stream.write_all(body).unwrap();
            }
        });
        address
    }

    #[test]
    fn all_bytes_are_received_or_it_fails() {
        recv(&server(2, b"12345"), "/a", 10, 2).unwrap();
        let message = recv(&server(2, b"123"), "/a", 10, 2).unwrap_err().to_string();
        assert!(message.ends_with("closed the connection 2 bytes early"), "{message}");
    }
}
