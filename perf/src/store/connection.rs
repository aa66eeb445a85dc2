//! One connection: requests and answers in turn, each in its time.

use super::answer::{Answer, Body};
use super::pace::Pace;
use super::request::Request;
use super::settings::CONNECTION_BURST;
use super::{Store, counts};
use nix::sys::sendfile::sendfile;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::server::TlsStream;

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What a connection runs on.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub struct Connection {
    store: Rc<Store>,
    wire: Wire,
    /// The bytes that were received and not yet parsed.
    received: Vec<u8>,
    /// Whether the connection was counted: from its first request on.
    counted: bool,
    pace: Option<Pace>,
    /// The bytes of a piece under TLS.
    piece: Vec<u8>,
}

impl Connection {
    pub fn new(store: Rc<Store>, wire: Wire) -> Self {
        let rate = store.settings.connection_rate();
        let pace = rate.map(|rate| Pace::new(rate, CONNECTION_BURST));
        Self { store, wire, received: Vec::new(), counted: false, pace, piece: Vec::new() }
    }

    /// Serves requests until the client or the store ends the connection.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn serve(mut self) -> io::Result<()> {
        while let Some(request) = self.request().await? {
            let arrived = Instant::now();
            let is_control = request.path == counts::PATH;
            if !is_control {
                self.count();
            }
            let answer = self.store.answer(&request);
            if !is_control {
                sleep_until(arrived + self.first_byte()).await;
            }
            let whole = self.send(&request, answer).await?;
            if request.closes || !whole {
                break;
            }
        }
        Ok(())
    }

    /// Counts the request, and the connection at its first one.
    fn count(&mut self) {
        self.store.counters.request();
        if !std::mem::replace(&mut self.counted, true) {
            self.store.counters.opened();
        }
    }

    /// The next request; `None` when the client has closed the connection.
    async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            let parsed = Request::parse(&self.received);
            let parsed =
                parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some((request, len)) = parsed {
                self.received.drain(..len);
                return Ok(Some(request));
            }
            let read = match &mut self.wire {
                Wire::Plain(stream) => stream.read_buf(&mut self.received).await?,
                Wire::Tls(stream) => stream.read_buf(&mut self.received).await?,
            };
            if read == 0 || self.received.len() > HEAD_BYTES_MAX {
                return Ok(None);
            }
        }
    }

    /// The time to the first byte of an answer.
    fn first_byte(&self) -> Duration {
        let settings = &self.store.settings;
        let late = if self.store.happens(settings.late) { settings.late_times } else { 1.0 };
        let spread = 0.8 + 0.4 * self.store.random.borrow_mut().f64();
        Duration::from_secs_f64(settings.first_byte / 1e3 * spread * late)
    }

    /// Sends the answer. Returns false if it was cut.
    async fn send(&mut self, request: &Request, answer: Answer) -> io::Result<bool> {
        self.write(answer.head.as_bytes()).await?;
        match answer.body {
            _ if request.is_head => Ok(true),
            Body::Text(text) => self.write(text.as_bytes()).await.map(|()| true),
            Body::File(file, bytes) => self.send_file(&file, bytes).await,
        }
    }

    async fn send_file(&mut self, file: &File, bytes: Range<u64>) -> io::Result<bool> {
        let settings = &self.store.settings;
        let (stalls, cut) =
            (self.store.happens(settings.stalled), self.store.happens(settings.cut));
        let mut end = bytes.end;
        if stalls || cut {
            let share = self.store.random.borrow_mut().f64();
            end = bytes.start + ((bytes.end - bytes.start) as f64 * share) as u64;
        }
        let piece_bytes = settings.piece_bytes() as u64;
        let mut at = bytes.start;
        self.pace.iter().for_each(Pace::restart);
        while at < end {
            let next = end.min(at + piece_bytes);
            let granted = |pace: &Pace| pace.grant((next - at) as f64);
            if let Some(due) = self.pace.as_ref().map(granted) {
                sleep_until(due).await;
            }
            if let Wire::Plain(stream) = &self.wire {
                // A client that does not read takes no part of the total rate.
                stream.writable().await?;
            }
            if let Some(due) = self.store.total.as_ref().map(granted) {
                sleep_until(due).await;
            }
            self.send_piece(file, at..next).await?;
            self.store.counters.sent(next - at);
            at = next;
        }
        if stalls {
            // Until the client gives up.
            let mut byte = [0];
            let _ = match &mut self.wire {
                Wire::Plain(stream) => stream.read(&mut byte).await,
                Wire::Tls(stream) => stream.read(&mut byte).await,
            };
        }
        Ok(!stalls && !cut)
    }

    async fn send_piece(&mut self, file: &File, bytes: Range<u64>) -> io::Result<()> {
        match &mut self.wire {
            Wire::Plain(stream) => {
                let mut at = i64::try_from(bytes.start).map_err(io::Error::other)?;
                while (at as u64) < bytes.end {
                    let left = (bytes.end - at as u64) as usize;
                    let send =
                        || sendfile(&*stream, file, Some(&mut at), left).map_err(io::Error::from);
                    if stream.async_io(Interest::WRITABLE, send).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Ok(())
            }
            Wire::Tls(stream) => {
                self.piece.resize((bytes.end - bytes.start) as usize, 0);
                file.read_exact_at(&mut self.piece, bytes.start)?;
                stream.write_all(&self.piece).await?;
                stream.flush().await
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(bytes).await,
            Wire::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.counted {
            self.store.counters.closed();
        }
    }
}
