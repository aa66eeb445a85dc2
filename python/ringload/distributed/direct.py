"""The parts that a rank reads to their place, without the ring and without a copy.

    tensor, by rows   | kept by 0 | kept by 1 | kept by 2 |   each rank reads its rows as one range

Such a part is contiguous, long, and kept by no other rank, so it does not take part in the
exchange. Its bytes are read to memory of their own, as in a load of one rank. That memory is not
bounded by a ring, and a rank whose caller wants a memory limit reads pieces instead. So does a rank
that would read more than its share of all bytes.

What ranks keep is all that has to be known to find these parts. So they are read while the ranks
find their hosts and make the schedule of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from .runs import Runs

#: Runs of at least this length are read by ranks that keep them. To read shorter ones by themselves
#: takes longer than to send them: a store needs about as long for the first byte as for 1 MiB.
OWN_BYTES_MIN = 512 << 10

Parts = Sequence[Optional[Runs]]
"""The part of each tensor that a rank keeps; None where it keeps nothing."""


def direct_parts(parts: Sequence[Parts], are_unlimited: Sequence[bool]) -> list[list[int]]:
    """Returns the positions of the tensors whose parts each rank reads to their place, ascending.

    Args:
        parts: the parts of each rank.
        are_unlimited: whether each rank may read to memory beside its ring.
    """
    alone: list[tuple[int, int, int]] = []
    total = 0
    for tensor in range(len(parts[0])):
        kept = sorted(
            (part.first, part.end, rank)
            for rank, of_rank in enumerate(parts)
            if (part := of_rank[tensor]) is not None and part.nbytes > 0
        )
        reached = 0
        for number, (first, end, rank) in enumerate(kept):
            is_alone = first >= reached and (number + 1 == len(kept) or end <= kept[number + 1][0])
            part = parts[rank][tensor]
            if is_alone and end - first >= OWN_BYTES_MIN and part is not None and not part.repeats:
                alone.append((tensor, rank, end - first))
            total += max(end - max(first, reached), 0)
            reached = max(end, reached)
    left = [-(-total // len(parts))] * len(parts)
    found: list[list[int]] = [[] for _ in parts]
    for tensor, rank, nbytes in alone:
        if are_unlimited[rank] and nbytes <= left[rank]:
            left[rank] -= nbytes
            found[rank].append(tensor)
    return found
