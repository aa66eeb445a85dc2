//! The mount as a process of its own, which a session starts.

use super::Settings;
use anyhow::{Result, bail};
use std::os::unix::{fs::MetadataExt, process::CommandExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, thread, time::Duration};

/// A mount, until this is dropped.
#[derive(Debug)]
pub struct Mounted {
    child: Child,
    point: tempfile::TempDir,
}

impl Mounted {
    /// Mounts the files of the directory `root`.
    ///
    /// # Errors
    /// When this process may not mount, or there is no `/dev/fuse`.
    pub fn start(root: &Path, settings: &Settings) -> Result<Self> {
        let point = tempfile::tempdir()?;
        let device = fs::metadata(point.path())?.dev();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("mount").arg(root).arg(point.path());
        command.arg(format!("--latency={}", settings.latency));
        command.args(settings.refuse.iter().map(|end| format!("--refuse={end}")));
        command.args(settings.waits.then_some("--waits"));
        // Ctrl-C ends the session, and with it this process's input.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        while fs::metadata(point.path())?.dev() == device {
            if let Some(status) = child.try_wait()? {
                bail!("cannot mount a FUSE file system ({status}); this needs root and /dev/fuse");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { child, point })
    }

    /// The path of the file with this name.
    pub fn file(&self, name: &str) -> String {
        self.point.path().join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
