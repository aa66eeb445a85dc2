"""Derives the memory limits of a load from the memory limit of the environment.

For loads to host memory, the limit is the size of the ring in which tensors stay. For loads to a
GPU, tensors only pass through the ring, so its size is capped: a larger ring would pin more memory
without making the load faster.

The limit applies to the machine, so ranks that share a load divide it equally. Each rank uses at
most a quarter of its share for the three staging buffers of the exchange, and the rest for its
ring. A ring in host memory is never smaller than the rank's largest tensor.
"""

from __future__ import annotations

from typing import NamedTuple, Union

from .._ringload import environment_memory_limit

#: A memory limit as the native module takes it: bytes, text such as "min", or None.
Limit = Union[int, str, None]

_GPU_RING_BYTES = 256 << 20
_BUFFERS = 3
_STAGING_BYTES_MIN, _STAGING_BYTES_AT_MIN_LIMIT, _STAGING_BYTES_MAX = 64 << 10, 1 << 20, 16 << 20


class RankLimits(NamedTuple):
    """The memory limits of a rank that shares a load."""

    ring: Limit
    #: The size of each staging buffer.
    staging_bytes: int


def single_limit(*, is_gpu: bool) -> Limit:
    """Returns the memory limit of a load that is not shared.

    Raises:
        InvalidInputError: the environment variable of the limit has an invalid value.
    """
    limit = environment_memory_limit()
    return _capped_for_gpu(limit) if is_gpu else limit


def rank_limits(*, is_gpu: bool, ranks_on_host: int, largest_bytes: int) -> RankLimits:
    """Returns the memory limits of a rank that shares a load.

    Args:
        is_gpu: whether tensors are loaded to a GPU.
        ranks_on_host: the number of ranks that share the machine's memory.
        largest_bytes: the size of the largest tensor that this rank reads.

    Raises:
        InvalidInputError: the environment variable of the limit has an invalid value.
    """
    limit = environment_memory_limit()
    if not isinstance(limit, int):
        return RankLimits(
            limit, _STAGING_BYTES_AT_MIN_LIMIT if limit == "min" else _STAGING_BYTES_MAX
        )
    share = limit // ranks_on_host
    staging_bytes = min(max(share // (4 * _BUFFERS), _STAGING_BYTES_MIN), _STAGING_BYTES_MAX)
    ring_bytes = max(share - _BUFFERS * staging_bytes, 1)
    if is_gpu:
        return RankLimits(_capped_for_gpu(ring_bytes), staging_bytes)
    return RankLimits(max(ring_bytes, largest_bytes), staging_bytes)


def _capped_for_gpu(limit: Limit | None) -> Limit:
    return min(limit, _GPU_RING_BYTES) if isinstance(limit, int) else limit
