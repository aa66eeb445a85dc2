//! A FUSE mount of a directory, on which each read takes a while, and which may refuse `O_DIRECT`.
//!
//! The files of the directory are read by [`AT_A_TIME`] threads; each waits for the latency before it
//! reads, so as many requests are served at a time. The kernel sends requests of up to 1 MiB. It drops
//! the pages of a file when the file is opened, so every load is cold.
//!
//! Mounting needs root and `/dev/fuse`, and no program or library of FUSE.

mod process;
#[cfg(test)]
mod tests;

pub use process::Mounted;

use anyhow::Result;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};
use nix::libc::{O_DIRECT, c_int};
use nix::mount::{MntFlags, umount2};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// How many requests are served at a time.
const AT_A_TIME: usize = 128;
/// The greatest length of a request.
const REQUEST_BYTES: u32 = 1 << 20;
/// Attributes are cached for this long.
const TTL: Duration = Duration::from_secs(60);

/// How slow the mount is, and what it refuses.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Settings {
    /// The time that a read takes, in milliseconds
    #[arg(long, default_value_t = 0.0)]
    pub latency: f64,
    /// Refuse O_DIRECT for files whose names end in this
    #[arg(long)]
    pub refuse: Option<String>,
    /// Let each direct read wait in its system call (no `FUSE_ASYNC_DIO`)
    #[arg(long)]
    pub waits: bool,
}

/// The arguments of the process that serves the mount.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The directory with the files
    root: PathBuf,
    /// Where it is mounted
    point: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

impl Settings {
    /// The shortest time in which `bytes` can be read: the header, and then as many of the longest
    /// requests at a time as are served. Copies take no time here.
    pub fn ideal_seconds(&self, bytes: u64) -> f64 {
        let rounds = bytes.div_ceil(u64::from(REQUEST_BYTES)).div_ceil(AT_A_TIME as u64);
        (rounds + 1) as f64 * self.latency / 1e3
    }

    fn refuses(&self, name: &OsStr, flags: c_int) -> bool {
        let ends = |end: &String| name.as_encoded_bytes().ends_with(end.as_bytes());
        flags & O_DIRECT != 0 && self.refuse.as_ref().is_some_and(ends)
    }
}

/// Serves the mount until the standard input ends, which it does, too, when the session is killed.
///
/// # Errors
/// When it cannot be mounted, or unmounted.
pub fn run(args: &Args) -> Result<()> {
    let _session = mount(&args.root, &args.point, args.settings.clone())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    // Also while a client has a file open.
    umount2(&args.point, MntFlags::MNT_DETACH)?;
    let _ = fs::remove_dir(&args.point);
    Ok(())
}

/// Mounts the files of `root` at `point` until the answer is dropped.
fn mount(root: &Path, point: &Path, settings: Settings) -> io::Result<BackgroundSession> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((entry.file_name(), File::open(entry.path())?));
        }
    }
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("ringload-perf".into())];
    config.acl = SessionACL::All;
    config.n_threads = Some(AT_A_TIME);
    Session::new(SlowFiles { files, settings }, point, &config)?.spawn()
}

/// The file system: one directory with files.
struct SlowFiles {
    files: Vec<(OsString, File)>,
    settings: Settings,
}

/// The inode of the file with this index.
fn inode(index: usize) -> INodeNo {
    INodeNo(INodeNo::ROOT.0 + 1 + index as u64)
}

impl SlowFiles {
    fn file(&self, inode: INodeNo) -> Result<&(OsString, File), Errno> {
        let index = inode.0.checked_sub(INodeNo::ROOT.0 + 1).ok_or(Errno::ENOENT)?;
        self.files.get(index as usize).ok_or(Errno::ENOENT)
    }

    fn attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let (kind, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0),
            _ => (FileType::RegularFile, self.file(ino)?.1.metadata()?.size()),
        };
        let (atime, mtime, ctime, crtime) = (UNIX_EPOCH, UNIX_EPOCH, UNIX_EPOCH, UNIX_EPOCH);
        let (perm, nlink, uid, gid, rdev, flags) = (0o555, 1, 0, 0, 0, 0);
        let (blocks, blksize) = (size.div_ceil(512), 4096);
        Ok(FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            flags,
            blksize,
        })
    }

    fn read_slowly(&self, ino: INodeNo, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        thread::sleep(Duration::from_secs_f64(self.settings.latency / 1e3));
        let file = &self.file(ino)?.1;
        let left = file.metadata()?.size().saturating_sub(offset);
        let mut bytes = vec![0; left.min(size.into()) as usize];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl Filesystem for SlowFiles {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        if !self.settings.waits {
            // As libfuse does by default: the requests of one direct read are sent side by side.
            let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        }
        // Both are within their bounds.
        let _ = config.set_max_background(2 * AT_A_TIME as u16);
        let _ = config.set_max_write(REQUEST_BYTES);
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.files.iter().position(|(file, _)| file == name).ok_or(Errno::ENOENT);
        match found.and_then(|index| self.attributes(inode(index))) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.file(ino) {
            Ok((name, _)) if self.settings.refuses(name, flags.0) => reply.error(Errno::EINVAL),
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_slowly(ino, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (index, (name, _)) in self.files.iter().enumerate().skip(offset as usize) {
            if reply.add(inode(index), index as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}
