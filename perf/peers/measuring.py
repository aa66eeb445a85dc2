"""What a load takes: a loop over its tensors, with clocks around it.

A tensor is a torch tensor or a `memoryview`; both tell their `nbytes`. Only sums and touched pages
look at what is in them.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: Gives a load's names and tensors; the load starts when it is called. A tensor may come in pieces.
Tensors = Callable[[], Iterable[tuple[str, Any]]]

_PAGE_BYTES = 4096


def measure(
    tensors: Tensors,
    *,
    touches_pages: bool,
    sums: bool,
    keep: bool,
    synchronize: Callable[[], None],
) -> dict[str, Any]:
    """Takes all tensors.

    Args:
        tensors: the load.
        touches_pages: reads one byte of every page of each tensor.
        sums: takes the CRC-32 of each.
        keep: holds all of them to the end; otherwise each goes before the next comes.
        synchronize: waits until the device has what it was given.

    Returns:
        What client.py prints, but for the version.
    """
    count, total, first, last_name = 0, 0, None, None
    crcs: dict[str, int] = {}
    kept = []
    began, cpu_began = time.monotonic_ns(), time.process_time_ns()
    for name, tensor in tensors():
        if touches_pages:
            touch(tensor)
        if sums:
            crcs[name] = zlib.crc32(memory_of(tensor), crcs.get(name, 0))
        if first is None:
            synchronize()
            first = time.monotonic_ns()
        if keep:
            kept.append(tensor)
        # A tensor may come in pieces, one behind the other.
        count, last_name = count + (name != last_name), name
        total += tensor.nbytes
        del tensor
    synchronize()
    ended, cpu_ended = time.monotonic_ns(), time.process_time_ns()
    told: dict[str, Any] = {
        "seconds": (ended - began) / 1e9,
        "cpu_seconds": (cpu_ended - cpu_began) / 1e9,
        "bytes": total,
        "tensors": count,
        "peak_rss_bytes": peak_rss_bytes(),
        "first_tensor_seconds": since_start(first or ended),
        "last_tensor_seconds": since_start(ended),
    }
    if sums:
        told["sums"] = crcs
    return told


def memory_of(tensor: Any) -> Any:
    """The bytes of a tensor, in host memory, as `zlib.crc32` takes them."""
    if isinstance(tensor, memoryview):
        return tensor
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def touch(tensor: Any) -> None:
    """Reads a byte of every page, so that all of them are in memory.

    By strides of one page from the tensor's first byte, and its last byte: a tensor need not begin
    where a page does, so the last page may lie past the last stride.
    """
    view = memory_of(tensor)
    if len(view):
        int(view[::_PAGE_BYTES].sum()) + int(view[-1])


def since_start(nanoseconds: int) -> float | None:
    """Seconds from the start of the process, where the harness told when that was."""
    began = os.environ.get("RINGLOAD_PERF_BEGAN")
    return (nanoseconds - int(began)) / 1e9 if began else None


def peak_rss_bytes() -> int:
    """The most that this program had resident.

    `ru_maxrss` is not asked: it starts from what the parent had when it forked.
    """
    for line in status_lines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def status_lines() -> Iterator[str]:
    """What the kernel tells of this process."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        yield from status
