//! A small web server for unit tests: a function from requests to responses, and a record of the
//! requests.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Connections that are silent for longer are closed.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A request that was received.
#[derive(Debug, Clone)]
pub(crate) struct TestRequest {
    /// `GET /path?query`.
    pub line: String,
    /// By their names in lower case.
    headers: HashMap<String, String>,
    pub body: String,
}

impl TestRequest {
    /// Path and query, as on the wire.
    pub fn target(&self) -> &str {
        self.line.split_once(' ').unwrap_or_default().1
    }

    /// The header `name` (in lower case), or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A response; its `Content-Length` is added.
#[derive(Debug, Clone)]
pub(crate) struct TestResponse {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl<B: Into<Vec<u8>>> From<(u16, B)> for TestResponse {
    fn from((status, body): (u16, B)) -> Self {
        Self::new(status, body)
    }
}

impl TestResponse {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    /// The requested range of `bytes`, with an ETag.
    pub fn range(request: &TestRequest, bytes: &[u8]) -> Self {
        let Some(range) = request.header("range").strip_prefix("bytes=") else {
            return Self::new(200, bytes);
        };
        let (first, last) = range.split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let end = last.parse::<usize>().map_or(bytes.len(), |last| bytes.len().min(last + 1));
        if first >= end {
            return Self::new(416, "").with("Content-Range", format!("bytes */{}", bytes.len()));
        }
        let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
        Self::new(206, &bytes[first..end]).with("Content-Range", range).with("ETag", "\"one\"")
    }
}

/// A server on a port of its own, until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<TestRequest>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Starts a server that answers with `answer`.
    pub fn start<A: Into<TestResponse>>(
        answer: impl Fn(&TestRequest) -> A + Send + Sync + 'static,
    ) -> Self {
        let answer = move |request: &TestRequest| answer(request).into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stopped) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (log, stop, answer) = (Arc::clone(&requests), Arc::clone(&stopped), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // A client that hangs up is its own matter.
                thread::spawn(move || drop(serve(stream.unwrap(), &log, &*answer)));
            }
        });
        Self { address, requests, stopped }
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:port`
    #[cfg(feature = "gcs")]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<TestRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// The targets of the requests so far.
    pub fn targets(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.target().to_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread, which sees it.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers the one request of a connection.
fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<TestRequest>>,
    answer: &dyn Fn(&TestRequest) -> TestResponse,
) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let Some(request) = read(&stream)? else { return Ok(()) };
    log.lock().unwrap().push(request.clone());
    let TestResponse { status, headers, body } = answer(&request);
    let mut head = format!("HTTP/1.1 {status} Test\r\nConnection: close\r\n");
    for (name, value) in &headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat())
}

/// The request of a connection, unless it is closed without one.
fn read(stream: &TcpStream) -> io::Result<Option<TestRequest>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let line = line.rsplit_once(' ').unwrap_or_default().0.to_owned();
    let mut headers = HashMap::new();
    for line in reader.by_ref().lines() {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut request = TestRequest { line, headers, body: String::new() };
    let body_bytes = request.header("content-length").parse().unwrap_or(0);
    reader.take(body_bytes).read_to_string(&mut request.body)?;
    Ok(Some(request))
}
