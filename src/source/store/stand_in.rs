//! A server of the tests': answers on a port of 127.0.0.1 as a closure says, and keeps what it was
//! asked.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// `GET /path?query`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    /// The header `name`, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// What is answered: a status and a body, with headers (`Name: value`) between them or without.
pub(super) struct Answer {
    status: u16,
    headers: Vec<String>,
    body: String,
}

impl From<(u16, String)> for Answer {
    fn from((status, body): (u16, String)) -> Self {
        Self { status, headers: Vec::new(), body }
    }
}

impl From<(u16, Vec<String>, String)> for Answer {
    fn from((status, headers, body): (u16, Vec<String>, String)) -> Self {
        Self { status, headers, body }
    }
}

/// The server; it ends when this is dropped.
pub(super) struct StandIn {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
}

impl StandIn {
    /// Starts a server that answers with `answer`.
    pub fn start<A: Into<Answer>>(answer: impl Fn(&Asked) -> A + Send + Sync + 'static) -> Self {
        let answer = move |asked: &Asked| answer(asked).into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (keep, stop, answer) = (Arc::clone(&asked), Arc::clone(&ended), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (keep, answer) = (Arc::clone(&keep), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &keep, &*answer));
            }
        });
        Self { address, asked, ended }
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes it; it sees that it has ended.
        let _ = TcpStream::connect(self.address);
    }
}

/// One request a connection.
fn serve(stream: TcpStream, keep: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Answer) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut asked = Asked {
        line: line.rsplit_once(' ').unwrap().0.to_owned(),
        headers: Vec::new(),
        body: String::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        asked.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    asked.body = String::from_utf8(body).unwrap();
    let Answer { status, headers, body } = answer(&asked);
    keep.lock().unwrap().push(asked);
    let length = body.len();
    let head = format!("HTTP/1.1 {status} S\r\nContent-Length: {length}\r\nConnection: close\r\n");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let _ = reader.get_mut().write_all(format!("{head}{headers}\r\n{body}").as_bytes());
}

/// Options whose variables are `variables`, and no others.
pub(super) fn options(variables: &[(&str, &str)]) -> crate::options::RemoteOptions {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: std::collections::HashMap<_, _> = variables.iter().map(own).collect();
    crate::options::RemoteOptions {
        env: Arc::new(move |name| variables.get(name).filter(|value| !value.is_empty()).cloned()),
        ..Default::default()
    }
}
