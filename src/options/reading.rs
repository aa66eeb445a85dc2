//! How local files are read, and in which order tensors are yielded.

use super::parse::one_of;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How local files are read.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, ReadPath};
///
/// let model = Loader::new().read_path(ReadPath::Buffered).load(&path)?;
/// assert_eq!(model.summary().read_path(), "buffered");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ReadPath {
    /// Reads cached pages from the page cache, and the rest with O_DIRECT. Files whose bytes do not
    /// change ([`Loader::immutable`](crate::Loader::immutable)) are mapped. Files that go to GPUs
    /// are read as with [`Gds`](Self::Gds) if a probe shows that it works, and if the load is large
    /// enough to gain from it.
    #[default]
    Auto,
    /// Reads with O_DIRECT wherever the file system and the alignment allow it.
    Direct,
    /// Reads through the page cache.
    Buffered,
    /// Maps the files: the tensors are views of the page cache, without a copy and without a memory
    /// limit. Rewriting the file changes the tensors. Truncating it makes the next access to a lost
    /// page kill the process (SIGBUS).
    Mapped,
    /// GPUDirect Storage: cuFile reads local files straight into GPU memory, without the ring. A
    /// load for which that is unavailable or impossible (tensors that stay in host memory or are
    /// cast, remote locations, checksums to verify, `read_into`) is read as with
    /// [`Auto`](Self::Auto), and its summary gives the reason.
    Gds,
}

impl ReadPath {
    /// All read paths, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Direct, Self::Buffered, Self::Mapped, Self::Gds];

    /// Returns the name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
            Self::Mapped => "mapped",
            Self::Gds => "gds",
        }
    }
}

impl FromStr for ReadPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        one_of(text, "a read path", &Self::ALL.map(|path| (path.as_str(), path)))
    }
}

impl fmt::Display for ReadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The order in which a stream yields tensors.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, Order};
///
/// // In the order in which the program uses them; those that are not named follow.
/// let stream = Loader::new().order(Order::names(["norm"])).stream(&path)?;
/// let names: Result<Vec<_>, _> = stream.map(|it| it.map(|it| it.name().to_owned())).collect();
/// assert_eq!(names?, ["norm"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// In the order in which they complete.
    #[default]
    Completion,
    /// In the order of the checkpoint: shard by shard, by offset.
    File,
    /// In the order of these names, followed by the tensors that are not named, in the order of the
    /// checkpoint. The bytes are read in this order, so that it costs neither memory nor requests.
    ///
    /// A name of no tensor that is loaded is an error
    /// ([`NotFound`](crate::ErrorKind::NotFound)), and so is a name that is there twice
    /// ([`InvalidInput`](crate::ErrorKind::InvalidInput)). Loads that verify checksums of whole files,
    /// and loads to GPUs, are read in the order of the file. If the memory limit does not hold what
    /// comes before its turn then, the load fails before it reads anything
    /// ([`MemoryLimit`](crate::ErrorKind::MemoryLimit)).
    Names(Arc<[String]>),
}

impl Order {
    /// The order of these names.
    pub fn names(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }
}

impl FromStr for Order {
    type Err = Error;

    /// Parses `completion` or `file`.
    fn from_str(text: &str) -> Result<Self> {
        one_of(text, "an order", &[("completion", Self::Completion), ("file", Self::File)])
    }
}
