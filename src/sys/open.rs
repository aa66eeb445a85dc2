//! Opens the files that a user, an environment variable, an index or a link names.
//!
//! Any name may lead to something other than a regular file, and such a thing must not hang a load
//! or be read without end: opening a FIFO waits for its other end, a device such as `/dev/zero` has
//! no end, and some devices act when they are opened. So the kind is looked up before the file is
//! opened and again on the descriptor, because the name may lead elsewhere by then; files are opened
//! with `O_NONBLOCK`; and files that are read whole have a maximum length.
//!
//! Every file that the program reads is opened here, and every output in `output`, except the files of the local file cache, which
//! has rules of its own. The test `special_files` searches the sources for other calls.

use crate::error::{Error, ErrorKind, Result, Size};
use std::fmt::Display;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The maximum length of a file of settings, credentials, certificates or kernel facts.
pub const SMALL_FILE_BYTES_MAX: u64 = 16 << 20;

/// Opens `path` for reading if it is a regular file. Never blocks. `what` is the file's purpose for
/// messages, such as `safetensors file`.
///
/// # Errors
/// The errors of opening; [`InvalidInput`](ErrorKind::InvalidInput) for anything but a regular file.
pub fn open_regular(path: &Path, what: &str) -> Result<File> {
    open(path, format_args!("open {}", path.display()), what)
}

/// Reads the whole regular file at `path`, which has at most `max_bytes` bytes.
///
/// # Errors
/// As [`open_regular`]; [`InvalidInput`](ErrorKind::InvalidInput) for a longer file.
pub fn read_regular(path: &Path, what: &str, max_bytes: u64) -> Result<Vec<u8>> {
    let doing = || format!("read the {what} {}", path.display());
    let fail = |error| Error::from_io(doing(), error);
    let file = open(path, doing(), what)?;
    let len_bytes = file.metadata().map_err(fail)?.len();
    let mut bytes = Vec::new();
    // Files of /proc have the length 0, and a file may grow while it is read.
    let expected_bytes = len_bytes.min(max_bytes) + 1;
    bytes.try_reserve_exact(expected_bytes as usize).map_err(|error| fail(error.into()))?;
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 <= max_bytes {
        return Ok(bytes);
    }
    let (path, max) = (path.display(), Size(max_bytes));
    let sentence = format!("the {what} {path} is longer than the limit of {max}; check the path");
    Err(Error::invalid_input(sentence))
}

/// Reads a file of settings, credentials, certificates or kernel facts.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) if it is not a regular file or longer than 16 MiB; the
/// errors of opening and reading it.
pub fn read_small(path: &Path, what: &str) -> Result<Vec<u8>> {
    read_regular(path, what, SMALL_FILE_BYTES_MAX)
}

/// As [`read_small`], for the file that `named_by` names: a variable or a setting. The error begins with
/// it.
///
/// # Errors
/// As [`read_small`].
pub fn read_named(named_by: &str, path: &Path, what: &str) -> Result<Vec<u8>> {
    read_small(path, what)
        .map_err(|error| Error::new(error.kind(), format!("{named_by} cannot be used: {error}")))
}

/// Checks that the file which `named_by` names can be read, if it exists. For files that a crate reads,
/// whose errors do not say why one cannot be read.
///
/// # Errors
/// As [`read_named`].
#[cfg(any(feature = "gcs", feature = "azure"))]
pub fn check_named(named_by: &str, path: &str, what: &str) -> Result<()> {
    match read_named(named_by, Path::new(path), what) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// As [`read_small`], for text.
///
/// # Errors
/// As [`read_small`]; [`InvalidInput`](ErrorKind::InvalidInput) for a file that is not UTF-8.
pub fn read_small_text(path: &Path, what: &str) -> Result<String> {
    String::from_utf8(read_small(path, what)?)
        .map_err(|_| Error::invalid_input(format!("the {what} {} is not UTF-8", path.display())))
}

/// Opens `path` with `flags`, whatever it is, without waiting for the other end of a FIFO.
///
/// # Errors
/// The errors of open(2).
pub(crate) fn open_nonblocking(path: &Path, flags: libc::c_int) -> io::Result<File> {
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn open(path: &Path, doing: impl Display, what: &str) -> Result<File> {
    let refuse = |kind: &str| {
        let regular = match what.contains("file") {
            true => what.to_owned(),
            false => format!("file as the {what}"),
        };
        let sentence = format!("{} is {kind}; name a regular {regular}", path.display());
        Error::new(ErrorKind::InvalidInput, sentence)
    };
    let open = || {
        if let Some(kind) = special(std::fs::metadata(path)?.file_type()) {
            return Ok(Err(kind));
        }
        let file = open_nonblocking(path, 0)?;
        Ok(special(file.metadata()?.file_type()).map_or(Ok(file), Err))
    };
    match open() {
        Ok(opened) => opened.map_err(refuse),
        Err(error) => Err(Error::from_io(doing, error)),
    }
}

/// The kind of a file that is not regular, with its article.
pub(super) fn special(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a directory"),
        () if kind.is_fifo() => Some("a FIFO"),
        () if kind.is_block_device() || kind.is_char_device() => Some("a device"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("not a regular file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read_and_long_ones_refused() {
        assert!(read_small_text(Path::new("/proc/self/status"), "status").unwrap().len() > 100);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read_regular(&path, "key", 100).unwrap(), [7; 100]);
        File::options().write(true).open(&path).unwrap().set_len((1 << 20) + 1).unwrap();
        let refused = read_regular(&path, "key", 1 << 20).unwrap_err().to_string();
        assert!(refused.ends_with("long is longer than the limit of 1 MiB; check the path"));
    }
}
