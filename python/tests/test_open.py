"""`open`: tensors and slices of them, compared with those of `safetensors.safe_open`."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Server, same, sharded
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ringload


def random_index(draw: random.Random, size: int, *, steps: bool) -> Any:
    """Returns a random slice whose ends are inside or outside of a dimension."""
    ends = [None, *range(-size - 2, size + 3)]
    step = draw.choice([None, 1, 2, 3, size + 1]) if steps else None
    return slice(draw.choice(ends), draw.choice(ends), step)


def test_slices_are_those_of_safe_open(tmp_path: Path) -> None:
    draw = random.Random(6)
    dtypes = [torch.float32, torch.int8, torch.bfloat16, torch.float64, torch.bool]
    tensors = {}
    for number in range(40):
        shape = [draw.randrange(0, 9) for _ in range(draw.randrange(1, 5))]
        tensors[f"t{number}"] = (torch.randn(shape) * 50).to(draw.choice(dtypes))
    path = tmp_path / "t.safetensors"
    save_file(tensors, path)
    with safe_open(path, framework="pt") as theirs, ringload.open(path) as ours:
        assert sorted(ours.keys()) == sorted(theirs.keys())
        for name, tensor in tensors.items():
            assert same(ours.get_tensor(name), theirs.get_tensor(name))
            part, their_part = ours.get_slice(name), theirs.get_slice(name)
            assert part.get_shape() == their_part.get_shape()
            assert part.get_dtype() == their_part.get_dtype()
            for _ in range(20):
                dimensions = draw.randrange(1, tensor.dim() + 1)
                index = tuple(
                    random_index(draw, size, steps=False) for size in tensor.shape[:dimensions]
                )
                # torch is the reference, because safe_open refuses some slices.
                assert same(part[index], tensor[index]), (name, index)
                try:
                    reference = their_part[index]
                except Exception:
                    continue
                assert same(part[index], reference), (name, index)


def test_indices_of_every_kind_are_as_torch_takes_them(tmp_path: Path) -> None:
    draw = random.Random(7)
    tensor = torch.arange(5 * 6 * 7, dtype=torch.int32).reshape(5, 6, 7)
    save_file({"t": tensor, "s": torch.tensor(2.0)}, tmp_path / "t.safetensors")
    with ringload.open(tmp_path / "t.safetensors") as opened:
        part = opened.get_slice("t")
        for _ in range(300):
            index: list[Any] = []
            for size in tensor.shape[: draw.randrange(0, 4)]:
                integer = draw.randrange(-size, size)
                index.append(draw.choice([integer, random_index(draw, size, steps=True)]))
            if draw.random() < 0.5:
                at = draw.randrange(0, len(index) + 1)
                # The indices after an Ellipsis apply to the last dimensions.
                sizes = tensor.shape[len(tensor.shape) - (len(index) - at) :]
                rest = [random_index(draw, size, steps=True) for size in sizes]
                index = [*index[:at], ..., *rest]
            assert same(part[tuple(index)], tensor[tuple(index)]), index
        assert same(part[2], tensor[2])
        assert same(part[...], tensor)
        assert same(opened.get_slice("s")[...], torch.tensor(2.0))
        assert same(opened.get_slice("s")[()], torch.tensor(2.0))


def test_errors_of_invalid_indices_say_what_is_wrong(small: Path) -> None:
    with ringload.open(small) as opened:
        part = opened.get_slice("a")
        for index, kind, text in [
            ((0, 0, 0), IndexError, "3 indices are too many for 2 dimensions"),
            (3, IndexError, "index 3 is out of range for dimension 0 of size 3"),
            ((0, -5), IndexError, "index -5 is out of range for dimension 1 of size 4"),
            (slice(None, None, -1), ValueError, "steps must be above 0"),
            ((..., ...), ValueError, "only one Ellipsis"),
            ("x", ValueError, "'x' is not an index"),
            (True, ValueError, "True is not an index"),
            (None, ValueError, "None is not an index"),
            ([0, 1], ValueError, r"\[0, 1\] is not an index"),
        ]:
            with pytest.raises(kind, match=text):
                part[index]
        for name in ["nothing", ""]:
            with pytest.raises(ringload.NotFoundError, match="no tensor called"):
                opened.get_tensor(name)
            with pytest.raises(ringload.NotFoundError, match="no tensor called"):
                opened.get_slice(name)
    with pytest.raises(ringload.InvalidInputError, match="closed; open it again"):
        opened.keys()


def test_only_the_bytes_needed_come_over_the_network(server: Server) -> None:
    # 8000 rows of 4 KiB: 32 MB.
    tensor = torch.arange(8000 * 1024, dtype=torch.int32).reshape(8000, 1024)
    save_file({"t": tensor, "u": torch.ones(3)}, server.directory / "big.safetensors")
    with ringload.open(server.url("big.safetensors")) as opened:
        assert "t" in opened
        part = opened.get_slice("t")
        server.ranges.clear()
        for index, most in [
            (slice(10, 20), 10 * 4096),
            ((5000, slice(3, 9)), 6 * 4),
            ((slice(100, 103), 7), 2 * 4096 + 4),
            ((slice(None, None, 1000), slice(0, 4)), 8 * 16),
        ]:
            assert same(part[index], tensor[index])
            requested = sum(last - first + 1 for first, last in server.ranges)
            assert requested <= most, (index, requested)
            server.ranges.clear()


def test_shards_and_metadata(tmp_path: Path) -> None:
    expected = sharded(tmp_path / "m")
    with ringload.open(tmp_path / "m") as opened:
        assert len(opened) == len(expected) and set(opened.keys()) == set(expected)
        for name, tensor in expected.items():
            assert same(opened.get_slice(name)[3:9, 5:], tensor[3:9, 5:])
        info = opened.checkpoint.info("layer.2.1")
        assert info["shape"] == (50, 41) and info["dtype"] == "F32"
        assert info["shard"].endswith("model-00003-of-00003.safetensors")
        assert len(list(opened.checkpoint.stream())) == 12


def test_a_file_that_was_replaced_is_noticed(small: Path) -> None:
    with ringload.open(small) as opened:
        save_file({"a": torch.zeros(9)}, small)
        with pytest.raises(ringload.ChangedError, match=r"small\.safetensors"):
            opened.get_tensor("a")


def test_parts_are_numpy_too(small: Path) -> None:
    numpy = pytest.importorskip("numpy")
    with ringload.open(small, framework="numpy") as opened:
        assert numpy.array_equal(opened.get_slice("a")[1:, 2], [6.0, 10.0])
        assert opened.get_slice("a")[0, 0].shape == ()


SUB_BYTE = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def sub_byte_file(path: Path, dtype: str, shape: list[int]) -> bytes:
    """Writes a tensor of a type narrower than a byte. Returns its bytes."""
    data = bytes(range(math.prod(shape) * SUB_BYTE[dtype] // 8))
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return data


def test_f4_is_the_same_by_every_way(tmp_path: Path) -> None:
    """`load_file` gave a tensor of F4, and `open` refused the same as a slice of all of it."""
    path = tmp_path / "t.safetensors"
    for shape in [[3, 8], [8], [2, 3, 4], [0, 4], [4, 0]]:
        data = sub_byte_file(path, "F4", shape)
        packed = [*shape[:-1], shape[-1] // 2]
        expected = load_file(path)["w"]
        assert list(expected.shape) == packed and expected.dtype == torch.float4_e2m1fn_x2
        native = next(iter(ringload.Loader().stream([str(path)])))
        with ringload.open(path) as opened:
            part = opened.get_slice("w")
            assert (part.get_shape(), part.get_dtype()) == (shape, "F4")
            found = {
                "load_file": ringload.load_file(path)["w"],
                "load": ringload.load(path)["w"],
                "stream": dict(ringload.stream(path, memory_limit="min"))["w"],
                "get_tensor": opened.get_tensor("w"),
                "...": part[...],
                ":": part[:],
                "dlpack": torch.from_dlpack(native),
            }
        for way, tensor in found.items():
            assert same(tensor, expected), (way, shape)
            assert bytes(tensor.reshape(-1).view(torch.uint8).tolist()) == data, way


def test_slices_of_f4_are_of_whole_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    sub_byte_file(path, "F4", [3, 8])
    with ringload.open(path) as opened:
        whole, part = opened.get_tensor("w").view(torch.uint8), opened.get_slice("w")
        for index, expected in [
            (1, whole[1]),
            (slice(1, 3), whole[1:]),
            (slice(0, 3, 2), whole[::2]),
            ((slice(None), slice(2, 6)), whole[:, 1:3]),
            ((-1, slice(4, None)), whole[2, 2:]),
            ((slice(None), slice(2, 2)), whole[:, 1:1]),
        ]:
            found = part[index]  # type: ignore[index]
            assert torch.equal(found.view(torch.uint8), expected), index
        for cut in [(0, 0), (slice(None), slice(1, 3)), (slice(None), slice(0, 8, 2)), (0, 7)]:
            with pytest.raises(ringload.InvalidInputError, match=r"of F4: .* would cut a byte"):
                part[cut]


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F6_E3M2"])
def test_f6_is_refused_by_every_way_that_has_no_type_for_it(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "t.safetensors"
    data = sub_byte_file(path, dtype, [2, 8])
    with ringload.open(path) as opened:
        for call in [
            lambda: ringload.load_file(path),
            lambda: list(ringload.stream(path)),
            lambda: opened.get_tensor("w"),
            lambda: opened.get_slice("w")[...],
            lambda: ringload.load(path, framework="numpy"),
        ]:
            with pytest.raises(ringload.UnsupportedError, match=f"'w' of {dtype}"):
                call()
    native = next(iter(ringload.Loader().stream([str(path)])))
    assert (native.dtype, native.shape, native.nbytes) == (dtype, (2, 8), len(data))
    as_bytes = torch.utils.dlpack.from_dlpack(native.dlpack_as_integers())
    assert as_bytes.shape == (2, 6) and bytes(as_bytes.flatten().tolist()) == data
