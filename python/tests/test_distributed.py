"""Shared loads: each rank of a gloo group reads a part of the tensors, and gets all of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import models
import pytest
import ranks
import torch
from ranks import assert_failed, values

from ringload import InvalidInputError, IoError
from ringload.runai_model_streamer import SafetensorsStreamer, session


def mixed() -> models.Model:
    """Tensors of all types and of many sizes, one of them larger than any staging buffer."""
    model = models.of_all_types()
    model |= {f"tiny.{n}": models.noise(100 + n, (n % 7,)) for n in range(1500)}
    model |= {f"uneven.{n}": models.noise(9000 + n, (n * 40_001,)) for n in range(1, 12)}
    model["big"] = models.noise(1, (9_000_001,), torch.float32)
    return model


class ReadRecorder:
    """Records which tensors this process reads itself."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._to_torch = session.converter("torch")
        session.converter = lambda _framework: self

    def __call__(self, tensor: Any) -> torch.Tensor:
        self.names.append(tensor.name)
        return self._to_torch(tensor)


def load(_rank: int, paths: list[str], **options: Any) -> dict[str, Any]:
    """Loads all tensors; returns the names and digests, and the names that this rank read."""
    recorder = ReadRecorder()
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True, **options)
        got = list(streamer.get_tensors())
        assert list(streamer.get_tensors()) == []
    return {
        "order": [name for name, _ in got],
        "digests": models.digests(dict(got)),
        "read": recorder.names,
    }


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("limit", ["-1", "0", "60000000"])
def test_every_rank_gets_every_tensor_and_each_is_read_once(
    tmp_path: Path, count: int, limit: str
) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 3)
    environment = {"RUNAI_STREAMER_MEMORY_LIMIT": limit}
    results = values(ranks.run(load, count, tmp_path, paths, environment=environment))
    expected = models.digests(model)
    for rank in results:
        assert Counter(rank["order"]) == Counter(list(model))
        assert rank["digests"] == expected
        assert rank["order"] == results[0]["order"]
    assert Counter(name for rank in results for name in rank["read"]) == Counter(list(model))
    # Tensors are not divided, so the rank with the big tensor reads more; every rank reads some.
    sizes = [sum(model[name].nbytes for name in rank["read"]) for rank in results]
    total, largest = sum(sizes), model["big"].nbytes
    assert max(sizes) <= total / count + largest
    assert min(sizes) > 0


def test_parts_are_balanced(tmp_path: Path) -> None:
    model = {f"t{n:03}": models.noise(n, (10_000 + n,)) for n in range(300)}
    paths = models.shards(tmp_path, model, 2)
    results = values(ranks.run(load, 3, tmp_path, paths))
    sizes = [sum(model[name].nbytes for name in rank["read"]) for rank in results]
    assert max(sizes) - min(sizes) <= 3 * 10_300, sizes


def load_few(_rank: int, paths: list[str]) -> dict[str, Any]:
    return load(_rank, paths, tensor_names={"big", "scalar", "nothing", "uneven.3"})


def test_some_tensors_of_files_and_fewer_than_ranks(tmp_path: Path) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 2)
    wanted = ("big", "scalar", "nothing", "uneven.3")
    for result in values(ranks.run(load_few, 3, tmp_path, paths)):
        assert result["digests"] == models.digests({name: model[name] for name in wanted})
    lone = models.write(tmp_path / "lone.safetensors", {"only": models.noise(1, (5,))})
    results = values(ranks.run(load, 3, tmp_path, [lone]))
    assert [rank["order"] for rank in results] == [["only"]] * 3
    assert sorted(len(rank["read"]) for rank in results) == [0, 0, 1]


def test_files_that_share_names(tmp_path: Path) -> None:
    one = models.write(
        tmp_path / "1.safetensors", {"a": models.noise(1, (9,)), "b": models.noise(2, (9,))}
    )
    two = models.write(
        tmp_path / "2.safetensors", {"a": models.noise(3, (9,)), "c": models.noise(4, (9,))}
    )
    for result in values(ranks.run(load, 2, tmp_path, [one, two])):
        assert sorted(result["order"]) == ["a", "a", "b", "c"]


def load_all_together(_rank: int, paths: list[str]) -> Any:
    """All ranks leave a loop at the same tensor, and then load all tensors in the same session."""
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        first = []
        for name, _ in streamer.get_tensors():
            first.append(name)
            if len(first) == 700:
                break
        assert list(streamer.get_tensors()) == []
        streamer.stream_files(paths, is_distributed=True)
        return first, models.digests(dict(streamer.get_tensors()))


def test_all_may_leave_together_and_load_again(tmp_path: Path) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 3)
    results = values(ranks.run(load_all_together, 2, tmp_path, paths))
    for first, got in results:
        assert first == results[0][0]
        assert got == models.digests(model)


def fail_in_mid_load(rank: int, paths: list[str], who: int) -> None:
    recorder = ReadRecorder()

    def failing(tensor: Any) -> torch.Tensor:
        if rank == who and len(recorder.names) == 30:
            raise IoError("the disk is gone; mend it")
        return recorder(tensor)

    session.converter = lambda _framework: failing
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        for _ in streamer.get_tensors():
            pass


@pytest.mark.parametrize("who", [0, 2])
def test_a_rank_that_fails_in_mid_load_ends_all_with_its_error(tmp_path: Path, who: int) -> None:
    paths = models.shards(tmp_path, mixed(), 3)
    outcomes = ranks.run(fail_in_mid_load, 3, tmp_path, paths, who)
    for rank, outcome in enumerate(outcomes):
        whose = "" if rank == who else f"rank {who} failed: "
        assert_failed(outcome, "IoError", f"{whose}the disk is gone; mend it")
        assert_failed(outcome, "ValueError", "")
        assert outcome.seconds < 120


def open_missing_files(rank: int, paths: list[str]) -> None:
    if rank == 1:
        paths = [f"{path}.none" for path in paths]
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)


def test_a_rank_that_cannot_open_ends_all_at_once(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, models.of_all_types(), 1)
    outcomes = ranks.run(open_missing_files, 3, tmp_path, paths)
    for rank, outcome in enumerate(outcomes):
        assert_failed(outcome, "NotFoundError", "" if rank == 1 else "rank 1 failed: cannot open")
        assert outcome.seconds < 120


def open_with_an_invalid_device(rank: int, paths: list[str]) -> None:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, device="xyz" if rank == 1 else "cpu", is_distributed=True)


def test_a_rank_with_a_wrong_device_ends_all_at_once(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, models.of_all_types(), 1)
    for outcome in ranks.run(open_with_an_invalid_device, 2, tmp_path, paths):
        assert_failed(outcome, "InvalidInputError", "'xyz' is not a device")
        assert outcome.seconds < 120


def open_different_files(rank: int, paths: list[str]) -> None:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths[: 1 + rank], is_distributed=True)


def test_ranks_that_name_other_files_get_an_error(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, models.of_all_types(), 2)
    for outcome in ranks.run(open_different_files, 2, tmp_path, paths):
        assert_failed(outcome, "InvalidInputError", "rank 1 loads other tensors than rank 0")


def raise_in_the_loop(rank: int, paths: list[str], at: int) -> int:
    count = 0
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        for _ in streamer.get_tensors():
            count += 1
            if rank == 1 and count == at:
                raise KeyError("mine")
    return count


def leave_without_iterating(rank: int, paths: list[str], _at: int) -> int:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        return 0 if rank == 1 else len(list(streamer.get_tensors()))


@pytest.mark.parametrize(
    ("how", "at"),
    # The first tensor is the first rank's, and the others send theirs in the same round.
    [(raise_in_the_loop, 1), (raise_in_the_loop, 900), (leave_without_iterating, 0)],
)
def test_a_rank_that_leaves_does_not_keep_others_waiting(tmp_path: Path, how: Any, at: int) -> None:
    paths = models.shards(tmp_path, mixed(), 3)
    outcomes = ranks.run(how, 3, tmp_path, paths, at)
    for rank in (0, 2):
        assert_failed(outcomes[rank], "CancelledError", "rank 1 left the load before its end")
        assert outcomes[rank].seconds < 120
    if how is raise_in_the_loop:
        assert_failed(outcomes[1], "KeyError", "mine")
    else:
        assert outcomes[1].error is None


def be_killed(rank: int, paths: list[str]) -> int:
    count = 0
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        for _ in streamer.get_tensors():
            count += 1
            if rank == 2 and count == 600:
                os.kill(os.getpid(), signal.SIGKILL)
    return count


def test_a_rank_that_is_killed_ends_the_others(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, mixed(), 3)
    outcomes = ranks.run(be_killed, 3, tmp_path, paths)
    assert outcomes[2].exit_code == -signal.SIGKILL
    for outcome in outcomes[:2]:
        assert_failed(outcome, "UnreachableError", "another rank has ended")
        assert outcome.seconds < 120


def stop_responding(rank: int, paths: list[str]) -> int:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        tensors = streamer.get_tensors()
        next(tensors)
        if rank == 0:
            time.sleep(8)
        return len(list(tensors))


def test_a_rank_that_does_not_respond_ends_the_load_after_the_timeout(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, mixed(), 3)
    environment = {"RUNAI_STREAMER_DIST_TIMEOUT": "2"}
    outcomes = ranks.run(stop_responding, 2, tmp_path, paths, environment=environment)
    assert_failed(outcomes[1], "UnreachableError", "did not respond within 2 s")
    assert outcomes[1].seconds < 120


def without_memory(rank: int, paths: list[str]) -> None:
    from ringload.distributed import exchange

    if rank == 1:
        real = torch.empty

        def empty(*shape: Any, **options: Any) -> torch.Tensor:
            if shape == (36_000_004,):
                raise MemoryError("no room for so much")
            return real(*shape, **options)

        torch.empty = empty  # type: ignore[assignment]
    assert exchange is not None
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        for _ in streamer.get_tensors():
            pass


def test_a_rank_without_memory_for_a_tensor_ends_all(tmp_path: Path) -> None:
    model = {"big": models.noise(1, (9_000_001,), torch.float32)}
    model |= {f"later.{n}": models.noise(n, (3_000_000,)) for n in range(40)}
    paths = [
        models.write(tmp_path / "1.safetensors", {"big": model.pop("big")}),
        models.write(tmp_path / "2.safetensors", model),
    ]
    outcomes = ranks.run(without_memory, 3, tmp_path, paths)
    for rank, outcome in enumerate(outcomes):
        whose = "" if rank == 1 else "rank 1 failed: "
        assert_failed(outcome, "MemoryError", f"{whose}no room for so much")
        assert outcome.seconds < 120


def on_hosts(rank: int, paths: list[str]) -> dict[str, Any]:
    socket.gethostname = lambda: "one" if rank < 2 else "other"
    return load(rank, paths)


def test_hosts_read_by_themselves_unless_the_group_is_global(tmp_path: Path) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 2)
    results = values(ranks.run(on_hosts, 3, tmp_path, paths))
    assert all(rank["digests"] == models.digests(model) for rank in results)
    assert Counter(results[0]["read"] + results[1]["read"]) == Counter(list(model))
    assert Counter(results[2]["read"]) == Counter(list(model))
    environment = {"RUNAI_STREAMER_DIST_GLOBAL": "1"}
    results = values(ranks.run(on_hosts, 3, tmp_path, paths, environment=environment))
    assert Counter(name for rank in results for name in rank["read"]) == Counter(list(model))


def test_sharing_can_be_switched_off(tmp_path: Path) -> None:
    model = models.of_all_types()
    paths = models.shards(tmp_path, model, 2)
    results = values(ranks.run(load, 2, tmp_path, paths, environment={"RUNAI_STREAMER_DIST": "0"}))
    assert all(Counter(rank["read"]) == Counter(list(model)) for rank in results)
    for name, text in [("RUNAI_STREAMER_DIST", "x"), ("RUNAI_STREAMER_DIST_TIMEOUT", "0")]:
        for outcome in ranks.run(load, 2, tmp_path, paths, environment={name: text}):
            assert_failed(outcome, "InvalidInputError", f"{name}={text}: use")


def in_little_memory(_rank: int, paths: list[str]) -> int:
    """Returns the peak memory of a load whose tensors are dropped at once."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        for _ in streamer.get_tensors():
            pass
    return status("VmHWM") - before


def test_memory_stays_within_the_limit(tmp_path: Path) -> None:
    model = {f"t{n}": models.noise(n, (1_500_000,)) for n in range(160)}
    paths = models.shards(tmp_path, model, 2)
    environment = {"RUNAI_STREAMER_MEMORY_LIMIT": "32000000"}
    peaks = values(ranks.run(in_little_memory, 2, tmp_path, paths, environment=environment))
    # Of 240 MB: the rank's share of the limit, and the memory that any load needs.
    assert max(peaks) < 16_000_000 + 40_000_000, peaks


def load_in_groups(rank: int, paths: list[str]) -> Any:
    """Ranks 0 and 2 share one load, ranks 1 and 3 another; each tries the other group, too."""
    import torch.distributed as dist

    pairs = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    own, other = pairs[rank % 2], pairs[1 - rank % 2]
    with SafetensorsStreamer() as streamer:
        try:
            streamer.stream_files(["/none"], is_distributed=True, group=other)
        except InvalidInputError as error:
            refused = str(error)
    found = load(rank, paths, group=own)
    found["read"] = list(found["read"])  # the recorder sees later loads, too
    # A pair of groups, for host memory and GPUs, counts as one.
    assert load(rank, paths, group=(own, own))["digests"] == found["digests"]
    return found, refused


def test_a_group_of_some_ranks_shares_a_load(tmp_path: Path) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 2)
    results = values(ranks.run(load_in_groups, 4, tmp_path, paths))
    for rank, (found, refused) in enumerate(results):
        assert found["digests"] == models.digests(model)
        assert "this rank is not in the group" in refused
        peer = results[(rank + 2) % 4][0]
        assert Counter(found["read"] + peer["read"]) == Counter(list(model))


def test_a_group_without_sharing_is_an_error(tmp_path: Path) -> None:
    path = models.write(tmp_path / "m.safetensors", models.of_all_types())
    with (
        SafetensorsStreamer() as streamer,
        pytest.raises(InvalidInputError, match="is_distributed"),
    ):
        streamer.stream_files([path], group=object())
