//! Connections over real sockets, with servers that the tests write record by record.
//!
//! Hazards: a body that was cut off counts as complete; a connection keeps more than its share of
//! memory; the server gets no answer; an idle connection is used although the server has closed it, or
//! is closed although only a ticket arrived.

use super::super::test_peer::{Peer, SUITES, Sides, block_on, name};
use super::*;
use crate::source::http::socket::Socket;
use rustls::{ContentType, Error, SupportedCipherSuite};
use std::future::poll_fn;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// A connection, and the server's side of it.
async fn connected(suite: SupportedCipherSuite) -> (TlsStream, Peer, TcpStream) {
    let sides = Sides::without_tickets(suite);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let mut socket = listener.accept().await.unwrap().0;
        let peer = Peer::accept(Arc::clone(&sides.server), &mut socket).await.unwrap();
        (peer, socket)
    };
    let connecting = async {
        let socket = Socket::plain(TcpStream::connect(address).await.unwrap()).into_inner();
        TlsStream::connect(Arc::clone(&sides.client), name(), socket).await.unwrap()
    };
    let (stream, (peer, socket)) = tokio::join!(connecting, accepting);
    (stream, peer, socket)
}

/// Reads up to `len` bytes.
async fn read(stream: &mut TlsStream, len: usize) -> (Vec<u8>, io::Result<()>) {
    let (mut into, mut filled) = (vec![0; len], 0);
    while filled < len {
        let reading = poll_fn(|cx| stream.poll_fill(cx, &mut into[filled..]));
        match timeout(Duration::from_secs(20), reading).await.unwrap() {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) => {
                into.truncate(filled);
                return (into, Err(error));
            }
        }
        // What a connection has of its own stays within its share.
        assert!(stream.carry.capacity() + CONTENT_BYTES <= 64 << 10, "{}", stream.carry.capacity());
    }
    into.truncate(filled);
    (into, Ok(()))
}

const CONTENT_BYTES: usize = (16 << 10) + 1;

/// All kinds of records that a server may send in a body, in pieces of any length.
#[test]
fn a_body_among_other_records_arrives() {
    for suite in SUITES {
        let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 7 + (at >> 9)) as u8).collect();
        block_on(async {
            let (mut stream, mut peer, mut socket) = connected(suite).await;
            let is_13 = matches!(suite, SupportedCipherSuite::Tls13(_));
            let (mut wire, mut at, mut number) = (Vec::new(), 0, 0);
            while at < content.len() {
                let len = [16384, 1, 5000, 16384, 300, 16384][number % 6].min(content.len() - at);
                wire.extend(peer.data(&content[at..at + len]));
                (at, number) = (at + len, number + 1);
                match number % 20 {
                    3 => wire.extend(peer.data(b"")),
                    7 if is_13 => wire.extend(peer.key_update(number % 3 == 0)),
                    11 => wire.extend(peer.alert(1, 90)),
                    _ => {}
                }
            }
            let sending = async {
                for (number, piece) in wire.chunks(77_777).enumerate() {
                    socket.write_all(piece).await.unwrap();
                    if number % 3 == 0 {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            };
            let (received, ()) = tokio::join!(read(&mut stream, content.len()), sending);
            received.1.unwrap();
            assert!(received.0 == content, "{suite:?}");
        });
    }
}

/// Wherever the connection breaks off, the body is truncated, also between two records.
#[test]
fn a_connection_that_breaks_off_is_an_error_at_each_byte() {
    for suite in [SUITES[0], SUITES[3]] {
        let lens = |peer: &mut Peer| [peer.data(&[1; 10]), peer.data(&[2; 10])];
        let (first, second) = block_on(async {
            let (_, mut peer, _) = connected(suite).await;
            let [first, second] = lens(&mut peer);
            (first.len(), second.len())
        });
        for cut in 0..=first + second {
            block_on(async {
                let (mut stream, mut peer, mut socket) = connected(suite).await;
                let wire = lens(&mut peer).concat();
                socket.write_all(&wire[..cut]).await.unwrap();
                drop(socket);
                let (received, outcome) = read(&mut stream, 21).await;
                let complete = 10 * (usize::from(cut >= first) + usize::from(cut >= wire.len()));
                assert_eq!(received.len(), complete, "cut at {cut}");
                assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            });
        }
    }
}

#[test]
fn the_announced_end_is_told_from_a_cut() {
    block_on(async {
        let (mut stream, mut peer, mut socket) = connected(SUITES[0]).await;
        let wire = [peer.data(b"some"), peer.alert(1, 0)].concat();
        socket.write_all(&wire).await.unwrap();
        let (received, outcome) = read(&mut stream, 100).await;
        outcome.unwrap();
        assert_eq!(received, b"some");
        assert_eq!(read(&mut stream, 100).await.0, b"");
    });
}

/// What `socket` receives within a moment.
async fn heard(peer: &mut Peer, socket: &mut TcpStream) -> Vec<(ContentType, Vec<u8>)> {
    let mut all = Vec::new();
    while let Ok(Ok(1..)) = timeout(Duration::from_millis(50), socket.read_buf(&mut all)).await {}
    peer.opened(&all)
}

#[test]
fn key_updates_are_answered_and_wrong_records_reported_while_reading() {
    block_on(async {
        let (mut stream, mut peer, mut socket) = connected(SUITES[0]).await;
        let wire = [peer.key_update(true), peer.data(b"body")].concat();
        socket.write_all(&wire).await.unwrap();
        assert_eq!(read(&mut stream, 4).await.0, b"body");
        let update = (ContentType::Handshake, vec![24, 0, 0, 1, 0]);
        assert_eq!(heard(&mut peer, &mut socket).await, [update]);
        // Requests, with the new key.
        let mut sent = Pin::new(&mut stream);
        poll_fn(|cx| Write::poll_write(sent.as_mut(), cx, b"GET")).await.unwrap();
        poll_fn(|cx| Write::poll_flush(sent.as_mut(), cx)).await.unwrap();
        let request = (ContentType::ApplicationData, b"GET".to_vec());
        assert_eq!(heard(&mut peer, &mut socket).await, [request]);
        let (good, mut wrong) = (peer.data(b"good"), peer.data(b"wrong"));
        wrong[7] ^= 1;
        socket.write_all(&[good, wrong].concat()).await.unwrap();
        let (received, outcome) = read(&mut stream, 100).await;
        assert_eq!(received, b"good");
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let tls = error.get_ref().unwrap().downcast_ref::<Error>();
        assert_eq!(tls, Some(&Error::DecryptError));
        let alert = (ContentType::Alert, vec![2, 20]); // bad_record_mac
        assert_eq!(heard(&mut peer, &mut socket).await, [alert]);
        assert!(!stream.is_quiet());
    });
}

/// The outcome of `is_quiet` after the server has sent what `records` makes.
async fn quiet_after(records: impl Fn(&mut Peer) -> Vec<u8>) -> bool {
    let (mut stream, mut peer, mut socket) = connected(SUITES[0]).await;
    assert!(stream.is_quiet());
    socket.write_all(&records(&mut peer)).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    stream.is_quiet()
}

#[test]
fn idle_connections_are_used_again_unless_the_server_has_sent_or_closed() {
    block_on(async {
        let keys = |peer: &mut Peer| [peer.key_update(false), peer.key_update(true)].concat();
        assert!(quiet_after(keys).await);
        let many = |peer: &mut Peer| (0..60).flat_map(|_| peer.padded(b"", 9000)).collect();
        assert!(quiet_after(many).await, "empty records are no data");
        assert!(!quiet_after(|peer| peer.alert(1, 0)).await);
        assert!(!quiet_after(|peer| peer.alert(2, 40)).await);
        assert!(!quiet_after(|peer| peer.data(b"H")).await);
        assert!(
            !quiet_after(|peer| [peer.key_update(false), peer.data(&[1; 3000])].concat()).await
        );
        assert!(!quiet_after(|peer| peer.data(b"HTTP/1.1 408")[..9].to_vec()).await);
        assert!(!quiet_after(|_| vec![20, 3, 3, 0, 1, 1]).await);
        let (mut stream, _, socket) = connected(SUITES[2]).await;
        drop(socket);
        sleep(Duration::from_millis(5)).await;
        assert!(!stream.is_quiet());
        // A record that came behind the body counts, too.
        let (mut stream, mut peer, mut socket) = connected(SUITES[2]).await;
        socket.write_all(&[peer.data(b"body"), peer.data(b"more")].concat()).await.unwrap();
        sleep(Duration::from_millis(5)).await;
        assert_eq!(read(&mut stream, 4).await.0, b"body");
        assert!(!stream.is_quiet());
    });
}
