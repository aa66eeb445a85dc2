//! What stores said is in their directories, for loads that are not to ask them.

use super::key::{hash, hex};
use super::shelf::Shelf;
use crate::error::Result;
use aws_lc_rs::digest::{SHA256, digest};
use std::fs;
use std::path::Path;
use std::time::Duration;

impl Shelf {
    /// The names of what is directly in the directory at `place`: as they were said before, if that
    /// is so long ago as `believes` takes; else as `ask` says, which is kept.
    ///
    /// # Errors
    /// Those of `ask`.
    pub(super) fn listed(
        &self,
        place: &str,
        believes: impl Fn(Duration) -> bool,
        ask: &dyn Fn() -> Result<Option<Vec<String>>>,
    ) -> Result<Option<Vec<String>>> {
        let path = self.directory.join("listings").join(hash([b"listing", place.as_bytes()]));
        if let Some((age, names)) = read(&path)
            && believes(age)
        {
            return Ok(Some(names));
        }
        let names = ask()?;
        if let Some(names) = names.as_ref().filter(|_| self.is_writable() && !self.gave_up()) {
            // Only loads without a network miss it, and they will say what.
            let _ = self.write_listing(&path, names);
        }
        Ok(names)
    }

    fn write_listing(&self, path: &Path, names: &[String]) -> std::io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let json = serde_json::to_string(names)?;
        let aside = path.with_extension(format!("{:016x}", fastrand::u64(..)));
        fs::write(&aside, format!("{json}\n{}\n", hex(digest(&SHA256, json.as_bytes()).as_ref())))?;
        fs::rename(&aside, path)
    }
}

/// How old the listing in `path` is, and what it says.
fn read(path: &Path) -> Option<(Duration, Vec<String>)> {
    let age = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?.elapsed().ok()?;
    let text = fs::read_to_string(path).ok()?;
    let (json, sum) = text.trim_end().split_once('\n')?;
    if sum != hex(digest(&SHA256, json.as_bytes()).as_ref()) {
        return None;
    }
    Some((age, serde_json::from_str(json).ok()?))
}
