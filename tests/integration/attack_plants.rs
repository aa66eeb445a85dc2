//! What an attacker puts in the place of files and directories: see `attacks`.

use crate::attack_stage::set_mode;
use crate::common::seccomp::become_nobody;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    LinkToFile,
    LinkToDirectory,
    /// A link to a file of the victim that does not exist.
    LinkToNothing,
    HardLink,
    Fifo,
    Socket,
    Directory,
    File,
    Device,
}

impl Plant {
    pub const ALL: [Self; 9] = [
        Self::LinkToFile,
        Self::LinkToDirectory,
        Self::LinkToNothing,
        Self::HardLink,
        Self::Fifo,
        Self::Socket,
        Self::Directory,
        Self::File,
        Self::Device,
    ];

    /// Puts this at `path`; what is there gets another name. False if the kernel refuses it.
    pub fn put(self, path: &Path, victim: &Path) -> bool {
        let _ = fs::rename(path, away(path));
        self.make(path, victim)
    }

    /// Removes what was put at `path`, and puts back what was there.
    pub fn undo(path: &Path) {
        let _ = fs::remove_file(path);
        let _ = fs::rename(away(path), path);
    }

    fn make(self, path: &Path, victim: &Path) -> bool {
        let all = Mode::from_bits_truncate(0o666);
        match self {
            Self::LinkToFile => symlink(victim.join("secret"), path).is_ok(),
            Self::LinkToDirectory => symlink(victim.join("precious"), path).is_ok(),
            Self::LinkToNothing => symlink(victim.join("new"), path).is_ok(),
            // Linux can refuse links to files that the attacker may not write to.
            Self::HardLink => fs::hard_link(victim.join("precious/a.safetensors"), path).is_ok(),
            Self::Fifo => nix::unistd::mkfifo(path, all).is_ok(),
            Self::Socket => std::os::unix::net::UnixListener::bind(path).is_ok(),
            Self::Directory => fs::create_dir(path).map(|()| set_mode(path, 0o777)).is_ok(),
            Self::File => {
                fs::write(path, "not what was here").map(|()| set_mode(path, 0o666)).is_ok()
            }
            Self::Device => mknod(path, SFlag::S_IFCHR, all, makedev(1, 5)).is_ok(),
        }
    }

    /// Puts this in the place of `path`, and what was there back.
    pub fn alternate(self, path: &Path, victim: &Path) {
        self.put(path, victim);
        Self::undo(path);
    }

    /// Lets two paths change places at once.
    pub fn exchange(one: &Path, two: &Path) {
        let _ = renameat2(AT_FDCWD, one, AT_FDCWD, two, RenameFlags::RENAME_EXCHANGE);
    }
}

/// The name of what was at `path`.
fn away(path: &Path) -> PathBuf {
    let path: PathBuf = path.components().collect();
    format!("{}.away", path.display()).into()
}

/// Calls `begin` at some instant of the next download to `directory`, and `end` a little later.
pub fn during_download(directory: &Path, begin: impl FnOnce(), end: impl FnOnce()) {
    let began = Instant::now();
    while !directory.join(".ringload-download").exists() {
        if began.elapsed() > Duration::from_millis(300) {
            return; // perhaps there is none any more
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let pause = || std::thread::sleep(Duration::from_millis(fastrand::u64(0..70)));
    pause();
    begin();
    pause();
    end();
}

/// Runs `attack` with the credentials of the attacker.
pub fn as_attacker<T: Send>(attack: impl FnOnce() -> T + Send) -> T {
    let attacker = || {
        become_nobody();
        attack()
    };
    scope(|scope| scope.spawn(attacker).join().unwrap())
}

/// Repeats `change` as the attacker while `work` runs. Returns how often.
pub fn race(change: impl Fn() + Sync, work: impl FnOnce()) -> u64 {
    /// Ends the attack when `work` panics, too.
    struct End<'a>(&'a AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let (ended, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    scope(|scope| {
        scope.spawn(|| {
            become_nobody();
            while !ended.load(Ordering::Relaxed) {
                change();
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _end = End(&ended);
        work();
    });
    changes.into_inner()
}
