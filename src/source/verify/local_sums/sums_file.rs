//! Parses files of digests as `sha256sum` writes them, and as other programs do:
//!
//! ```text
//! <64 digits>  NAME            of a text file, as GNU coreutils write it
//! <64 digits> *NAME            of a binary file
//! SHA256 (NAME) = <64 digits>  with --tag, as BSD writes it
//! \<64 digits>  NA\nME         a name with an escaped backslash, line feed or carriage return
//! <64 digits>                  alone in NAME.sha256
//! ```
//!
//! Other lines are ignored, as `sha256sum --check` does: comments, signatures, digests of other
//! algorithms. Names are bytes, as file names are. A name of another directory is not the file's.

use crate::checksum::hex;

/// The text of a file of digests.
pub(super) struct SumsFile<'a>(pub &'a [u8]);

type Digest = [u8; 32];

impl SumsFile<'_> {
    /// The digest of the neighbour called `name`; `None` if there is none.
    ///
    /// # Errors
    /// A description if there are several.
    pub fn of(&self, name: &[u8]) -> Result<Option<Digest>, &'static str> {
        let of_name = |line| entry(line).filter(|(of, _)| neighbour(of) == name);
        only(self.lines().filter_map(of_name).map(|(_, digest)| digest))
    }

    /// The digest of the file called `name`, for which this file was written: as [`of`](Self::of), also
    /// by a name in another directory, or alone.
    ///
    /// # Errors
    /// A description if there are several.
    pub fn of_one(&self, name: &[u8]) -> Result<Option<Digest>, &'static str> {
        let last = |path: &[u8]| path.rsplit(|&byte| byte == b'/').next().map(<[u8]>::to_vec);
        let of_name = |line| entry(line).filter(|(of, _)| last(of).as_deref() == Some(name));
        let alone = |line: &[u8]| hex::decode(line.trim_ascii());
        let named = only(self.lines().filter_map(of_name).map(|(_, digest)| digest))?;
        named.map_or_else(|| only(self.lines().filter_map(alone)), |digest| Ok(Some(digest)))
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.0.split(|&byte| byte == b'\n');
        lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// The only value of `digests`, however often it occurs.
fn only(mut digests: impl Iterator<Item = Digest>) -> Result<Option<Digest>, &'static str> {
    let Some(first) = digests.next() else { return Ok(None) };
    if digests.all(|digest| digest == first) {
        return Ok(Some(first));
    }
    Err("has different checksums for it")
}

/// The name and the digest of a line.
fn entry(line: &[u8]) -> Option<(Vec<u8>, Digest)> {
    let (is_escaped, line) = match line.strip_prefix(b"\\") {
        Some(line) => (true, line),
        None => (false, line),
    };
    let (name, digest) = match line.strip_prefix(b"SHA256 (") {
        Some(rest) => {
            let (named, digest) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
            (named.strip_suffix(b") = ")?, hex::decode(digest)?)
        }
        None => {
            let (digest, named) = line.split_at_checked(64)?;
            let name = named.strip_prefix(b"  ").or_else(|| named.strip_prefix(b" *"))?;
            (name, hex::decode(digest)?)
        }
    };
    let name = if is_escaped { unescaped(name)? } else { name.to_vec() };
    Some((name, digest))
}

/// A name without escapes; `None` for an escape that is not known.
fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b'\\' => b'\\',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}

/// A name without a leading `./`.
fn neighbour(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"./").unwrap_or(name)
}
