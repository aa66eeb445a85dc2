//! Finds the files of the shards for the locations that the user names.
//!
//! | named | read |
//! | --- | --- |
//! | a file, an object `*.safetensors` or `*.sft` | this file or object |
//! | a file or object `*.safetensors.index.json` or `*.safetensors.index.VARIANT.json` | the files that it names, sorted |
//! | a directory, another object | its index or its shards, by the rule of `selection` |
//! | a path with `*`, `?` or `[` that does not exist | everything that it matches, sorted, each as if it had been named |
//!
//! Subdirectories are not searched. As in a shell, names that begin with a dot are ignored in
//! directories and patterns. Patterns match only names that are UTF-8. A file that is named several
//! times (also through symbolic links) is read once, at its first position: `dir dir/a.safetensors` is
//! the same as `dir`.
//!
//! Whether a file exists and may be read is determined when it is opened.
//!
//! ```text
//! resolve --> paths    the file system: directories, patterns
//!         \-> objects  stores: directories, patterns of names
//!             both --> selection  the files to read of a directory
//!                  |     \-> file_name  the parts of the name of a file
//!                  \-> files      the list of shards and indexes
//! ```

mod file_name;
mod files;
mod objects;
mod paths;
mod selection;

pub(super) use files::{Files, IndexFile};
pub use selection::UNFINISHED_DOWNLOAD;

use crate::error::{Error, Result, option};
use crate::location::Location;
use crate::options::CheckpointOptions;
use crate::source::Opener;

/// Returns the files that `locations` name. `opener` lists directories of stores and reads indexes.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) for a directory without safetensors files, one that lacks
/// numbered shards, and a pattern that matches nothing; [`InvalidInput`](crate::ErrorKind::InvalidInput)
/// if there is no location, a pattern is malformed, or an option contradicts another one or a named
/// file; [`Unsupported`](crate::ErrorKind::Unsupported) if all files of a directory are wanted that a
/// server does not list; the errors of reading directories and indexes.
pub(super) fn resolve(
    opener: &Opener,
    options: &CheckpointOptions,
    locations: &[Location],
) -> Result<Files> {
    if locations.is_empty() {
        let sentence = "no location was given; name a file, a directory or an index";
        return Err(Error::invalid_input(sentence));
    }
    if options.all_files && options.variant.is_some() {
        let (all, variant) = (option("all_files").on(), option("variant"));
        let sentence = format!("{all} reads every file and {variant} only some; give one of them");
        return Err(Error::invalid_input(sentence));
    }
    let mut files = Files::new(options.clone());
    for location in locations {
        match location {
            Location::File(path) => paths::add(&mut files, opener, path)?,
            Location::Object(uri) => objects::add(&mut files, opener, uri)?,
        }
    }
    Ok(files)
}
