"""The ranks that share a load, and the collectives between them.

A group that the caller gives is used as it is, with its backends and its timeout, and no other
group is created: torch can create a group of some ranks only if all ranks of the default group take
part. Status messages go through host memory if the group has a backend for that, as gloo reports a
rank that has ended or is late. A group of NCCL alone carries them between GPUs, and torch's
watchdog ends a rank that waits in vain. Tensors use NCCL between GPUs if the group has it, and host
memory otherwise. A pair of groups of the same ranks is used as one, the first for host memory and
the second for GPUs: vLLM has such pairs.

Run:ai's interface has no group. There the ranks of the default group that are on the same host
share a load, in groups that are created for it: gloo for status messages and host memory, NCCL for
GPUs. Ranks of different hosts share one only with `RUNAI_STREAMER_DIST_GLOBAL=1`, which is for
networks faster than the storage.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .._errors import CancelledError, Error, InvalidInputError, UnreachableError
from .._settings import distribution_timeout, is_distribution_enabled, is_group_global
from . import failure

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger("ringload")

#: The length limit of an encoded error in `Group.agree`.
_ERROR_BYTES_MAX = 16 << 10

#: The length of a status message of `Group.confirm`: the state, and an encoded error.
_STATUS_BYTES = 4 << 10

#: The states of a rank in status messages.
RUNNING, FAILED, LEFT = range(3)


def check_member(group: Any) -> tuple[int, int]:
    """Returns this rank's position in a group and the number of its ranks.

    Args:
        group: a process group of torch, or what torch gives to ranks that are not in it; or a pair
            of groups of the same ranks.

    Raises:
        InvalidInputError: this rank is not in the group, or `group` is something else.
    """
    groups = group if isinstance(group, tuple) else (group,)
    # torch gives processes that are not in a group a number, and not a group.
    for one in groups:
        if not hasattr(one, "rank") or not hasattr(one, "size") or one.rank() < 0:
            raise InvalidInputError(
                "group: this rank is not in the group; load on its ranks only, and give a process "
                f"group of torch, not {type(one).__name__}"
            )
    places = {(one.rank(), one.size()) for one in groups}
    if len(places) != 1 or len(groups) > 2:
        raise InvalidInputError("group: a pair of groups has the same ranks in both")
    return places.pop()


class Group:
    """The ranks that share a load.

    The constructor is a collective call: every rank of the group has to make it at the same point
    of its program. The caller has to close the group.
    """

    def __init__(
        self, device_type: str, *, given: Any = None, all_hosts: bool, timeout: timedelta
    ) -> None:
        """Finds the ranks, and creates their process groups if none is given.

        Args:
            device_type: the type of the device that tensors are loaded to, "cpu" or "cuda".
            given: a process group of this rank, or a pair of them; None for the default group.
            all_hosts: whether all ranks form one group; otherwise the ranks of each host do. A
                group that is given is never divided.
            timeout: how long a rank waits for the others, in groups that are created.

        Raises:
            InvalidInputError: this rank is not in the group, or it has no backend for the device.
            UnreachableError: the other ranks do not make this call in time.
        """
        import torch
        import torch.distributed as dist

        self._dist = dist
        self._created: list[Any] = []
        #: The type of the device that tensors have to be on to be sent.
        self.device_type = device_type
        self._status_device = torch.device("cpu")
        self._seconds: float | None = None
        self._ranks_on_host: int | None = None
        if given is None:
            self._seconds = timeout.total_seconds()
            self.timeout = timeout
            self._create(device_type, all_hosts=all_hosts)
        else:
            self._use(given, device_type)

    def _use(self, given: Any, device_type: str) -> None:
        dist = self._dist
        self.rank, self.size = check_member(given)
        groups = given if isinstance(given, tuple) else (given,)
        try:
            by_device = {"cpu": groups[0], "cuda": groups[-1]}
            backends = {kind: _backends(dist, one).get(kind) for kind, one in by_device.items()}
            self.ranks = dist.get_process_group_ranks(groups[0])
        except (KeyError, ValueError, RuntimeError) as error:
            raise InvalidInputError(
                f"group: torch.distributed does not know this process group: {error}"
            ) from error
        is_nccl = device_type == "cuda" and backends["cuda"] not in (None, "gloo")
        if not is_nccl and backends["cpu"] is None:
            raise InvalidInputError(
                "group: it has no backend for tensors in host memory; load to its GPUs, or give a "
                "group of gloo"
            )
        self.device_type = "cuda" if is_nccl else "cpu"
        self._tensor_group = by_device[self.device_type]
        self._status_group = by_device["cuda" if backends["cpu"] is None else "cpu"]
        if backends["cpu"] is None:
            import torch

            self._status_device = torch.device("cuda", torch.cuda.current_device())

    def _create(self, device_type: str, *, all_hosts: bool) -> None:
        dist = self._dist
        all_ranks = list(range(dist.get_world_size()))
        with self._translating_errors():
            self._status_group = self._new_group(all_ranks, "gloo")
        hosts = self._host_names(len(all_ranks))
        global_rank = dist.get_rank()
        #: The ranks of the default group that belong to this group, in order.
        self.ranks = all_ranks
        self._ranks_on_host = hosts.count(hosts[global_rank])
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

    def _host_names(self, count: int) -> list[str]:
        hosts = [""] * count
        with self._translating_errors():
            self._dist.all_gather_object(hosts, socket.gethostname(), group=self._status_group)
        return hosts

    def count_ranks_on_host(self) -> int:
        """Returns how many ranks of all run on this host. This is a collective call.

        Raises:
            UnreachableError: a rank has ended, or does not make this call in time.
        """
        if self._ranks_on_host is None:
            hosts = self._host_names(self.size)
            self._ranks_on_host = hosts.count(hosts[self.rank])
        return self._ranks_on_host

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

        message = message.to(self._status_device)
        messages = [torch.empty_like(message) for _ in self.ranks]
        with self._translating_errors():
            self._dist.all_gather(messages, message, group=self._status_group)
        return [message.cpu() for message in messages]

    def confirm(self, error: BaseException | None, *, is_leaving: bool = False) -> None:
        """Tells the other ranks whether this one goes on, and whether they do.

        Args:
            error: the error for which this rank does not go on.
            is_leaving: whether this rank ends the load without an error.

        Raises:
            BaseException: `error`, or else the error of the first rank that has one.
            CancelledError: another rank is leaving.
            UnreachableError: a rank has ended, or does not make this call in time.
        """
        import torch

        message = torch.zeros(_STATUS_BYTES, dtype=torch.uint8)
        if is_leaving:
            message[0] = LEFT
        elif error is not None:
            text = failure.encode(error, _STATUS_BYTES - 1)
            message[: 1 + len(text)] = torch.tensor([FAILED, *text], dtype=torch.uint8)
        messages = self.all_gather(message)
        if error is not None:
            raise error
        for rank, message in () if is_leaving else zip(self.ranks, messages):
            state = int(message[0])
            if state == FAILED:
                raise failure.decode(bytes(message[1:].tolist()).rstrip(b"\0"), rank)
            if state == LEFT:
                raise left(rank)

    def start_transfers(
        self,
        sends: Sequence[tuple[int, torch.Tensor]],
        receives: Sequence[tuple[int, torch.Tensor]],
    ) -> Transfers:
        """Starts to send tensors to other ranks and to receive tensors of them.

        Args:
            sends: the position of the receiver, and a contiguous tensor on a device of
                `device_type`.
            receives: the position of the sender, and the tensor that is filled. The messages
                between two ranks are in the same order at both.

        Raises:
            UnreachableError: a rank has ended.
        """
        dist = self._dist
        numbers: dict[tuple[Any, int], int] = {}
        operations = []
        for call, messages in ((dist.irecv, receives), (dist.isend, sends)):
            for peer, tensor in messages:
                tag = numbers[call, peer] = numbers.get((call, peer), 0) + 1
                group, rank = self._tensor_group, self.ranks[peer]
                operations.append(dist.P2POp(call, tensor, rank, group=group, tag=tag))
        with self._translating_errors():
            works = dist.batch_isend_irecv(operations) if operations else []
        return Transfers(works, self._translating_errors())

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
        return _CollectiveErrors(self._seconds)


class Transfers:
    """Messages that are on their way."""

    def __init__(self, works: Sequence[Any], translating_errors: _CollectiveErrors) -> None:
        self._works, self._translating_errors = works, translating_errors

    def wait(self) -> None:
        """Waits until all messages of this rank were sent and received.

        Raises:
            UnreachableError: a rank has ended, or does not take part in time.
        """
        with self._translating_errors:
            for work in self._works:
                work.wait()


def left(rank: int) -> CancelledError:
    """Returns the error of a load that `rank` has left."""
    return CancelledError(
        f"rank {rank} left the load before its end, which ends the load on all ranks"
    )


def _backends(dist: Any, group: Any) -> dict[str, str]:
    """Returns the names of the backends of a group by types of devices."""
    text = dist.get_backend_config(group)
    pairs = (pair.partition(":") for pair in text.split(","))
    return {kind: name for kind, _, name in pairs}


class _CollectiveErrors:
    """Raises errors of torch's collectives as `UnreachableError`."""

    def __init__(self, seconds: float | None) -> None:
        self._limit = (
            "the timeout of the group"
            if seconds is None
            else f"{seconds:.0f} s (RUNAI_STREAMER_DIST_TIMEOUT)"
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RuntimeError) and not isinstance(error, Error):
            raise UnreachableError(
                f"another rank has ended, or did not respond within {self._limit}: {error}"
            ) from error


def find_group(device_type: str, given: Any = None) -> Group | None:
    """Returns the ranks that share the loads of this process; None if it shares them with none.

    This is a collective call of the ranks of the group.

    Args:
        device_type: the type of the device that tensors are loaded to, "cpu" or "cuda".
        given: a process group of this rank, or a pair of them; None for the default group.

    Raises:
        InvalidInputError: this rank is not in the group, or an environment variable has an invalid
            value.
        UnreachableError: the other ranks do not make this call in time.
    """
    import torch.distributed as dist

    if given is not None:
        _, size = check_member(given)
    if not is_distribution_enabled() or (given is not None and size == 1):
        return None
    if given is not None:
        return Group(device_type, given=given, all_hosts=True, timeout=distribution_timeout())
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        _logger.info("no torch.distributed group of several ranks: this process reads all tensors")
        return None
    group = Group(device_type, all_hosts=is_group_global(), timeout=distribution_timeout())
    if group.size == 1:
        group.close()
        return None
    return group
