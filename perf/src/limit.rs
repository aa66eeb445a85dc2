//! `ringload-perf limit`: measurements that a session starts as a separate process of this program.
//!
//! - `recv`: bare sockets. Each connection sends one request and receives the body into one reused
//!   buffer, the minimal work of a client.
//! - `adapter`: a load by the crate, as a server would embed it, timed from the start of the process.
//! - `plan`: opens and plans a checkpoint.
//! - `settle`: allocates and frees memory. A virtual machine may return memory that was free for a
//!   while to its host, and the next process that touches it would pay for that.

use anyhow::{Result, ensure};
use ringload::internals::{PAGE_BYTES, Plan, Ring, Selection};
use ringload::{Checkpoint, DeviceMap, Loader, MemoryLimit};
use ringload_measure::figures::{Figures, Stopwatch, since_start_seconds};
use ringload_measure::system::cores;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

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
    let figures = match limit {
        Limit::Settle { bytes } => {
            Ring::new(bytes, PAGE_BYTES)?.populate(bytes, cores())?;
            return Ok(());
        }
        Limit::Recv { address, path, bytes, connections } => {
            let stopwatch = Stopwatch::of_process();
            recv(&address, &path, bytes, connections.max(1))?;
            stopwatch.figures(bytes)?
        }
        Limit::Adapter { file } => adapter(file)?,
        Limit::Plan { checkpoint } => plan(checkpoint)?,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn recv(address: &str, path: &str, bytes: u64, connections: u64) -> Result<()> {
    let step = bytes.div_ceil(connections).max(1);
    std::thread::scope(|scope| {
        let parts =
            (0..bytes).step_by(step as usize).map(|start| (start, (start + step).min(bytes)));
        let start = |part| scope.spawn(move || recv_part(address, path, part));
        let threads: Vec<_> = parts.map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().try_for_each(join)
    })
}

fn recv_part(address: &str, path: &str, (start, end): (u64, u64)) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let last = end - 1;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nRange: bytes={start}-{last}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 206"), "{address} answered {line:?}");
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let mut left = end - start;
    while left > 0 {
        let count = reader.fill_buf()?.len();
        ensure!(count > 0, "{address} closed the connection {left} bytes early");
        reader.consume(count);
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}

fn adapter(file: PathBuf) -> Result<Figures> {
    let stopwatch = Stopwatch::of_process();
    let (mut first, mut bytes) = (None, 0);
    for tensor in Loader::new().stream(file)? {
        bytes += tensor?.bytes().len() as u64;
        first = first.or_else(since_start_seconds);
    }
    let last_tensor_seconds = since_start_seconds();
    let figures = stopwatch.figures(bytes)?;
    Ok(Figures { first_tensor_seconds: first, last_tensor_seconds, ..figures })
}

fn plan(checkpoint: PathBuf) -> Result<Figures> {
    let stopwatch = Stopwatch::of_process();
    let checkpoint = Arc::new(Checkpoint::open(checkpoint)?);
    let (selection, map) = (Selection::default(), DeviceMap::default());
    let plan = Plan::new(checkpoint.clone(), MemoryLimit::Unlimited, &selection, &map, None)?;
    let figures = stopwatch.figures(checkpoint.data_bytes())?;
    drop(plan);
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
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
