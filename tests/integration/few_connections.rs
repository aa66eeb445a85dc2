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
use std::time::Duration;

/// What a server does with a connection while another one is open.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    /// It answers all requests with 503, also those on the connection that was there before.
    Refuse,
    Close,
    /// They are accepted when that is closed.
    Wait,
}

/// Serves `file` on connections that are kept open. Ends with the process.
fn serve(file: &[u8], others: Others) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.safetensors", listener.local_addr().unwrap());
    let (file, open) = (Arc::new(file.to_vec()), Arc::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if others == Others::Close && open.load(Ordering::SeqCst) > 0 {
                continue;
            }
            open.fetch_add(1, Ordering::SeqCst);
            let (file, open) = (Arc::clone(&file), Arc::clone(&open));
            let serving = thread::spawn(move || {
                let _ = answer(stream, &file, || {
                    others == Others::Refuse && open.load(Ordering::SeqCst) > 1
                });
                open.fetch_sub(1, Ordering::SeqCst);
            });
            if others == Others::Wait {
                serving.join().unwrap();
            }
        }
    });
    url
}

/// Answers the requests of one connection until the client closes it.
fn answer(mut stream: TcpStream, file: &[u8], refuses: impl Fn() -> bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    loop {
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
        if refuses() {
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
}

/// Connections that were refused stayed open, so that the server had room for none, and the load
/// failed.
#[test]
fn a_server_with_room_for_one_connection_serves_the_whole_load() {
    let model = Model::new(&[300_000; 40]);
    for others in [Others::Refuse, Others::Close] {
        let url = serve(&model.file, others);
        model.load(&loader().connections(4), &url).unwrap();
    }
}

/// The idle connection that had received the header kept the server from answering the others, each
/// of which waited for 20 s.
#[test]
fn a_server_that_serves_one_connection_after_the_other_is_not_waited_for() {
    let model = Model::new(&[300_000; 40]);
    let url = serve(&model.file, Others::Wait);
    let loader = ringload::Loader::new().engines(1).connections(4);
    let summary = model.load(&loader, &url).unwrap();
    assert!(summary.retries.is_empty(), "{summary:?}");
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
    assert!((25..=33).contains(&connections.len()), "{}", connections.len());
}
