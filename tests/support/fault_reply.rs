//! The responses of the server of `fault_server.rs`, and their faults.

use super::fault_wire::Wire;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// What follows the bytes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next request on this connection.
    Keep,
    /// The connection is closed.
    Fin,
    /// The same, but TLS does not announce it.
    Cut,
    /// The connection is reset.
    Reset,
    /// Nothing, for ever.
    Hang,
}

/// How the end of the body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`: the true one, or this one.
    Length(Option<usize>),
    /// By `Transfer-Encoding: chunked`, in chunks of this many bytes.
    Chunked(usize),
    /// By the end of the connection.
    Close,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    /// Instead of the two above.
    raw_head: Option<Vec<u8>>,
    body: Vec<u8>,
    framing: Framing,
    before_head: Duration,
    before_body: Duration,
    before_last_byte: Duration,
    /// Nothing is sent before this is true.
    gate: Option<Arc<AtomicBool>>,
    /// After every so many bytes of head and body, so long a pause.
    drip: Option<(usize, Duration)>,
    /// How many bytes of head and body each are sent without such pauses.
    fast: usize,
    /// After so many bytes of the body (negative: before the end of the head).
    cut: Option<isize>,
    end: End,
    /// Whether head or body go on for ever.
    endless: bool,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            raw_head: None,
            body: Vec::new(),
            framing: Framing::Length(None),
            before_head: Duration::ZERO,
            before_body: Duration::ZERO,
            before_last_byte: Duration::ZERO,
            gate: None,
            drip: None,
            fast: 0,
            cut: None,
            end: End::Keep,
            endless: false,
        }
    }

    /// Bytes as they are, instead of an answer; then `end`.
    pub fn raw(bytes: impl Into<Vec<u8>>, end: End) -> Self {
        Self { raw_head: Some(bytes.into()), end, ..Self::new(0) }
    }

    /// A redirect.
    pub fn to(status: u16, target: impl Into<String>) -> Self {
        Self::new(status).with("Location", target)
    }

    /// With this header, instead of any other one of its name.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With this header, even if there is one of its name.
    pub fn with_another(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    pub fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    /// With the body that `change` makes of its own.
    pub fn changed(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.body);
        self
    }

    pub fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// Ends like this after `bytes` of the body.
    pub fn cut(self, bytes: usize, end: End) -> Self {
        Self { cut: Some(bytes as isize), end, ..self }
    }

    /// Ends like this `bytes` before the end of the head.
    pub fn cut_head(self, bytes: usize, end: End) -> Self {
        Self { cut: Some(-(bytes as isize)), end, ..self }
    }

    /// Ends like this after the whole body.
    pub fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    pub fn after(self, before_head: Duration) -> Self {
        Self { before_head, ..self }
    }

    /// Sends nothing before `gate` is true.
    pub fn once_open(self, gate: &Arc<AtomicBool>) -> Self {
        Self { gate: Some(Arc::clone(gate)), ..self }
    }

    pub fn body_after(self, before_body: Duration) -> Self {
        Self { before_body, ..self }
    }

    /// A pause before the last byte of the body.
    pub fn last_byte_after(self, before_last_byte: Duration) -> Self {
        Self { before_last_byte, ..self }
    }

    /// A pause after every `bytes` bytes, head included.
    pub fn dripping(self, bytes: usize, pause: Duration) -> Self {
        Self { drip: Some((bytes, pause)), ..self }
    }

    /// The same, from byte `start` of the body on.
    pub fn dripping_from(self, start: usize, bytes: usize, pause: Duration) -> Self {
        Self { fast: start, ..self.dripping(bytes, pause) }
    }

    /// Repeats the body (of raw bytes: those) for ever.
    pub fn endless(self) -> Self {
        Self { endless: true, ..self }
    }

    fn head(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw_head {
            return raw.clone();
        }
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match self.framing {
            Framing::Length(claimed) => {
                format!("Content-Length: {}\r\n", claimed.unwrap_or(self.body.len()))
            }
            Framing::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::Close => "Connection: close\r\n".to_owned(),
        };
        head += "\r\n";
        head.into_bytes()
    }

    /// The body as it goes over the wire; a cut counts bytes of the object, and cuts before the
    /// frame of the next one.
    fn wire_body(&self) -> Vec<u8> {
        let cut =
            self.cut.map_or(self.body.len(), |cut| (cut.max(0) as usize).min(self.body.len()));
        let Framing::Chunked(size) = self.framing else {
            return self.body[..cut].to_vec();
        };
        let mut wire = Vec::new();
        for (number, chunk) in self.body.chunks(size).enumerate() {
            let start = number * size;
            if start >= cut && self.cut.is_some() {
                return wire;
            }
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(&chunk[..chunk.len().min(cut - start)]);
            if start + chunk.len() > cut {
                return wire;
            }
            wire.extend_from_slice(b"\r\n");
        }
        if self.cut.is_none() {
            wire.extend_from_slice(b"0\r\n\r\n");
        }
        wire
    }

    /// Sends it; whether the connection serves again.
    pub(super) async fn send(&self, wire: &mut Wire, is_head: bool) -> io::Result<bool> {
        sleep(self.before_head).await;
        while self.gate.as_ref().is_some_and(|gate| !gate.load(Ordering::Relaxed)) {
            sleep(Duration::from_millis(2)).await;
        }
        let mut head = self.head();
        if let Some(cut @ ..0) = self.cut {
            head.truncate(head.len().saturating_sub(cut.unsigned_abs()));
            self.write(wire, &head).await?;
            return self.finish(wire).await;
        }
        self.write(wire, &head).await?;
        sleep(self.before_body).await;
        let body = self.wire_body();
        let again = if self.raw_head.is_some() { &head } else { &body };
        if !is_head {
            let rest = if self.before_last_byte.is_zero() { 0 } else { 1.min(body.len()) };
            let (first, last) = body.split_at(body.len() - rest);
            self.write(wire, first).await?;
            sleep(self.before_last_byte).await;
            self.write(wire, last).await?;
        }
        if self.endless {
            loop {
                self.write(wire, again).await?;
            }
        }
        self.finish(wire).await
    }

    async fn write(&self, wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
        let Some((most, pause)) = self.drip else {
            return wire.write(bytes).await;
        };
        let (fast, slow) = bytes.split_at(self.fast.min(bytes.len()));
        wire.write(fast).await?;
        for piece in slow.chunks(most) {
            wire.write(piece).await?;
            sleep(pause).await;
        }
        Ok(())
    }

    async fn finish(&self, wire: &mut Wire) -> io::Result<bool> {
        match self.end {
            End::Keep => return Ok(self.framing != Framing::Close),
            End::Fin => wire.close().await?,
            End::Cut => wire.cut().await?,
            End::Reset => wire.reset()?,
            End::Hang => std::future::pending().await,
        }
        Ok(false)
    }
}
