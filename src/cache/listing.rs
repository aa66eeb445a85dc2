//! Remembers the listings of stores' directories, for loads that do not ask the stores.

use super::cache_dir::CacheDir;
use super::key::{hash, sha256};
use super::root::CacheRoot;
use super::tag::LISTINGS;
use crate::error::Result;
use std::path::Path;
use std::time::Duration;

/// The maximum length of a listing's file.
const BYTES_MAX: usize = 64 << 20;

impl CacheDir {
    /// The names of the objects directly in the directory at `address`. Returns the remembered
    /// names if `trusts` accepts their age. Else calls `list` and remembers its result.
    ///
    /// # Errors
    /// The errors of `list`.
    pub(super) fn listing(
        &self,
        address: &str,
        trusts: impl Fn(Duration) -> bool,
        list: &dyn Fn() -> Result<Option<Vec<String>>>,
    ) -> Result<Option<Vec<String>>> {
        let path = self.root.path().join(LISTINGS).join(hash([b"listing", address.as_bytes()]));
        if let Some((age, names)) = read(&self.root, &path)
            && trusts(age)
        {
            return Ok(Some(names));
        }
        let names = list()?;
        if let Some(names) = &names
            && self.is_writable()
            && !self.stopped_writing()
        {
            // Only offline loads need the file, and they report that it is missing.
            let _ = write(&self.root, &path, names);
        }
        Ok(names)
    }
}

fn write(root: &CacheRoot, path: &Path, names: &[String]) -> std::io::Result<()> {
    root.create_directory_if_missing(path.parent().unwrap_or(path))?;
    let json = serde_json::to_string(names)?;
    let temporary = path.with_extension(format!("{:016x}", fastrand::u64(..)));
    root.write(&temporary, format!("{json}\n{}\n", sha256(json.as_bytes())).as_bytes())?;
    root.rename(&temporary, path)
}

/// The age of the listing in `path`, and its names.
fn read(root: &CacheRoot, path: &Path) -> Option<(Duration, Vec<String>)> {
    let (text, modified) = root.read(path, BYTES_MAX).ok()?;
    // As for entries: a date in the future says nothing of the age.
    let age = modified.elapsed().unwrap_or(Duration::MAX);
    let text = String::from_utf8(text).ok()?;
    let (json, checksum) = text.trim_end().split_once('\n')?;
    (checksum == sha256(json.as_bytes())).then(|| Some((age, serde_json::from_str(json).ok()?)))?
}
