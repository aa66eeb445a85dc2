//! A proxy that forwards plain requests, makes tunnels, and counts connections.

use super::servers::free_port;
use std::io::{BufRead, BufReader, Read, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A proxy that runs until the test ends. It requires `Proxy-Authorization: Basic dTpw` (`u:p`).
pub struct Proxy {
    pub port: u16,
    served: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start() -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let served = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&served);
        thread::spawn(move || {
            for client in listener.incoming() {
                let count = Arc::clone(&count);
                // Clients that disconnect are ignored.
                thread::spawn(move || drop(serve(client.unwrap(), &count)));
            }
        });
        Self { port, served }
    }

    /// How many connections it has served.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn serve(mut client: TcpStream, served: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    if !head.to_ascii_lowercase().contains("\r\nproxy-authorization: basic dtpw\r\n") {
        client.write_all(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    }
    served.fetch_add(1, Ordering::SeqCst);
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let authority = target.trim_start_matches("http://").split('/').next().unwrap();
    let mut server = TcpStream::connect(authority)?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 Go on\r\n\r\n")?;
    } else {
        // Any server takes requests in absolute form, so that the later ones need no look.
        server.write_all(head.as_bytes())?;
    }
    let (mut back, mut to) = (server.try_clone()?, client.try_clone()?);
    let returning = thread::spawn(move || {
        let _ = copy(&mut back, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut reader as &mut dyn Read, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    let _ = returning.join();
    Ok(())
}
