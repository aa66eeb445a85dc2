"""Writes a small safetensors file, with which `client.py --check` tests whether a client runs.

It does not use the package `safetensors`, which is one of the clients.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

_ELEMENTS = 4096
_TENSORS = {"first": ("F32", 4), "second": ("BF16", 2), "third": ("U8", 1)}


def write(path: Path) -> dict[str, int]:
    """Writes the file; returns the CRC-32 of each tensor."""
    header, body, sums = {}, b"", {}
    for name, (dtype, size) in _TENSORS.items():
        data = bytes(number % 61 for number in range(_ELEMENTS * size))
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": [_ELEMENTS], "data_offsets": offsets}
        sums[name] = zlib.crc32(data)
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return sums
