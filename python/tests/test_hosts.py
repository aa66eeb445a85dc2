"""Ranks of one host copy from each other's memory; each byte is sent once to another host."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import models
import pytest
import ranks
import torch
from ranks import values
from test_exchange import PLAN, llama, part, world
from test_exchange import Counter as ReadCounter

import ringload
from ringload.distributed import group as groups
from ringload.distributed.direct import direct_parts
from ringload.distributed.runs import Runs
from ringload.distributed.schedule import Schedule
from ringload.distributed.segment import Address, Segment, Sizes, hosts_of

PERF = Path(__file__).parents[2] / "perf"


def pretend(rank: int, hosts: Sequence[int]) -> None:
    """Makes this rank find only the ranks on its host, of those that `hosts` gives to the ranks."""
    from ringload.distributed.segment import Neighbours

    real = Neighbours.find

    def find(neighbours: Any, own: int, addresses: Sequence[Any]) -> Any:
        assert own == rank
        near = [one if hosts[n] == hosts[rank] else None for n, one in enumerate(addresses)]
        return real(neighbours, own, near)

    Neighbours.find = find  # type: ignore[method-assign]


class SentCounter:
    """Counts the bytes of the messages that this process sends."""

    def __init__(self) -> None:
        self.nbytes = 0
        real = groups.Group.start_transfers

        def counted(group: Any, sends: Any, receives: Any) -> Any:
            self.nbytes += sum(tensor.nbytes for _, tensor in sends)
            return real(group, sends, receives)

        groups.Group.start_transfers = counted  # type: ignore[method-assign]


def load(rank: int, path: str, hosts: Sequence[int], options: dict[str, Any]) -> Any:
    pretend(rank, hosts)
    read, sent = ReadCounter(), SentCounter()
    tensors = ringload.load(path, group=world(), is_distributed=True, **options)
    return models.digests(tensors), read.nbytes, sent.nbytes


def of_whole_pieces(model: models.Model, hosts: Sequence[int], read: Sequence[int]) -> int:
    """Returns how many bytes reach other hosts once each, if all ranks keep all."""
    on_host = Counter()
    for host, nbytes in zip(hosts, read):
        on_host[host] += nbytes
    total = sum(tensor.nbytes for tensor in model.values())
    return sum(total - nbytes for nbytes in on_host.values())


HOSTS = [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 2, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("hosts", HOSTS)
def test_whole_tensors_reach_each_host_once(tmp_path: Path, hosts: list[int]) -> None:
    model = llama() | {f"tiny.{n}": models.noise(n, (n % 5,)) for n in range(300)}
    path = models.write(tmp_path / "m.safetensors", model)
    results = values(ranks.run(load, 4, tmp_path, path, hosts, {"memory_limit": "2MiB"}))
    for digests, _, _ in results:
        assert digests == models.digests(model)
    read = [nbytes for _, nbytes, _ in results]
    assert sum(read) == sum(tensor.nbytes for tensor in model.values())
    assert sum(sent for *_, sent in results) == of_whole_pieces(model, hosts, read)


@pytest.mark.parametrize("hosts", HOSTS)
def test_parts_are_sent_to_other_hosts_only(tmp_path: Path, hosts: list[int]) -> None:
    model = llama()
    path = models.write(tmp_path / "m.safetensors", model)
    options = {"tp_plan": PLAN, "memory_limit": "4MiB"}
    results = values(ranks.run(load, 4, tmp_path, path, hosts, options))
    for rank, (digests, _, _) in enumerate(results):
        expected = {name: part(name, one, rank, 4) for name, one in model.items()}
        assert digests == models.digests(expected)
    read, sent = ([one[n] for one in results] for n in (1, 2))
    # What no rank shares with another crosses once, and the norms, which all keep, once to a host.
    assert sum(sent) <= of_whole_pieces(model, hosts, read)
    assert (sum(sent) == 0) == (len(set(hosts)) == 1)


def load_key_values(rank: int, path: str, hosts: Sequence[int]) -> Any:
    """Two ranks each keep the same half of the columns, as of the heads of keys and values."""
    half = slice(0, 300) if rank % 4 < 2 else slice(300, 600)
    index = {"k": (slice(None), half), "v": half}
    return load(rank, path, hosts, {"slices": index, "memory_limit": "2MiB"})


@pytest.mark.parametrize("hosts", [[0, 0, 1, 1], [0, 1, 0, 1]])
def test_the_same_part_of_several_ranks_is_sent_once(tmp_path: Path, hosts: list[int]) -> None:
    model = {name: models.noise(n, (600, 600), torch.int32) for n, name in enumerate("kv")}
    path = models.write(tmp_path / "m.safetensors", model)
    results = values(ranks.run(load_key_values, 4, tmp_path, path, hosts))
    for rank, (digests, _, _) in enumerate(results):
        half = slice(0, 300) if rank < 2 else slice(300, 600)
        expected = {"k": model["k"][:, half], "v": model["v"][half]}
        assert digests == models.digests(expected)
    # With both ranks of a half on the same host, half of what the other host reads is sent to it.
    total, sent = sum(one.nbytes for one in model.values()), sum(one[2] for one in results)
    assert sent <= (total * 0.55 if hosts[0] == hosts[1] else total * 1.01)


def stream_and_fail(rank: int, path: str, hosts: Sequence[int], who: int, at: int) -> Any:
    """Returns what the rank got before another one failed, and the error."""
    pretend(rank, hosts)
    ranks.fail_at(rank, who, at)
    found, error = {}, None
    try:
        for name, tensor in ringload.stream(
            path, group=world(), is_distributed=True, memory_limit="2MiB"
        ):
            found[name] = tensor
    except ringload.IoError as raised:
        error = str(raised)
    return models.digests(found), error


@pytest.mark.parametrize("hosts", [[0, 0, 0], [0, 0, 1]])
@pytest.mark.parametrize(("who", "at"), [(0, 9), (1, 14), (2, 20)])
def test_what_was_yielded_before_an_error_is_right(
    tmp_path: Path, hosts: list[int], who: int, at: int
) -> None:
    """A rank that fails frees its ring, of which its neighbours may be copying pieces."""
    model = {f"t{n}": models.noise(n, (100_000,)) for n in range(90)}
    path = models.write(tmp_path / "m.safetensors", model)
    expected = models.digests(model)
    for found, error in values(ranks.run(stream_and_fail, 3, tmp_path, path, hosts, who, at)):
        assert "the disk is gone; mend it" in error
        assert found.items() <= expected.items()


def be_killed(rank: int, path: str, hosts: Sequence[int], who: int, at: int) -> Any:
    """Returns what the rank got before another one was killed, the error, and that one's memory."""
    pretend(rank, hosts)
    found, memory = {}, []
    real = Segment.open

    def opened(address: Address) -> Any:
        segment = real(address)
        if segment is not None:
            memory.append(os.fstat(segment._descriptor).st_ino)
        return segment

    Segment.open = staticmethod(opened)  # type: ignore[method-assign]
    try:
        for name, tensor in ringload.stream(
            path, group=world(), is_distributed=True, memory_limit="2MiB"
        ):
            found[name] = tensor
            if rank == who and len(found) == at:
                os.kill(os.getpid(), signal.SIGKILL)
    except ringload.UnreachableError as error:
        return models.digests(found), str(error), memory
    return None


def segments() -> set[int]:
    """Returns the identities of the segments that processes of this machine have open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if "ringload-exchange" in os.readlink(link):
                found.add(link.stat().st_ino)
    return found


@pytest.mark.parametrize("hosts", [[0, 0, 0], [0, 0, 1]])
@pytest.mark.parametrize("at", [1, 40])
def test_a_rank_that_is_killed_ends_the_others_and_leaves_no_memory(
    tmp_path: Path, hosts: list[int], at: int
) -> None:
    model = {f"t{n}": models.noise(n, (100_000,)) for n in range(90)}
    path = models.write(tmp_path / "m.safetensors", model)
    expected, memory = models.digests(model), set()
    outcomes = ranks.run(be_killed, 3, tmp_path, path, hosts, 1, at)
    assert outcomes[1].exit_code == -signal.SIGKILL
    for outcome in (outcomes[0], outcomes[2]):
        found, error, opened = outcome.value
        assert "another rank has ended" in error
        assert found.items() <= expected.items()
        assert outcome.seconds < 120
        memory.update(opened)
    assert memory
    assert not memory & segments()


def test_a_segment_is_opened_only_with_its_token() -> None:
    created = Segment.create()
    assert created is not None
    segment, address = created
    opened = Segment.open(address)
    assert opened is not None
    sizes = Sizes(4096, 8192)
    segment.resize(sizes)
    segment.map()
    starts = [at(number) for at in (sizes.incoming_at, sizes.pieces_at) for number in (4, 7)]
    for value, (start, nbytes) in enumerate(zip(starts, (4096, 4096, 8192, 8192))):
        segment.part(start, nbytes).fill_(value)
    for value, (start, nbytes) in enumerate(zip(starts, (4096, 4096, 8192, 8192))):
        place = torch.full((nbytes,), 99, dtype=torch.uint8)
        opened.read(start, place)
        assert set(place.tolist()) == {value}
    with pytest.raises(ringload.IoError, match="shorter than it has to be"):
        opened.read(starts[-1] + 1, place)
    assert Segment.open(address._replace(token=bytes(32))) is None
    with Path("/dev/null").open() as other:
        assert Segment.open(Address(os.getpid(), other.fileno(), address.token)) is None
    assert Segment.open(address._replace(process=1 << 30)) is None
    for one in (segment, opened):
        one.close()
    assert Segment.open(address) is None


def test_hosts_are_of_ranks_that_all_reach_each_other() -> None:
    def hosts(*reached: set[int]) -> list[int]:
        return hosts_of([frozenset(one) for one in reached])

    assert hosts({0, 1}, {0, 1}, {2}) == [0, 0, 2]
    assert hosts({0, 2}, {1, 3}, {0, 2}, {1, 3}) == [0, 1, 0, 1]
    # One way only, and not all of each other: then none of them shares memory.
    assert hosts({0, 1}, {1}) == [0, 1]
    assert hosts({0, 1}, {0, 1, 2}, {1, 2}) == [0, 1, 2]


def test_batches_and_staging_stay_within_their_bounds() -> None:
    """However ranks and hosts are, what a rank holds for a round is bounded."""
    pick = random.Random(5)
    batch_bytes = 8 << 20
    for _ in range(60):
        count = pick.choice([2, 4, 8])
        hosts = [pick.randrange(pick.choice([1, 2, count])) for _ in range(count)]
        piece_bytes = batch_bytes // max(4, count)
        parts = []
        for _ in range(count):
            whole: list[Runs | None] = [Runs(0, pick.choice([9, 10**4, 10**7]), ())] * 5
            columns = Runs(pick.choice([0, 7168]), 7168, ((1000, 14336),))
            rows = Runs(pick.randrange(30) * 10**6, 10**6, ())
            parts.append([*whole, pick.choice([None, columns]), rows])
        direct = direct_parts(parts, [pick.random() < 0.8 for _ in parts])
        schedule = Schedule(parts, direct, hosts, piece_bytes, batch_bytes)
        for rank, batches in enumerate(schedule.batches):
            for batch in batches:
                # Pieces are held if other hosts get something of them.
                held = {one.number for message in batch.messages for one in message.deliveries}
                sizes = [piece.end - piece.begin for piece in batch.pieces]
                assert sum(sizes[number] for number in held) <= batch_bytes
                assert sum(sizes) <= 4 * batch_bytes
                assert batch.copied_bytes <= batch_bytes + piece_bytes
                for message in batch.messages:
                    assert hosts[message.receiver] != hosts[rank]
            incoming, pieces = schedule.sizes(rank)
            assert incoming <= batch_bytes + count * piece_bytes
            assert pieces <= batch_bytes


NODE_RANK = """
import json, os, sys
import torch, torch.distributed as dist
import models, ringload
from test_exchange import PLAN
path, store, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=4)
dist.barrier()
print("ready", flush=True)
sys.stdin.readline()
options = {"tp_plan": PLAN} if sys.argv[4] == "parts" else {}
tensors = ringload.load(path, group=dist.group.WORLD, is_distributed=True, **options)
print(json.dumps(models.digests(tensors)), flush=True)
sys.stdin.readline()
os._exit(0)
"""


@pytest.mark.skipif("RINGLOAD_TEST_FULL" not in os.environ, reason="a test of the full size")
@pytest.mark.parametrize("what", ["whole", "parts"])
def test_bytes_cross_once_between_two_nodes(tmp_path: Path, what: str) -> None:
    """Two ranks on each of two nodes, of which the counters of the network devices are read."""
    import json

    sys.path.insert(0, str(PERF))
    from two_nodes import DEVICE, TwoNodes

    model = {f"layers.{n}.q_proj.weight": models.noise(n, (2048, 2048)) for n in range(12)}
    model |= {f"layers.{n}.o_proj.weight": models.noise(20 + n, (2048, 2048)) for n in range(12)}
    path = models.write(tmp_path / "m.safetensors", model)
    total = sum(tensor.nbytes for tensor in model.values())
    try:
        nodes = TwoNodes()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces: {error}")
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": DEVICE, "PYTHONPATH": os.pathsep.join(paths)}
    with nodes:
        processes = []
        for rank in range(4):
            arguments = [path, str(tmp_path / "store"), str(rank), what]
            command = nodes.command(rank // 2, [sys.executable, "-c", NODE_RANK, *arguments])
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes.append(subprocess.Popen(command, env=environment, **pipes))
        lines: list[str] = []

        def proceed() -> None:
            for process in processes:
                process.stdin.write("\n")
                process.stdin.flush()
            lines[:] = [process.stdout.readline() for process in processes]

        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        before = nodes.sent_bytes()
        proceed()
        crossed = nodes.sent_bytes() - before
        for rank, line in enumerate(lines):
            expected = model
            if what == "parts":
                expected = {name: part(name, one, rank, 4) for name, one in model.items()}
            assert json.loads(line) == models.digests(expected)
        proceed()
        for process in processes:
            process.wait(60)
    # Each node needs of whole tensors the half that the other one has read. Rows are read by a rank
    # that keeps them; of columns, each node needs half of the half that the other one has read.
    # Acknowledgements, status messages and headers add a little.
    needed = total if what == "whole" else total / 4
    assert needed <= crossed <= 1.06 * needed
