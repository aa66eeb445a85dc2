"""Indices of `get_slice`, as safetensors takes them where it reads bytes by itself.

They are integers, slices with steps above 0, at most one Ellipsis, tuples of these, and an empty
list, which selects nothing. The messages are those of safetensors.
"""

from __future__ import annotations

import operator
from typing import Any, Union

from .._open import DimensionRange
from ._error import SafetensorError

Indexer = Union[int, slice]
"""The selection in one dimension. The start and stop of a slice are not below 0, if given."""


def resolve(index: Any, shape: list[int]) -> tuple[list[DimensionRange], list[int]]:
    """Returns what an index selects in each dimension, and the shape of the result.

    Raises:
        SafetensorError: the index is of another kind, or beyond the tensor.
    """
    indexers = _indexers(index, shape)
    if len(indexers) > len(shape):
        raise _error(indexers, shape, "more slicing indexes than dimensions in tensor")
    ranges: list[DimensionRange] = []
    selected: list[int] = []
    for number in reversed(range(len(shape))):
        size = shape[number]
        if number >= len(indexers):
            ranges.append((0, size, 1))
            selected.append(size)
            continue
        one = indexers[number]
        start, stop, step = _bounds(one, size)
        if start >= size or stop > size:
            asked = start if start >= size else stop - 1
            why = f"index {asked} out of bounds for tensor dimension #{number} of size {size}"
            raise _error(indexers, shape, why)
        count = len(range(start, stop, step))
        # A longer step has the same result, and might not fit into 64 bits.
        ranges.append((start, count, min(step, max(size, 1))))
        if isinstance(one, slice):
            selected.append(count)
    return ranges[::-1], selected[::-1]


def dropped(index: Any, dimensions: int) -> set[int]:
    """Returns the dimensions that a valid index selects one position of."""
    indexers = _indexers(index, [1 << 62] * dimensions)
    return {number for number, one in enumerate(indexers) if not isinstance(one, slice)}


def _indexers(index: Any, shape: list[int]) -> list[Indexer]:
    if isinstance(index, list):
        if index:
            raise SafetensorError("Non empty lists are not implemented")
        return [slice(0, 0)]
    items = list(index) if isinstance(index, tuple) else [index]
    ellipses = sum(one is Ellipsis for one in items)
    if ellipses > 1:
        raise SafetensorError("Only one ellipsis (...) is allowed in slice index")
    indexers: list[Indexer] = []
    for one in items:
        if one is Ellipsis:
            indexers += [slice(None)] * max(len(shape) - (len(items) - 1), 0)
        else:
            number = len(indexers)
            indexers.append(_indexer(one, number, shape[number] if number < len(shape) else 0))
    return indexers


def _indexer(one: Any, number: int, size: int) -> Indexer:
    if isinstance(one, slice):
        step = 1 if one.step is None else operator.index(one.step)
        if step < 1:
            raise SafetensorError(f"Slice step must be a positive integer, got {step}")
        return slice(_end(one.start, size), _end(one.stop, size), step)
    try:
        position = operator.index(one)
    except TypeError:
        raise SafetensorError(
            f"Unsupported slice index at position {number}: expected slice, int, or ellipsis"
        ) from None
    if position < -size:
        raise SafetensorError(f"Invalid index {position} for dimension {number} of size {size}")
    return position + size if position < 0 else position


def _end(end: Any, size: int) -> int | None:
    """The end of a slice. safetensors refuses those below 0, which count from the end here."""
    if end is None:
        return None
    number = operator.index(end)
    return max(number + size, 0) if number < 0 else number


def _bounds(one: Indexer, size: int) -> tuple[int, int, int]:
    if not isinstance(one, slice):
        return one, one + 1, 1
    start = 0 if one.start is None else one.start
    return start, size if one.stop is None else one.stop, one.step or 1


def _error(indexers: list[Indexer], shape: list[int], why: str) -> SafetensorError:
    shown = ", ".join(_shown(one) for one in indexers)
    return SafetensorError(f"Error during slicing [{shown}] with shape {list(shape)}: {why}")


def _shown(one: Indexer) -> str:
    if not isinstance(one, slice):
        return str(one)
    start, stop = ("" if end is None else str(end) for end in (one.start, one.stop))
    return f"{start}:{stop}" + (f":{one.step}" if one.step not in (None, 1) else "")
