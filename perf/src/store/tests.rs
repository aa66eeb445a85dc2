//! The store, run on a thread, and asked by plain sockets.

use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// A running store with the file `bucket/a` of 1 MB.
struct Running {
    port: u16,
    _root: tempfile::TempDir,
}

fn start(settings: Settings) -> Running {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("bucket")).unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(root.path().join("bucket/a"), bytes).unwrap();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (http, https) = (port(), port());
    let addresses = match settings.addresses.is_empty() {
        true => vec![Ipv4Addr::LOCALHOST],
        false => settings.addresses,
    };
    let settings = Settings { addresses, ..settings };
    let args = Args { root: root.path().to_owned(), http, https, tls: Vec::new(), settings };
    std::thread::spawn(move || run(args));
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", http)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Running { port: http, _root: root }
}

impl Running {
    fn connect(&self, address: &str) -> BufReader<TcpStream> {
        let stream = TcpStream::connect((address, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        BufReader::new(stream)
    }
}

/// Sends a GET, and returns the status and the body.
fn get(stream: &mut BufReader<TcpStream>, target: &str, range: &str) -> (u16, Vec<u8>) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{range}\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let (mut line, mut status, mut len) = (String::new(), 0, 0);
    while stream.read_line(&mut line).unwrap() > 2 {
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest[..3].parse().unwrap();
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            len = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = Vec::new();
    stream.take(len).read_to_end(&mut body).unwrap();
    (status, body)
}

#[test]
fn ranges_lists_and_errors_are_those_of_s3() {
    let store = start(Settings { each: Some(500.0), ..Settings::default() });
    let mut stream = store.connect("127.0.0.1");
    let (status, body) = get(&mut stream, "/bucket/a", "Range: bytes=250-99999\r\n");
    assert_eq!((status, body.len(), &body[..3]), (206, 99_750, &[250, 0, 1][..]));
    let (status, body) = get(&mut stream, "/bucket/a", "");
    assert_eq!((status, body.len()), (200, 1_000_000));
    assert_eq!(get(&mut stream, "/bucket/../../etc/passwd", "").0, 404);
    assert_eq!(get(&mut stream, "/bucket/a", "Range: bytes=1000000-\r\n").0, 416);
    let (status, body) = get(&mut stream, "/bucket/?list-type=2&prefix=", "");
    let body = String::from_utf8(body).unwrap();
    assert!(status == 200 && body.contains("<Key>a</Key><Size>1000000</Size>"), "{body}");
}

#[test]
fn first_bytes_and_bodies_take_the_time_that_was_set() {
    let settings = Settings { first_byte: 100.0, each: Some(5.0), ..Settings::default() };
    let store = start(settings);
    let mut stream = store.connect("127.0.0.1");
    let began = Instant::now();
    assert_eq!(get(&mut stream, "/bucket/a", "").1.len(), 1_000_000);
    // 80 ms and 200 ms, less the burst. A busy machine may take longer.
    assert!(began.elapsed() >= Duration::from_millis(255), "{:?}", began.elapsed());
}

#[test]
fn connections_share_the_total_rate() {
    let store = start(Settings { total: Some(5.0), ..Settings::default() });
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope
                .spawn(|| assert_eq!(get(&mut store.connect("127.0.0.1"), "/bucket/a", "").0, 200));
        }
    });
    assert!(began.elapsed() >= Duration::from_millis(390), "{:?}", began.elapsed());
}

#[test]
fn too_many_requests_are_refused_and_counted() {
    let store = start(Settings { requests: Some(2.0), ..Settings::default() });
    let mut stream = store.connect("127.0.0.1");
    let statuses: Vec<u16> =
        (0..5).map(|_| get(&mut stream, "/bucket/a", "Range: bytes=0-0\r\n").0).collect();
    let refused = statuses.iter().filter(|&&status| status == 503).count();
    assert!(refused >= 3, "{statuses:?}");
    let counts: Counts = serde_json::from_slice(&get(&mut stream, counts::PATH, "").1).unwrap();
    let (refused, sent_bytes) = (refused as u64, 5 - refused as u64);
    assert_eq!(counts, Counts { requests: 5, refused, connections: 1, sent_bytes });
    let counts: Counts = serde_json::from_slice(&get(&mut stream, counts::PATH, "").1).unwrap();
    assert_eq!(counts, Counts { connections: 1, ..Counts::default() });
}

#[test]
fn bodies_stall_or_are_cut() {
    for settings in [
        Settings { cut: 1.0, ..Settings::default() },
        Settings { stalled: 1.0, ..Settings::default() },
    ] {
        let stalls = settings.stalled > 0.0;
        let store = start(settings);
        let mut stream = store.connect("127.0.0.1");
        stream.get_ref().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.get_mut().write_all(b"GET /bucket/a HTTP/1.1\r\n\r\n").unwrap();
        let mut body = Vec::new();
        assert_eq!(stream.read_to_end(&mut body).is_err(), stalls);
        assert!(body.len() < 1_000_000, "{}", body.len());
    }
}

#[test]
fn it_listens_on_several_addresses() {
    let addresses = vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
    let store = start(Settings { addresses, ..Settings::default() });
    std::thread::sleep(Duration::from_millis(50));
    for address in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(get(&mut store.connect(address), "/bucket/a", "").0, 200);
    }
}
