//! A moto server with objects: an S3 emulator that checks every signature.

use super::directory;
use super::servers::{Server, free_port, python_program};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A running moto.
pub struct Moto {
    pub server: Server,
    /// The directory of its log, and a home directory without credentials.
    pub home: TempDir,
    keys: Value,
}

impl Moto {
    /// Starts a server whose `bucket` has every file below `files`. `None` where moto is not installed.
    pub fn start(bucket: &str, files: &Path) -> Option<Self> {
        let (moto, python) = (python_program("moto_server")?, python_program("python")?);
        let (home, port) = (directory(), free_port());
        let mut command = Command::new(moto);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", "3");
        let server = Server::start(&mut command, port, &home.path().join("moto.log"));
        let filling = Command::new(python)
            .args(["tests/support/moto.py", &format!("http://127.0.0.1:{port}"), bucket])
            .arg(files)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HOME", home.path())
            .output()
            .unwrap();
        assert!(filling.status.success(), "{}", String::from_utf8_lossy(&filling.stderr));
        let keys = serde_json::from_slice(&filling.stdout).unwrap();
        Some(Self { server, home, keys })
    }

    /// `key` and `secret` of a user with all permissions, `denied_key` and `denied_secret` of a user
    /// without permissions, and the `role` that the first user may assume.
    pub fn key(&self, name: &str) -> &str {
        self.keys[name].as_str().unwrap()
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }
}
