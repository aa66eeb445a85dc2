"""Reads one S3 object with Run:ai's library alone, into a buffer that is reused.

This measures the library without its overheads: it calls libstreamer through the package's own
bindings, so neither torch nor the creation of tensors takes time. Like every loader it reads the
header first, which has the length of the object. Then it reads WINDOW_BYTES at a time: all ranges
of RANGE_BYTES in a window are requested at once.
"""

from __future__ import annotations

import ctypes
import importlib.util  # noqa: F401 - the package uses this module without importing it
import json
import mmap
import struct
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

from measuring import Tensors

WINDOW_BYTES = 256 << 20
RANGE_BYTES = 8 << 20


def bare(location: str) -> Tensors:
    """Returns a load of the object, which yields pieces: the part of a tensor in one window."""
    for name in ("torch", "torch.distributed"):
        # The package imports these modules, but the functions called here do not use them.
        sys.modules.setdefault(name, MagicMock())
    from runai_model_streamer.libstreamer import libstreamer

    return lambda: pieces(libstreamer, location)


def pieces(library: Any, location: str) -> Iterator[tuple[str, memoryview]]:
    """Yields the pieces of all tensors, in the order of the file."""
    memory = mmap.mmap(-1, WINDOW_BYTES)
    base, view = ctypes.addressof(ctypes.c_char.from_buffer(memory)), memoryview(memory)
    streamer = library.runai_start()

    def read(begin: int, end: int) -> memoryview:
        offsets = list(range(begin, end, RANGE_BYTES))
        sizes = [min(RANGE_BYTES, end - offset) for offset in offsets]
        addresses = [base + offset - begin for offset in offsets]
        library.runai_request(streamer, [location], [len(offsets)], offsets, sizes, addresses)
        for _ in offsets:
            code, *_ = library.runai_response(streamer)
            if code != library.SUCCESS_ERROR_CODE:
                raise OSError(f"{location}: {library.runai_response_str(code).decode()}")
        return view[: end - begin]

    start = 8 + struct.unpack("<Q", read(0, 8))[0]
    header = json.loads(bytes(read(8, start)))
    header.pop("__metadata__", None)
    offsets = {name: entry["data_offsets"] for name, entry in header.items()}
    extents = sorted((start + a, start + b, name) for name, (a, b) in offsets.items())
    end = max((last for _, last, _ in extents), default=start)
    for window in range(start, end, WINDOW_BYTES):
        data = read(window, min(window + WINDOW_BYTES, end))
        for first, last, name in extents:
            piece = data[max(first - window, 0) : max(last - window, 0)]
            if piece.nbytes:
                yield name, piece
    library.runai_end(streamer)
    yield from ((name, view[:0]) for first, last, name in extents if first == last)
