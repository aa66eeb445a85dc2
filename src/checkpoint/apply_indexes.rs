//! Applies the indexes of a checkpoint to the tensors of its shards.
//!
//! Where two shards have a tensor of the same name, the one that an index assigns it to counts, as in
//! transformers and vLLM. After that the indexes are compared with what the shards hold.

use super::index::Index;
use super::resolve::IndexFile;
use super::shard::Shard;
use super::tensor_info::TensorInfo;
use super::tensor_table::TensorTable;
use super::text::Quoted;
use crate::error::Result;
use std::collections::{HashMap, HashSet};

/// Removes the tensors that another shard has too, if an index assigns their name to that shard.
pub(super) fn remove_unassigned(tensors: &mut Vec<TensorInfo>, indexes: &[IndexFile]) {
    let mut seen = HashSet::with_capacity(tensors.len());
    let repeated: HashSet<Box<str>> = tensors
        .iter()
        .filter(|tensor| !seen.insert(tensor.name()))
        .map(|tensor| tensor.name().into())
        .collect();
    let holders: HashSet<(Box<str>, usize)> = tensors
        .iter()
        .filter(|tensor| repeated.contains(tensor.name()))
        .map(|tensor| (tensor.name().into(), tensor.shard()))
        .collect();
    let mut assigned: HashMap<&str, usize> = HashMap::new();
    for file in indexes {
        for (name, shard) in file.index.tensors() {
            let shard = file.shards[shard];
            if holders.contains(&(name.into(), shard)) {
                assigned.entry(name).or_insert(shard);
            }
        }
    }
    tensors
        .retain(|tensor| assigned.get(tensor.name()).is_none_or(|shard| tensor.shard() == *shard));
}

/// Compares `indexes` with the shards. Returns the names of the tensors that no shard has, sorted.
///
/// # Errors
/// [`InvalidCheckpoint`](crate::ErrorKind::InvalidCheckpoint) if an index names a tensor twice; with
/// `strict`, also for the first tensor that is not in the shard that the index says.
pub(super) fn missing_tensors(
    tensors: &TensorTable,
    shards: &[Shard],
    indexes: &[IndexFile],
    strict: bool,
) -> Result<Vec<String>> {
    let mut all_missing = Vec::new();
    for IndexFile { index, shards: numbers } in indexes {
        let differences = index.compare(tensors, shards, numbers)?;
        if strict && let Some(first) = differences.first() {
            return Err(index.refuse(first));
        }
        let (missing, moved): (Vec<_>, Vec<_>) =
            differences.iter().partition(|difference| difference.found.is_none());
        warn(index, missing.iter().map(|difference| difference.name), "that no shard contains");
        warn(index, moved.iter().map(|difference| difference.name), "that are in other shards");
        all_missing.extend(missing.iter().map(|difference| difference.name.to_owned()));
    }
    all_missing.sort_unstable();
    all_missing.dedup();
    Ok(all_missing)
}

fn warn<'a>(index: &Index, mut names: impl ExactSizeIterator<Item = &'a str>, which: &str) {
    let count = names.len();
    if let Some(first) = names.next() {
        let (location, first) = (&index.location, Quoted(first));
        tracing::warn!("{location} names tensors {which}: {count}, such as {first}");
    }
}
