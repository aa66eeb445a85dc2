//! Selects the tensors of a checkpoint that are loaded.

use super::slices::{Slices, TensorPredicate};
use super::yield_order::YieldOrder;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Glob;
use std::fmt;
use std::sync::Arc;

/// Selects the tensors of a checkpoint to load: those that a glob matches and those that are named.
/// Without globs and names, all tensors are loaded. Of those, a filter may leave some out, and slices
/// say which part of each is loaded.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Globs of names. An empty list selects nothing by itself.
    pub globs: Vec<String>,
    /// Names. `Some` of an empty list selects no tensors.
    pub names: Option<Vec<String>>,
    /// Accepts the tensors to load.
    pub filter: Option<TensorFilter>,
    /// The parts of tensors to load.
    pub slices: Slices,
    /// The order in which the tensors are yielded; `None` for any order.
    pub order: Option<YieldOrder>,
}

/// Accepts the tensors to load, by their names, types and shapes.
#[derive(Clone)]
pub struct TensorFilter(TensorPredicate);

impl TensorFilter {
    /// A filter that accepts what `accepts` returns true for.
    pub fn new(accepts: impl Fn(&TensorInfo) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(accepts))
    }
}

impl fmt::Debug for TensorFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TensorFilter")
    }
}

impl Selection {
    /// Selects the tensors whose names match one of `globs`, or all tensors if there are no globs.
    pub fn of_globs(globs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { globs: globs.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The indices of the selected tensors in [`Checkpoint::tensors`], ascending.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a glob that does not parse, [`ErrorKind::NotFound`] for a name
    /// that no tensor has, and if no tensor matches any glob.
    pub(crate) fn indices(&self, checkpoint: &Checkpoint) -> Result<Vec<u32>> {
        let count = u32::try_from(checkpoint.tensors().len()).map_err(|_| {
            Error::new(ErrorKind::Unsupported, "a checkpoint may hold at most 2^32 tensors")
        })?;
        let mut selected = match (&self.names, &self.globs[..]) {
            (None, []) => (0..count).collect(),
            (_, []) => Vec::new(),
            (_, globs) => matching(checkpoint, globs, count)?,
        };
        for name in self.names.iter().flatten() {
            // Positions are below `count`, which is a `u32`.
            selected.push(position(checkpoint, name)? as u32);
        }
        if self.names.is_some() {
            selected.sort_unstable();
            selected.dedup();
        }
        if let Some(TensorFilter(accepts)) = &self.filter {
            selected.retain(|&index| accepts(&checkpoint.tensors()[index as usize]));
        }
        Ok(selected)
    }
}

/// The tensors whose names match one of `globs`.
fn matching(checkpoint: &Checkpoint, globs: &[String], count: u32) -> Result<Vec<u32>> {
    let compiled = globs.iter().map(|glob| Glob::new(glob)).collect::<Result<Vec<_>>>()?;
    let matches = |&i: &u32| {
        let name = checkpoint.tensors()[i as usize].name();
        compiled.iter().any(|glob| glob.is_match(name))
    };
    let selected: Vec<u32> = (0..count).filter(matches).collect();
    if selected.is_empty() {
        let quoted = globs.iter().map(|glob| if glob.is_empty() { "''" } else { glob.as_str() });
        let globs = quoted.collect::<Vec<_>>().join(" or ");
        let sentence = format!("no tensor matches {globs}; `ringload inspect` lists the names");
        return Err(Error::new(ErrorKind::NotFound, sentence));
    }
    Ok(selected)
}

/// The index of the tensor called `name`.
pub(crate) fn position(checkpoint: &Checkpoint, name: &str) -> Result<usize> {
    checkpoint.position(name).ok_or_else(|| {
        let sentence = format!(
            "the checkpoint has no tensor called {name:?}; `ringload inspect` lists the names"
        );
        Error::new(ErrorKind::NotFound, sentence)
    })
}
