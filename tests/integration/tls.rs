//! TLS: which servers are read in which way, resumption, and bytes that were changed on the way.
//!
//! Hazards: bytes that are not authentic get into a tensor; a server that wants another cipher than
//! AES-GCM is not read; each connection makes a whole handshake.

use crate::common::command::{digest_lines, ringload, run};
use crate::common::nginx::Nginx;
use crate::common::{Expected, directory, write};
use crate::web::certify;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn tensors() -> Vec<Expected> {
    vec![Expected::of_bytes("a", 20 << 20, 1), Expected::of_bytes("b", (3 << 20) + 7, 2)]
}

/// nginx with the certificate in `certificates`, and with these `settings` of TLS.
fn start(certificates: &Path, settings: &str) -> Option<Nginx> {
    let certificates = certificates.display();
    let body = format!(
        "ssl_certificate {certificates}/server.pem;\nssl_certificate_key {certificates}/server.key;\n\
         {settings}"
    );
    Nginx::listening("127.0.0.1:{port} ssl", &body, |root| {
        write(&root.join("1.safetensors"), &tensors(), None);
    })
}

/// Loads from `port`, and expects the right bytes. Returns what was logged.
#[track_caller]
fn load(certificates: &Path, port: u16) -> String {
    let mut command = ringload();
    command.env_clear().args(["load", "--digest", "-vv", "--connections", "4"]);
    command.env("SSL_CERT_FILE", certificates.join("ca.pem"));
    command.arg(format!("https://127.0.0.1:{port}/1.safetensors"));
    let finished = run(&mut command);
    assert!(finished.status.success(), "{finished:#?}");
    assert_eq!(finished.stdout, digest_lines(&tensors()));
    finished.stderr
}

/// The protocol, the cipher, and whether a session was resumed (`r` or `.`), of each request.
fn sessions(nginx: &Nginx) -> Vec<String> {
    let last = |line: &String| line.rsplit(']').next().unwrap().trim().to_owned();
    nginx.log().iter().map(last).collect()
}

const CIPHERS: [(&str, &str, &str); 7] = [
    ("TLSv1.3", "", "TLS_AES_128_GCM_SHA256"),
    ("TLSv1.3", "ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;", "TLS_AES_256_GCM_SHA384"),
    (
        "TLSv1.3",
        "ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    ("TLSv1.2", "", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("TLSv1.2", "ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("TLSv1.2", "ssl_ciphers ECDHE-ECDSA-CHACHA20-POLY1305;", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    // An optional certificate of the client, which it does not have.
    ("TLSv1.2 TLSv1.3", "ssl_verify_client optional_no_ca;", "TLS_AES_128_GCM_SHA256"),
];

#[test]
fn all_ciphers_give_the_same_bytes_and_sessions_are_resumed() {
    let certificates = directory();
    if !certify(certificates.path()) {
        return;
    }
    for (protocols, settings, cipher) in CIPHERS {
        // A connection serves few requests, so that there are many.
        let settings = format!("ssl_protocols {protocols};\nkeepalive_requests 2;\n{settings}");
        let Some(nginx) = start(certificates.path(), &settings) else { return };
        let told = load(certificates.path(), nginx.port());
        let sessions = sessions(&nginx);
        assert!(sessions.iter().all(|line| line.contains(cipher)), "{cipher}: {sessions:?}");
        assert!(sessions.iter().any(|line| line.ends_with(" r")), "{cipher}: {sessions:?}");
        // Only what has to be is left to rustls, and each server only once.
        let left = told.matches("TLS is left to rustls").count();
        let is_other = cipher.to_ascii_uppercase().contains("CHACHA20");
        assert!(if is_other { (1..=5).contains(&left) } else { left == 0 }, "{cipher}: {told}");
        assert_eq!(told.contains("TLS is set up"), !is_other, "{cipher}: {told}");
    }
}

/// Passes connections on to `to`. On the first connection on which the server sends so many bytes, the
/// one at `flipped` is changed.
fn flipping_proxy(to: u16, flipped: usize, done: &Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let done = Arc::clone(done);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) =
                (client.unwrap(), TcpStream::connect(("127.0.0.1", to)).unwrap());
            let (mut requests, mut requested) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut requests, &mut requested);
                let _ = requested.shutdown(Shutdown::Both);
            });
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let (mut piece, mut sent) = (vec![0; 30_000], 0);
                while let Ok(bytes @ 1..) = server.read(&mut piece) {
                    if (sent..sent + bytes).contains(&flipped)
                        && !done.swap(true, Ordering::Relaxed)
                    {
                        piece[flipped - sent] ^= 0x10;
                    }
                    sent += bytes;
                    if client.write_all(&piece[..bytes]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// A byte that was changed on the way is noticed, the range is requested again, and the right bytes are
/// loaded.
#[test]
fn bytes_that_were_changed_on_the_way_are_requested_again() {
    let certificates = directory();
    if !certify(certificates.path()) {
        return;
    }
    for settings in [
        "ssl_protocols TLSv1.3;",
        "ssl_protocols TLSv1.2;",
        "ssl_protocols TLSv1.2;\nssl_ciphers ECDHE-ECDSA-CHACHA20-POLY1305;",
    ] {
        let Some(nginx) = start(certificates.path(), settings) else { return };
        for flipped in [100_000, 1_000_003, 3_000_001] {
            let done = Arc::default();
            let told = load(certificates.path(), flipping_proxy(nginx.port(), flipped, &done));
            assert!(done.load(Ordering::Relaxed), "{settings}: no byte was changed");
            assert!(
                told.contains("TLS with https://127.0.0.1"),
                "{settings}, byte {flipped}: {told}"
            );
        }
    }
}

/// nginx answers 400 to a client without a certificate, and the load was told that the server did not
/// understand the request.
#[test]
fn a_server_that_requires_a_client_certificate_is_named_as_such() {
    let certificates = directory();
    if !certify(certificates.path()) {
        return;
    }
    let authority = certificates.path().join("ca.pem");
    let settings =
        format!("ssl_client_certificate {};\nssl_verify_client on;", authority.display());
    let Some(nginx) = start(certificates.path(), &settings) else { return };
    let mut command = ringload();
    command
        .env_clear()
        .args(["load", &format!("https://127.0.0.1:{}/1.safetensors", nginx.port())]);
    let told = run(command.env("SSL_CERT_FILE", &authority)).stderr;
    assert!(told.contains("400") && told.contains("requires a client certificate"), "{told}");
    assert!(told.contains("proxy_ssl_certificate"), "{told}");
}
