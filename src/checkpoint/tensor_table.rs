//! The tensors of a checkpoint, with a hash table that finds them by name.
//!
//! [`TensorTable`] uses open addressing, and its slots hold no names: a slot has 8 bytes, 32 bits of
//! the name's hash and the position of the tensor. A million tensors take 16 MiB in addition to their
//! names. The table is allocated once and at most two thirds full, so probes are short. The hash is
//! SipHash with random keys, so that nobody can prepare a header whose names all collide.

use super::parallel;
use super::tensor_info::TensorInfo;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The maximum number of tensors; the greatest position marks an empty slot.
pub(super) const MAX_TENSORS: usize = u32::MAX as usize;

/// The slots of a table with at least this many tensors are filled on a thread of their own, which takes
/// longer than starting the thread.
const TENSORS_MANY: usize = 1 << 15;

/// The keys that the names of one table are hashed with.
#[derive(Clone, Default)]
pub(super) struct NameKeys(RandomState);

impl NameKeys {
    /// Returns the hash of `name` under these keys.
    pub(super) fn hash(&self, name: &str) -> u64 {
        // As `hash_one`, without the byte that separates a string from what is hashed after it.
        let mut hasher = self.0.build_hasher();
        hasher.write(name.as_bytes());
        hasher.finish()
    }
}

/// Tensors with the hashes of their names.
#[derive(Default)]
pub(super) struct HashedTensors {
    pub(super) tensors: Vec<TensorInfo>,
    hashes: Vec<u64>,
}

impl HashedTensors {
    /// Hashes the names of `tensors` with `keys`.
    pub(super) fn new(tensors: Vec<TensorInfo>, keys: &NameKeys) -> Self {
        let hashes = tensors.iter().map(|tensor| keys.hash(tensor.name())).collect();
        Self { tensors, hashes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Adds a tensor.
    pub(super) fn push(&mut self, tensor: TensorInfo, keys: &NameKeys) {
        self.hashes.push(keys.hash(tensor.name()));
        self.tensors.push(tensor);
    }
}

/// All of `parts`, of which there are `count` tensors.
fn concatenated(parts: Vec<Vec<TensorInfo>>, count: usize) -> Vec<TensorInfo> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    all.reserve_exact(count - all.len());
    parts.for_each(|mut part| all.append(&mut part));
    all
}

const EMPTY: TableSlot = TableSlot { tag: 0, position: u32::MAX };

#[derive(Clone, Copy)]
struct TableSlot {
    /// The upper half of the name's hash. If it differs, the name need not be compared.
    tag: u32,
    position: u32,
}

impl TableSlot {
    fn is_empty(self) -> bool {
        self.position == u32::MAX
    }
}

/// Tensors that can be found by their names, which are unique.
pub(super) struct TensorTable {
    tensors: Vec<TensorInfo>,
    keys: NameKeys,
    /// A power of two of slots, so that `hash & (len - 1)` is the index of a slot; never full.
    slots: Vec<TableSlot>,
}

/// The tensors of a table that cannot be built, because two of them have the same name.
pub(super) struct RepeatedName {
    pub(super) tensors: Vec<TensorInfo>,
    /// The positions of the first such pair, in the order of the tensors.
    pub(super) positions: [usize; 2],
}

impl TensorTable {
    /// Builds the table of the tensors of all `parts`, whose names were hashed with `keys`.
    ///
    /// Many threads can compute the hashes, which the caller passes therefore. The slots are filled
    /// while the tensors are moved.
    ///
    /// # Errors
    /// [`RepeatedName`] if several tensors have the same name.
    pub(super) fn build(
        keys: NameKeys,
        parts: impl IntoIterator<Item = HashedTensors>,
    ) -> Result<TensorTable, RepeatedName> {
        let parts = parts.into_iter().map(|part| (part.tensors, part.hashes));
        let (tensors, hashes): (Vec<_>, Vec<_>) = parts.unzip();
        let count = hashes.iter().map(Vec::len).sum();
        // Without names, tags have to tell tensors apart, which they nearly always do.
        let by_tags = || filled(&hashes, count, |_, _| true);
        let (slots, tensors) = match count < TENSORS_MANY {
            true => (by_tags(), concatenated(tensors, count)),
            false => parallel::both(by_tags, || concatenated(tensors, count)),
        };
        let have_one_name =
            |first: usize, other: usize| tensors[first].name() == tensors[other].name();
        match slots.or_else(|_| filled(&hashes, count, have_one_name)) {
            Ok(slots) => Ok(TensorTable { tensors, keys, slots }),
            Err(positions) => Err(RepeatedName { tensors, positions }),
        }
    }

    /// The tensors by position.
    pub(super) fn all(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Returns the position of the tensor called `name`.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        let slot = self.slots[self.find(self.keys.hash(name), name)];
        (!slot.is_empty()).then_some(slot.position as usize)
    }

    /// Returns the index of the slot of `name`, which has the `hash`, or of the empty slot where the
    /// search for it ends.
    fn find(&self, hash: u64, name: &str) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            let matches = || self.tensors[slot.position as usize].name() == name;
            if slot.is_empty() || (slot.tag == tag(hash) && matches()) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }
}

/// The slots of `count` tensors with these `hashes`, or the positions of the first tensor that
/// `is_same` as one before it. That is asked only about tensors with the same tag.
fn filled(
    hashes: &[Vec<u64>],
    count: usize,
    is_same: impl Fn(usize, usize) -> bool,
) -> Result<Vec<TableSlot>, [usize; 2]> {
    let capacity = (count + count / 2 + 1).next_power_of_two();
    let (mut slots, mask) = (vec![EMPTY; capacity], capacity - 1);
    for (position, &hash) in hashes.iter().flatten().enumerate() {
        let mut at = hash as usize & mask;
        while !slots[at].is_empty() {
            let first = slots[at].position as usize;
            if slots[at].tag == tag(hash) && is_same(first, position) {
                return Err([first, position]);
            }
            at = (at + 1) & mask;
        }
        slots[at] = TableSlot { tag: tag(hash), position: position as u32 };
    }
    Ok(slots)
}

/// The upper half of `hash`; the lower half selects the slot.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of empty tensors whose offsets are their positions.
    fn build(names: &[String]) -> Result<TensorTable, RepeatedName> {
        let keys = NameKeys::default();
        let tensor = |(position, name): (usize, &String)| {
            TensorInfo::of_bytes(name, 0, [position as u64, 0])
        };
        let tensors = names.iter().enumerate().map(tensor).collect();
        let tensors = HashedTensors::new(tensors, &keys);
        TensorTable::build(keys, [tensors])
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 1000] {
            let names: Vec<String> = (0..count).map(|i| format!("layer.{i}")).collect();
            let table = build(&names).ok().unwrap();
            for (position, name) in names.iter().enumerate() {
                assert_eq!(table.position(name), Some(position));
            }
            assert_eq!(table.position("layer"), None);
        }
    }

    #[test]
    fn the_first_pair_of_equal_names_is_reported() {
        let names = ["a", "b", "c", "b", "a"].map(String::from);
        let repeated = build(&names).err().unwrap();
        assert_eq!(repeated.positions, [1, 3]);
        assert_eq!(repeated.tensors.len(), names.len());
    }
}
