"""`SafetensorsStreamer`: its calls and errors, compared with those of Run:ai's streamer."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import models
import pytest
import torch

import ringload
from ringload.runai_model_streamer import SafetensorsStreamer


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[str], models.Model]:
    model = models.of_all_types() | {
        f"w{n}": models.noise(n, (1000 + n, 33), torch.float16) for n in range(40)
    }
    return models.shards(tmp_path / "model", model, 3), model


def load(paths: list[str], **options: Any) -> models.Model:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, **options)
        return dict(streamer.get_tensors())


def test_every_tensor_is_loaded_once_with_its_type_shape_and_bytes(
    files: tuple[list[str], models.Model],
) -> None:
    paths, model = files
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths)
        # vLLM and SGLang count the tensors like this.
        metadata = streamer.files_to_tensors_metadata
        assert sum(len(tensors) for tensors in metadata.values()) == len(model)
        assert list(metadata) == [0, 1, 2]
        assert {(t.name, t.shape, t.nbytes) for tensors in metadata.values() for t in tensors} == {
            (name, tuple(tensor.shape), tensor.nbytes) for name, tensor in model.items()
        }
        assert streamer.total_size == sum(tensor.nbytes for tensor in model.values())
        assert streamer.device_str == "cpu"
        got = list(streamer.get_tensors())
    assert Counter(name for name, _ in got) == Counter(list(model))
    assert models.digests(dict(got)) == models.digests(model)
    assert all(tensor.is_contiguous() for _, tensor in got)


def test_a_generator_is_an_error_after_its_with_block(
    files: tuple[list[str], models.Model],
) -> None:
    """It ended without an error, as if it had yielded all tensors."""
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(files[0])
        begun, unused = streamer.get_tensors(), streamer.get_tensors()
        next(begun)
    for generator in [begun, unused]:
        with pytest.raises(ValueError, match="not active"):
            list(generator)


def test_one_file_and_paths_of_any_class(files: tuple[list[str], models.Model]) -> None:
    paths, model = files
    with SafetensorsStreamer() as streamer:
        streamer.stream_file(Path(paths[0]))
        first = [name for name, _ in streamer.get_tensors()]
    assert 0 < len(first) < len(model)
    directory = os.path.dirname(paths[0])
    assert models.digests(load([directory])) == models.digests(model)


@pytest.mark.parametrize("limit", ["0", "200000", "1000000"])
def test_tensors_that_are_kept_stay_as_they_are_whatever_the_limit(
    files: tuple[list[str], models.Model], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    paths, model = files
    monkeypatch.setenv("RUNAI_STREAMER_MEMORY_LIMIT", limit)
    kept = load(paths)
    gc.collect()
    assert models.digests(kept) == models.digests(model)


@pytest.mark.parametrize("owned", [True, False])
def test_a_loop_needs_only_the_smallest_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owned: bool
) -> None:
    model = {f"t{n}": models.noise(n, (3_000_000,)) for n in range(20)}
    path = models.write(tmp_path / "m.safetensors", model)
    monkeypatch.setenv("RUNAI_STREAMER_MEMORY_LIMIT", "0")
    with SafetensorsStreamer() as streamer:
        streamer.stream_file(path, owned=owned)
        got = {name: models.digest(tensor) for name, tensor in streamer.get_tensors()}
    assert got == models.digests(model)


def test_without_owned_keeping_more_than_the_limit_is_an_error_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {f"t{n}": models.noise(n, (1_000_000,)) for n in range(8)}
    path = models.write(tmp_path / "m.safetensors", model)
    monkeypatch.setenv("RUNAI_STREAMER_MEMORY_LIMIT", "3000000")
    kept: models.Model = {}
    with SafetensorsStreamer() as streamer:
        streamer.stream_file(path, owned=False)
        with pytest.raises(ringload.MemoryLimitError, match="still held") as caught:
            kept.update(streamer.get_tensors())
            for name, tensor in streamer.get_tensors():
                kept[name] = tensor
    assert isinstance(caught.value, ValueError)
    expected = models.digests(model)
    assert all(models.digest(tensor) == expected[name] for name, tensor in kept.items())


@pytest.mark.parametrize(
    ("names", "kind", "text"),
    [
        ("w1", ValueError, "not a single str"),
        ([], ValueError, "must not be empty"),
        (set(), ValueError, "must not be empty"),
        (["w1", "nope", "neither"], ValueError, r"not found in checkpoint: \['neither', 'nope'\]"),
        ([1], ValueError, "not found in checkpoint"),
        (iter(["w1"]), TypeError, "len"),
        (3, TypeError, "len"),
    ],
)
def test_wrong_tensor_names_are_refused(
    files: tuple[list[str], models.Model], names: Any, kind: type[Exception], text: str
) -> None:
    with SafetensorsStreamer() as streamer:
        with pytest.raises(kind, match=text):
            streamer.stream_files(files[0], tensor_names=names)
        # The session can still be used.
        streamer.stream_file(files[0][0])
        assert list(streamer.get_tensors())


def test_some_tensors_are_loaded_alone(files: tuple[list[str], models.Model]) -> None:
    paths, model = files
    for names in (
        ["w39", "nothing", "w2", "w2"],
        {"w39", "nothing", "w2"},
        ("w2", "w39", "nothing"),
    ):
        expected = models.digests({name: model[name] for name in set(names)})
        assert models.digests(load(paths, tensor_names=names)) == expected


def test_names_in_two_files_are_loaded_twice_and_cannot_be_selected(tmp_path: Path) -> None:
    one = models.write(
        tmp_path / "1.safetensors", {"a": models.noise(1, (5,)), "b": models.noise(2, (5,))}
    )
    two = models.write(
        tmp_path / "2.safetensors", {"a": models.noise(3, (5,)), "c": models.noise(4, (5,))}
    )
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([one, two])
        assert sorted(name for name, _ in streamer.get_tensors()) == ["a", "a", "b", "c"]
        with pytest.raises(ValueError, match=r"more than one file: \['a'\]"):
            streamer.stream_files([one, two], tensor_names=["a", "b"])
        streamer.stream_files([one, two], tensor_names=["b", "c"])
        assert sorted(name for name, _ in streamer.get_tensors()) == ["b", "c"]
        streamer.stream_files([one, one])
        assert sorted(name for name, _ in streamer.get_tensors()) == ["a", "a", "b", "b"]


def test_a_session_is_used_within_its_block_and_one_load_at_a_time(
    files: tuple[list[str], models.Model],
) -> None:
    paths, _ = files
    streamer = SafetensorsStreamer()
    with pytest.raises(ValueError, match="with block"):
        streamer.stream_files(paths)
    with streamer:
        assert list(streamer.get_tensors()) == []
        streamer.stream_files([])
        assert list(streamer.get_tensors()) == []
        streamer.stream_files(paths)
        with pytest.raises(ValueError, match="cannot start a new stream"):
            streamer.stream_files(paths)
        unfinished = streamer.get_tensors()
        next(unfinished)
        with pytest.raises(ValueError, match="cannot start a new stream"):
            streamer.stream_files(paths)
        unfinished.close()
        streamer.stream_file(paths[0])
        complete = streamer.get_tensors()
        for _ in range(len(streamer.files_to_tensors_metadata[0])):
            next(complete)
        streamer.stream_files(paths)  # all tensors were taken, although the iterator has not ended
        streamer.get_tensors().close()
        for _ in streamer.get_tensors():
            break
        assert list(streamer.get_tensors()) == []
        streamer.stream_files(paths)
        tensors = streamer.get_tensors()
        name, tensor = next(tensors)
    with pytest.raises(ValueError, match="with block"):
        next(streamer.get_tensors())
    with pytest.raises(ValueError, match="with block"):
        list(tensors)
    assert tensor.numel() >= 0 and name
    with streamer:
        streamer.stream_file(paths[0])
        assert list(streamer.get_tensors())


def test_an_exception_in_the_loop_ends_the_load_and_is_raised_unchanged(
    files: tuple[list[str], models.Model],
) -> None:
    before = threading.active_count()
    with pytest.raises(KeyError, match="mine"), SafetensorsStreamer() as streamer:
        streamer.stream_files(files[0])
        for _ in streamer.get_tensors():
            raise KeyError("mine")
    assert threading.active_count() == before


def test_tensors_outlive_the_session(files: tuple[list[str], models.Model]) -> None:
    paths, model = files
    for keep in (1, 30):
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(paths)
            kept = dict(pair for pair, _ in zip(streamer.get_tensors(), range(keep)))
        del streamer
        gc.collect()
        assert len(kept) == keep
        for name, tensor in kept.items():
            assert models.digest(tensor) == models.digest(model[name])
            tensor.zero_()  # the caller may write to tensors


def test_every_error_is_a_value_error_and_of_its_own_class(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.safetensors")
    bad = models.write_raw(tmp_path / "bad.safetensors", {"a": {"dtype": "F32"}})
    short = models.write_raw(
        tmp_path / "short.safetensors", {"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}
    )
    cases: list[tuple[str, type[Exception]]] = [
        (missing, ringload.NotFoundError),
        (missing, FileNotFoundError),
        (bad, ringload.InvalidCheckpointError),
        (short, ringload.InvalidCheckpointError),
    ]
    for path, kind in cases:
        with SafetensorsStreamer() as streamer:
            with pytest.raises(kind) as caught:
                streamer.stream_file(path)
            assert isinstance(caught.value, ValueError)
            assert os.path.basename(path) in str(caught.value)


def test_devices_are_torch_s(files: tuple[list[str], models.Model]) -> None:
    for host in ("cpu", None, torch.device("cpu")):
        assert all(t.device.type == "cpu" for t in load(files[0], device=host).values())
    meta = load(files[0], device="meta")
    assert all(tensor.is_meta for tensor in meta.values())
    for wrong in ("xyz", object()):
        with pytest.raises(ValueError, match="is not a device"):
            load(files[0], device=wrong)
    if not torch.cuda.is_available():
        for gpu in ("cuda", "cuda:0", torch.device("cuda", 1)):
            with pytest.raises(ringload.Error, match="CUDA"):
                load(files[0], device=gpu)


def test_sharing_without_a_group_is_a_plain_load(files: tuple[list[str], models.Model]) -> None:
    paths, model = files
    assert models.digests(load(paths, is_distributed=True)) == models.digests(model)


@pytest.mark.parametrize(("limit", "text"), [("x", "use -1"), ("-2", "use -1"), ("5", "5 bytes")])
def test_a_wrong_limit_is_named(
    files: tuple[list[str], models.Model], monkeypatch: pytest.MonkeyPatch, limit: str, text: str
) -> None:
    monkeypatch.setenv("RUNAI_STREAMER_MEMORY_LIMIT", limit)
    with pytest.raises(ValueError, match=text):
        load(files[0])


def test_run_ai_s_variables_are_read(
    files: tuple[list[str], models.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, good, wrong in [
        ("RUNAI_STREAMER_CONCURRENCY", "16", "0"),
        ("RUNAI_STREAMER_OBJ_CONCURRENCY", "4", "many"),
        ("RUNAI_STREAMER_FS_STRATEGY", "io_uring_buffered,sync_buffered", "quickly"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, good)
            assert len(load(files[0])) == len(files[1])
            patch.setenv(name, wrong)
            with pytest.raises(ValueError, match=name):
                load(files[0])


def test_only_the_import_changes() -> None:
    code = """
import sys
import ringload
from ringload import ObjectStorageModel, SafetensorsStreamer, list_safetensors, pull_files
import ringload.runai_model_streamer as there
from ringload.runai_model_streamer.s3_utils.s3_utils import S3Credentials
assert "torch" not in sys.modules and "numpy" not in sys.modules
for name in ("ObjectStorageModel", "SafetensorsStreamer", "list_safetensors", "pull_files"):
    assert getattr(there, name) is getattr(ringload, name)
assert S3Credentials is there.S3Credentials
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def theirs(paths: list[str], **options: Any) -> models.Model:
    streamer = pytest.importorskip("runai_model_streamer")
    with streamer.SafetensorsStreamer() as session:
        session.stream_files(paths, **options)
        return {name: tensor.clone() for name, tensor in session.get_tensors()}


def test_run_ai_s_streamer_loads_the_same(files: tuple[list[str], models.Model]) -> None:
    paths, _ = files
    for options in ({}, {"tensor_names": ["w1", "scalar", "nothing"]}):
        ours, others = load(paths, **options), theirs(paths, **options)
        assert models.digests(ours) == models.digests(others)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [10], "data_offsets": [0, 4]}},
        {"a": {"dtype": "ALIEN", "shape": [1], "data_offsets": [0, 4]}},
        {
            "a": {"dtype": "U8", "shape": [10], "data_offsets": [0, 10]},
            "b": {"dtype": "U8", "shape": [10], "data_offsets": [5, 15]},
        },
        {
            "a": {"dtype": "U8", "shape": [10], "data_offsets": [0, 10]},
            "b": {"dtype": "U8", "shape": [10], "data_offsets": [20, 30]},
        },
        {"a": {"dtype": "U8", "shape": [10], "data_offsets": [5, 15]}},
        {"a": {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]}},
        {"a": {"dtype": "U8", "shape": [10], "data_offsets": [0, 10]}},
        [],
    ],
)
def test_files_that_run_ai_s_streamer_refuses_are_refused(tmp_path: Path, header: Any) -> None:
    pytest.importorskip("runai_model_streamer")
    path = models.write_raw(tmp_path / "bad.safetensors", header, b"\0" * 15)
    for refused in (load, theirs):
        with pytest.raises((ValueError, AttributeError)):
            refused([path])
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        load([path])
