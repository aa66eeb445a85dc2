//! Tensors that are loaded and were not handed out yet.

use crate::tensor::{LoadedTensors, Offsets, Storage};
use std::collections::BTreeMap;

/// Loaded tensors, by their first position in the plan.
#[derive(Default)]
pub(super) struct EarlyTensors(BTreeMap<usize, Early>);

/// Tensors that share a storage, some of which may be gone.
struct Early {
    tensors: LoadedTensors,
    /// Which were taken by themselves, by position from the first; empty before one was.
    taken: Vec<bool>,
    left: usize,
}

impl EarlyTensors {
    pub fn insert(&mut self, tensors: LoadedTensors) {
        let left = tensors.positions.len();
        self.0.insert(tensors.positions.start, Early { tensors, taken: Vec::new(), left });
    }

    /// Takes the tensors with the lowest positions.
    pub fn pop_first(&mut self) -> Option<LoadedTensors> {
        self.0.pop_first().map(|(_, early)| early.tensors)
    }

    /// Takes the tensors that begin at `position`.
    pub fn pop(&mut self, position: usize) -> Option<LoadedTensors> {
        self.0.remove(&position).map(|early| early.tensors)
    }

    /// Takes the tensor at `position` alone: its storage, and the offsets in it.
    pub fn take(&mut self, position: usize) -> Option<(Storage, Offsets)> {
        let (&first, early) = self.0.range_mut(..=position).next_back()?;
        let positions = &early.tensors.positions;
        if !positions.contains(&position) {
            return None;
        }
        early.taken.resize(positions.len(), false);
        if std::mem::replace(&mut early.taken[position - first], true) {
            return None;
        }
        early.left -= 1;
        if early.left > 0 {
            return Some((early.tensors.storage.clone(), early.tensors.starts.clone()));
        }
        self.0.remove(&first).map(|early| (early.tensors.storage, early.tensors.starts))
    }

    /// Whether the tensor at `position` is here.
    pub fn has(&self, position: usize) -> bool {
        let last = self.0.range(..=position).next_back();
        last.is_some_and(|(&first, early)| {
            let is_taken = early.taken.get(position - first).is_some_and(|&taken| taken);
            early.tensors.positions.contains(&position) && !is_taken
        })
    }

    /// Takes all tensors: their positions, their storages, and the offsets in these.
    pub fn take_all(&mut self) -> impl Iterator<Item = (usize, Storage, Offsets)> + use<> {
        let all = std::mem::take(&mut self.0).into_values();
        all.flat_map(|Early { tensors, taken, .. }| {
            let LoadedTensors { positions, storage, starts } = tensors;
            let is_here = move |at: &usize| !taken.get(*at).is_some_and(|&taken| taken);
            let left = (0..positions.len()).filter(is_here);
            left.map(move |at| (positions.start + at, storage.clone(), starts.clone()))
        })
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
