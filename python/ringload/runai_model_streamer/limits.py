"""What the memory limit of the environment comes to for a load.

In host memory the limit is that of the ring that tensors stay in. On the way to a GPU it only
bounds what they pass through, so there a large limit is no reason to pin more than helps.

Ranks that share a load share the limit, too, since it is of the machine: each has its part of it,
of which a quarter at most is for the two staging buffers of the exchange, and the rest for its
ring. A part that is smaller than a rank's largest tensor is taken to be as large as that.
"""

from __future__ import annotations

from typing import NamedTuple, Union

from .._ringload import environment_memory_limit

#: A limit as the native module takes it.
Limit = Union[int, str, None]

_GPU_RING_BYTES = 256 << 20
_STAGING_BYTES_MIN, _STAGING_BYTES_LEAST, _STAGING_BYTES = 64 << 10, 1 << 20, 16 << 20


class Shared(NamedTuple):
    """The parts of a rank that shares a load."""

    ring: Limit
    staging_bytes: int


def of_one(*, is_gpu: bool) -> Limit:
    """The limit of a load that is not shared.

    Raises:
        InvalidInputError: for a variable that says nothing.
    """
    limit = environment_memory_limit()
    return _on_the_way(limit) if is_gpu else limit


def of_rank(*, is_gpu: bool, ranks_on_host: int, largest_bytes: int) -> Shared:
    """The limits of a rank that shares a load.

    Args:
        is_gpu: whether tensors go to a GPU.
        ranks_on_host: how many ranks share the machine's memory.
        largest_bytes: of the tensors that this rank reads.

    Raises:
        InvalidInputError: for a variable that says nothing.
    """
    limit = environment_memory_limit()
    if not isinstance(limit, int):
        return Shared(limit, _STAGING_BYTES_LEAST if limit == "min" else _STAGING_BYTES)
    share = limit // ranks_on_host
    staging_bytes = min(max(share // 8, _STAGING_BYTES_MIN), _STAGING_BYTES)
    ring_bytes = max(share - 2 * staging_bytes, 1)
    if is_gpu:
        return Shared(_on_the_way(ring_bytes), staging_bytes)
    return Shared(max(ring_bytes, largest_bytes), staging_bytes)


def _on_the_way(limit: Limit | None) -> Limit:
    return min(limit, _GPU_RING_BYTES) if isinstance(limit, int) else limit
