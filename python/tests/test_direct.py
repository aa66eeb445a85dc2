"""What a rank alone keeps is read to its place: only that, at most its share, and rightly."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import models
import pytest
import ranks
import torch
from ranks import assert_failed, values
from test_exchange import world

import ringload
from ringload.distributed.direct import OWN_BYTES_MIN, direct_parts
from ringload.distributed.runs import Runs
from ringload.distributed.schedule import Schedule

MIB = 1 << 20


def random_parts(pick: random.Random, count: int) -> list[list[Runs | None]]:
    """What ranks keep: rows that may overlap or have gaps, columns, all, or nothing."""
    parts: list[list[Runs | None]] = [[] for _ in range(count)]
    for _ in range(8):
        kind, rows = pick.choice(["rows", "random", "columns", "whole"]), pick.choice([9, 4000])
        for rank, of_rank in enumerate(parts):
            part = Runs(rank * rows * 1000, rows * 1000, ())
            if kind == "random":
                part = Runs(pick.randrange(4) * MIB, pick.choice([9, MIB, 3 * MIB]), ())
            elif kind == "columns":
                part = Runs(rank * 1000, 1000, ((rows, count * 1000),))
            elif kind == "whole":
                part = Runs(0, rows * 1000, ())
            of_rank.append(None if pick.random() < 0.1 else part)
    return parts


def test_only_what_one_rank_keeps_is_direct_and_all_is_in_the_schedule() -> None:
    pick, seen = random.Random(11), 0
    for _ in range(200):
        count = pick.choice([1, 2, 4])
        parts, hosts = random_parts(pick, count), [pick.randrange(2) for _ in range(count)]
        are_unlimited = [pick.random() < 0.8 for _ in range(count)]
        direct = direct_parts(parts, are_unlimited)
        schedule = Schedule(parts, direct, hosts, MIB, 4 * MIB)
        found = [[0] * len(of_rank) for of_rank in parts]
        read, longest = [0] * count, 0
        for reader, batches in enumerate(schedule.batches):
            of_reader = [piece for batch in batches for piece in batch.pieces]
            assert [piece.tensor for piece in of_reader if piece.is_direct] == direct[reader]
            for piece in of_reader:
                read[reader] += piece.end - piece.begin
                longest = max(longest, piece.end - piece.begin)
                for take in piece.takes:
                    found[take.rank][piece.tensor] += take.nbytes
                if piece.is_direct:
                    seen += 1
                    part = parts[reader][piece.tensor]
                    assert part == Runs(piece.begin, piece.end - piece.begin, ())
                    assert [take.rank for take in piece.takes] == [reader]
                    assert are_unlimited[reader]
                    assert part.nbytes >= OWN_BYTES_MIN
                else:
                    assert piece.end - piece.begin <= MIB
        expected = [[part.nbytes if part else 0 for part in of_rank] for of_rank in parts]
        assert found == expected
        # Gaps that no rank keeps count for the share, and there are none in most cases.
        assert max(read) - sum(read) / count <= longest + 4 * MIB
    assert seen > 200


def rows_model(count: int = 6) -> models.Model:
    """Matrices of which each of three ranks has rows of more than `OWN_BYTES_MIN`, and others."""
    model = {f"rows.{n}": models.noise(n, (900, 2048), torch.float32) for n in range(count)}
    columns = ((n, models.noise(50 + n, (600, 1536), torch.bfloat16)) for n in range(count))
    model |= {f"columns.{n}": tensor for n, tensor in columns}
    model["norm"] = models.noise(99, (4096,), torch.float32)
    return model


RULES: dict[str, Any] = {"rows.*": 0, "columns.*": 1}


def expected_part(name: str, tensor: torch.Tensor, rank: int) -> torch.Tensor:
    if name == "norm":
        return tensor
    return tensor.chunk(3, 0 if name.startswith("rows") else 1)[rank]


def load_rows(_rank: int, path: str) -> Any:
    """Returns what this rank got, what it read to its place, and whether all is aligned."""
    from ringload.distributed import load

    nbytes: dict[int, int] = {}
    real = load._Pieces.__next__

    def counted(pieces: Any) -> torch.Tensor:
        piece = real(pieces)
        nbytes[id(pieces)] = nbytes.get(id(pieces), 0) + piece.nbytes
        return piece

    load._Pieces.__next__ = counted  # type: ignore[method-assign]
    tensors = ringload.load(path, slices=RULES, group=world(), is_distributed=True)
    are_aligned = all(one.data_ptr() % one.element_size() == 0 for one in tensors.values())
    for tensor in tensors.values():
        tensor.view(torch.uint8)[..., 0] ^= 1  # their memory is the caller's
        tensor.view(torch.uint8)[..., 0] ^= 1
    return models.digests(tensors), max(nbytes.values()), are_aligned


@pytest.mark.parametrize("shift", [0, 1, 2, 7])
def test_rows_are_read_to_their_place_and_aligned(tmp_path: Path, shift: int) -> None:
    """A header may have any length, so that no tensor of the file is aligned for its type."""
    model = rows_model()
    content = Path(models.write(tmp_path / "m.safetensors", model)).read_bytes()
    length = int.from_bytes(content[:8], "little")
    path = tmp_path / "shifted.safetensors"
    header = content[8 : 8 + length] + b" " * shift
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    for rank, outcome in enumerate(values(ranks.run(load_rows, 3, tmp_path, str(path)))):
        digests, most, are_aligned = outcome
        expected = {name: expected_part(name, one, rank) for name, one in model.items()}
        assert digests == models.digests(expected)
        rows = sum(one.nbytes for name, one in expected.items() if name.startswith("rows"))
        assert most == rows
        assert are_aligned


def fail_or_leave(rank: int, path: str, how: str) -> Any:
    """Rank 1 fails, leaves or ends while the others read."""
    if how == "fails":
        ranks.fail_at(rank, 1, 9)
    found = {}
    try:
        for name, tensor in ringload.stream(path, slices=RULES, group=world(), is_distributed=True):
            found[name] = tensor
            if rank == 1 and how == "leaves":
                break
            if rank == 1 and how == "ends":
                os._exit(7)
    except ringload.Error:
        expected = {n: expected_part(n, one, rank) for n, one in rows_model(18).items()}
        assert models.digests(found).items() <= models.digests(expected).items()
        raise


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("fails", "IoError", "rank 1 failed: the disk is gone"),
        ("leaves", "CancelledError", "rank 1 left the load"),
        ("ends", "UnreachableError", "another rank has ended"),
    ],
)
def test_a_rank_that_fails_beside_direct_reads_ends_all(
    tmp_path: Path, how: str, kind: str, text: str
) -> None:
    path = models.write(tmp_path / "m.safetensors", rows_model(18))
    outcomes = ranks.run(fail_or_leave, 3, tmp_path, path, how)
    for rank in (0, 2):
        assert_failed(outcomes[rank], kind, text)
        assert outcomes[rank].seconds < 120
