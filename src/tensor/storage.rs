//! What tensors are views of.

use crate::ring::{FullSlot, Mapping};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An allocation that tensors are views of. It lives as long as any of them; clones share it.
#[derive(Clone)]
pub struct Storage {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Slot(FullSlot),
    Mapped(Arc<Mapping>, Range<usize>),
    Empty,
}

impl Storage {
    /// A slot of the ring; it is free again when the last clone is dropped.
    pub fn from_slot(slot: FullSlot) -> Self {
        Self { kind: Kind::Slot(slot) }
    }

    /// A part of a mapped file.
    pub(crate) fn mapped(mapping: Arc<Mapping>, range: Range<usize>) -> Self {
        Self { kind: Kind::Mapped(mapping, range) }
    }

    /// No bytes: for extents whose tensors are all empty.
    pub(crate) fn empty() -> Self {
        Self { kind: Kind::Empty }
    }

    /// Its bytes, which nobody changes while it lives (a mapped file excepted:
    /// [`ReadPath::Mapped`](crate::ReadPath::Mapped)).
    pub fn bytes(&self) -> &[u8] {
        match &self.kind {
            Kind::Slot(slot) => slot.bytes(),
            Kind::Mapped(mapping, range) => mapping.file_bytes(range.clone()),
            Kind::Empty => &[],
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Slot(_) => "slot",
            Kind::Mapped(..) => "mapped file",
            Kind::Empty => "empty",
        };
        write!(f, "Storage({kind}, {} bytes)", self.bytes().len())
    }
}
