"""Loads that the ranks of a group share.

Before the load, the ranks check that they load the same tensors. If a rank fails to open its files,
the other ranks raise its error at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._errors import InvalidInputError
from ..distributed import (
    Broadcast,
    Exchange,
    Group,
    Item,
    Neighbours,
    Sizes,
    find_group,
    hosts_of,
    spans,
)
from . import limits
from .devices import TargetDevice

if TYPE_CHECKING:
    import torch

    from .session import OpenedFiles, TensorStream


class SharedLoad:
    """This rank's part in a shared load."""

    def __init__(self, group: Group, exchange: Exchange) -> None:
        """Wraps an exchange, and the group to close after it."""
        self._group, self._exchange = group, exchange

    @property
    def is_finished(self) -> bool:
        """Whether the load has no more tensors to deliver."""
        return self._exchange.is_finished

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the names and tensors of all ranks."""
        return iter(self._exchange)

    def close(self) -> None:
        """Leaves the group. If the load has not finished, it ends on all ranks."""
        self._exchange.leave()
        self._group.close()


def start_shared_load(
    open_files: Callable[[], tuple[OpenedFiles, TargetDevice]], device: Any, given: Any = None
) -> SharedLoad | None:
    """Starts a shared load. This is a collective call.

    Args:
        open_files: opens this rank's files.
        device: the device that tensors are loaded to.
        given: the process group whose ranks share the load; None for the default group.

    Returns:
        The load; None if there are no other ranks to share it with.

    Raises:
        InvalidInputError: the ranks name different files, or this rank is not in the group.
        Error: a rank failed to open its files.
    """
    group = find_group(_device_type(device), given)
    if group is None:
        return None
    # Tensors that are exchanged between GPUs do not pass through host memory.
    neighbours = Neighbours(are_wanted=group.device_type == "cpu")
    try:
        return _start(group, neighbours, open_files)
    except BaseException:
        neighbours.close()
        group.close()
        raise


def _device_type(device: Any) -> str:
    """Returns the type of the device that the native module loads to.

    For an invalid device it returns "cpu": `open_files` raises the error, which all ranks get.
    """
    try:
        return TargetDevice(device).native_device.type
    except InvalidInputError:
        return "cpu"


def _start(
    group: Group,
    neighbours: Neighbours,
    open_files: Callable[[], tuple[OpenedFiles, TargetDevice]],
) -> SharedLoad:
    properties: Any = None
    failure: BaseException | None = None
    source: TensorStream | None = None
    ranks_on_host = group.count_ranks_on_host()
    try:
        opened, target = open_files()
        items = opened.items()
        span = spans([item.nbytes for item in items], group.size)[group.rank]
        limit = limits.rank_limits(
            is_gpu=target.is_gpu,
            ranks_on_host=ranks_on_host,
            largest_bytes=max((items[n].nbytes for n in span), default=0),
        )
        source = opened.tensors(limit.ring, span)
        properties = (_digest(items), target.native_device.type, limit.staging_bytes)
    except BaseException as error:  # `agree` reports it to the other ranks
        failure = error
    try:
        answers = group.agree((properties, neighbours.address), failure)
        _check([of_rank for of_rank, _ in answers], group.ranks)
        staging_bytes = min(of_rank[-1] for of_rank, _ in answers)
        reached = neighbours.find(group.rank, [address for _, address in answers])
        neighbours.resize([Sizes(staging_bytes, 0)] * group.size, group.rank)
        hosts = hosts_of(group.agree(reached, None))
        neighbours.keep(hosts, group.rank)
        device = target.native_device
        broadcast = Broadcast(group, neighbours, hosts, staging_bytes, device)
    except BaseException:
        if source is not None:
            source.close()
        raise
    assert source is not None
    return SharedLoad(group, Exchange(group, items, source, broadcast, device=device))


def _check(answers: Sequence[Any], ranks: Sequence[int]) -> None:
    """Checks that all ranks load the same tensors; if not, all ranks raise the same error.

    Raises:
        InvalidInputError: the tensors, or the types of the devices, differ.
    """
    first = answers[0]
    for rank, answer in zip(ranks, answers):
        for ours, theirs, what in zip(first, answer, ("other tensors", "to another device type")):
            if ours != theirs:
                raise InvalidInputError(
                    f"rank {rank} loads {what} than rank {ranks[0]}; all ranks that share a load "
                    "have to name the same files, in the same order, and the same type of device"
                )


def _digest(items: Sequence[Item]) -> bytes:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(tuple(item)).encode())
    return digest.digest()
