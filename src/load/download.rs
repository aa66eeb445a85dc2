//! Whole objects of any kind to plain files.
//!
//! ```text
//! files -> pieces of 8 MiB -> batches of 64 MiB, each one `read_into` -> a file beside the target
//!                                          the last piece of a file: synced, renamed into place
//! ```
//!
//! A file is there whole or not at all, also when the process is killed. Small files go in one batch, so
//! that many of them are asked for at once.

use super::{Loader, ReadRequest};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::source::Source;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked for at once, at most.
const PIECE_BYTES: u64 = 8 << 20;

/// What is in memory at once.
const BATCH_BYTES: u64 = 64 << 20;

/// A file that is being written.
struct Target {
    source: Arc<dyn Source>,
    path: PathBuf,
    aside: Aside,
    missing_bytes: u64,
}

/// A new file beside its place; removed on drop, unless it was put there.
struct Aside {
    file: File,
    path: PathBuf,
    is_placed: bool,
}

/// A range of a file, and where it is in the batch's memory.
struct Piece {
    target: usize,
    offset_bytes: u64,
    at: Range<usize>,
}

impl Loader {
    /// Writes what is at each location to the file named with it; directories are made as needed, and
    /// a file that is there is replaced. Returns how many bytes that was.
    ///
    /// # Errors
    /// When an object cannot be read or a file not be written; those that were complete by then are in
    /// place, and nothing is left of the others.
    pub fn download(&self, files: &[(Location, PathBuf)]) -> Result<u64> {
        let opener = self.opener.anew();
        let mut total = 0;
        let mut rest = files;
        while !rest.is_empty() {
            // As many at once as one batch can be of: no more are open than that.
            let (mut bytes, mut targets) = (0, Vec::new());
            while let Some(((from, to), others)) = rest.split_first()
                && bytes < BATCH_BYTES
                && targets.len() < (BATCH_BYTES / PIECE_BYTES) as usize
            {
                let source = opener.open(from)?;
                bytes += source.len_bytes();
                targets.push(Target::new(source, to)?);
                rest = others;
            }
            self.fetch(&mut targets)?;
            total += bytes;
        }
        Ok(total)
    }

    /// Brings all of `targets`.
    fn fetch(&self, targets: &mut [Target]) -> Result<()> {
        let lens = targets.iter().map(|target| target.source.len_bytes());
        let pieces: Vec<_> = lens.enumerate().flat_map(|(target, len)| cut(target, len)).collect();
        let longest = (BATCH_BYTES / PIECE_BYTES) as usize;
        let mut memory = Vec::new();
        for batch in pieces.chunks(longest) {
            let batch = place(batch);
            memory.resize(batch.last().map_or(0, |piece| piece.at.end), 0);
            self.read_pieces(targets, &batch, &mut memory)?;
            for piece in &batch {
                targets[piece.target].write(&memory[piece.at.clone()], piece.offset_bytes)?;
            }
        }
        targets.iter_mut().try_for_each(Target::finish)
    }

    fn read_pieces(&self, targets: &[Target], batch: &[Piece], memory: &mut [u8]) -> Result<()> {
        let mut rest = memory;
        let mut requests = Vec::with_capacity(batch.len());
        for piece in batch {
            let (into, others) = rest.split_at_mut(piece.at.len());
            rest = others;
            let source = &targets[piece.target].source;
            requests.push(ReadRequest::of(source, piece.offset_bytes, into));
        }
        self.read_into(&mut requests, |_| ControlFlow::Continue(())).map(drop)
    }
}

/// The pieces of a file, still without memory.
fn cut(target: usize, len_bytes: u64) -> impl Iterator<Item = (usize, Range<u64>)> {
    let starts = (0..len_bytes).step_by(PIECE_BYTES as usize);
    starts.map(move |start| (target, start..(start + PIECE_BYTES).min(len_bytes)))
}

/// The same with memory, one behind the other.
fn place(pieces: &[(usize, Range<u64>)]) -> Vec<Piece> {
    let mut end = 0;
    let pieces = pieces.iter().map(|(target, range)| {
        let start = end;
        end += (range.end - range.start) as usize; // at most PIECE_BYTES
        Piece { target: *target, offset_bytes: range.start, at: start..end }
    });
    pieces.collect()
}

impl Target {
    fn new(source: Arc<dyn Source>, path: &Path) -> Result<Self> {
        let aside = Aside::beside(path).map_err(|cause| unwritten(path, cause))?;
        let missing_bytes = source.len_bytes();
        Ok(Self { source, path: path.to_owned(), aside, missing_bytes })
    }

    fn write(&mut self, bytes: &[u8], offset_bytes: u64) -> Result<()> {
        let written = self.aside.file.write_all_at(bytes, offset_bytes);
        written.map_err(|cause| unwritten(&self.path, cause))?;
        self.missing_bytes -= bytes.len() as u64;
        if self.missing_bytes == 0 { self.finish() } else { Ok(()) }
    }

    /// Puts the file into place, if it is not there yet.
    fn finish(&mut self) -> Result<()> {
        if self.aside.is_placed {
            return Ok(());
        }
        self.source.check_unchanged()?;
        let placed = self.aside.file.sync_data().and_then(|()| {
            fs::rename(&self.aside.path, &self.path)?;
            self.aside.is_placed = true;
            Ok(())
        });
        placed.map_err(|cause| unwritten(&self.path, cause))
    }
}

impl Aside {
    fn beside(path: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".ringload-{}-{count}", std::process::id());
        let path = directory.join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { file, path, is_placed: false })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.is_placed {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn unwritten(path: &Path, cause: io::Error) -> Error {
    Error::from_io(format_args!("write {}", path.display()), cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn files_are_brought_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("from")).unwrap();
        let mut files = Vec::new();
        // More than one batch, more files than one batch takes, and an empty one.
        let lens = [(PIECE_BYTES * 9 + 5) as usize, 0, 1, PIECE_BYTES as usize];
        for (index, len) in lens.into_iter().chain([7; 20]).enumerate() {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 31 + n / 251 + index) as u8).collect();
            let name = format!("from/{index}");
            fs::write(at(&name), bytes).unwrap();
            files.push((Location::from(at(&name)), at(&format!("to/sub{}/{index}", index % 2))));
        }
        fs::create_dir_all(at("to/sub0")).unwrap();
        fs::write(&files[2].1, "in its place").unwrap();
        Loader::new().download(&files).unwrap();
        for (from, to) in &files {
            let Location::File(from) = from else { panic!("{from}") };
            assert!(fs::read(from).unwrap() == fs::read(to).unwrap(), "{}", to.display());
        }
        let count = |name: &str| fs::read_dir(at(name)).unwrap().count();
        assert_eq!(count("to/sub0") + count("to/sub1"), files.len());

        // Of one batch, in which the second one is not there.
        let missing =
            [(files[3].0.clone(), at("new/3")), (Location::from(at("from/none")), at("new/none"))];
        let error = Loader::new().download(&missing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert_eq!(count("new"), 0);
    }
}
