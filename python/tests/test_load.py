"""Loads of whole checkpoints, compared with those of safetensors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from conftest import TORCH_TYPES, Server, random_tensor, same, sharded
from safetensors.torch import load_file, save_file, save_model

import ringload


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert same(found[name], tensor), name


def test_every_type_is_loaded_as_safetensors_loads_it(tmp_path: Path) -> None:
    shapes = [(3, 5), (7,), (2, 3, 4), (0, 2), (1,)]
    tensors = {
        f"{dtype}{shape}": random_tensor(dtype, *shape) for dtype in TORCH_TYPES for shape in shapes
    }
    for dtype in TORCH_TYPES:
        if dtype is not torch.float4_e2m1fn_x2:
            tensors[f"{dtype} scalar"] = random_tensor(dtype)
    path = tmp_path / "all.safetensors"
    save_file(tensors, path)
    found = ringload.load_file(str(path))
    assert_same(found, load_file(path))
    assert all(tensor.is_contiguous() for tensor in found.values())


@pytest.mark.parametrize("memory_limit", [None, "none", "min", 900_000, "1MiB"])
def test_a_stream_under_any_limit_loads_every_byte(tmp_path: Path, memory_limit: object) -> None:
    tensors = {f"t{i}": torch.randn(i * 37 % 200 + 1, 300) for i in range(60)}
    path = tmp_path / "m.safetensors"
    save_file(tensors, path)
    found = {
        name: tensor.clone()
        for name, tensor in ringload.stream(path, memory_limit=memory_limit)  # type: ignore[arg-type]
    }
    assert_same(found, tensors)


def test_loaded_tensors_can_be_written_to(small: Path) -> None:
    first = ringload.load_file(small)
    first["a"].mul_(2)
    first["scalar"].add_(1)
    second = ringload.load_file(small)
    assert torch.equal(first["a"], second["a"] * 2)
    assert (first["scalar"].item(), second["scalar"].item()) == (4.5, 3.5)


def test_shards_are_found_by_directory_index_pattern_and_list(tmp_path: Path) -> None:
    expected = sharded(tmp_path / "model")
    directory = tmp_path / "model"
    for location in [
        directory,
        str(directory),
        directory / "model.safetensors.index.json",
        str(directory / "*.safetensors"),
        sorted(directory.glob("*.safetensors")),
    ]:
        assert_same(ringload.load_file(location), expected)


def test_names_and_globs_select(small: Path) -> None:
    assert set(ringload.load(small, names=["b", "a"])) == {"a", "b"}
    assert set(ringload.load(small, tensors=["s*", "e*"])) == {"scalar", "empty"}
    assert set(ringload.load(small, tensors=["s*"], names=["a"])) == {"scalar", "a"}
    assert ringload.load(small, names=[]) == {}


def test_order_file_is_that_of_the_file(tmp_path: Path) -> None:
    expected = sharded(tmp_path / "m")
    names = [name for name, _ in ringload.stream(tmp_path / "m", order="file")]
    assert sorted(names) == sorted(expected)
    opened = ringload.open(tmp_path / "m")
    assert names == opened.keys()


def test_shared_tensors_have_all_their_names(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(10, 4)
            self.head = torch.nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

    saved = Tied()
    path = tmp_path / "tied.safetensors"
    save_model(saved, str(path))
    found = ringload.load_file(path)
    assert set(found) == {"embed.weight", "head.weight"}
    assert found["embed.weight"].data_ptr() == found["head.weight"].data_ptr()
    model = torch.nn.utils.skip_init(torch.nn.Embedding, 10, 4)
    model.load_state_dict({"weight": found["embed.weight"]}, assign=True)
    assert torch.equal(model.weight, saved.embed.weight)
    Tied().load_state_dict(found, assign=True)


def test_a_name_that_the_file_has_is_no_other_name(tmp_path: Path) -> None:
    """With `names`, a tensor that was left out got the bytes of another one that metadata names."""
    tensors = {"a.weight": torch.zeros(2), "b.weight": torch.ones(2)}
    save_file(tensors, tmp_path / "t.safetensors", metadata={"a.weight": "b.weight"})
    assert ringload.load(tmp_path / "t.safetensors", names=["b.weight"]).keys() == {"b.weight"}
    assert_same(ringload.load(tmp_path / "t.safetensors"), tensors)


def test_metadata_that_equals_a_name_adds_no_tensor(tmp_path: Path) -> None:
    """A trainer's `step=1` is no record of a shared tensor, even if a tensor is called "1"."""
    path = tmp_path / "m.safetensors"
    tensors = {str(i): torch.full((2,), float(i)) for i in range(4)} | {"a.weight": torch.ones(1)}
    metadata = {"step": "1", "epoch": "3", "format": "pt", "version": "0", "best.bias": "a.weight"}
    save_file(tensors, str(path), metadata=metadata)
    assert set(ringload.load_file(path)) == set(tensors)


def test_floats_are_cast(small: Path) -> None:
    plain = ringload.load_file(small)
    found = ringload.load(small, dtype="f16")
    assert found["a"].dtype is torch.float16
    assert torch.equal(found["a"], plain["a"].half())


def test_over_http_with_a_header_and_by_the_cache(
    small: Path, server: Server, tmp_path: Path
) -> None:
    expected = load_file(small)
    url = server.url("small.safetensors")
    server.required_header = ("X-Key", "sesame")
    with pytest.raises(ringload.PermissionDeniedError):
        ringload.load_file(url)
    headers = {"X-Key": "sesame"}
    assert_same(ringload.load_file(url, headers=headers), expected)
    ringload.set_local_cache_dir(tmp_path / "cache")
    try:
        loader = ringload.Loader(headers=headers, cache_dir=tmp_path / "cache")
        assert len(list(loader.stream([url]))) == 4
        assert loader.flush(20.0)
        request_count = len(server.ranges)
        again = ringload.load_file(url, headers=headers, cache_validate="never")
        assert_same(again, expected)
        assert len(server.ranges) == request_count, "the load did not read the cache"
        ringload.set_local_cache_dir(None)
        assert_same(ringload.load_file(url, headers=headers), expected)
        assert len(server.ranges) > request_count, "the load read a cache that is switched off"
    finally:
        ringload._cache._directory = None


def test_a_uri_in_a_path_keeps_its_meaning(small: Path, server: Server) -> None:
    """`Path("http://host/m")` has only one slash after the colon."""
    path = Path(server.url("small.safetensors"))
    assert "://" not in str(path)
    assert_same(ringload.load_file(path), load_file(small))


def test_writes_to_tensors_do_not_reach_the_cache(server: Server, tmp_path: Path) -> None:
    """The cache writes tensors in the background, from memory that the caller may change."""
    tensors = {f"t{number}": torch.randn(400_000) for number in range(12)}
    save_file(tensors, tmp_path / "model.safetensors")
    url = server.url("model.safetensors")
    for attempt in range(10):  # usually the writer is faster than this loop
        cache = tmp_path / f"cache {attempt}"
        loader = ringload.Loader(cache_dir=cache, cache_validate="never")
        for tensor in loader.stream([url]):
            torch.from_dlpack(tensor).fill_(7.0)
        assert loader.flush(20.0)
        # Every complete file in the cache has the bytes of the object.
        for complete in cache.glob("*/*/data.safetensors"):
            assert_same(load_file(complete), tensors)
    assert_same(ringload.load_file(url, cache_dir=cache, cache_validate="never"), tensors)


def change_and_restore(held: list[torch.Tensor], ended: threading.Event) -> None:
    while not ended.is_set():
        for tensor in list(held):
            tensor.neg_().neg_()


def test_temporary_changes_of_tensors_do_not_reach_the_cache(
    server: Server, tmp_path: Path
) -> None:
    """The cache computes checksums of the bytes that it writes, even while they change."""
    tensors = {f"t{number}": torch.randn(400_000) for number in range(12)}
    save_file(tensors, tmp_path / "model.safetensors")
    url = server.url("model.safetensors")
    for attempt in range(5):
        cache = tmp_path / f"cache {attempt}"
        loader = ringload.Loader(cache_dir=cache, cache_validate="never")
        held: list[torch.Tensor] = []
        ended = threading.Event()
        consumer = threading.Thread(target=change_and_restore, args=(held, ended))
        consumer.start()
        try:
            held.extend(torch.from_dlpack(tensor) for tensor in loader.stream([url]))
            assert loader.flush(20.0)
        finally:
            ended.set()
            consumer.join()
        for complete in cache.glob("*/*/data.safetensors"):
            assert_same(load_file(complete), tensors)
        again = ringload.Loader(cache_dir=cache, cache_validate="never")
        assert len(list(again.stream([url]))) == len(tensors)
        assert again.flush(20.0)
        (complete,) = cache.glob("*/*/data.safetensors")
        assert_same(load_file(complete), tensors)


def test_a_file_whose_tensors_are_not_aligned(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    header += b" " * ((3 - len(header)) % 4)
    data = torch.tensor([1.0, -2.0, 3.5])
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data.numpy().tobytes())
    native = next(ringload.Loader().stream([str(path)]))
    assert native.address % 4 != 0, "the tensor is aligned in the file, so the test has no effect"
    found = ringload.load_file(path)["a"]
    assert found.data_ptr() % 64 == 0
    assert torch.equal(found, data)


def test_devices_are_named_as_torch_names_them(small: Path) -> None:
    for device in ["cpu", torch.device("cpu"), torch.device("cpu", 0), {"*": "cpu"}]:
        assert len(ringload.load_file(small, device=device)) == 4  # type: ignore[arg-type]
    for device, name in [("cuda:3", "cuda:3"), (torch.device("cuda", 1), "cuda:1"), (2, "cuda:2")]:
        assert ringload._frameworks.device_name(device) == name
    assert ringload._frameworks.device_name("cuda") == "cuda:0"


def test_a_summary_counts_tensors_and_bytes(small: Path) -> None:
    stream = ringload.Loader().stream([str(small)])
    assert (stream.tensor_count, stream.total_bytes) == (4, 48 + 10 + 4)
    assert sum(tensor.nbytes for tensor in stream) == stream.done_bytes == stream.total_bytes
    stream.close()
    summary = stream.summary()
    assert (summary["tensors"], summary["bytes"]) == (4, 62)
    assert stream.metadata() == {"format": "pt", "made": "by a test"}
