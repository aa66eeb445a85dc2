"""Damaged files and NaN are exceptions, by the options of every load.

A user loaded a shard that a copy had damaged, and served nonsense. A manifest that `ringload sum`
wrote tells the damaged tensor from the others.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ringload


def crc64_nvme(data: bytes) -> str:
    """Returns the CRC-64/NVME, bit by bit."""
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
    return f"{crc ^ ((1 << 64) - 1):016x}"


def manifest_of(path: Path) -> Path:
    """Writes a manifest as `ringload sum` does, of a file with one tensor called `a`."""
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little") + 8
    tensor = {"name": "a", "offset": header, "bytes": len(data) - header}
    entry = {
        "name": path.name,
        "bytes": len(data),
        "crc64nvme": crc64_nvme(data),
        "header": {"bytes": header, "crc64nvme": crc64_nvme(data[:header])},
        "tensors": [{**tensor, "crc64nvme": crc64_nvme(data[header:])}],
    }
    manifest = path.with_name("manifest.json")
    content = {"format": "ringload-manifest", "version": 1, "files": [entry]}
    manifest.write_text(json.dumps(content))
    return manifest


def test_a_damaged_tensor_is_an_exception(tmp_path: Path) -> None:
    assert crc64_nvme(b"123456789") == "ae8b14860a799888"
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(10.0)}, path)
    manifest, data = manifest_of(path), path.read_bytes()
    loaded = ringload.load_file(path, manifest=manifest)
    assert torch.equal(loaded["a"], torch.arange(10.0))
    with ringload.open(path, manifest=str(manifest)) as checkpoint:
        assert torch.equal(checkpoint.get_tensor("a"), torch.arange(10.0))

    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ringload.CorruptError, match=r'tensor "a" of .*model\.safetensors'):
        ringload.load_file(path, manifest=manifest)
    with pytest.raises(ringload.UnsupportedError, match="without a checksum"):
        ringload.load_file(path, verify=True)
    with pytest.raises(ringload.NotFoundError, match="nowhere"):
        ringload.load_file(path, manifest=tmp_path / "nowhere")
    with pytest.raises(ringload.InvalidInputError, match="not a manifest"):
        ringload.load_file(path, manifest=path)


def test_nan_is_an_exception_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "b": torch.tensor([1.0, float("nan")])}, path)
    assert ringload.load_file(path)["b"].isnan().any()
    with pytest.raises(ringload.NotFiniteError, match=r'1 tensor holds .*"b" \(1 NaN'):
        ringload.load_file(path, check_finite=True)
    only_a = ringload.load_file(path, check_finite=True, tensors=["a"])
    assert torch.equal(only_a["a"], torch.ones(3))
