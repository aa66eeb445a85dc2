//! The mount as a process of its own, which a session starts.

use super::Settings;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use std::os::unix::fs::MetadataExt;
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
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
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
        let unmounted = umount2(self.point.path(), MntFlags::MNT_DETACH).context("unmount");
        unmounted.unwrap_or_else(|error| eprintln!("{error:#}"));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
