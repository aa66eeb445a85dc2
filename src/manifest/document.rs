//! A manifest as a value.

use super::file_sums::FileSums;
use super::format;
use crate::error::{Error, ErrorKind, Result, shown};
use crate::sys;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The maximum length of a manifest in bytes: that of some three million tensors.
const MAX_BYTES: u64 = 512 << 20;

/// The checksums of the files of a checkpoint and of their tensors.
/// [`Loader::sum`](crate::Loader::sum) makes a manifest, [`Loader::manifest`](crate::Loader::manifest)
/// compares loads with it. Cheap to clone.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, Manifest};
///
/// let sums = Loader::new().sum(&path, false)?; // when the checkpoint is published
/// std::fs::write(directory.path().join("MANIFEST"), sums.to_string())?;
///
/// let manifest = Manifest::read(&directory.path().join("MANIFEST"))?;
/// let model = Loader::new().manifest(manifest).load(&path)?; // an error if a tensor differs
/// assert_eq!(model.summary().verified_tensors, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    content: Arc<ManifestContent>,
}

/// What a manifest says, and where it was read.
#[derive(PartialEq, Eq)]
struct ManifestContent {
    /// The manifest in messages: `the manifest /m/manifest.json`.
    origin: String,
    /// The files, in the order of their names.
    files: Vec<FileSums>,
}

impl Manifest {
    /// Reads the manifest at `path`, which `ringload sum` or [`Loader::sum`](crate::Loader::sum) wrote.
    ///
    /// # Errors
    /// The errors of reading the file; [`InvalidInput`](ErrorKind::InvalidInput) for anything but a
    /// manifest, for one of another version, and for one longer than 512 MiB.
    pub fn read(path: &Path) -> Result<Self> {
        let text = sys::read_regular(path, "manifest", MAX_BYTES)?;
        let origin = format!("the manifest {}", shown(path.display()));
        match format::parse(&text) {
            Ok(files) => Ok(Self::of_files(origin, files)),
            Err(why) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{origin} cannot be used: {why}; write it anew with ringload sum"),
            )),
        }
    }

    /// A manifest of these `files`.
    pub(crate) fn new(files: Vec<FileSums>) -> Self {
        Self::of_files("the manifest".to_owned(), files)
    }

    fn of_files(origin: String, mut files: Vec<FileSums>) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { content: Arc::new(ManifestContent { origin, files }) }
    }

    pub(crate) fn files(&self) -> &[FileSums] {
        &self.content.files
    }

    /// The manifest in messages.
    pub(crate) fn origin(&self) -> &str {
        &self.content.origin
    }
}

/// The JSON text of the manifest, which [`read`](Manifest::read) reads. The same checkpoint always has
/// the same text.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format::write(f, self.files())
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest").field("files", &self.files().len()).finish_non_exhaustive()
    }
}
