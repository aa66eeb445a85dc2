"""The ranks that share a load, and what they say to each other besides tensors.

Words go over gloo, in host memory, whatever the tensors go over: gloo says when a rank is gone or
late, while a GPU's collective would wait for it. Tensors go over gloo in host memory, and between
GPUs over NCCL where torch has it.

By default the ranks of each host share, as in Run:ai's streamer: bytes cross between hosts only
where `RUNAI_STREAMER_DIST_GLOBAL=1` says that this is faster than the storage.
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

#: How long an error may be that is told before the exchange begins, in bytes.
_SENTENCE_BYTES = 16 << 10


class Group:
    """Ranks that share a load.

    Making one is a collective call: every rank of the default group makes one, at the same point of
    its program. It is to be closed.
    """

    def __init__(self, device_type: str, *, of_all_hosts: bool, timeout: timedelta) -> None:
        """Finds the ranks.

        Args:
            device_type: where tensors will be, "cpu" or "cuda".
            of_all_hosts: whether all ranks are one group; else those of each host are.
            timeout: how long one waits for the others.

        Raises:
            UnreachableError: when they are not there in time.
        """
        import torch.distributed as dist

        self._dist = dist
        self.timeout = timeout
        self._made: list[Any] = []
        everyone = list(range(dist.get_world_size()))
        with self._watched():
            self._words = self._make(everyone, "gloo")
            hosts = [""] * len(everyone)
            dist.all_gather_object(hosts, socket.gethostname(), group=self._words)
        me = dist.get_rank()
        #: The ranks of the default group that are in this one, in order.
        self.ranks = everyone
        #: How many of them are on this host.
        self.ranks_on_host = hosts.count(hosts[me])
        if not of_all_hosts and len(set(hosts)) > 1:
            by_host = [[r for r in everyone if hosts[r] == host] for host in sorted(set(hosts))]
            with self._watched():
                # Every rank makes the groups of all hosts, in one order: torch asks for that.
                made = {tuple(ranks): self._make(ranks, "gloo") for ranks in by_host}
            self.ranks = next(ranks for ranks in by_host if me in ranks)
            self._words = made[tuple(self.ranks)]
        #: This rank's position in `ranks`, and how many there are.
        self.rank, self.size = self.ranks.index(me), len(self.ranks)
        self._tensors = self._words
        if device_type == "cuda" and dist.is_nccl_available():
            with self._watched():
                self._tensors = self._make_for_tensors(hosts, of_all_hosts)

    def _make_for_tensors(self, hosts: Sequence[str], of_all_hosts: bool) -> Any:
        one = of_all_hosts or len(set(hosts)) == 1
        names = [None] if one else sorted(set(hosts))
        mine = None
        for name in names:
            ranks = [r for r, host in enumerate(hosts) if name is None or host == name]
            made = self._make(ranks, "nccl")
            if ranks == self.ranks:
                mine = made
        return mine

    def _make(self, ranks: Sequence[int], backend: str) -> Any:
        group = self._dist.new_group(list(ranks), timeout=self.timeout, backend=backend)
        if self._dist.get_rank() in ranks:
            self._made.append(group)
        return group

    def all_words(self, word: torch.Tensor) -> list[torch.Tensor]:
        """What every rank says: small tensors of one shape and type, in host memory.

        Raises:
            UnreachableError: when a rank is gone, or says nothing in time.
        """
        import torch

        words = [torch.empty_like(word) for _ in self.ranks]
        with self._watched():
            self._dist.all_gather(words, word, group=self._words)
        return words

    def agree(self, mine: object, error: BaseException | None) -> list[Any]:
        """What every rank has to say before a load, or the error of one of them.

        Args:
            mine: what this rank says; anything that can be pickled.
            error: what this rank met instead.

        Returns:
            What each rank says.

        Raises:
            BaseException: `error`; else the error of the first rank that has one.
            UnreachableError: when a rank is gone, or says nothing in time.
        """
        told = None if error is None else failure.encode(error, _SENTENCE_BYTES)
        answers: list[Any] = [None] * self.size
        with self._watched():
            self._dist.all_gather_object(answers, (mine, told), group=self._words)
        if error is not None:
            raise error
        for rank, (_, told) in zip(self.ranks, answers):
            if told is not None:
                raise failure.decode(told, rank)
        return [said for said, _ in answers]

    def broadcast(self, bytes_: torch.Tensor, sender: int) -> None:
        """Sends `bytes_` of the rank at position `sender` to all, who get it in their `bytes_`.

        Raises:
            UnreachableError: when a rank is gone, or does not come in time.
        """
        with self._watched():
            self._dist.broadcast(bytes_, self.ranks[sender], group=self._tensors)

    def close(self) -> None:
        """Gives up the connections. Waits for nobody."""
        made, self._made = self._made, []
        for group in made:
            try:
                self._dist.destroy_process_group(group)
            except (RuntimeError, ValueError, AssertionError):
                # The default group may be gone already, and this one with it.
                _logger.debug("a group could not be destroyed", exc_info=True)

    def _watched(self) -> _Watched:
        return _Watched(self.timeout)


class _Watched:
    """Says of what torch raises in a collective that the other ranks are to blame."""

    def __init__(self, timeout: timedelta) -> None:
        self._seconds = timeout.total_seconds()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RuntimeError) and not isinstance(error, Error):
            raise UnreachableError(
                f"another rank is gone, or did not come within {self._seconds:.0f} s "
                f"(RUNAI_STREAMER_DIST_TIMEOUT): {error}"
            ) from error


def find_group(device_type: str) -> Group | None:
    """The ranks that share the loads of this process; None where it is alone.

    A collective call, where there is a default group.

    Raises:
        InvalidInputError: for a variable that says nothing.
        UnreachableError: when the other ranks do not come in time.
    """
    import torch.distributed as dist

    if not is_distribution_enabled():
        return None
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        _logger.info("there is no torch.distributed group of several ranks: this one reads all")
        return None
    group = Group(device_type, of_all_hosts=is_group_global(), timeout=distribution_timeout())
    if group.size == 1:
        group.close()
        return None
    return group
