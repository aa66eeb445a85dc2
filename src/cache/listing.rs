//! Remembers the listings of stores' directories, for loads that do not ask the stores.

use super::cache_dir::CacheDir;
use super::key::{hash, sha256};
use crate::error::Result;
use std::fs;
use std::path::Path;
use std::time::Duration;

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
        let path = self.path.join("listings").join(hash([b"listing", address.as_bytes()]));
        if let Some((age, names)) = read(&path)
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
            let _ = write(&path, names);
        }
        Ok(names)
    }
}

fn write(path: &Path, names: &[String]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let json = serde_json::to_string(names)?;
    let temporary = path.with_extension(format!("{:016x}", fastrand::u64(..)));
    fs::write(&temporary, format!("{json}\n{}\n", sha256(json.as_bytes())))?;
    fs::rename(&temporary, path)
}

/// The age of the listing in `path`, and its names.
fn read(path: &Path) -> Option<(Duration, Vec<String>)> {
    let age = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?.elapsed().ok()?;
    let text = fs::read_to_string(path).ok()?;
    let (json, checksum) = text.trim_end().split_once('\n')?;
    (checksum == sha256(json.as_bytes())).then(|| Some((age, serde_json::from_str(json).ok()?)))?
}
