"""What the measurements share: where things are, the files that are loaded, and the verdict."""

import json
import os
import pathlib
import struct

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
KEEP = TARGET / "perf"
RINGLOAD = TARGET / "release" / "ringload"
TENSOR_BYTES = 64 << 20


def checkpoint(gib):
    """A checkpoint of noise in tensors of 64 MiB, in target/perf, kept for the next time."""
    tensors = max(1, round(gib * 2**30 / TENSOR_BYTES))
    return of_tensors(f"{tensors}.safetensors", tensors, TENSOR_BYTES)


def of_tensors(name, tensors, tensor_bytes):
    """The same of so many tensors of so many bytes."""
    directory = KEEP / "objects"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    if path.exists():
        return path
    entry = lambda i: {"dtype": "U8", "shape": [tensor_bytes], "data_offsets": [i * tensor_bytes, (i + 1) * tensor_bytes]}
    header = json.dumps({f"t{i}": entry(i) for i in range(tensors)}).encode()
    header += b" " * (-len(header) % 8)  # as every writer of such files does
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for _ in range(tensors):
            out.write(os.urandom(tensor_bytes))
    partial.rename(path)
    return path


def forget(path):
    """Takes the file out of the page cache."""
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def verdict(rows):
    print()
    for what, figure, limit in rows:
        print(f"{what:<36}{figure:>9.3f}   at most {limit:<8.3f}{'ok' if figure <= limit else 'MISSED'}")
