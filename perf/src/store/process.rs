//! The store as a process of its own, which a session starts.

use super::{Counts, Settings, counts};
use crate::server::{Places, Server, on_core};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// A running store.
#[derive(Debug)]
pub struct Emulated {
    pub server: Server,
}

impl Emulated {
    /// Serves the directory `root`, on `core` if one is given.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(root: &Path, core: Option<usize>, settings: &Settings) -> Result<Self> {
        let places = Places::new()?;
        let mut command = on_core(core, &std::env::current_exe()?);
        command.arg("emulated-store").arg(root);
        command.args(["--http", &places.http.to_string(), "--https", &places.https.to_string()]);
        command.arg("--tls").arg(&places.key).arg(&places.certificate);
        command.args(settings.words().split(' '));
        Ok(Self { server: Server::start(command, places)? })
    }

    /// What happened since the last call.
    ///
    /// # Errors
    /// When the store is gone.
    pub fn counts(&self) -> Result<Counts> {
        let address = self.server.http.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        let path = counts::PATH;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (_, body) = text.split_once("\r\n\r\n").context("the store does not answer")?;
        Ok(serde_json::from_str(body)?)
    }
}
