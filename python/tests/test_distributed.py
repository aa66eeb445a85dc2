"""Shared loads: ranks of a gloo group on loopback, each reading a part, all getting everything."""

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
from ranks import Outcome

from ringload import IoError
from ringload.runai_model_streamer import SafetensorsStreamer, session


def mixed() -> models.Model:
    """Tensors of every type, many tiny ones, uneven ones, one larger than any staging buffer."""
    model = models.of_all_types()
    model |= {f"tiny.{n}": models.noise(100 + n, (n % 7,)) for n in range(1500)}
    model |= {f"uneven.{n}": models.noise(9000 + n, (n * 40_001,)) for n in range(1, 12)}
    model["big"] = models.noise(1, (9_000_001,), torch.float32)
    return model


class Reading:
    """Notes which tensors this process reads by itself."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._to_torch = session.converter("torch")
        session.converter = lambda _framework: self

    def __call__(self, tensor: Any) -> torch.Tensor:
        self.names.append(tensor.name)
        return self._to_torch(tensor)


def load(_rank: int, paths: list[str], **options: Any) -> dict[str, Any]:
    """Loads all, keeps all to the end, and tells what it got and what it read."""
    reading = Reading()
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True, **options)
        got = list(streamer.get_tensors())
        assert list(streamer.get_tensors()) == []
    return {
        "order": [name for name, _ in got],
        "digests": models.digests(dict(got)),
        "read": reading.names,
    }


def values(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    return [outcome.value for outcome in outcomes]


def assert_failed(outcome: Outcome, kind: str, text: str) -> None:
    assert outcome.error is not None, outcome
    classes, said = outcome.error
    assert kind in classes, outcome.error
    assert text in said, said


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("limit", ["-1", "0", "60000000"])
def test_every_rank_gets_every_tensor_and_each_is_read_once(
    tmp_path: Path, count: int, limit: str
) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 3)
    environment = {"RUNAI_STREAMER_MEMORY_LIMIT": limit}
    told = values(ranks.run(load, count, tmp_path, paths, environment=environment))
    expected = models.digests(model)
    for rank in told:
        assert Counter(rank["order"]) == Counter(list(model))
        assert rank["digests"] == expected
        assert rank["order"] == told[0]["order"]
    assert Counter(name for rank in told for name in rank["read"]) == Counter(list(model))
    # Whole tensors, so the one with the big tensor has more; nobody has nothing.
    sizes = [sum(model[name].nbytes for name in rank["read"]) for rank in told]
    total, largest = sum(sizes), model["big"].nbytes
    assert max(sizes) <= total / count + largest
    assert min(sizes) > 0


def test_parts_are_balanced(tmp_path: Path) -> None:
    model = {f"t{n:03}": models.noise(n, (10_000 + n,)) for n in range(300)}
    paths = models.shards(tmp_path, model, 2)
    told = values(ranks.run(load, 3, tmp_path, paths))
    sizes = [sum(model[name].nbytes for name in rank["read"]) for rank in told]
    assert max(sizes) - min(sizes) <= 3 * 10_300, sizes


def load_few(_rank: int, paths: list[str]) -> dict[str, Any]:
    return load(_rank, paths, tensor_names={"big", "scalar", "nothing", "uneven.3"})


def test_some_tensors_of_files_and_fewer_than_ranks(tmp_path: Path) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 2)
    wanted = ("big", "scalar", "nothing", "uneven.3")
    for told in values(ranks.run(load_few, 3, tmp_path, paths)):
        assert told["digests"] == models.digests({name: model[name] for name in wanted})
    lone = models.write(tmp_path / "lone.safetensors", {"only": models.noise(1, (5,))})
    told = values(ranks.run(load, 3, tmp_path, [lone]))
    assert [rank["order"] for rank in told] == [["only"]] * 3
    assert sorted(len(rank["read"]) for rank in told) == [0, 0, 1]


def test_files_that_share_names(tmp_path: Path) -> None:
    one = models.write(
        tmp_path / "1.safetensors", {"a": models.noise(1, (9,)), "b": models.noise(2, (9,))}
    )
    two = models.write(
        tmp_path / "2.safetensors", {"a": models.noise(3, (9,)), "c": models.noise(4, (9,))}
    )
    for told in values(ranks.run(load, 2, tmp_path, [one, two])):
        assert sorted(told["order"]) == ["a", "a", "b", "c"]


def load_all_together(_rank: int, paths: list[str]) -> Any:
    """In one session: a loop that all leave at the same tensor, then a load to the end."""
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
    told = values(ranks.run(load_all_together, 2, tmp_path, paths))
    for first, got in told:
        assert first == told[0][0]
        assert got == models.digests(model)


def fail_in_mid_load(rank: int, paths: list[str], who: int) -> None:
    reading = Reading()

    def failing(tensor: Any) -> torch.Tensor:
        if rank == who and len(reading.names) == 30:
            raise IoError("the disk is gone; mend it")
        return reading(tensor)

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
        assert outcome.seconds < 30


def open_what_is_missing(rank: int, paths: list[str]) -> None:
    if rank == 1:
        paths = [f"{path}.none" for path in paths]
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)


def test_a_rank_that_cannot_open_ends_all_at_once(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, models.of_all_types(), 1)
    outcomes = ranks.run(open_what_is_missing, 3, tmp_path, paths)
    for rank, outcome in enumerate(outcomes):
        assert_failed(outcome, "NotFoundError", "" if rank == 1 else "rank 1 failed: cannot open")
        assert outcome.seconds < 30


def open_on_what_is_no_device(rank: int, paths: list[str]) -> None:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, device="xyz" if rank == 1 else "cpu", is_distributed=True)


def test_a_rank_with_a_wrong_device_ends_all_at_once(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, models.of_all_types(), 1)
    for outcome in ranks.run(open_on_what_is_no_device, 2, tmp_path, paths):
        assert_failed(outcome, "InvalidInputError", "'xyz' is not a device")
        assert outcome.seconds < 30


def open_others(rank: int, paths: list[str]) -> None:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths[: 1 + rank], is_distributed=True)


def test_ranks_that_name_other_files_are_told(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, models.of_all_types(), 2)
    for outcome in ranks.run(open_others, 2, tmp_path, paths):
        assert_failed(
            outcome, "InvalidInputError", "rank 1 was asked for other tensors than rank 0"
        )


def raise_in_the_loop(rank: int, paths: list[str], at: int) -> int:
    count = 0
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        for _ in streamer.get_tensors():
            count += 1
            if rank == 1 and count == at:
                raise KeyError("mine")
    return count


def leave_without_a_look(rank: int, paths: list[str], _at: int) -> int:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        return 0 if rank == 1 else len(list(streamer.get_tensors()))


@pytest.mark.parametrize(
    ("how", "at"),
    # The first tensor is of the first rank, and the others are to give theirs in the same round.
    [(raise_in_the_loop, 1), (raise_in_the_loop, 900), (leave_without_a_look, 0)],
)
def test_a_rank_that_leaves_does_not_keep_others_waiting(tmp_path: Path, how: Any, at: int) -> None:
    paths = models.shards(tmp_path, mixed(), 3)
    outcomes = ranks.run(how, 3, tmp_path, paths, at)
    for rank in (0, 2):
        assert_failed(outcomes[rank], "CancelledError", "rank 1 left the load before its end")
        assert outcomes[rank].seconds < 30
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
        assert_failed(outcome, "UnreachableError", "another rank is gone")
        assert outcome.seconds < 30


def stay_away(rank: int, paths: list[str]) -> int:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, is_distributed=True)
        tensors = streamer.get_tensors()
        next(tensors)
        if rank == 0:
            time.sleep(8)
        return len(list(tensors))


def test_a_rank_that_stays_away_is_waited_for_as_long_as_is_said(tmp_path: Path) -> None:
    paths = models.shards(tmp_path, mixed(), 3)
    environment = {"RUNAI_STREAMER_DIST_TIMEOUT": "2"}
    outcomes = ranks.run(stay_away, 2, tmp_path, paths, environment=environment)
    assert_failed(outcomes[1], "UnreachableError", "did not come within 2 s")
    assert outcomes[1].seconds < 20


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
        assert outcome.seconds < 30


def on_hosts(rank: int, paths: list[str]) -> dict[str, Any]:
    socket.gethostname = lambda: "one" if rank < 2 else "other"
    return load(rank, paths)


def test_hosts_read_by_themselves_unless_told_otherwise(tmp_path: Path) -> None:
    model = mixed()
    paths = models.shards(tmp_path, model, 2)
    told = values(ranks.run(on_hosts, 3, tmp_path, paths))
    assert all(rank["digests"] == models.digests(model) for rank in told)
    assert Counter(told[0]["read"] + told[1]["read"]) == Counter(list(model))
    assert Counter(told[2]["read"]) == Counter(list(model))
    environment = {"RUNAI_STREAMER_DIST_GLOBAL": "1"}
    told = values(ranks.run(on_hosts, 3, tmp_path, paths, environment=environment))
    assert Counter(name for rank in told for name in rank["read"]) == Counter(list(model))


def test_sharing_can_be_switched_off(tmp_path: Path) -> None:
    model = models.of_all_types()
    paths = models.shards(tmp_path, model, 2)
    told = values(ranks.run(load, 2, tmp_path, paths, environment={"RUNAI_STREAMER_DIST": "0"}))
    assert all(Counter(rank["read"]) == Counter(list(model)) for rank in told)
    for name, text in [("RUNAI_STREAMER_DIST", "x"), ("RUNAI_STREAMER_DIST_TIMEOUT", "0")]:
        for outcome in ranks.run(load, 2, tmp_path, paths, environment={name: text}):
            assert_failed(outcome, "InvalidInputError", f"{name}={text}: use")


def in_little_memory(_rank: int, paths: list[str]) -> int:
    """How much memory a load takes at most, that drops what it gets."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
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
    # Of 240 MB: its part of the limit, and what a process takes to load anything at all.
    assert max(peaks) < 16_000_000 + 40_000_000, peaks
