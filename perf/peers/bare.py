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

#: For each tensor the offsets of its first byte and past its last, and its name, sorted.
Extents = list[tuple[int, int, str]]


def bare(location: str) -> Tensors:
    """Returns a load of the object, which yields pieces: the part of a tensor in one window."""
    for name in ("torch", "torch.distributed"):
        # The package imports these modules, but the functions called here do not use them.
        sys.modules.setdefault(name, MagicMock())
    from runai_model_streamer.libstreamer import libstreamer

    return lambda: pieces(Reader(libstreamer, location))


def pieces(reader: Reader) -> Iterator[tuple[str, memoryview]]:
    """Yields the pieces of all tensors, in the order of the file."""
    extents, end = read_header(reader)
    for window in range(extents[0][0] if extents else end, end, WINDOW_BYTES):
        window_end = min(window + WINDOW_BYTES, end)
        reader.read(window, window_end)
        for first, last, name in extents:
            begin, stop = max(first, window), min(last, window_end)
            if begin < stop:
                yield name, reader.view[begin - window : stop - window]
    reader.close()
    for first, last, name in extents:
        if first == last:
            yield name, reader.view[:0]


def read_header(reader: Reader) -> tuple[Extents, int]:
    """Returns the extents of the object's tensors, and the offset of the object's end."""
    reader.read(0, 8)
    (length,) = struct.unpack("<Q", reader.view[:8])
    reader.read(8, 8 + length)
    header = json.loads(bytes(reader.view[:length]))
    header.pop("__metadata__", None)
    start = 8 + length
    offsets = {name: entry["data_offsets"] for name, entry in header.items()}
    extents = sorted((start + a, start + b, name) for name, (a, b) in offsets.items())
    return extents, max((last for _, last, _ in extents), default=start)


class Reader:
    """Reads ranges of the object into the buffer."""

    def __init__(self, library: Any, location: str) -> None:
        """Starts a session of the library.

        Args:
            library: the package's bindings.
            location: the location of the object.
        """
        self.library, self.location = library, location
        self.memory = mmap.mmap(-1, WINDOW_BYTES)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.view = memoryview(self.memory)
        self.streamer = library.runai_start()

    def read(self, begin: int, end: int) -> None:
        """Reads the bytes from `begin` to `end` to the beginning of `view`.

        Raises:
            OSError: reading failed; the message is the library's.
        """
        offsets = list(range(begin, end, RANGE_BYTES))
        sizes = [min(RANGE_BYTES, end - offset) for offset in offsets]
        addresses = [self.base + offset - begin for offset in offsets]
        self.library.runai_request(
            self.streamer, [self.location], [len(offsets)], offsets, sizes, addresses
        )
        for _ in offsets:
            code, *_ = self.library.runai_response(self.streamer)
            if code != self.library.SUCCESS_ERROR_CODE:
                reason = self.library.runai_response_str(code)
                raise OSError(f"{self.location}: {reason.decode()}")

    def close(self) -> None:
        """Ends the library's session."""
        self.library.runai_end(self.streamer)
