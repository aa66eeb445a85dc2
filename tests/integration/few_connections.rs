//! Servers that have room for few connections, and processes that may open few.

use crate::common::command::{ringload, run};
use crate::common::fault_server::{Reply, Request};
use crate::common::model::{Model, loader};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// What a server does with a connection while another one is open.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    /// It answers all requests with 503, also those on the connection that was there before.
    Refuse,
    Close,
    /// They are accepted when that is closed.
    Wait,
    /// They are served. The second request of a connection is answered when so many are open, or
    /// after a minute.
    Expect(usize),
}

/// A server, and how many connections it has accepted.
struct Server {
    url: String,
    accepted: Arc<AtomicUsize>,
}

/// Serves `file` on connections that are kept open. Ends with the process.
fn serve(file: &[u8], others: Others) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.safetensors", listener.local_addr().unwrap());
    let (file, open) = (Arc::new(file.to_vec()), Arc::new(AtomicUsize::new(0)));
    let accepted = Arc::<AtomicUsize>::default();
    let accepting = Arc::clone(&accepted);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            accepting.fetch_add(1, Ordering::SeqCst);
            if others == Others::Close && open.load(Ordering::SeqCst) > 0 {
                continue;
            }
            open.fetch_add(1, Ordering::SeqCst);
            let (file, open) = (Arc::clone(&file), Arc::clone(&open));
            let serving = thread::spawn(move || {
                let _ = answer(stream, &file, |number| match others {
                    Others::Expect(expected) if number == 1 => {
                        let began = Instant::now();
                        while open.load(Ordering::SeqCst) < expected && began.elapsed() < MINUTE {
                            thread::sleep(Duration::from_millis(5));
                        }
                        false
                    }
                    Others::Refuse => open.load(Ordering::SeqCst) > 1,
                    _ => false,
                });
                open.fetch_sub(1, Ordering::SeqCst);
            });
            if others == Others::Wait {
                serving.join().unwrap();
            }
        }
    });
    Server { url, accepted }
}

/// Answers the requests of one connection until the client closes it.
fn answer(
    mut stream: TcpStream,
    file: &[u8],
    refuses: impl Fn(usize) -> bool,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    for number in 0.. {
        let (mut first, mut last) = (0, file.len() - 1);
        loop {
            let Some(line) = lines.next().transpose()? else { return Ok(()) };
            if let Some((_, range)) = line.split_once("bytes=") {
                let (from, to) = range.split_once('-').unwrap();
                (first, last) = (from.parse().unwrap(), to.parse::<usize>().unwrap().min(last));
            }
            if line.is_empty() {
                break;
            }
        }
        thread::sleep(Duration::from_millis(10));
        if refuses(number) {
            stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let (len, total) = (last + 1 - first, file.len());
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nETag: \"x\"\r\nContent-Length: {len}\r\n\
             Content-Range: bytes {first}-{last}/{total}\r\n\r\n"
        )?;
        stream.write_all(&file[first..=last])?;
    }
    Ok(())
}

/// Connections that were refused stayed open, so that the server had room for none, and the load
/// failed. Later these connections were closed, but in one of ten loads only after the refusals had used
/// up the attempts of a request.
#[test]
fn a_server_with_room_for_one_connection_serves_the_whole_load() {
    let model = Model::new(&[300_000; 40]);
    for others in [Others::Refuse, Others::Close] {
        let server = serve(&model.file, others);
        model.load(&loader().connections(4), &server.url).unwrap();
    }
}

/// The idle connection that had received the header kept the server from answering the others, each
/// of which waited for 20 s.
#[test]
fn a_server_that_serves_one_connection_after_the_other_is_not_waited_for() {
    let model = Model::new(&[300_000; 40]);
    let server = serve(&model.file, Others::Wait);
    let loader = ringload::Loader::new().engines(1).connections(4);
    let summary = model.load(&loader, &server.url).unwrap();
    assert_eq!(summary.retries.get("timeout"), None, "{summary:?}");
}

/// Under `ulimit -n 64` a load had 4 connections, and nothing was logged about it.
#[test]
fn half_of_64_files_are_used_for_connections() {
    let model = Model::new(&[300_000; 40]);
    let late = Duration::from_millis(200);
    let server =
        model.serve(move |_: usize, request: &Request| -> Reply { request.right().after(late) });
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(ringload().get_program());
    command.args(["load", &server.url(), "--connections", "64", "--read-size", "16KiB"]);
    let finished = run(&mut command);
    assert!(finished.status.success(), "{finished:#?}");
    let told = "ulimit -n permits 32 of 64 connections; it is 64: raise it";
    assert!(finished.stdout.contains(told), "{finished:#?}");
    assert_eq!(finished.stderr.matches(told).count(), 1, "{finished:#?}");
    let connections: HashSet<_> = server.seen().iter().map(|request| request.connection).collect();
    // Late responses are requested again on others.
    assert!((25..=48).contains(&connections.len()), "{}", connections.len());
}

/// Connections for the data were opened when the headers had been read: the first data took the round
/// trips of TCP and TLS in addition.
#[test]
fn connections_are_opened_while_the_header_is_read() {
    // The header is longer than the first request.
    let model = Model::new(&[8_000; 1_500]);
    assert!(model.data_offset() > 64 << 10);
    let server = serve(&model.file, Others::Expect(4));
    let began = Instant::now();
    model.load(&loader(), &server.url).unwrap();
    assert!(began.elapsed() < MINUTE, "the connections came after the header");
}

#[test]
fn no_connection_is_opened_ahead_for_what_comes_with_the_header() {
    let model = Model::new(&[10_000; 3]);
    let server = serve(&model.file, Others::Expect(1));
    model.load(&loader(), &server.url).unwrap();
    // Of a larger object the header alone is read.
    let large = Model::new(&[300_000; 40]);
    let inspected = serve(&large.file, Others::Expect(1));
    loader().open(inspected.url.as_str()).unwrap();
    thread::sleep(Duration::from_millis(100));
    assert_eq!([server, inspected].map(|it| it.accepted.load(Ordering::SeqCst)), [1, 1]);
}

/// Connections that were opened ahead are in the way of nothing: a server that serves one after the
/// other does not wait for their requests.
#[test]
fn connections_opened_ahead_are_closed_when_others_get_no_answer() {
    let model = Model::new(&[8_000; 1_500]);
    let server = serve(&model.file, Others::Wait);
    let loader = ringload::Loader::new().engines(1);
    let summary = model.load(&loader, &server.url).unwrap();
    assert_eq!(summary.retries.get("timeout"), None, "{summary:?}");
}
