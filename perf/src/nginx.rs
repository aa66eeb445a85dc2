//! A real server on a port of loopback: nginx, over HTTP and TLS, with its CPU time.
//!
//! One process serves files with `sendfile`. It also acts as an S3 store that accepts any signature,
//! with the same costs for clients as a real store. (tests/s3.rs checks that real stores accept
//! ringload's signatures; a server that verified them here would be the bottleneck.)

use crate::server::{Places, Server, on_core};
use anyhow::{Context, Result};
use ringload_measure::process::Invocation;
use std::fs;
use std::path::Path;

/// Serves `root`, on `core`; `more` are directives of its `server` block.
///
/// # Errors
/// When nginx or openssl is not installed, or does not start.
pub fn start(root: &Path, core: Option<usize>, more: &str) -> Result<Server> {
    let places = Places::new()?;
    let here = places.directory.path();
    let conf = here.join("nginx.conf");
    fs::write(&conf, configuration(&places, root, more))?;
    let mut command = on_core(core, Path::new(program()?));
    command.arg("-e").arg(here.join("error.log")).arg("-c").arg(conf);
    Server::start(command, places)
}

/// Debian installs nginx outside of a user's PATH.
fn program() -> Result<&'static str> {
    let is_installed = |program: &&str| Invocation::new(program).arg("-v").run().is_ok();
    let found = ["nginx", "/usr/sbin/nginx"].into_iter().find(is_installed);
    found.context("nginx is not installed; tests/servers.sh does that")
}

fn configuration(places: &Places, root: &Path, more: &str) -> String {
    let Places { directory, http, https, key, certificate } = places;
    let (here, root) = (directory.path().display(), root.display());
    let (key, certificate) = (key.display(), certificate.display());
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.map(|kind| format!("{kind}_temp_path {here}/{kind};")).concat();
    format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log; \
         events {{ worker_connections 1024; }} \
         http {{ access_log off; sendfile on; keepalive_requests 1000000; {temporary} \
         server {{ listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl; root {root}; {more} \
         ssl_certificate {certificate}; ssl_certificate_key {key}; }} }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn it_serves_and_tells_its_cpu_time() {
        if program().is_err() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "the bytes").unwrap();
        let server = start(root.path(), None, "").unwrap();
        let address = server.http.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("the bytes"), "{answer}");
        assert!(server.cpu_seconds().unwrap() > 0.0);
    }
}
