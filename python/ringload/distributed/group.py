"""The ranks that share a load, and the collectives between them.

Status messages always use gloo and host memory: gloo reports a rank that has ended or is late,
while an NCCL collective would wait for it. Tensors use gloo between host memories, and NCCL between
GPUs if torch has it.

By default the ranks of each host share a load, as in Run:ai's streamer. Ranks of different hosts
share one only with `RUNAI_STREAMER_DIST_GLOBAL=1`, which is for networks faster than the storage.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .._errors import Error, UnreachableError
from .._settings import distribution_timeout, is_distribution_enabled, is_group_global
from . import failure

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger("ringload")

#: The length limit of an encoded error in `Group.agree`.
_ERROR_BYTES_MAX = 16 << 10


class Group:
    """The ranks that share a load.

    The constructor is a collective call: every rank of the default group has to make it at the same
    point of its program. The caller has to close the group.
    """

    def __init__(self, device_type: str, *, all_hosts: bool, timeout: timedelta) -> None:
        """Finds the ranks and creates their process groups.

        Args:
            device_type: the type of the device that tensors are loaded to, "cpu" or "cuda".
            all_hosts: whether all ranks form one group; otherwise the ranks of each host do.
            timeout: how long a rank waits for the others in a collective.

        Raises:
            UnreachableError: the other ranks do not make this call in time.
        """
        import torch.distributed as dist

        self._dist = dist
        self.timeout = timeout
        self._created: list[Any] = []
        all_ranks = list(range(dist.get_world_size()))
        with self._translating_errors():
            self._status_group = self._new_group(all_ranks, "gloo")
            hosts = [""] * len(all_ranks)
            dist.all_gather_object(hosts, socket.gethostname(), group=self._status_group)
        global_rank = dist.get_rank()
        #: The ranks of the default group that belong to this group, in order.
        self.ranks = all_ranks
        #: How many ranks of the default group run on this host.
        self.ranks_on_host = hosts.count(hosts[global_rank])
        if not all_hosts and len(set(hosts)) > 1:
            by_host = [[r for r in all_ranks if hosts[r] == host] for host in sorted(set(hosts))]
            with self._translating_errors():
                # torch requires every rank to create the groups of all hosts, in the same order.
                created = {tuple(ranks): self._new_group(ranks, "gloo") for ranks in by_host}
            self.ranks = next(ranks for ranks in by_host if global_rank in ranks)
            self._status_group = created[tuple(self.ranks)]
        #: This rank's position in `ranks`, and the number of ranks.
        self.rank, self.size = self.ranks.index(global_rank), len(self.ranks)
        self._tensor_group = self._status_group
        if device_type == "cuda" and dist.is_nccl_available():
            with self._translating_errors():
                self._tensor_group = self._new_tensor_group(hosts, all_hosts)

    def _new_tensor_group(self, hosts: Sequence[str], all_hosts: bool) -> Any:
        is_one_group = all_hosts or len(set(hosts)) == 1
        names = [None] if is_one_group else sorted(set(hosts))
        own_group = None
        for name in names:
            ranks = [r for r, host in enumerate(hosts) if name is None or host == name]
            group = self._new_group(ranks, "nccl")
            if ranks == self.ranks:
                own_group = group
        return own_group

    def _new_group(self, ranks: Sequence[int], backend: str) -> Any:
        group = self._dist.new_group(list(ranks), timeout=self.timeout, backend=backend)
        if self._dist.get_rank() in ranks:
            self._created.append(group)
        return group

    def all_gather(self, message: torch.Tensor) -> list[torch.Tensor]:
        """Gathers a status message of every rank.

        Args:
            message: this rank's message: a small tensor in host memory, of the same shape and type
                on all ranks.

        Returns:
            The message of each rank.

        Raises:
            UnreachableError: a rank has ended, or does not make this call in time.
        """
        import torch

        messages = [torch.empty_like(message) for _ in self.ranks]
        with self._translating_errors():
            self._dist.all_gather(messages, message, group=self._status_group)
        return messages

    def agree(self, value: object, error: BaseException | None) -> list[Any]:
        """Gathers a value of every rank before a load, or raises an error of one of them.

        Args:
            value: this rank's value, which can be pickled.
            error: the error that this rank has instead of a value.

        Returns:
            The value of each rank.

        Raises:
            BaseException: `error`, or else the error of the first rank that has one.
            UnreachableError: a rank has ended, or does not make this call in time.
        """
        encoded = None if error is None else failure.encode(error, _ERROR_BYTES_MAX)
        answers: list[Any] = [None] * self.size
        with self._translating_errors():
            self._dist.all_gather_object(answers, (value, encoded), group=self._status_group)
        if error is not None:
            raise error
        for rank, (_, encoded) in zip(self.ranks, answers):
            if encoded is not None:
                raise failure.decode(encoded, rank)
        return [value for value, _ in answers]

    def broadcast(self, bytes_: torch.Tensor, sender: int) -> None:
        """Sends `bytes_` of the rank at position `sender` to the `bytes_` of the other ranks.

        Raises:
            UnreachableError: a rank has ended, or does not make this call in time.
        """
        with self._translating_errors():
            self._dist.broadcast(bytes_, self.ranks[sender], group=self._tensor_group)

    def close(self) -> None:
        """Destroys the process groups, without waiting for other ranks."""
        created, self._created = self._created, []
        for group in created:
            try:
                self._dist.destroy_process_group(group)
            except (RuntimeError, ValueError, AssertionError):
                # The program may have destroyed the default group, and with it this one.
                _logger.debug("a process group could not be destroyed", exc_info=True)

    def _translating_errors(self) -> _CollectiveErrors:
        return _CollectiveErrors(self.timeout)


class _CollectiveErrors:
    """Raises errors of torch's collectives as `UnreachableError`."""

    def __init__(self, timeout: timedelta) -> None:
        self._seconds = timeout.total_seconds()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RuntimeError) and not isinstance(error, Error):
            raise UnreachableError(
                f"another rank has ended, or did not respond within {self._seconds:.0f} s "
                f"(RUNAI_STREAMER_DIST_TIMEOUT): {error}"
            ) from error


def find_group(device_type: str) -> Group | None:
    """Returns the ranks that share the loads of this process; None if it shares them with none.

    This is a collective call if torch has a default group.

    Raises:
        InvalidInputError: an environment variable has an invalid value.
        UnreachableError: the other ranks do not make this call in time.
    """
    import torch.distributed as dist

    if not is_distribution_enabled():
        return None
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        _logger.info("no torch.distributed group of several ranks: this process reads all tensors")
        return None
    group = Group(device_type, all_hosts=is_group_global(), timeout=distribution_timeout())
    if group.size == 1:
        group.close()
        return None
    return group
