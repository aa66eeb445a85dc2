"""Measures a load: the time and memory of a loop over its tensors.

A tensor is a torch tensor or a `memoryview`; both have `nbytes`. The loop reads the contents of
tensors only to compute checksums or to touch pages.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

#: Starts a load and returns its names and tensors. A tensor may be returned in several pieces.
Tensors = Callable[[], Iterable[tuple[str, Any]]]

_PAGE_BYTES = 4096


def measure(tensors: Tensors, *, touches_pages: bool, digest: bool) -> dict[str, Any]:
    """Runs a load and returns the values that client.py prints.

    Each tensor is dropped before the next. With `touches_pages` a byte of every page of each tensor
    is read, and with `digest` the SHA-256 of each tensor is computed.
    """
    total, first = 0, None
    digests: dict[str, Any] = {}
    began, cpu_began = time.monotonic_ns(), time.process_time_ns()
    for name, tensor in tensors():
        if touches_pages:
            touch(tensor)
        if digest:
            digests.setdefault(name, hashlib.sha256()).update(memory_of(tensor))
        first = first or time.monotonic_ns()
        total += tensor.nbytes
        del tensor
    ended, cpu_ended = time.monotonic_ns(), time.process_time_ns()
    result: dict[str, Any] = {
        "seconds": (ended - began) / 1e9,
        "cpu_seconds": (cpu_ended - cpu_began) / 1e9,
        "bytes": total,
        "peak_rss_bytes": peak_rss_bytes(),
        "first_tensor_seconds": since_start(first or ended),
        "last_tensor_seconds": since_start(ended),
    }
    if digest:
        result["digests"] = {name: digest.hexdigest() for name, digest in digests.items()}
    return result


def memory_of(tensor: Any) -> Any:
    """Returns the bytes of a tensor in host memory, as a buffer."""
    if isinstance(tensor, memoryview):
        return tensor
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def touch(tensor: Any) -> None:
    """Reads a byte of every page of a tensor, so that all of them are in memory.

    It reads the first byte, one byte per page size after it, and the last byte: a tensor need not
    be aligned to pages, so the strides may miss the last page.
    """
    view = memory_of(tensor)
    if len(view):
        int(view[::_PAGE_BYTES].sum()) + int(view[-1])


def since_start(nanoseconds: int) -> float | None:
    """Returns the seconds since the start of the process; None if the harness did not set it."""
    began = os.environ.get("RINGLOAD_PERF_BEGAN")
    return (nanoseconds - int(began)) / 1e9 if began else None


def peak_rss_bytes() -> int:
    """Returns the peak resident memory of this process.

    `ru_maxrss` is not suitable: it includes the memory that the parent had when it forked.
    """
    lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
