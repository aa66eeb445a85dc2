"""One S3 object by Run:ai's library alone, into one buffer that it reuses: the least it can do.

Drives libstreamer through the package's own bindings, so that neither torch nor making tensors is
counted against it. The header is read first, as every loader does, since it says how long the
object is; then WINDOW_BYTES at a time, in ranges of RANGE_BYTES, all of a window at once.
"""

from __future__ import annotations

import ctypes
import importlib.util  # noqa: F401 - the package uses it, and forgets to import it
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

#: The names of tensors, with the offsets of their first byte and past their last, in that order.
Places = list[tuple[int, int, str]]


def bare(location: str) -> Tensors:
    """Gives a load of the object. Its "tensors" are pieces: of one tensor, within one window."""
    for name in ("torch", "torch.distributed"):
        # The package imports them, and nothing here uses them.
        sys.modules.setdefault(name, MagicMock())
    from runai_model_streamer.libstreamer import libstreamer

    return lambda: pieces(Reader(libstreamer, location))


def pieces(reader: Reader) -> Iterator[tuple[str, memoryview]]:
    """The pieces of all tensors, in the order of the file."""
    places, end = read_header(reader)
    for window in range(places[0][0] if places else end, end, WINDOW_BYTES):
        window_end = min(window + WINDOW_BYTES, end)
        reader.read(window, window_end)
        for first, last, name in places:
            begin, stop = max(first, window), min(last, window_end)
            if begin < stop:
                yield name, reader.view[begin - window : stop - window]
    reader.close()
    for first, last, name in places:
        if first == last:
            yield name, reader.view[:0]


def read_header(reader: Reader) -> tuple[Places, int]:
    """Where the object's tensors are, and where it ends."""
    reader.read(0, 8)
    (length,) = struct.unpack("<Q", reader.view[:8])
    reader.read(8, 8 + length)
    header = json.loads(bytes(reader.view[:length]))
    header.pop("__metadata__", None)
    start = 8 + length
    offsets = {name: entry["data_offsets"] for name, entry in header.items()}
    places = sorted((start + a, start + b, name) for name, (a, b) in offsets.items())
    return places, max((last for _, last, _ in places), default=start)


class Reader:
    """Reads ranges of the object into the buffer."""

    def __init__(self, library: Any, location: str) -> None:
        """Starts the library.

        Args:
            library: the package's bindings.
            location: of the object.
        """
        self.library, self.location = library, location
        self.memory = mmap.mmap(-1, WINDOW_BYTES)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.view = memoryview(self.memory)
        self.streamer = library.runai_start()

    def read(self, begin: int, end: int) -> None:
        """Reads the bytes from `begin` to `end`, which are at the beginning of `view` then.

        Raises:
            OSError: with the library's words.
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
