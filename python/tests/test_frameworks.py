"""numpy, jax, DLPack, and the progress bar."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TORCH_TYPES, random_tensor
from safetensors.torch import save_file

import ringload
from ringload import _progress

NO_NUMPY = [torch.float4_e2m1fn_x2]


def every_type(path: Path) -> dict[str, torch.Tensor]:
    tensors = {str(d): random_tensor(d, 3, 5) for d in TORCH_TYPES if d not in NO_NUMPY}
    save_file(tensors, path)
    return tensors


def as_bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def test_numpy_has_every_type_bit_by_bit(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")
    expected = every_type(tmp_path / "t.safetensors")
    found = ringload.load(tmp_path / "t.safetensors", framework="numpy")
    for name, tensor in expected.items():
        kind = name.removeprefix("torch.")
        assert str(found[name].dtype) == kind, name
        assert found[name].shape == (3, 5)
        assert found[name].tobytes() == as_bytes(tensor), name
        assert found[name].flags.writeable


def test_numpy_arrays_may_be_written_to_in_every_way(tmp_path: Path) -> None:
    """numpy before 2.1 makes read-only arrays of DLPack, so that `x *= 2` failed there."""
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "t.safetensors"
    tensors = {
        "f": torch.ones(2, 3),
        "b": torch.ones(3).bool(),
        "empty": torch.zeros(0, 3),
        "s": torch.tensor(2.0),
    }
    save_file(tensors, path)
    with ringload.open(path, framework="numpy") as opened:
        slices = {name: opened.get_slice(name)[...] for name in tensors}
        read = {name: opened.get_tensor(name) for name in tensors}
    loaded = ringload.load(path, framework="numpy")
    for found in [loaded, dict(ringload.stream(path, framework="numpy")), read, slices]:
        assert found.keys() == tensors.keys()
        for name, array in found.items():
            assert type(array) is numpy.ndarray and array.flags.writeable, name
            assert array.shape == tuple(tensors[name].shape), name
            array[...] = 0
    again = ringload.load(path, framework="numpy")
    assert again["f"].tolist() == [[1, 1, 1], [1, 1, 1]] and loaded["f"].sum() == 0
    # The array alone keeps the memory.
    kept = next(array for name, array in ringload.stream(path, framework="numpy") if name == "f")
    assert kept.tolist() == [[1, 1, 1], [1, 1, 1]]
    mapped = ringload.load(path, framework="numpy", read_path="mapped")
    assert not mapped["f"].flags.writeable
    # The pages of an immutable file are copied when they are written to, and the file stays.
    mapped = ringload.load(path, framework="numpy", immutable=True)
    assert mapped["f"].flags.writeable
    mapped["f"][...] = 0
    assert mapped["f"].sum() == 0
    assert ringload.load(path, framework="numpy", immutable=True)["f"].sum() == 6
    assert ringload.load(path, framework="numpy")["f"].sum() == 6


def test_a_tensor_of_a_type_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    save_file({"f4": random_tensor(torch.float4_e2m1fn_x2, 4, 4)}, tmp_path / "f.safetensors")
    with pytest.raises(ringload.UnsupportedError, match="no type for tensor 'f4' of F4"):
        ringload.load(tmp_path / "f.safetensors", framework="np")


def test_jax_has_what_numpy_has(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    numpy = pytest.importorskip("numpy")
    types = [torch.float32, torch.int32, torch.bfloat16, torch.bool, torch.float8_e4m3fn]
    # Some tensors are aligned to 64 bytes, others are not.
    shapes = [(16, 16), (3, 5), (1,), (0, 2)]
    tensors = {f"{d}{s}": torch.ones(s).to(d) for d in types for s in shapes}
    save_file(tensors, tmp_path / "t.safetensors")
    found = ringload.load(tmp_path / "t.safetensors", framework="jax")
    expected = ringload.load(tmp_path / "t.safetensors", framework="numpy")
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert numpy.array_equal(numpy.asarray(found[name]), array), name


def test_the_dlpack_protocol(small: Path) -> None:
    tensor = next(iter(ringload.Loader().stream([str(small)])))
    assert tensor.__dlpack_device__() == (1, 0)
    assert 'capsule object "dltensor"' in repr(tensor.__dlpack__())
    versioned = repr(tensor.__dlpack__(max_version=(1, 0)))
    assert 'capsule object "dltensor_versioned"' in versioned
    shared, copied = torch.from_dlpack(tensor), torch.from_dlpack(tensor, copy=True)
    assert shared.data_ptr() == tensor.address != copied.data_ptr()
    with pytest.raises(BufferError, match="load it to the device"):
        tensor.__dlpack__(dl_device=(2, 0))
    for _ in range(1000):
        tensor.__dlpack__()
        tensor.__dlpack__(max_version=(1, 1))


def test_memory_is_returned_when_the_last_view_is_dropped(tmp_path: Path) -> None:
    # 64 tensors of 1 MiB pass through 4 MiB, so the memory of each has to be returned.
    save_file({f"t{i}": torch.full((1 << 18,), float(i)) for i in range(64)}, tmp_path / "m")
    for framework in ["torch", "numpy"]:
        total = 0
        for _name, tensor in ringload.stream(
            tmp_path / "m", framework=framework, memory_limit="4MiB"
        ):
            view = tensor[10:20]
            total += int(view.sum())
        assert total == 10 * sum(range(64))


def test_pages_of_a_file_are_read_only(small: Path) -> None:
    numpy = pytest.importorskip("numpy")
    tensor = next(iter(ringload.Loader(read_path="mapped").stream([str(small)])))
    array = numpy.from_dlpack(tensor)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(BufferError, match="read-only"):
        tensor.__dlpack__()


def test_the_bar_is_shown_only_if_it_is_enabled(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ringload.load_file(small)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_progress, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(_progress, "REDRAW_SECONDS", 0.01)
    for progress, shown in [(True, True), (False, False), (None, False)]:
        for _name, _tensor in ringload.stream(small, progress=progress):
            time.sleep(0.03)
        found = capsys.readouterr().err
        assert ("loading" in found) == shown, (progress, found)
        assert not shown or (found.endswith("\n") and "100%" in found)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert _progress.is_enabled(None) and not _progress.is_enabled(False)
    monkeypatch.setattr(sys, "stderr", None)
    assert not _progress.is_enabled(None)


def test_a_handle_shows_the_progress_of_a_load_to_any_thread(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = ringload.Progress()
    assert (progress.done_bytes, progress.total_bytes, progress.header_bytes) == (0, 0, 0)
    tensors = ringload.load(small, progress=progress)
    loaded = sum(tensor.nbytes for tensor in tensors.values())
    assert progress.done_bytes == progress.total_bytes == loaded
    assert progress.header_bytes > 8
    next(ringload.stream(small, progress=progress))
    assert progress.total_bytes == 2 * loaded, "calls add up"
    assert not capsys.readouterr().err, "no bar is drawn"


def test_the_bar_has_progress_speed_and_remaining_time() -> None:
    assert _progress.line(0, 10**9, 1.0).endswith("0.00 of 1.00 GB, 0.00 GB/s, waiting")
    half = _progress.line(2 * 10**9, 4 * 10**9, 2.0)
    assert " 50% " in half and "2.00 of 4.00 GB, 1.00 GB/s, 2 s left" in half
    assert _progress.line(0, 0, 0.0).startswith("loading 100%")


def test_a_broken_stderr_does_not_fail_a_load(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError("closed")

    monkeypatch.setattr(_progress, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(_progress, "REDRAW_SECONDS", 0.001)
    monkeypatch.setattr(sys, "stderr", Broken())
    found: dict[str, Any] = {}
    for name, tensor in ringload.stream(small, progress=True):
        found[name] = tensor
        time.sleep(0.02)
    assert len(found) == 4
