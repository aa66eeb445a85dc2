//! A real nginx with the test's configuration, in a directory of its own.

use super::servers::{Server, free_port, nginx};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// An nginx that runs until this is dropped.
pub struct Nginx {
    directory: TempDir,
    server: Server,
}

impl Nginx {
    /// Starts one with the `server` block of `body`, in which `{dir}` stands for its directory. Its
    /// files are those in [`root`](Self::root), put there by `files`. `None` where nginx is not
    /// installed.
    pub fn start(body: &str, files: impl FnOnce(&Path)) -> Option<Self> {
        Self::listening("127.0.0.1:{port}", body, files)
    }

    /// As [`start`](Self::start), with what `listen` says: `127.0.0.1:{port} ssl`.
    pub fn listening(listen: &str, body: &str, files: impl FnOnce(&Path)) -> Option<Self> {
        let program = nginx()?;
        let directory = super::directory();
        let dir = directory.path().display().to_string();
        let port = free_port();
        fs::create_dir(directory.path().join("root")).unwrap();
        files(&directory.path().join("root"));
        let listen = listen.replace("{port}", &port.to_string());
        let body = body.replace("{dir}", &dir);
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {dir}/temporary;\n"))
            .concat();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n{temporary}\
             log_format told escape=none '$request_method $request_uri $status [$http_authorization] \
             [$http_range] [$http_if_match] $ssl_protocol $ssl_cipher $ssl_session_reused';\n\
             access_log {dir}/access.log told;\n\
             server {{\nlisten {listen};\nroot {dir}/root;\n{body}\n}}\n}}\n"
        );
        let config = directory.path().join("nginx.conf");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        // What it says before it has read where to say it goes to `start.log`, too.
        command.arg("-e").arg(directory.path().join("start.log")).arg("-c").arg(config);
        let server = Server::start(&mut command, port, &directory.path().join("output.log"));
        Some(Self { directory, server })
    }

    /// Where its files are.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// `http://127.0.0.1:port/path`
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port())
    }

    /// A line for each request so far: method, target, status, `Authorization`, `Range`, `If-Match`.
    pub fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("access.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}
