"""Which tensors a chunk has, and where in the chunk they are.

A chunk has adjacent tensors of the checkpoint, whole ones: as many as fit into its length, or
one that is longer. It is a list of arrays of bytes, each of which Ray keeps at an address that is
aligned for every type. A tensor has an array of its own, except for short ones, which the first
array of the list has one after the other, aligned as well.

    chunk: [ short, short, ... | tensor | tensor ]      tensors without bytes are in no array
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .._ringload import Checkpoint

#: The longest chunk of more than one tensor. The last chunk of a load is on its way to other nodes
#: while the store has nothing left to send, so shorter is better; each costs some milliseconds.
CHUNK_BYTES = 64 << 20

#: Tensors below this share an array.
SHORT_BYTES = 64 << 10

#: The alignment of the tensors in the array that short ones share.
ALIGNMENT = 64


class Entry(NamedTuple):
    """A tensor of the checkpoint."""

    name: str
    dtype: str
    """The name of the element type in safetensors, such as "BF16"."""
    shape: tuple[int, ...]
    nbytes: int


class Place(NamedTuple):
    """Where a tensor is in its chunk."""

    array: int
    """The position of the array in the chunk; -1 for a tensor without bytes."""
    offset: int


class Plan(NamedTuple):
    """The chunks of a checkpoint."""

    identity: str
    entries: list[Entry]
    starts: list[int]
    """The position of the first tensor of each chunk; at the end the number of tensors."""
    metadata: dict[str, str]

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return len(self.starts) - 1

    def of_chunk(self, chunk: int) -> list[Entry]:
        """Returns the tensors of a chunk."""
        return self.entries[self.starts[chunk] : self.starts[chunk + 1]]

    def chunk_bytes(self, chunk: int) -> int:
        """Returns the length of a chunk in the object store, apart from what Ray adds."""
        return sum(-(-entry.nbytes // ALIGNMENT) * ALIGNMENT for entry in self.of_chunk(chunk))

    def plain(self) -> tuple[Any, ...]:
        """Returns the plan in plain types, which `of_plain` reads."""
        return self.identity, [tuple(entry) for entry in self.entries], self.starts, self.metadata


def of_plain(plain: Sequence[Any]) -> Plan:
    """Returns the plan that `Plan.plain` has written."""
    identity, entries, starts, metadata = plain
    return Plan(identity, [Entry(*entry) for entry in entries], list(starts), dict(metadata))


def plan_of(checkpoint: Checkpoint, identity: str, chunk_bytes: int) -> Plan:
    """Divides a checkpoint into chunks of at most `chunk_bytes`, in the order of its files."""
    entries = []
    for name in checkpoint.keys():  # noqa: SIM118 - it is a native method
        info = checkpoint.info(name)
        entries.append(Entry(name, info["dtype"], tuple(info["shape"]), info["nbytes"]))
    starts, filled = [0], 0
    for position, entry in enumerate(entries):
        if filled and filled + entry.nbytes > chunk_bytes:
            starts.append(position)
            filled = 0
        filled += entry.nbytes
    starts.append(len(entries))
    return Plan(identity, entries, starts if entries else [0], checkpoint.metadata())


class Described(NamedTuple):
    """A tensor as `Loader.in_memory` takes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def described(entries: Sequence[Entry], arrays: Sequence[int]) -> list[Described]:
    """Returns the tensors of a chunk, in the order in which they are in its arrays.

    Args:
        entries: all tensors of the chunk.
        arrays: the lengths of its arrays, which follow each other.
    """
    starts = [0]
    for length in arrays:
        starts.append(starts[-1] + length)
    found = [
        Described(e.name, e.dtype, e.shape, 0 if p.array < 0 else starts[p.array] + p.offset)
        for e, p in zip(entries, places(entries)[0])
    ]
    # Tensors without bytes begin where others do.
    lengths = {entry.name: entry.nbytes for entry in entries}
    return sorted(found, key=lambda one: (one.offset, lengths[one.name]))


def places(entries: Sequence[Entry]) -> tuple[list[Place], int]:
    """Returns where each tensor of a chunk is, and the length of the array of short ones."""
    shared_bytes = 0
    found: list[Place] = []
    arrays = 1 if any(0 < entry.nbytes < SHORT_BYTES for entry in entries) else 0
    for entry in entries:
        if entry.nbytes == 0:
            found.append(Place(-1, 0))
        elif entry.nbytes < SHORT_BYTES:
            found.append(Place(0, shared_bytes))
            shared_bytes += -(-entry.nbytes // ALIGNMENT) * ALIGNMENT
        else:
            found.append(Place(arrays, 0))
            arrays += 1
    return found, shared_bytes
