"""Reads chunks of a checkpoint, and puts them into the object store of this node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from .._ringload import Checkpoint
from .plan import Plan, places

#: The memory that tensors are read to, in chunks of the longest length. The tensors of a chunk may
#: be complete before those of the chunk before.
_RING_CHUNKS = 3
_RING_BYTES_MIN = 64 << 20


class Full(Exception):  # noqa: N818 - it is not an error of the load
    """Memory is full of chunks in use."""


def fill(
    checkpoint: Checkpoint,
    plan: Plan,
    chunks: Sequence[int],
    room: Callable[[int], None],
    arrived: Callable[[int, Any], None],
) -> None:
    """Reads chunks, in ascending order, and puts each into the object store when it is complete.

    Args:
        checkpoint: the version of the checkpoint that `plan` belongs to.
        plan: what the chunks have.
        chunks: the numbers of the chunks to read, ascending.
        room: makes room for a number of bytes in the object store.
        arrived: is called with the number of a chunk and its reference.
    """
    ranges: list[tuple[str, int, int]] = []
    of_range: list[tuple[int, int]] = []
    for number in chunks:
        for position, entry in enumerate(plan.of_chunk(number)):
            if entry.nbytes:
                ranges.append((entry.name, 0, entry.nbytes))
                of_range.append((number, position))
    lacking: dict[int, int] = {}
    for number, _ in of_range:
        lacking[number] = lacking.get(number, 0) + 1
    parts: dict[int, dict[int, Any]] = {number: {} for number in chunks}
    for number in chunks:
        if number not in lacking:
            arrived(number, _put(plan, number, {}, room))
    if not ranges:
        return
    longest = max(plan.chunk_bytes(number) for number in chunks)
    limit = max(_RING_CHUNKS * longest, _RING_BYTES_MIN)
    with checkpoint.ranges(ranges).stream(memory_limit=limit) as stream:
        for tensor in stream:
            number, position = of_range[int(tensor.name)]
            parts[number][position] = tensor
            lacking[number] -= 1
            del tensor
            if lacking[number] == 0:
                arrived(number, _put(plan, number, parts.pop(number), room))


def _put(plan: Plan, number: int, parts: dict[int, Any], room: Callable[[int], None]) -> Any:
    """Puts a chunk into the object store of this node; returns the reference."""
    import numpy

    room(plan.chunk_bytes(number))
    found, shared_bytes = places(plan.of_chunk(number))
    arrays: list[Any] = []
    if shared_bytes:
        arrays.append(numpy.zeros(shared_bytes, dtype=numpy.uint8))
    for position, (place, _) in enumerate(zip(found, plan.of_chunk(number))):
        if place.array < 0:
            continue
        memory = numpy.asarray(parts[position].array())
        if place.array == 0 and shared_bytes:
            arrays[0][place.offset : place.offset + memory.nbytes] = memory
        else:
            arrays.append(memory)
    return ray.put(arrays)
