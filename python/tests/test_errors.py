"""The classes of errors, and their messages, which are the crate's."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
import torch
from conftest import run
from safetensors.torch import save_file

import ringload


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("NotFoundError", FileNotFoundError),
        ("PermissionDeniedError", PermissionError),
        ("InvalidInputError", ValueError),
        ("InvalidCheckpointError", ValueError),
        ("ChangedError", OSError),
        ("CorruptError", OSError),
        ("NotFiniteError", ValueError),
        ("MemoryLimitError", MemoryError),
        ("OutOfMemoryError", MemoryError),
        ("UnsupportedError", NotImplementedError),
        ("UnreachableError", ConnectionError),
        ("IoError", OSError),
        ("DeviceError", RuntimeError),
        ("CancelledError", Exception),
    ],
)
def test_every_class_is_an_error_and_what_python_users_expect(
    name: str, parent: type[Exception]
) -> None:
    kind = getattr(ringload, name)
    assert issubclass(kind, ringload.Error) and issubclass(kind, parent)
    assert kind.__module__ == "ringload"
    assert str(kind("a sentence")) == "a sentence"


def test_messages_are_those_of_the_crate(tmp_path: Path, small: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 40)
    text = tmp_path / "text.safetensors"
    text.write_bytes(b"")
    load = ringload.load_file
    for call, kind, sentence in [
        (lambda: load("/nowhere/x"), FileNotFoundError, "cannot open /nowhere/x: no such file"),
        (lambda: load(tmp_path / "none-*"), FileNotFoundError, "none-"),
        (lambda: load([]), ValueError, "no location was given"),
        (lambda: load(""), ValueError, "the location is empty"),
        (lambda: load("ftp://x/y"), NotImplementedError, "ftp:// locations are not supported"),
        (lambda: load(broken), ringload.InvalidCheckpointError, "broken.safetensors"),
        (lambda: load(text), ringload.InvalidCheckpointError, "text.safetensors"),
        (lambda: load(small, names=["x"]), ringload.NotFoundError, 'no tensor called "x"'),
        (lambda: load(small, tensors=["x*"]), ringload.NotFoundError, "no tensor matches x*"),
        (lambda: load(small, tensors=["["]), ValueError, '"[" is not a valid glob'),
        (lambda: load(small, device="gpu"), ValueError, "use cpu, cuda or cuda:N"),
        (lambda: load(small, device=-1), ValueError, '"cuda:-1" is not a device'),
        (lambda: load(small, dtype="int4"), ValueError, "use f32, f16 or bf16"),
        (lambda: load(small, memory_limit="lots"), ValueError, '"lots" is not a memory limit'),
        (lambda: load(small, memory_limit=10), MemoryError, "the memory limit of 10 bytes"),
        (lambda: load(small, order="any"), ValueError, "use completion or file"),
        (lambda: load(small, read_path="fast"), ValueError, '"fast" is not a read path'),
        (lambda: load(small, headers={"a b": "s3cret"}), ValueError, "not the name of a header"),
        (lambda: load(small, framework="tf"), ValueError, "use torch, numpy or jax"),
    ]:
        with pytest.raises(ringload.Error) as caught:
            call()
        assert isinstance(caught.value, kind)
        assert sentence in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_a_gpu_where_there_is_none(small: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for device in ["cuda", "cuda:3", 1, torch.device("cuda")]:
        with pytest.raises(ringload.UnsupportedError, match="no CUDA driver"):
            ringload.load_file(small, device=device)


def test_keeping_all_tensors_under_a_limit_fails_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({f"t{i}": torch.zeros(1 << 18) for i in range(8)}, path)
    with pytest.raises(ringload.MemoryLimitError, match="loading all tensors needs"):
        ringload.load_file(path, memory_limit="3MiB")


def test_unknown_options_are_refused_by_name(small: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        ringload.load_file(small, colour="red")


@pytest.mark.parametrize("framework", ["torch", "numpy", "jax"])
def test_a_framework_that_is_missing_says_what_to_install(small: Path, framework: str) -> None:
    out = run(f"""
import sys
sys.modules[{framework!r}] = None
import ringload
for call in [ringload.load_file, ringload.stream, ringload.open, ringload.load]:
    try:
        call({str(small)!r}, framework={framework!r})
    except ringload.UnsupportedError as error:
        print(error)
""")
    assert out.count(f"pip install {framework}") == 4, out


def test_ml_dtypes_missing_is_named_where_it_is_needed(small: Path) -> None:
    out = run(f"""
import sys
sys.modules["ml_dtypes"] = None
import ringload
assert len(ringload.load({str(small)!r}, framework="numpy", names=["a", "scalar"])) == 2
try:
    ringload.load({str(small)!r}, framework="numpy")
except ringload.Error as error:
    print(error)
""")
    assert "BF16" in out and "pip install ml_dtypes" in out, out


def test_frameworks_are_not_imported_before_they_are_requested(small: Path) -> None:
    out = run(f"""
import sys
import ringload
tensors = list(ringload.Loader().stream([{str(small)!r}]))
print([name for name in ("torch", "numpy", "jax", "ml_dtypes") if name in sys.modules])
""")
    assert out.strip() == "[]"


def test_open_does_not_hide_the_builtin() -> None:
    assert open is builtins.open and ringload.open is not builtins.open
