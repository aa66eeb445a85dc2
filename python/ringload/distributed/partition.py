"""Who reads what: the tensors of a checkpoint, cut into one span a rank.

A span is a run of neighbours in the files, so each rank reads large contiguous ranges; and rank r
begins about r/N into the checkpoint, so the ranks are at different files, or places of one file, at
any time. Where to cut is chosen so that the largest span has as few bytes as whole tensors allow.

Every rank computes all spans from the same headers, so nothing about them has to be sent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class Item(NamedTuple):
    """A tensor of the load, as its header says."""

    name: str
    dtype: str
    """As safetensors calls it: "BF16"."""
    shape: tuple[int, ...]
    nbytes: int


def spans(sizes_bytes: Sequence[int], ranks: int) -> list[range]:
    """Cuts tensors into one span for each of `ranks`.

    Args:
        sizes_bytes: of the tensors, in the order of the files.
        ranks: how many spans; at least 1.

    Returns:
        The positions of each rank's tensors. Together they are all of them, in order; those of the
        last ranks may be empty. No other cut into runs has a smaller largest span.
    """
    ends = [0, *accumulate(sizes_bytes)]
    most_bytes = _smallest_largest(ends, max(sizes_bytes, default=0), ranks)
    cuts = _cuts(ends, most_bytes, ranks)
    return [range(start, end) for start, end in zip([0, *cuts], cuts)]


def _smallest_largest(ends: Sequence[int], largest_bytes: int, ranks: int) -> int:
    """The smallest size that the largest of `ranks` spans can have, by bisection."""
    total = ends[-1]
    low, high = max(largest_bytes, -(-total // ranks)), total
    while low < high:
        middle = (low + high) // 2
        if _cuts(ends, middle, ranks)[-1] == len(ends) - 1:
            high = middle
        else:
            low = middle + 1
    return low


def _cuts(ends: Sequence[int], most_bytes: int, ranks: int) -> list[int]:
    """Where spans end that are filled one after the other, each with at most `most_bytes`."""
    cuts, start = [], 0
    for _ in range(ranks):
        # As far as it goes: tensors without bytes behind the last one are taken along.
        start = bisect_right(ends, ends[start] + most_bytes) - 1
        cuts.append(start)
    return cuts
