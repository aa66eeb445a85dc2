//! A real server on a port of loopback: nginx, over HTTP and TLS, with its CPU time.
//!
//! One process serves files with `sendfile`. It also acts as an S3 store that accepts any signature,
//! with the same costs for clients as a real store. (tests/s3.rs checks that real stores accept
//! ringload's signatures; a server that verified them here would be the bottleneck.)

use anyhow::{Context, Result, bail};
use ringload_measure::process::Invocation;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// For example `http://127.0.0.1:1234`, without a final slash.
    pub http: String,
    pub https: String,
    /// The certificate of the server, which clients have to trust.
    pub certificate: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Serves `root`, on `core`; `more` are directives of its `server` block.
    ///
    /// # Errors
    /// When nginx or openssl is not installed, or does not start.
    pub fn start(root: &Path, core: Option<usize>, more: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (key, certificate) = certify(directory.path())?;
        let (http, https) = (free_port()?, free_port()?);
        let conf = directory.path().join("nginx.conf");
        fs::write(
            &conf,
            configuration(directory.path(), root, [http, https], [&key, &certificate], more),
        )?;
        let mut command = Command::new(if core.is_some() { "taskset" } else { program()? });
        if let Some(core) = core {
            command.args(["--cpu-list", &core.to_string(), program()?]);
        }
        command.arg("-e").arg(directory.path().join("error.log")).arg("-c").arg(conf);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start nginx")?;
        let server = Self {
            child,
            http: format!("http://127.0.0.1:{http}"),
            https: format!("https://localhost:{https}"),
            certificate,
            _directory: directory,
        };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", http)).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let log =
            fs::read_to_string(server._directory.path().join("error.log")).unwrap_or_default();
        bail!("nginx does not listen: {}", log.trim())
    }

    /// CPU time so far (proc_pid_schedstat: nanoseconds on a core).
    ///
    /// # Errors
    /// When the server is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let path = format!("/proc/{}/schedstat", self.child.id());
        let text = fs::read_to_string(path).context("the server has ended")?;
        let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
        Ok(nanoseconds / 1e9)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian installs nginx outside of a user's PATH.
fn program() -> Result<&'static str> {
    let is_installed = |program: &&str| Invocation::new(program).arg("-v").run().is_ok();
    let found = ["nginx", "/usr/sbin/nginx"].into_iter().find(is_installed);
    found.context("nginx is not installed; tests/servers.sh does that")
}

fn certify(directory: &Path) -> Result<(PathBuf, PathBuf)> {
    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    let kind = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1";
    let openssl = Invocation::new("openssl").words(kind).words(names);
    let openssl = openssl.words("-addext basicConstraints=critical,CA:FALSE");
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).run()?;
    Ok((key, certificate))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn configuration(
    directory: &Path,
    root: &Path,
    ports: [u16; 2],
    keys: [&Path; 2],
    more: &str,
) -> String {
    let (here, root) = (directory.display(), root.display());
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.map(|kind| format!("{kind}_temp_path {here}/{kind};")).concat();
    let ([http, https], [key, certificate]) = (ports, keys.map(Path::display));
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

    #[test]
    fn it_serves_and_tells_its_cpu_time() {
        if program().is_err() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "the bytes").unwrap();
        let server = Server::start(root.path(), None, "").unwrap();
        let address = server.http.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("the bytes"), "{answer}");
        assert!(server.cpu_seconds().unwrap() > 0.0);
    }
}
