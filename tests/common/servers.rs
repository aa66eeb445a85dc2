//! Servers as child processes: started on a port that the test chooses, and killed on drop.
//!
//! `tests/servers.sh` installs them. The tests of a missing server are skipped, unless
//! `RINGLOAD_TEST_SERVERS=require` is set.

use super::{PATIENCE, skip};
use std::env;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server that runs until this is dropped.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts `command`, which is to listen on `port` of 127.0.0.1, and waits until it does.
    ///
    /// Its output goes to `log`, which is shown when it does not come up.
    pub fn start(command: &mut Command, port: u16, log: &Path) -> Self {
        let file = std::fs::File::create(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        // A group of its own: workers and wrapped interpreters go with it.
        let mut child = command.process_group(0).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "{command:?} does not listen on port {port} ({ended:?}):\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, killpg};
        use nix::unistd::Pid;
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A free port of 127.0.0.1. It stays free: the system gives no connection a port below 32768, and
/// each test process has 64 ports of its own, as far as process numbers differ.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(64);
    let next = || first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let mut ports = (0..1000).map(|_| 10_000 + (next() % 20_000) as u16);
    ports.find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap()
}

/// nginx, if it is installed.
pub fn nginx() -> Option<PathBuf> {
    found("nginx", [PathBuf::from("/usr/sbin/nginx"), PathBuf::from("/usr/bin/nginx")])
}

/// A program of the Python packages that `tests/servers.sh` installs: `moto_server`,
/// `gcp-storage-emulator`, `python`, `node`.
pub fn python_program(name: &str) -> Option<PathBuf> {
    found(name, [installed().join("python/bin").join(name)])
}

/// Azurite's blob server, to be run as `node <this>`, if it is installed.
pub fn azurite_blob() -> Option<PathBuf> {
    let main = "node/node_modules/azurite/dist/src/blob/main.js";
    found("Azurite", [installed().join(main)])
}

/// Where `tests/servers.sh` puts things: `test-servers` in the target directory.
fn installed() -> PathBuf {
    // CARGO_TARGET_TMPDIR is target/tmp.
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-servers")
}

/// The first of `paths` that exists. Where none does, the test is skipped, or fails if it is required.
fn found<const N: usize>(name: &str, paths: [PathBuf; N]) -> Option<PathBuf> {
    let path = paths.into_iter().find(|path| path.exists());
    if path.is_none() {
        let why = format!("{name} is not installed; tests/servers.sh does that");
        assert!(
            env::var_os("RINGLOAD_TEST_SERVERS").is_none_or(|value| value != "require"),
            "{why}"
        );
        skip(&why);
    }
    path
}
