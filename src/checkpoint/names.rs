//! Finding tensors by name, in 8 bytes a slot.
//!
//! [`NameTable`] is an open-addressing hash table that holds no names: a slot is 32 bits of the
//! name's hash and the position of the tensor, and the caller says which name stands at a
//! position. A million tensors take 16 MiB, beside the names that are in memory anyway. The table
//! is sized once, for at most two thirds full, so probes are short. The hash is SipHash with
//! random keys, so that nobody can prepare a header whose names all collide.

use std::hash::{BuildHasher, RandomState};

/// More tensors than this have no position; the last value marks an empty slot.
pub(super) const MAX_TENSORS: usize = u32::MAX as usize;

/// The keys with which the names of one table are hashed.
#[derive(Clone, Default)]
pub(super) struct NameKeys(RandomState);

impl NameKeys {
    /// The hash of `name` under these keys.
    pub(super) fn hash(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }
}

const EMPTY: Slot = Slot { tag: 0, position: u32::MAX };

#[derive(Clone, Copy)]
struct Slot {
    /// The upper half of the name's hash: a mismatch saves a look at the name.
    tag: u32,
    position: u32,
}

impl Slot {
    fn is_empty(self) -> bool {
        self.position == u32::MAX
    }
}

/// A set of positions, each found by the name that stands there.
pub(super) struct NameTable {
    keys: NameKeys,
    /// A power of two of them, so that `hash & (len - 1)` is a slot; never full.
    slots: Vec<Slot>,
}

impl NameTable {
    /// The table of the names with `hashes`, made by `keys`; `name_of(position)` is the name with
    /// the hash at `position`.
    ///
    /// Hashes are taken ready-made because they can be computed on many threads, while this part,
    /// which then hardly looks at names, cannot.
    ///
    /// # Errors
    /// When a name stands at two positions: the first such pair, the later position last.
    pub(super) fn build<'a>(
        keys: NameKeys,
        hashes: &[u64],
        name_of: impl Fn(usize) -> &'a str,
    ) -> Result<NameTable, (usize, usize)> {
        let capacity = (hashes.len() + hashes.len() / 2 + 1).next_power_of_two();
        let mut table = NameTable { keys, slots: vec![EMPTY; capacity] };
        for (position, &hash) in hashes.iter().enumerate() {
            let found = table.find(hash, |other| name_of(other) == name_of(position));
            match &mut table.slots[found] {
                free if free.is_empty() => {
                    *free = Slot { tag: tag(hash), position: position as u32 };
                }
                taken => return Err((taken.position as usize, position)),
            }
        }
        Ok(table)
    }

    /// The position of `name`, with the same `name_of` as in [`build`](Self::build).
    pub(super) fn get<'a>(&self, name: &str, name_of: impl Fn(usize) -> &'a str) -> Option<usize> {
        let found = self.find(self.keys.hash(name), |position| name_of(position) == name);
        let slot = self.slots[found];
        (!slot.is_empty()).then_some(slot.position as usize)
    }

    /// The slot of the name with `hash`, which `is_it` knows by its position, or the empty slot
    /// where it belongs.
    fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.is_empty() || (slot.tag == tag(hash) && is_it(slot.position as usize)) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }
}

/// The upper half of `hash`; the lower half chooses the slot.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(names: &[String]) -> Result<NameTable, (usize, usize)> {
        let keys = NameKeys::default();
        let hashes: Vec<_> = names.iter().map(|name| keys.hash(name)).collect();
        NameTable::build(keys, &hashes, |position| &names[position])
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 1000] {
            let names: Vec<String> = (0..count).map(|i| format!("layer.{i}")).collect();
            let name_of = |position: usize| names[position].as_str();
            let table = build(&names).unwrap();
            for (position, name) in names.iter().enumerate() {
                assert_eq!(table.get(name, name_of), Some(position));
            }
            assert_eq!(table.get("layer", name_of), None);
        }
    }

    #[test]
    fn the_first_pair_of_twins_is_reported() {
        let names = ["a", "b", "c", "b", "a"].map(String::from);
        assert_eq!(build(&names).err(), Some((1, 3)));
    }
}
