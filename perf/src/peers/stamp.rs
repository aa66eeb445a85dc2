//! Stamp files: they record what a build was made of, so that it is repeated only when that changes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Serialize, Deserialize)]
struct Stamp<T> {
    /// A text of all dependencies.
    made_of: String,
    value: T,
}

/// The value of the stamp; `None` if there is no stamp, or its dependencies differ.
pub fn read<T: DeserializeOwned>(path: &Path, made_of: &str) -> Option<T> {
    let text = std::fs::read_to_string(path).ok()?;
    let stamp: Stamp<T> = serde_json::from_str(&text).ok()?;
    (stamp.made_of == made_of).then_some(stamp.value)
}

/// Writes the stamp atomically.
pub fn write<T: Serialize>(path: &Path, made_of: &str, value: T) -> anyhow::Result<()> {
    let stamp = Stamp { made_of: made_of.to_owned(), value };
    let partial = path.with_extension("partial");
    std::fs::write(&partial, serde_json::to_string_pretty(&stamp)?)?;
    std::fs::rename(&partial, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_what_it_was_made_of_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("it.json");
        assert_eq!(read::<u32>(&path, "a 1"), None);
        write(&path, "a 1", 7_u32).unwrap();
        assert_eq!(read::<u32>(&path, "a 1"), Some(7));
        assert_eq!(read::<u32>(&path, "a 2"), None);
        write(&path, "a 2", 8_u32).unwrap();
        assert_eq!(read::<u32>(&path, "a 2"), Some(8));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("it.json");
        std::fs::write(&path, "{\"made_of\": \"a\"").unwrap();
        assert_eq!(read::<u32>(&path, "a"), None);
        std::fs::write(&path, "{\"made_of\": \"a\", \"value\": \"words\"}").unwrap();
        assert_eq!(read::<u32>(&path, "a"), None);
    }
}
