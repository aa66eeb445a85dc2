#!/usr/bin/env python3
"""Reads one S3 object with Run:ai's streamer, into one buffer that it reuses: the least it can do.

    perf/runai_s3.py s3://bucket/key BYTES

Drives libstreamer through the package's own bindings, so that neither torch nor the parsing of a
header is counted against it. Asks for WINDOW_BYTES at a time, in ranges of RANGE_BYTES.
"""

import ctypes
import importlib.util  # the package forgets to
import mmap
import sys
from unittest.mock import MagicMock

for name in ["torch", "torch.distributed"]:  # imported by the package, used by nothing here
    sys.modules[name] = MagicMock()
from runai_model_streamer.libstreamer import libstreamer as library  # noqa: E402

WINDOW_BYTES = 256 << 20
RANGE_BYTES = 8 << 20


def main(url, size):
    memory = mmap.mmap(-1, WINDOW_BYTES)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    streamer = library.runai_start()
    for start in range(0, size, WINDOW_BYTES):
        end = min(start + WINDOW_BYTES, size)
        offsets = list(range(start, end, RANGE_BYTES))
        sizes = [min(RANGE_BYTES, end - offset) for offset in offsets]
        places = [base + offset - start for offset in offsets]
        library.runai_request(streamer, [url], [len(offsets)], offsets, sizes, places)
        for _ in offsets:
            code, *_ = library.runai_response(streamer)
            if code != library.SUCCESS_ERROR_CODE:
                sys.exit(str(library.runai_response_str(code)))
    library.runai_end(streamer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
