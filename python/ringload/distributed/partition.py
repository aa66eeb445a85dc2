"""Divides the tensors of a checkpoint into one span for each rank.

A span is a sequence of adjacent tensors, so each rank reads large contiguous ranges. Rank r of N
begins about r/N into the checkpoint, so the ranks read different files, or different parts of a
file, at the same time. The cuts minimise the number of bytes in the largest span.

Every rank computes all spans from the same headers, so they need not be sent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class Item(NamedTuple):
    """The header entry of a tensor."""

    name: str
    dtype: str
    """The name of the element type in safetensors, such as "BF16"."""
    shape: tuple[int, ...]
    nbytes: int


def spans(sizes_bytes: Sequence[int], ranks: int) -> list[range]:
    """Divides tensors into one span for each of `ranks`.

    Args:
        sizes_bytes: the sizes of the tensors, in the order of the files.
        ranks: the number of spans; at least 1.

    Returns:
        The positions of each rank's tensors. The spans are adjacent and cover all tensors in order;
        the spans of the last ranks may be empty. The largest span is as small as possible.
    """
    ends = [0, *accumulate(sizes_bytes)]
    max_bytes = _smallest_span_limit(ends, max(sizes_bytes, default=0), ranks)
    cuts = _cuts(ends, max_bytes, ranks)
    return [range(start, end) for start, end in zip([0, *cuts], cuts)]


def _smallest_span_limit(ends: Sequence[int], largest_bytes: int, ranks: int) -> int:
    """Returns the smallest size that the largest of `ranks` spans can have, by bisection."""
    total = ends[-1]
    low, high = max(largest_bytes, -(-total // ranks)), total
    while low < high:
        middle = (low + high) // 2
        if _cuts(ends, middle, ranks)[-1] == len(ends) - 1:
            high = middle
        else:
            low = middle + 1
    return low


def _cuts(ends: Sequence[int], max_bytes: int, ranks: int) -> list[int]:
    """Fills one span after the other with at most `max_bytes`; returns the end of each."""
    cuts, start = [], 0
    for _ in range(ranks):
        # Empty tensors that follow the last one that fits belong to the same span.
        start = bisect_right(ends, ends[start] + max_bytes) - 1
        cuts.append(start)
    return cuts
