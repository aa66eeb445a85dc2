"""Loads that ranks share and of which each keeps another part: `is_distributed` with slices."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import models
import pytest
import ranks
import torch
from ranks import Outcome, values

import ringload

PLAN = {
    "layers.*.q_proj": "colwise",
    "layers.*.o_proj": "rowwise",
    "layers.*.gate_up_proj": "packed_colwise",
    "embed": "embedding_rowwise",
}


def llama() -> models.Model:
    """A small Llama, whose tensors take many pieces, or are shorter than a message."""
    model = {"model.embed.weight": models.noise(1, (1000, 512), torch.float32)}
    for layer in range(3):
        at = f"model.layers.{layer}."
        model[at + "q_proj.weight"] = models.noise(10 + layer, (1024, 768), torch.bfloat16)
        model[at + "q_proj.bias"] = models.noise(20 + layer, (1024,), torch.bfloat16)
        model[at + "o_proj.weight"] = models.noise(30 + layer, (768, 1024), torch.bfloat16)
        model[at + "gate_up_proj.weight"] = models.noise(40 + layer, (1600, 768), torch.float16)
        model[at + "norm.weight"] = models.noise(50 + layer, (768,), torch.float32)
    model["nothing"] = torch.empty(0, 7, dtype=torch.bfloat16)
    model["scalar"] = models.noise(60, (), torch.float32)
    return model


def part(name: str, tensor: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """The part that a rank has by `PLAN`."""
    if "gate_up_proj" in name:
        return torch.cat([half.chunk(world, 0)[rank] for half in tensor.chunk(2, 0)])
    if "o_proj" in name:
        return tensor.chunk(world, 1)[rank]
    return tensor.chunk(world, 0)[rank] if "q_proj" in name or "embed" in name else tensor


class Counter:
    """Counts the bytes of the pieces that this process reads."""

    def __init__(self) -> None:
        from ringload.distributed import load

        self.nbytes = self.longest = 0
        real = load._Pieces.__next__

        def counted(pieces: Any) -> torch.Tensor:
            piece = real(pieces)
            self.nbytes += piece.nbytes
            self.longest = max(self.longest, piece.nbytes)
            return piece

        load._Pieces.__next__ = counted  # type: ignore[method-assign]


def world() -> Any:
    return torch.distributed.group.WORLD


def assert_failed(outcome: Outcome, kind: str, text: str) -> None:
    ranks.assert_failed(outcome, kind, text)
    assert outcome.seconds < 120


def load_by_plan(_rank: int, paths: list[str], options: dict[str, Any]) -> Any:
    counter = Counter()
    tensors = ringload.load(paths, tp_plan=PLAN, group=world(), is_distributed=True, **options)
    return models.digests(tensors), counter.nbytes, counter.longest


@pytest.mark.parametrize(
    ("count", "limit"), [(2, None), (2, "2MiB"), (4, None), (4, "2MiB"), (3, 6_000_000)]
)
def test_each_byte_is_read_by_one_rank_and_each_rank_keeps_its_share(
    tmp_path: Path, count: int, limit: Any
) -> None:
    model = llama()
    paths = models.shards(tmp_path, model, 2)
    options = {} if limit is None else {"memory_limit": limit}
    results = values(ranks.run(load_by_plan, count, tmp_path, paths, options))
    for rank, (digests, _, _) in enumerate(results):
        expected = {name: part(name, one, rank, count) for name, one in model.items()}
        assert digests == models.digests(expected)
    read = [nbytes for _, nbytes, _ in results]
    total = sum(tensor.nbytes for tensor in model.values())
    assert sum(read) == total
    longest = max(longest for *_, longest in results)
    assert max(read) - total / count <= longest, read
    # No rank has a whole tensor that is longer than a piece, a sixteenth of the ring.
    assert longest <= {None: 4 << 20, "2MiB": 128 << 10, 6_000_000: 375_000}[limit]


def random_slices(model: models.Model, seed: int) -> dict[str, Any]:
    """An index for some of the tensors; every third rank takes nothing of some."""
    pick = random.Random(seed)
    slices = {}
    for name, tensor in model.items():
        if pick.random() < 0.2 or 0 in tensor.shape or not tensor.shape:
            continue
        index = []
        for size in tensor.shape:
            start = pick.randrange(size)
            index.append(slice(start, pick.randint(start + 1, size), pick.choice([None, 1, 2, 3])))
        slices[name] = tuple(index[: pick.randint(1, len(index))])
    return slices


def shapes_of_all_types() -> models.Model:
    pick = random.Random(3)
    model = models.of_all_types()
    for number, dtype in enumerate(models.DTYPES * 3):
        shape = [pick.choice([1, 2, 5, 9, 70]) for _ in range(pick.randint(1, 4))]
        model[f"random.{number}"] = models.noise(100 + number, tuple(shape), dtype)
    model["long"] = models.noise(7, (3, 700, 1, 401), torch.int16)
    model["row"] = models.noise(8, (1, 2_000_001), torch.uint8)
    return model


def by_numpy(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """Returns what numpy takes of a tensor, whose elements it has as integers of their size."""
    if index is None:
        return tensor
    integer = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}[tensor.element_size()]
    array = tensor.view(getattr(torch, integer)).numpy()
    return torch.from_numpy(array[index].copy()).view(tensor.dtype)


def load_random_slices(rank: int, path: str, seed: int) -> Any:
    model = shapes_of_all_types()
    slices = random_slices(model, seed + rank)

    def accepts(name: str, _dtype: str, _shape: Any) -> bool:
        # The last rank keeps nothing at all, and only reads for the others.
        return rank != 3 and random.Random(f"{name}{seed}{rank}").random() < 0.8

    expected = {
        name: by_numpy(tensor, slices.get(name))
        for name, tensor in model.items()
        if accepts(name, "", ())
    }
    counter = Counter()
    found = {}
    for name, tensor in ringload.stream(
        path,
        slices=slices,
        filter=accepts,
        group=world(),
        is_distributed=True,
        memory_limit="2MiB" if seed % 2 else None,
    ):
        assert name not in found
        found[name] = tensor
    assert models.digests(found) == models.digests(expected)
    return len(found), counter.nbytes


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (2, 1), (4, 10), (4, 21)])
def test_random_slices_that_differ_by_rank_are_those_of_numpy(
    tmp_path: Path, count: int, seed: int
) -> None:
    model = shapes_of_all_types()
    path = models.write(tmp_path / "m.safetensors", model)
    results = values(ranks.run(load_random_slices, count, tmp_path, path, seed))
    assert sum(read for _, read in results) <= sum(one.nbytes for one in model.values())
    assert all(read > 0 for _, read in results)
    assert [found for found, _ in results[3:]] == [0] * (count - 3 if count > 3 else 0)


def load_odd(_rank: int, path: str) -> Any:
    nothing = ringload.load(path, filter=lambda *_: False, group=world(), is_distributed=True)
    whole = ringload.load(path, group=world(), is_distributed=True)
    cast = ringload.load(
        path, group=world(), is_distributed=True, dtype="float32", slices={"type.*": 0}
    )
    alone = ringload.load(path, group=world(), dtype="float32", slices={"type.*": 0})
    assert models.digests(cast) == models.digests(alone)
    return nothing, models.digests(whole)


def test_whole_tensors_none_and_casts(tmp_path: Path) -> None:
    model = models.of_all_types()
    path = models.write(tmp_path / "m.safetensors", model)
    for result in values(ranks.run(load_odd, 2, tmp_path, path)):
        assert result == ({}, models.digests(model))


def load_in_groups(rank: int, paths: list[str]) -> Any:
    """Ranks 0 and 2 share a load, then 1, 2 and 3; ranks that are in no group do nothing."""
    import torch.distributed as dist

    first, second = dist.new_group([0, 2]), dist.new_group([1, 2, 3])
    found, error = [], None
    for group in (first, second):
        if rank in dist.get_process_group_ranks(group) if not isinstance(group, int) else False:
            for _ in range(2):
                loaded = ringload.load(paths, tp_plan=PLAN, group=group, is_distributed=True)
                found.append(models.digests(loaded))
        else:
            try:
                ringload.load("/none", tp_plan=PLAN, group=group, is_distributed=True)
            except ringload.InvalidInputError as raised:
                error = str(raised)
    return found, error


def test_a_group_of_some_ranks_shares_a_load_and_others_get_an_error(tmp_path: Path) -> None:
    model = llama()
    paths = models.shards(tmp_path, model, 3)
    results = values(ranks.run(load_in_groups, 4, tmp_path, paths))

    def expected(rank: int, count: int) -> dict[str, str]:
        parts = {name: part(name, one, rank, count) for name, one in model.items()}
        return models.digests(parts)

    assert results[0][0] == [expected(0, 2)] * 2
    assert results[1][0] == [expected(0, 3)] * 2
    assert results[2][0] == [expected(1, 2)] * 2 + [expected(1, 3)] * 2
    assert results[3][0] == [expected(2, 3)] * 2
    for rank in (0, 1, 3):
        assert "this rank is not in the group" in results[rank][1]
    assert results[2][1] is None


def fail_in_mid_load(rank: int, paths: list[str], who: int, at: int) -> None:
    ranks.fail_at(rank, who, at)
    options = {"memory_limit": "2MiB", "group": world(), "is_distributed": True}
    ringload.load(paths, tp_plan=PLAN, **options)


@pytest.mark.parametrize(("count", "who", "at"), [(2, 1, 1), (4, 0, 7), (4, 3, 12)])
def test_a_rank_that_fails_in_mid_load_ends_all_with_its_error(
    tmp_path: Path, count: int, who: int, at: int
) -> None:
    paths = models.shards(tmp_path, llama(), 2)
    for rank, outcome in enumerate(ranks.run(fail_in_mid_load, count, tmp_path, paths, who, at)):
        whose = "" if rank == who else f"rank {who} failed: "
        assert_failed(outcome, "IoError", f"{whose}the disk is gone; mend it")


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "style": ({"tp_plan": {"a.b": "diagonal"}}, "InvalidInputError", '"diagonal" for "a.b"'),
    "absent": ({"slices": {"absent": 0}}, "NotFoundError", 'no tensor called "absent"'),
    "outside": ({"slices": {"*q_proj.bias": slice(0, 2000)}}, "InvalidInputError", "q_proj.bias"),
    "scalar": ({"slices": {"scalar": 0}}, "InvalidInputError", "scalar"),
    "step": ({"slices": {"*norm*": slice(0, 3, 0)}}, "InvalidInputError", "the step of"),
    "empty": ({"slices": {"*norm*": slice(3, 3)}}, "InvalidInputError", "takes nothing"),
    "world": ({"slices": {"*norm*": ringload.Share(0, 0, 0)}}, "InvalidInputError", "world is 0"),
    "rank": ({"slices": {"*norm*": ringload.Share(0, 2, 2)}}, "InvalidInputError", "rank 2"),
    "filter": ({"filter": "*"}, "TypeError", "filter must be callable"),
    "raising filter": ({"filter": lambda *_: 1 / 0}, "ZeroDivisionError", "division"),
    "device": ({"device": "xyz"}, "InvalidInputError", "'xyz' is not a device"),
    "devices": ({"device": {"*": "cpu"}}, "InvalidInputError", "one device"),
    "limit": ({"memory_limit": 4096}, "InvalidInputError", "memory_limit: 4096 bytes"),
    "text": ({"memory_limit": "lots"}, "InvalidInputError", '"lots" is not a memory limit'),
    "verify": ({"verify": True}, "InvalidInputError", "verify needs whole"),
    "framework": ({"framework": "numpy"}, "InvalidInputError", "tensors of torch"),
    "option": ({"nonsense": 1}, "TypeError", "unexpected keyword argument 'nonsense'"),
}


def load_wrongly(rank: int, paths: list[str]) -> dict[str, Any]:
    """Makes each mistake on rank 1 alone, then loads what is right."""
    counter, found = Counter(), {}
    for what, (options, _, _) in WRONG.items():
        try:
            given = options if rank == 1 else {}
            ringload.load(paths, group=world(), is_distributed=True, **given)
        except Exception as error:
            found[what] = ([kind.__name__ for kind in type(error).__mro__], str(error))
    assert counter.nbytes == 0
    ringload.load(paths, group=world(), is_distributed=True)
    return found


def test_wrong_arguments_of_a_rank_are_an_error_of_all_before_anything_is_read(
    tmp_path: Path,
) -> None:
    paths = models.shards(tmp_path, llama(), 2)
    for rank, found in enumerate(values(ranks.run(load_wrongly, 2, tmp_path, paths))):
        assert found.keys() == WRONG.keys()
        for what, (_, kind, text) in WRONG.items():
            classes, message = found[what]
            assert kind in classes, found[what]
            assert text in message, message
            assert message.startswith("rank 1 failed: ") == (rank == 0), message


def load_others(rank: int, paths: list[str]) -> None:
    ringload.load(paths[: 1 + rank], group=world(), is_distributed=True)


def test_ranks_that_load_other_checkpoints_get_an_error(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, llama(), 2)
    for outcome in ranks.run(load_others, 2, tmp_path, paths):
        assert_failed(outcome, "InvalidInputError", "rank 1 loads another checkpoint than rank 0")


@pytest.mark.parametrize("group", [None, -100, object(), (object(),)])
def test_a_group_has_to_be_given(small: Path, group: Any) -> None:
    with pytest.raises(ringload.InvalidInputError, match="group"):
        ringload.load(small, is_distributed=True, group=group)
    with pytest.raises(TypeError, match="is_distributed must be a bool"):
        ringload.load(small, is_distributed=1)


def leave_early(rank: int, paths: list[str], how: str) -> Any:
    names = []
    for name, _ in ringload.stream(
        paths, tp_plan=PLAN, group=world(), is_distributed=True, memory_limit="2MiB"
    ):
        names.append(name)
        if rank == 1 and how == "raises":
            raise KeyError("mine")
        if rank == 1 and how == "breaks":
            return names
        if rank == 1 and how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 1 and how == "waits":
            time.sleep(2)
            break
    return names


@pytest.mark.parametrize("how", ["raises", "breaks", "is killed", "waits"])
def test_a_rank_that_leaves_or_ends_does_not_keep_others_waiting(tmp_path: Path, how: str) -> None:
    paths = models.shards(tmp_path, llama(), 2)
    outcomes = ranks.run(leave_early, 4, tmp_path, paths, how)
    for rank in (0, 2, 3):
        if how == "is killed":
            assert_failed(outcomes[rank], "UnreachableError", "another rank has ended")
        else:
            assert_failed(outcomes[rank], "CancelledError", "rank 1 left the load before its end")
    if how == "is killed":
        assert outcomes[1].exit_code == -signal.SIGKILL
    elif how == "raises":
        assert_failed(outcomes[1], "KeyError", "mine")


def take_all(rank: int, path: str) -> int:
    """Rank 1 takes its tensors, and does not ask for the end of the stream."""
    tensors = ringload.stream(path, slices={"t*": 0}, group=world(), is_distributed=True)
    if rank == 1:
        return len([next(tensors) for _ in range(3)])
    return len(list(tensors))


def test_a_rank_that_has_all_its_tensors_may_stop(tmp_path: Path) -> None:
    model = {f"t{n}": models.noise(n, (64, 100)) for n in range(3)}
    path = models.write(tmp_path / "m.safetensors", model)
    assert values(ranks.run(take_all, 2, tmp_path, path)) == [3, 3]


def in_little_memory(_rank: int, path: str) -> int:
    """Returns the peak memory of a load beyond the tensors that it keeps."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    kept = ringload.load(
        path, slices={"*": 1}, group=world(), is_distributed=True, memory_limit="16MiB"
    )
    return status("VmHWM") - before - sum(tensor.nbytes for tensor in kept.values())


def test_memory_is_the_share_the_ring_and_a_little(tmp_path: Path) -> None:
    model = {f"t{n}": models.noise(n, (3000, 20_000)) for n in range(4)}
    path = models.write(tmp_path / "m.safetensors", model)
    peaks = values(ranks.run(in_little_memory, 2, tmp_path, path))
    # A whole tensor has 60 MB.
    assert max(peaks) < 16_800_000 + 40_000_000, peaks


def load_from_server(_rank: int, url: str) -> dict[str, str]:
    options = {"group": world(), "is_distributed": True, "connections": 2}
    return models.digests(ringload.load(url, tp_plan=PLAN, **options))


def test_a_server_sends_each_byte_once(tmp_path: Path, server: Any) -> None:
    model = llama()
    path = Path(models.write(server.directory / "m.safetensors", model))
    results = values(ranks.run(load_from_server, 4, tmp_path, server.url("m.safetensors")))
    for rank, digests in enumerate(results):
        expected = {name: part(name, one, rank, 4) for name, one in model.items()}
        assert digests == models.digests(expected)
    sent = sum(end - start for start, end in server.ranges)
    # Beside the data, each of the ranks reads the header.
    assert sent <= path.stat().st_size + 4 * (1 << 20), sent


def load_from_store(_rank: int, endpoint: str) -> dict[str, str]:
    options = {"group": world(), "is_distributed": True, "endpoint": endpoint}
    return models.digests(ringload.load("s3://bucket/m.safetensors", tp_plan=PLAN, **options))


def test_a_store_sends_each_byte_once(tmp_path: Path, server: Any) -> None:
    model = llama()
    (server.directory / "bucket").mkdir()
    path = Path(models.write(server.directory / "bucket" / "m.safetensors", model))
    keys = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    results = values(ranks.run(load_from_store, 4, tmp_path, server.url(""), environment=keys))
    for rank, digests in enumerate(results):
        expected = {name: part(name, one, rank, 4) for name, one in model.items()}
        assert digests == models.digests(expected)
    sent = sum(end - start for start, end in server.ranges)
    assert sent <= path.stat().st_size + 4 * (1 << 20), sent


#: Values that are not finite, as integers of the size of the type.
NOT_FINITE = {
    torch.float64: (0x7FF8 << 48, 0x7FF0 << 48),
    torch.float32: (0x7FC00001, -0x00800000),
    torch.complex64: (0x7F800001, 0x7F800000),
    torch.float16: (-0x0200, 0x7C00),
    torch.bfloat16: (0x7FC0, -0x0080),
    torch.float8_e5m2: (0xFD, 0x7C),
    torch.float8_e4m3fn: (0xFF, None),
    torch.float8_e8m0fnu: (0xFF, None),
}


def load_finite(_rank: int, path: str, options: dict[str, Any]) -> Any:
    options = {"group": world(), "is_distributed": True, "check_finite": True, **options}
    try:
        return len(ringload.load(path, slices={"*": 0}, **options))
    except ringload.NotFiniteError as error:
        return str(error)


@pytest.mark.parametrize("dtype", list(NOT_FINITE))
def test_values_that_are_not_finite_are_found_where_they_are_kept(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    nan, infinite = NOT_FINITE[dtype]
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    kind = (
        torch.int32
        if dtype is torch.complex64
        else integer[torch.empty(0, dtype=dtype).element_size()]
    )
    values_of = torch.zeros(2000 * 900, dtype=kind)
    per_row = 900 if dtype is not torch.complex64 else 1800
    model = {"a": values_of.view(-1, per_row).view(dtype), "b": torch.zeros(4, 4)}
    path = models.write(tmp_path / "fine.safetensors", model)
    assert values(ranks.run(load_finite, 2, tmp_path, path, {})) == [2, 2]
    values_of[-3] = nan
    if infinite is not None:
        values_of[-700] = infinite
    path = models.write(tmp_path / "m.safetensors", model)
    count = 0 if infinite is None else 1
    text = f'1 tensor holds values that are not finite: "a" (1 NaN, {count} infinite)'
    # They are looked at before a cast.
    options = {"dtype": "float32"} if dtype is torch.bfloat16 else {}
    answers = values(ranks.run(load_finite, 2, tmp_path, path, options))
    assert answers[1].startswith(text)
    assert answers[0].startswith(f"rank 1 failed: {text}")
    with pytest.raises(ringload.NotFiniteError) as alone:
        ringload.load(path, check_finite=True)
    assert str(alone.value) == answers[1]


def test_ranges_of_bytes_are_checked(tmp_path: Path) -> None:
    model = {"a": models.noise(1, (100, 3)), "b": models.noise(2, (50,), torch.float32)}
    path = models.write(tmp_path / "m.safetensors", model)
    with ringload.open(path) as opened:
        order = opened.keys()
        stream = opened.checkpoint.ranges([(name, 7, 150) for name in order]).stream()
        for number, (name, tensor) in enumerate(zip(order, stream)):
            assert tensor.name == str(number)
            raw = model[name].view(torch.uint8).flatten()
            assert torch.equal(torch.from_dlpack(tensor), raw[7:150])
        wrong = [
            [("absent", 0, 1)],
            [("a", 0, 301)],
            [("a", 9, 9)],
            [(order[1], 0, 1), (order[0], 0, 1)],
            [("a", 0, 9), ("a", 8, 10)],
        ]
        for ranges in wrong:
            with pytest.raises(ringload.InvalidInputError, match="invalid or out of order"):
                opened.checkpoint.ranges(ranges)
