"""A load that the ranks of a group share: before it, they agree on what it is.

Whatever a rank meets while it opens its files, the others hear of, and none waits for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._errors import InvalidInputError
from ..distributed import Exchange, Group, Item, find_group, spans
from . import limits
from .devices import Device

if TYPE_CHECKING:
    import torch

    from .session import Opened, Tensors


class Sharing:
    """This rank's side of a shared load."""

    def __init__(self, group: Group, exchange: Exchange) -> None:
        """Of ranks that have agreed."""
        self._group, self._exchange = group, exchange

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._exchange.is_over

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors by name."""
        return iter(self._exchange)

    def close(self) -> None:
        """Leaves the group; the others end, too, if they have not got all."""
        self._exchange.leave()
        self._group.close()


def share(open_files: Callable[[], tuple[Opened, Device]], device: Any) -> Sharing | None:
    """Starts a shared load; None where there is nobody to share it with. A collective call.

    Args:
        open_files: opens this rank's files.
        device: where tensors are to end up.

    Raises:
        InvalidInputError: where the ranks' files differ.
        Error: what a rank meets that opens its files.
    """
    group = find_group(_kind_of(device))
    if group is None:
        return None
    try:
        return _agree(group, open_files)
    except BaseException:
        group.close()
        raise


def _kind_of(device: Any) -> str:
    """The kind of device that tensors are loaded to; what is no device is told with the rest."""
    try:
        return Device(device).loaded_to.type
    except InvalidInputError:
        return "cpu"


def _agree(group: Group, open_files: Callable[[], tuple[Opened, Device]]) -> Sharing:
    mine: Any = None
    failed: BaseException | None = None
    source: Tensors | None = None
    try:
        opened, target = open_files()
        items = opened.items()
        span = spans([item.nbytes for item in items], group.size)[group.rank]
        limit = limits.of_rank(
            is_gpu=target.is_gpu,
            ranks_on_host=group.ranks_on_host,
            largest_bytes=max((items[n].nbytes for n in span), default=0),
        )
        source = opened.tensors(limit.ring, span)
        mine = (_digest(items), target.loaded_to.type, limit.staging_bytes)
    except BaseException as error:  # the others are to hear of all of them
        failed = error
    try:
        answers = group.agree(mine, failed)
        _check(answers, group.ranks)
    except BaseException:
        if source is not None:
            source.close()
        raise
    assert source is not None
    exchange = Exchange(
        group,
        items,
        source,
        device=target.loaded_to,
        staging_bytes=min(staging_bytes for _, _, staging_bytes in answers),
    )
    return Sharing(group, exchange)


def _check(answers: Sequence[Any], ranks: Sequence[int]) -> None:
    """Raises the same on all ranks, where they differ."""
    first = answers[0]
    for rank, answer in zip(ranks, answers):
        for ours, theirs, what in zip(first, answer, ("tensors", "kind of device")):
            if ours != theirs:
                raise InvalidInputError(
                    f"rank {rank} was asked for other {what} than rank {ranks[0]}; all ranks that "
                    "share a load have to name the same files, in the same order"
                )


def _digest(items: Sequence[Item]) -> bytes:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(tuple(item)).encode())
    return digest.digest()
