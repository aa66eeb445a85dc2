"""Keyword arguments: every value that cannot be used is an error that names its argument.

`engines=-1` was an OverflowError that named nothing, `engines=True` was one engine, a float as
`memory_limit` was explained with the names of the module's inner types, and `dtype=torch.bfloat16`,
as every other loader takes it, was refused.
"""

from __future__ import annotations

import pathlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run
from safetensors.torch import save_file

import ringload

HUGE = 10**30
# More digits than Python prints.
VAST = pytest.param(10**5000, id="vast")


def options(path: Path, **given: Any) -> None:
    ringload.load_file(path, **given)


@pytest.mark.parametrize("name", ["engines", "connections"])
@pytest.mark.parametrize("value", [-1, -HUGE, HUGE, VAST, 1025])
def test_a_count_that_is_out_of_range_names_its_argument(
    small: Path, name: str, value: int
) -> None:
    with pytest.raises(ringload.InvalidInputError, match=f"^{name}: ") as caught:
        options(small, **{name: value})
    assert isinstance(caught.value, ValueError) and len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["memory_limit", "read_size", "cache_size"])
@pytest.mark.parametrize("value", [0, -1, HUGE, VAST, 2**64, "lots", ""])
def test_a_size_that_cannot_be_used_names_its_argument(small: Path, name: str, value: Any) -> None:
    with pytest.raises(ringload.InvalidInputError, match=f"^{name}: "):
        options(small, **{name: value})


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf"), 1e300, HUGE])
def test_seconds_that_cannot_be_used_name_their_argument(small: Path, value: float) -> None:
    with pytest.raises(ringload.InvalidInputError, match=r"^hold_timeout_seconds: "):
        options(small, hold_timeout_seconds=value)


WRONG: dict[str, list[Any]] = {
    "engines": [True, 1.5, "2", [1]],
    "connections": [False, 2.0, "2", b"2"],
    "memory_limit": [True, 1.5, b"1", [1]],
    "read_size": [True, 1.5, None.__class__],
    "cache_size": [False, 1.5],
    "hold_timeout_seconds": [True, "1", [1]],
    "dtype": [5, 1.5, True, [torch.float16]],
    "tensors": ["a*", 5, [5]],
    "names": ["a", 5, [None]],
    "slices": [5, "a", ["a"], {5: 0}],
    "order": [5, True],
    "read_path": [5],
    "immutable": ["yes", 1],
    "allocation": [5],
    "pin": [5, False],
    "region": [5],
    "endpoint": [5],
    "variant": [5],
    "verify": ["yes", 1],
    "manifest": [5],
    "check_finite": [1],
    "all_files": ["yes", 1],
    "strict": [1],
    "unpinned": [1, "true"],
    "cache_shared": [1, "true"],
    "cache_dir": [5],
    "cache_validate": [5],
    "headers": ["A: s3cret", ["A: s3cret"], {"A": 5}, {5: "s3cret"}],
    "s3_credentials": ["s3cret", ("id", "s3cret"), ("id", "s3cret", 5), 5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_value_of_another_type_names_its_argument(small: Path, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be ") as caught:
        options(small, **{name: value})
    assert "s3cret" not in str(caught.value)


def test_all_options_have_wrong_values_here() -> None:
    arguments = re.findall(r"(\w+)=", ringload.Loader.__text_signature__ or "")
    rest = {"device", "keep", "runai_env"}
    assert set(arguments) == set(WRONG) | rest


@pytest.mark.parametrize("value", [{"a": 5}, {5: "cpu"}])
def test_a_device_map_of_other_types_is_refused(small: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"^device must be "):
        ringload.Loader(device=value)
    with pytest.raises(ringload.InvalidInputError, match=r"^device: "):
        options(small, device=1.5)


@pytest.mark.parametrize("value", [5, None, b"x", [5], [b"x"], 1.5])
def test_a_location_of_another_type_is_named(value: Any) -> None:
    for call in [ringload.load_file, ringload.load, ringload.stream, ringload.open]:
        with pytest.raises(TypeError, match="a location must be a str or a path"):
            call(value)
    with pytest.raises(ringload.InvalidInputError, match="is not a framework"):
        ringload.load("x", framework=[])  # type: ignore[arg-type]


def test_numbers_of_other_libraries_are_numbers(small: Path) -> None:
    numpy = pytest.importorskip("numpy")
    given: dict[str, Any] = {"engines": numpy.int32(1), "memory_limit": numpy.uint64(1 << 20)}
    assert ringload.load_file(small, **given).keys()


def dtypes() -> list[Any]:
    numpy = pytest.importorskip("numpy")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    jnp = pytest.importorskip("jax.numpy")
    return [
        (torch.bfloat16, torch.bfloat16),
        (torch.half, torch.float16),
        ("bfloat16", torch.bfloat16),
        ("torch.bfloat16", torch.bfloat16),
        ("BF16", torch.bfloat16),
        (numpy.float16, torch.float16),
        (numpy.dtype("float16"), torch.float16),
        (numpy.dtype("<f4"), torch.float32),
        (ml_dtypes.bfloat16, torch.bfloat16),
        (numpy.dtype(ml_dtypes.bfloat16), torch.bfloat16),
        (jnp.bfloat16, torch.bfloat16),
    ]


def test_dtype_is_taken_as_every_framework_has_it(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_file({"w": torch.ones(2, 3)}, path)
    for given, expected in dtypes():
        found = ringload.load_file(path, dtype=given)["w"]
        assert found.dtype == expected, given
        assert next(iter(ringload.stream(path, dtype=given)))[1].dtype == expected
        with ringload.open(path, dtype=given) as opened:
            assert opened.get_tensor("w").dtype == expected
            assert opened.get_slice("w")[0:1].dtype == expected
    for wrong in [torch.int8, torch.float64, pathlib.Path("x")]:
        with pytest.raises(ringload.InvalidInputError, match=r"^dtype: tensors cannot be cast to"):
            ringload.load_file(path, dtype=wrong)


def test_messages_name_options_as_python_has_them(small: Path) -> None:
    """Errors told Python programs to give flags of the command, such as --verify."""
    with pytest.raises(ringload.UnsupportedError, match="verify=True") as caught:
        ringload.load_file(small, verify=True)
    assert "--" not in str(caught.value)
    (small.parent / "model.fp16.safetensors").write_bytes(small.read_bytes())
    small.unlink()
    with pytest.raises(ringload.NotFoundError, match="choose one with variant=") as missing:
        ringload.load_file(small.parent)
    assert "--" not in str(missing.value)


@pytest.mark.parametrize(
    ("variable", "value", "location"),
    [
        ("RINGLOAD_MEMORY_LIMIT", "lots", ""),
        ("RINGLOAD_CONCURRENCY", "-1", ""),
        ("RINGLOAD_PIN", "time", ""),
        ("RINGLOAD_UNPINNED", "maybe", "http://127.0.0.1:1/x.safetensors"),
        ("RINGLOAD_CACHE_SHARED", "maybe", "http://127.0.0.1:1/x.safetensors"),
        ("RINGLOAD_CACHE_SIZE", "none", "http://127.0.0.1:1/x.safetensors"),
        ("RINGLOAD_CACHE_VALIDATE", "often", "http://127.0.0.1:1/x.safetensors"),
        ("RINGLOAD_GCS_ANONYMOUS", "maybe", "gs://bucket/x.safetensors"),
        ("RINGLOAD_AZURE_ANONYMOUS", "maybe", "az://container/x.safetensors"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    small: Path, tmp_path: Path, variable: str, value: str, location: str
) -> None:
    out = run(
        f"""
import ringload
try:
    ringload.load_file({location or str(small)!r})
except ringload.InvalidInputError as error:
    print(error)
""",
        RINGLOAD_CACHE_DIR=str(tmp_path / "cache"),
        AZURE_STORAGE_ACCOUNT="account",
        **{variable: value},
    )
    assert variable in out and value in out, out
