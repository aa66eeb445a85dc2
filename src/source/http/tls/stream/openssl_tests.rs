//! OpenSSL's own server, with records as small and as padded as it can make them.

use super::super::test_peer::{SUITES, Sides, block_on, certificates, name};
use super::*;
use crate::source::http::socket::Socket;
use std::future::poll_fn;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Requests `/object` as HTTP/1.0, and reads until the end.
async fn get(stream: &mut TlsStream) -> Vec<u8> {
    let mut sent = Pin::new(&mut *stream);
    let request = b"GET /object HTTP/1.0\r\n\r\n";
    let bytes = poll_fn(|cx| Write::poll_write(sent.as_mut(), cx, request)).await.unwrap();
    assert_eq!(bytes, request.len());
    poll_fn(|cx| Write::poll_flush(sent.as_mut(), cx)).await.unwrap();
    let mut all = Vec::new();
    loop {
        let mut piece = vec![0; 300_000];
        match poll_fn(|cx| stream.poll_fill(cx, &mut piece)).await.unwrap() {
            0 => return all,
            bytes => all.extend_from_slice(&piece[..bytes]),
        }
    }
}

#[test]
fn openssl_s_server_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let object: Vec<u8> = (0..2_000_000_u32).map(|at| (at * 13 + (at >> 11)) as u8).collect();
    std::fs::write(directory.path().join("object"), &object).unwrap();
    let options: [&[&str]; 4] = [
        &[],
        &["-max_send_frag", "512"],
        &["-record_padding", "1000"],
        &["-num_tickets", "9", "-max_send_frag", "5000"],
    ];
    for (number, options) in options.into_iter().enumerate() {
        for suite in SUITES {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let mut server = Command::new("openssl");
            let certificates = certificates();
            let pem = |name: &str| certificates.path().join(name);
            server.args(["s_server", "-quiet", "-WWW", "-accept", &address]).args(options);
            server.arg("-cert").arg(pem("server.pem")).arg("-key").arg(pem("server.key"));
            let silent = server.current_dir(directory.path()).stdin(Stdio::null());
            let server = silent.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let _running = Running(server);
            let sides = Sides::of(suite);
            block_on(async {
                for _ in 0..2 {
                    let socket = connect_to(&address).await;
                    let (config, socket) = (Arc::clone(&sides.client), Socket::plain(socket));
                    let connecting = TlsStream::connect(config, name(), socket.into_inner());
                    let response = get(&mut connecting.await.unwrap()).await;
                    assert!(response.starts_with(b"HTTP/1.0 200"), "{}", response.len());
                    assert!(response.ends_with(&object), "{number} {suite:?}: {}", response.len());
                }
            });
        }
    }
}

async fn connect_to(address: &str) -> TcpStream {
    for _ in 0..500 {
        match TcpStream::connect(address).await {
            Ok(socket) => return socket,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("openssl s_server does not start");
}
