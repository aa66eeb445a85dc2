//! A server that runs as a child process: nginx or the emulated store.

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

/// The ports, the key and the certificate of a server, and a directory for its files.
pub struct Places {
    pub directory: tempfile::TempDir,
    pub http: u16,
    pub https: u16,
    pub key: PathBuf,
    pub certificate: PathBuf,
}

impl Places {
    /// Chooses free ports and makes a certificate.
    ///
    /// # Errors
    /// When openssl is not installed, or nothing can be written.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (key, certificate) = certify(directory.path())?;
        Ok(Self { http: free_port()?, https: free_port()?, key, certificate, directory })
    }
}

impl Server {
    /// Runs `command` in `places`, and waits until its port accepts connections. The kernel kills the
    /// server when it is dropped.
    ///
    /// # Errors
    /// When it does not start; the file `error.log` of its directory is part of the error.
    pub fn start(mut command: Command, places: Places) -> Result<Self> {
        let Places { directory, http, https, certificate, .. } = places;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let named = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot start {named}"))?;
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
        bail!("{named} does not listen: {}", log.trim())
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

/// `program`, on `core` if one is given.
pub fn on_core(core: Option<usize>, program: &Path) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
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
