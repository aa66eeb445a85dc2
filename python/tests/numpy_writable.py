"""A program, not a test of pytest: arrays are writable with the numpy that Python finds.

numpy before 2.1 makes read-only arrays of DLPack, so that `array *= 2` failed with numpy 1.26.
`tests/python.sh` runs this program with old versions of numpy when everything is tested.

    PYTHONPATH=FOLDER_OF_NUMPY python numpy_writable.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

import ringload

TENSORS = {
    "f": ("F32", [2, 3], "<f4"),
    "h": ("F16", [5], "<f2"),
    "b": ("BOOL", [3], "|b1"),
    "i": ("I64", [2, 1, 2], "<i8"),
    "c": ("C64", [2], "<c8"),
    "empty": ("F32", [0, 3], "<f4"),
    "scalar": ("F64", [], "<f8"),
}


def write(path: Path) -> None:
    """Writes a file with the tensors, whose bytes are all 1."""
    header, data = {}, b""
    for name, (dtype, shape, kind) in TENSORS.items():
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        offsets = [len(data), len(data) + size]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += b"\x01" * size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # or the first tensor is copied, as it is not aligned
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def main() -> None:
    """Loads the tensors in every way, checks them and writes to them."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "t.safetensors"
        write(path)
        ways = {
            "load": ringload.load(path, framework="numpy"),
            "stream": dict(ringload.stream(path, framework="numpy")),
        }
        with ringload.open(path, framework="numpy") as opened:
            ways["open"] = {name: opened.get_tensor(name) for name in TENSORS}
            ways["slice"] = {name: opened.get_slice(name)[...] for name in TENSORS}
        mapped = ringload.load(path, framework="numpy", read_path="mapped")
        assert not mapped["f"].flags.writeable
    for way, tensors in ways.items():
        for name, (_dtype, shape, kind) in TENSORS.items():
            array = tensors[name]
            assert (array.shape, array.dtype) == (tuple(shape), np.dtype(kind)), (way, name)
            assert array.tobytes() == b"\x01" * array.nbytes, (way, name)
            assert array.flags.writeable, (way, name)
            array[...] = 0
            assert not array.any(), (way, name)
    print(f"numpy {np.__version__}: writable")


if __name__ == "__main__":
    main()
