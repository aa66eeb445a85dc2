"""Loads of slices: each rank's part, and what cannot be sliced."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TORCH_TYPES, random_tensor, same
from safetensors.torch import save_file

import ringload

PLAN = {
    "layers.*.q_proj": "colwise",
    "layers.*.o_proj": "rowwise",
    "layers.*.experts.gate_up": "packed_colwise",
    "layers.*.experts": "moe_tp_experts",
    "embed": "embedding_rowwise",
    "lm_head": "colwise_gather_output",
}


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    tensors = {
        "model.embed.weight": torch.randn(13, 8),
        "model.layers.0.q_proj.weight": torch.randn(12, 8).bfloat16(),
        "model.layers.0.q_proj.bias": torch.randn(12),
        "model.layers.0.o_proj.weight": torch.randn(8, 12),
        "model.layers.0.o_proj.bias": torch.randn(8),
        "model.layers.10.experts.gate_up": torch.randn(3, 16, 4),
        "model.norm.weight": torch.randn(8),
    }
    path = tmp_path / "m.safetensors"
    save_file(tensors, path)
    return path, tensors


def test_a_tp_plan_gives_each_rank_the_parts_that_torch_chunk_makes(
    model: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    path, tensors = model
    dims = {"embed": 0, "q_proj": 0, "o_proj.weight": 1}
    for rank in range(2):
        found = ringload.load(path, tp_plan=PLAN, rank=rank, world=2)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            dim = next((dim for key, dim in dims.items() if key in name), None)
            expected = tensor if dim is None else tensor.chunk(2, dim)[rank]
            if name.endswith("gate_up"):
                halves = [half.chunk(2, 1)[rank] for half in tensor.chunk(2, 1)]
                expected = torch.cat(halves, 1)
            assert same(found[name], expected), name


def test_random_slices_of_all_types_are_those_of_torch(tmp_path: Path) -> None:
    pick = random.Random(7)
    types = [one for one in TORCH_TYPES if one is not torch.float4_e2m1fn_x2]
    tensors, slices = {}, {}
    for number in range(80):
        shape = [pick.randint(1, 9) for _ in range(pick.randint(1, 4))]
        tensors[f"t{number}"] = random_tensor(types[number % len(types)], *shape)
        starts = [pick.randrange(size) for size in shape]
        slices[f"t{number}"] = tuple(
            slice(start, pick.randint(start + 1, size), pick.choice([None, 1, 2]))
            for start, size in zip(starts, shape)
        )
    path = tmp_path / "m.safetensors"
    save_file(tensors, path)
    for options in [{}, {"memory_limit": "min"}, {"read_path": "buffered"}]:
        found = {
            name: tensor.clone() for name, tensor in ringload.stream(path, slices=slices, **options)
        }
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert same(found[name], tensor[slices[name]].contiguous()), name
    with ringload.open(path) as opened:
        opened.prefetch(slices)
        for name in pick.sample(sorted(tensors), len(tensors)):
            for _ in range(2):  # the second time it is read anew
                part = opened.get_slice(name)[slices[name]]
                assert same(part, tensors[name][slices[name]].contiguous()), name


def test_a_filter_leaves_tensors_out(model: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, tensors = model
    seen = []

    def is_mine(name: str, dtype: str, shape: tuple[int, ...]) -> bool:
        seen.append((name, dtype, shape))
        return len(shape) == 2

    found = ringload.load(path, filter=is_mine, slices={"*.weight": 0}, rank=1, world=4)
    assert found.keys() == {name for name, one in tensors.items() if one.dim() == 2}
    assert found["model.layers.0.o_proj.weight"].shape == (2, 12)
    assert ("model.layers.0.q_proj.weight", "BF16", (12, 8)) in seen
    with pytest.raises(ZeroDivisionError):
        ringload.load(path, filter=lambda *_: 1 / 0)


class _Group:
    def __init__(self, rank: int) -> None:
        self._rank = rank

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return 4


def test_a_group_says_which_rank_loads(model: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, tensors = model
    found = ringload.load(path, slices={"*norm*": 0}, group=_Group(3))
    assert same(found["model.norm.weight"], tensors["model.norm.weight"][6:])
    for group in [_Group(-1), -100, object()]:
        with pytest.raises(ringload.InvalidInputError, match="this rank is not in the group"):
            ringload.load(path, slices={"*norm*": 0}, group=group)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"slices": {"*": 0}}, ringload.InvalidInputError, "give rank= and world=, or group="),
        ({"tp_plan": PLAN}, ringload.InvalidInputError, "tp_plan needs this rank"),
        ({"tp_plan": PLAN, "rank": 2, "world": 2}, ringload.InvalidInputError, "not a rank of 2"),
        ({"tp_plan": PLAN, "rank": 0, "world": 0}, ringload.InvalidInputError, "ranks is 0"),
        ({"tp_plan": PLAN, "rank": 0}, ringload.InvalidInputError, "given together"),
        ({"rank": 0, "world": 2, "group": _Group(0)}, ringload.InvalidInputError, "either group="),
        (
            {"tp_plan": {"a.b": "diagonal"}, "rank": 0, "world": 2},
            ringload.InvalidInputError,
            '"diagonal" for "a.b"',
        ),
        (
            {"tp_plan": {"other": "colwise"}, "rank": 0, "world": 2},
            ringload.NotFoundError,
            "tp_plan of 1 entries for rank 0/2",
        ),
        ({"slices": {"x": ()}}, ringload.NotFoundError, 'no tensor called "x"'),
        ({"slices": {"*q_proj.bias": slice(0, 13)}}, ringload.InvalidInputError, "q_proj.bias"),
        ({"slices": {"*norm*": slice(3, 3)}}, ringload.InvalidInputError, "takes nothing"),
        ({"slices": {"*norm*": slice(0, 3, 0)}}, ringload.InvalidInputError, "the step of"),
        ({"slices": {"*norm*": (slice(0, 1), 1)}}, ringload.InvalidInputError, "a tuple has"),
        ({"slices": {"*norm*": "0"}}, ringload.InvalidInputError, "use a dimension"),
        (
            {"slices": {"*norm*": ringload.Share(0, 0, 2, block=3)}},
            ringload.InvalidInputError,
            "would cut a block of 3",
        ),
        ({"filter": "*"}, TypeError, "filter must be callable"),
        ({"tp_plan": "auto", "rank": 0, "world": 2}, TypeError, "tp_plan must be a dict"),
    ],
)
def test_what_cannot_be_sliced_is_said(
    model: tuple[Path, dict[str, torch.Tensor]],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message.replace("(", r"\(")):
        ringload.load(model[0], **options)
