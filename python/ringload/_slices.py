"""The arguments of `load` and `stream` that say which part of each tensor a rank loads.

They become rules of the native module: a glob with ranges, a glob with a share, or a `tp_plan`. The
first rule that matches a tensor counts; those of `slices` go before those of `tp_plan`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from ._errors import InvalidInputError

if TYPE_CHECKING:
    from ._ringload import Checkpoint

    Rule = tuple[Any, ...]

Filter = Callable[[str, str, "tuple[int, ...]"], Any]
"""Accepts a tensor by its name, the name of its type in safetensors, and its shape."""


@dataclass(frozen=True)
class Share:
    """The part of one rank when a dimension is divided among ranks, as `torch.chunk` divides it.

    Args:
        dim: the dimension; negative ones count from the last.
        rank: the rank that loads its part; by default that of the load.
        world: the number of ranks; by default that of the load.
        packed: how many equal pieces of the dimension are divided, each by itself: 2 for a tensor
            that holds the gate and the up projection.
        block: how many elements belong together, such as those with one scale in a quantized
            format. A part that would cut such a block is an error.
    """

    dim: int
    rank: int | None = None
    world: int | None = None
    packed: int = 1
    block: int = 1


@dataclass(frozen=True)
class Parts:
    """What is loaded of which tensors."""

    rules: list[Rule]
    accepts: Filter | None

    def names(self, checkpoint: Checkpoint) -> list[str]:
        """Returns the names of the tensors that the filter accepts."""
        accepts = self.accepts or (lambda *_: True)

        def is_accepted(name: str) -> bool:
            info = checkpoint.info(name)
            return bool(accepts(name, info["dtype"], info["shape"]))

        return [name for name, *_ in checkpoint.planned() if is_accepted(name)]


def take(options: dict[str, Any]) -> tuple[Parts, dict[str, Any]]:
    """Takes the arguments `slices`, `filter`, `tp_plan`, `rank`, `world` and `group`.

    Returns:
        What they say, and the other options.

    Raises:
        InvalidInputError: a rank is missing or is not one of the group, or a slice is none.
        TypeError: an argument is of another type.
    """
    rest = dict(options)
    slices, tp_plan = rest.pop("slices", None), rest.pop("tp_plan", None)
    accepts = rest.pop("filter", None)
    ranks = _ranks(rest.pop("rank", None), rest.pop("world", None), rest.pop("group", None))
    if accepts is not None and not callable(accepts):
        raise TypeError(f"filter must be callable, not {type(accepts).__name__}")
    rules = slice_rules({} if slices is None else slices, ranks)
    if tp_plan is not None:
        if not isinstance(tp_plan, Mapping):
            kind = type(tp_plan).__name__
            raise TypeError(f"tp_plan must be a dict of names to styles, not {kind}")
        rules.append(([(str(k), str(v)) for k, v in tp_plan.items()], *_known("tp_plan", ranks)))
    return Parts(rules, accepts), rest


def slice_rules(slices: Mapping[str, Any], ranks: tuple[int, int] | None = None) -> list[Rule]:
    """Returns the rules of a dict of globs to slices.

    A slice is a dimension, which is divided among the ranks; a `Share`; or an index: a `slice`, or
    a tuple of them for the first dimensions.
    """
    if not isinstance(slices, Mapping) or not all(isinstance(glob, str) for glob in slices):
        raise TypeError(f"slices must be a dict of globs to slices, not {type(slices).__name__}")
    return [(glob, _slice(glob, one, ranks)) for glob, one in slices.items()]


def _slice(glob: str, one: Any, ranks: tuple[int, int] | None) -> Any:
    if isinstance(one, (slice, tuple)) or one is Ellipsis:
        return _ranges(glob, one)
    if not isinstance(one, Share):
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise InvalidInputError(
                f"slices[{glob!r}] is {one!r}; use a dimension, a ringload.Share, or a slice, or a "
                "tuple of slices"
            )
        one = Share(operator.index(one))
    if one.rank is None or one.world is None:
        rank, world = _known(f"slices[{glob!r}]", ranks)
        one = Share(one.dim, rank, world, one.packed, one.block)
    sizes = {"world": one.world, "rank": one.rank, "packed": one.packed, "block": one.block}
    for name, size in sizes.items():
        if size < (0 if name == "rank" else 1):
            raise InvalidInputError(f"slices[{glob!r}]: {name} is {size}")
    return (one.dim, one.rank, one.world, one.packed, one.block)


def _ranges(glob: str, index: Any) -> list[tuple[int | None, int | None, int]]:
    entries = list(index) if isinstance(index, tuple) else [index]
    if entries and entries[-1] is Ellipsis:
        entries.pop()
    if not all(isinstance(entry, slice) for entry in entries):
        raise InvalidInputError(
            f"slices[{glob!r}] is {index!r}; a tuple has a slice for each of the first dimensions"
        )
    return [(e.start, e.stop, 1 if e.step is None else e.step) for e in entries]


def _known(what: str, ranks: tuple[int, int] | None) -> tuple[int, int]:
    if ranks is None:
        raise InvalidInputError(
            f"{what} needs this rank and the number of ranks; give rank= and world=, or group="
        )
    return ranks


def _ranks(rank: int | None, world: int | None, group: Any) -> tuple[int, int] | None:
    """Returns this rank and the number of ranks; the default group of torch is never assumed."""
    if group is not None:
        if rank is not None or world is not None:
            raise InvalidInputError("give either group=, or rank= and world=")
        from .distributed.group import check_member

        return check_member(group)
    if rank is None and world is None:
        return None
    if rank is None or world is None:
        raise InvalidInputError("rank= and world= are given together")
    rank, world = operator.index(rank), operator.index(world)
    if world < 1:
        raise InvalidInputError(f"world: the number of ranks is {world}, not at least 1")
    if not 0 <= rank < world:
        raise InvalidInputError(f"rank: {rank} is not a rank of {world}")
    return rank, world
