//! The low-water mark of a body's socket (`SO_RCVLOWAT`): the kernel wakes the reader of a body for
//! many bytes at once, as a wake-up costs more than copying 64 KiB.
//!
//! - **Height.** The mark is what arrives in [`WAKE_INTERVAL`] at the measured rate of this body,
//!   as a power of two, and at most [`MARK_MAX`], so that the bytes are still in the processor's
//!   cache when they are copied. It is that much before a rate was measured. It is at most a
//!   quarter of the kernel's receive buffer, so that the server can always send more while the
//!   reader is woken. A slow body has no mark.
//! - **The end of the body.** The mark is never greater than the rest of the body, which would never
//!   reach it. Afterwards the connection has no mark: the head of its next response is shorter.
//! - **Bodies that slow down.** When nothing has been read for [`PATIENCE`], the mark is removed, which
//!   wakes the reader if any bytes are there. So the stall timeout counts all bytes that arrive, and a
//!   wait can't last because fewer bytes than expected are there.
//!
//! Where the kernel refuses the option, the reader is woken as soon as bytes are there.
//!
//! CPU seconds per GB over loopback, client and nginx on one core each, 16 connections into 128
//! MiB, medians of 3 to 5: 0.28 to 0.31 without a mark; at most 256 KiB 0.21, 512 KiB 0.19; bare
//! sockets in the same runs 0.17. With 64 connections 0.21. In 4.3 GB the reader waits 1,100 times
//! instead of 28,000.

use crate::options::RetryLimits;
use crate::sys::set_receive_low_water;
use nix::sys::socket::{getsockopt, sockopt::RcvBuf};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// How often the reader of a body should be woken.
const WAKE_INTERVAL: Duration = Duration::from_millis(10);
/// How long the reader waits for the mark.
const PATIENCE: Duration = Duration::from_millis(25);
/// Over this time a rate is measured.
const RATE_INTERVAL: Duration = Duration::from_millis(2);
/// A lower mark would save little.
const MARK_MIN: usize = 16 << 10;
/// The highest mark. CPU-seconds per GB with 16 connections under TLS: 256 KiB 0.39, 512 KiB 0.29
/// (medians of 3).
const MARK_MAX: usize = 512 << 10;
/// No mark: the reader is woken by any byte.
const NONE: usize = 1;

/// The low-water mark of the socket of one body.
pub(crate) struct LowWaterMark {
    /// As it is set.
    bytes: usize,
    refused: bool,
    /// In bytes a second. `None` until it was measured.
    rate: Option<f64>,
    /// The bytes that arrived since the last measurement, and when that was.
    arrived: usize,
    since: Option<Instant>,
    last_arrival: Instant,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
}

impl LowWaterMark {
    /// Of a socket that has none yet.
    pub fn new(limits: &RetryLimits) -> Self {
        let patience = PATIENCE.min(limits.stalled / 4);
        Self {
            bytes: NONE,
            refused: false,
            rate: None,
            arrived: 0,
            since: None,
            last_arrival: Instant::now(),
            patience,
            timer: Box::pin(sleep(patience)),
        }
    }

    /// Sets the mark for the next read, when the socket has `left` bytes of the body to come at least.
    pub fn set(&mut self, socket: BorrowedFd<'_>, left: usize) {
        let wanted = wanted(self.rate);
        let fitting = match wanted > self.bytes {
            true => wanted.min(getsockopt(&socket, RcvBuf).unwrap_or_default() / 4),
            false => wanted,
        };
        self.apply(socket, bounded(fitting, left));
    }

    /// Removes the mark.
    pub fn remove(&mut self, socket: BorrowedFd<'_>) {
        self.apply(socket, NONE);
    }

    /// Counts `bytes` that were read.
    pub fn arrived(&mut self, bytes: usize) {
        let now = Instant::now();
        self.last_arrival = now;
        let Some(since) = self.since else {
            // When the first bytes arrived is not known.
            self.since = Some(now);
            return;
        };
        self.arrived += bytes;
        let elapsed = now.duration_since(since);
        if elapsed >= RATE_INTERVAL {
            let rate = self.arrived as f64 / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |before| (before + rate) / 2.0));
            (self.arrived, self.since) = (0, Some(now));
        }
    }

    /// Completes when there is a mark, and nothing has been read for too long.
    pub async fn overdue(&mut self) {
        if self.bytes == NONE {
            return std::future::pending().await;
        }
        loop {
            self.timer.as_mut().await;
            let due = self.last_arrival + self.patience;
            if due <= Instant::now() {
                return;
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn apply(&mut self, socket: BorrowedFd<'_>, bytes: usize) {
        if bytes != self.bytes && !self.refused {
            match set_receive_low_water(socket, bytes) {
                Ok(()) => self.bytes = bytes,
                Err(_) => self.refused = true,
            }
        }
    }
}

/// The mark for a body of this rate.
fn wanted(rate: Option<f64>) -> usize {
    let bytes = rate.map_or(MARK_MAX, |rate| (rate * WAKE_INTERVAL.as_secs_f64()) as usize);
    match bytes.min(MARK_MAX) {
        ..MARK_MIN => NONE,
        bytes => 1 << bytes.ilog2(),
    }
}

/// The mark where `left` bytes are to come. A last read of few bytes is avoided.
fn bounded(mark: usize, left: usize) -> usize {
    let mark = if mark < MARK_MIN { NONE } else { mark };
    if mark > NONE && left < mark + mark / 2 { left.max(NONE) } else { mark }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::setsockopt;
    use std::os::fd::AsFd;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    /// A connection: the end that sends, and the end that receives.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, receiver)
    }

    /// A mark that was not set.
    fn mark() -> LowWaterMark {
        LowWaterMark::new(&RetryLimits::default())
    }

    async fn is_woken(receiver: &TcpStream, within: Duration) -> bool {
        timeout(within, receiver.readable()).await.is_ok()
    }

    #[test]
    fn the_mark_follows_the_rate() {
        assert_eq!(wanted(None), MARK_MAX);
        for (rate, mark) in
            [(0.0, 1), (1e6, 1), (1e7, 64 << 10), (2e7, 128 << 10), (1e9, 512 << 10)]
        {
            assert_eq!(wanted(Some(rate)), mark, "{rate}");
        }
    }

    /// Bytes that are fewer than the mark never wake anyone, if no more are to come.
    #[test]
    fn the_mark_is_never_above_the_rest_of_the_body() {
        for left in (0..2000).chain((0..1 << 20).step_by(997)) {
            for mark in [1, MARK_MIN, MARK_MAX] {
                let mark = bounded(mark, left);
                assert!((1..=left.max(1)).contains(&mark), "{mark} of {left}");
            }
        }
    }

    /// In the end of a body the mark was the same as before, and its last bytes were not read.
    #[tokio::test]
    async fn the_last_bytes_of_a_body_wake_its_reader() {
        let (mut sender, receiver) = connection().await;
        let (mut mark, last) = (mark(), 5_000);
        mark.set(receiver.as_fd(), 1 << 20);
        mark.set(receiver.as_fd(), last);
        sender.write_all(&vec![1; last - 1]).await.unwrap();
        assert!(!is_woken(&receiver, Duration::from_millis(50)).await, "one byte is missing");
        sender.write_all(&[1]).await.unwrap();
        assert!(is_woken(&receiver, Duration::from_secs(20)).await);
    }

    #[tokio::test]
    async fn bytes_below_the_mark_wake_the_reader_when_it_is_overdue() {
        let (mut sender, receiver) = connection().await;
        let mut mark = mark();
        mark.set(receiver.as_fd(), 1 << 20);
        sender.write_all(&[1; 10]).await.unwrap();
        assert!(!is_woken(&receiver, Duration::from_millis(50)).await);
        timeout(Duration::from_secs(20), mark.overdue()).await.unwrap();
        mark.remove(receiver.as_fd());
        assert!(is_woken(&receiver, Duration::from_secs(20)).await);
        let nothing = timeout(Duration::from_millis(50), mark.overdue()).await;
        assert!(nothing.is_err(), "there is no mark that could be overdue");
    }

    /// A mark above what the kernel takes for the socket is reached by no sender.
    #[tokio::test]
    async fn the_mark_fits_a_small_receive_buffer() {
        for buffer_bytes in [4 << 10, 64 << 10, 256 << 10] {
            let (mut sender, receiver) = connection().await;
            setsockopt(&receiver, RcvBuf, &buffer_bytes).unwrap();
            let mut mark = mark();
            mark.set(receiver.as_fd(), 100 << 20);
            let buffered = getsockopt(&receiver, RcvBuf).unwrap();
            assert!(mark.bytes <= (buffered / 4).max(NONE), "{} of {buffered}", mark.bytes);
            let sending = tokio::spawn(async move { sender.write_all(&vec![1; 100 << 20]).await });
            assert!(is_woken(&receiver, Duration::from_secs(20)).await, "{buffer_bytes}");
            sending.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_slows_down_loses_its_mark() {
        let mut mark = mark();
        let pause = Duration::from_millis(5);
        for (bytes, expected) in [(1 << 20, MARK_MAX), (100, NONE)] {
            for _ in 0..20 {
                tokio::time::sleep(pause).await;
                mark.arrived(bytes);
            }
            assert_eq!(wanted(mark.rate), expected);
        }
    }
}
