"""Reads tensors ahead of a program that requests them one after the other.

Tensors that follow each other in the file form groups of some MiB, each of which is a load of its
own. Once a program has requested two tensors in a row, the groups that follow are started, as far
as a window allows. The first request of a group waits for all of it, and the others take their
tensors from a dict. A request that no group has is a read of its own, and the groups are given up.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING

from .._ringload import environment_memory_limit

if TYPE_CHECKING:
    from .._ringload import Checkpoint, Stream, Tensor

GROUP_BYTES = 16 << 20
"""The least length of a group, but for the last one."""

WINDOW_BYTES = 128 << 20
"""How many bytes are read ahead, unless the memory limit is lower."""


class Group:
    """Consecutive tensors that are being loaded."""

    def __init__(self, stream: Stream, positions: range, nbytes: int) -> None:
        """Wraps the load of the tensors at these positions, which have `nbytes` together."""
        self.stream = stream
        self.positions = positions
        self.nbytes = nbytes


class ReadAhead:
    """The tensors of a file, of which those that follow are read ahead."""

    def __init__(self, checkpoint: Checkpoint, *, is_host: bool) -> None:
        """Reads nothing yet."""
        self._checkpoint = checkpoint
        self._is_host = is_host
        self._names = checkpoint.keys()
        self._lengths: list[int] = []
        self._positions: dict[str, int] = {}
        self._complete: dict[str, Tensor] = {}
        """The tensors of the current group, but for those that were taken."""
        self._lock = Lock()
        """Held by the thread that goes through the groups."""
        self._current = range(0)
        """The positions of the group that was waited for last."""
        self._held = 0
        """The bytes of that group, unless all its tensors were taken."""
        self._groups: deque[Group] = deque()
        """The groups that nobody has waited for."""
        self._end = -1
        """The position of the first tensor after the groups."""
        self._window = window_bytes()

    def read(self, name: str) -> Tensor:
        """Returns a tensor, from those that were read ahead if it is the next one.

        Raises:
            NotFoundError: the file has no tensor of this name.
        """
        complete = self._complete
        tensor = complete.pop(name, None)
        if tensor is not None and complete:
            return tensor
        if not self._lock.acquire(blocking=False):
            return self._alone(name) if tensor is None else tensor
        try:
            if tensor is None:
                return self._from_group(name)
            if self._complete is complete:
                self._held = 0
                self._extend()
            return tensor
        finally:
            self._lock.release()

    def _alone(self, name: str) -> Tensor:
        return self._checkpoint.read(name, at_once=self._is_host)

    def _from_group(self, name: str) -> Tensor:
        if not self._positions:
            self._positions = {each: number for number, each in enumerate(self._names)}
            self._lengths = self._checkpoint.lengths()
        position = self._positions.get(name, -2)
        if position in self._current:
            return self._alone(name)  # it was taken already
        if position == self._end and not self._groups:
            self._extend()
        while self._groups and position >= self._groups[0].positions.stop:
            self._groups.popleft().stream.close()
        if not self._groups or position not in self._groups[0].positions:
            self._give_up(position + 1)
            return self._alone(name)
        group = self._groups.popleft()
        self._complete, self._current, self._held = {}, group.positions, group.nbytes
        self._extend()
        try:
            complete = group.stream.rest()
        except BaseException:
            self._give_up(position + 1)
            raise
        tensor = complete.pop(name)
        self._complete = complete
        if not complete:
            self._held = 0
            self._extend()
        return tensor

    def _extend(self) -> None:
        """Starts groups while the window has room."""
        started = self._held + sum(group.nbytes for group in self._groups)
        while self._end < len(self._names) and started < self._window:
            first, nbytes = self._end, 0
            while self._end < len(self._names) and nbytes < GROUP_BYTES:
                nbytes += self._lengths[self._end]
                self._end += 1
            names = self._names[first : self._end]
            stream = self._checkpoint.stream(names=names, memory_limit="none")
            self._groups.append(Group(stream, range(first, self._end), nbytes))
            started += nbytes

    def _give_up(self, end: int) -> None:
        for group in self._groups:
            group.stream.close()
        self._groups.clear()
        self._complete, self._current, self._held = {}, range(0), 0
        self._end = end if end > 0 else -1


def window_bytes() -> int:
    """Returns how many bytes are read ahead under the memory limit of the environment."""
    limit = environment_memory_limit()
    if isinstance(limit, int):
        return min(limit, WINDOW_BYTES)
    return 0 if limit == "min" else WINDOW_BYTES
