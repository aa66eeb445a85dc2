"""Reads tensors ahead of a program that requests them one after the other.

Tensors that follow each other in the file form groups of some MiB, each of which is a load of its
own. Once a program has requested two tensors in a row, the groups that follow are started, as far
as a window allows. A request out of order is a read of its own, and the groups are given up.
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

    def __init__(self, checkpoint: Checkpoint, names: list[str], nbytes: int) -> None:
        """Starts the load of tensors that have `nbytes` together."""
        self._stream: Stream = checkpoint.stream(names=names, memory_limit="none")
        self._complete: dict[str, Tensor] = {}
        self._left = set(names)
        self.nbytes = nbytes

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def __len__(self) -> int:
        return len(self._left)

    def take(self, name: str) -> Tensor:
        """Waits for a tensor of the group, and hands it over."""
        while name not in self._complete:
            tensor = next(self._stream)
            self._complete[tensor.name] = tensor
        self._left.discard(name)
        return self._complete.pop(name)

    def close(self) -> None:
        """Stops the load."""
        self._stream.close()


class ReadAhead:
    """The tensors of a file, of which those that follow are read ahead."""

    def __init__(self, checkpoint: Checkpoint, *, is_host: bool) -> None:
        """Reads nothing yet."""
        self._checkpoint = checkpoint
        self._is_host = is_host
        self._names = checkpoint.keys()
        self._positions: dict[str, int] = {}
        self._lock = Lock()
        """Held by the thread that goes through the file in order."""
        self._last = -2
        """The position of the last tensor that was requested."""
        self._groups: deque[Group] = deque()
        self._end = 0
        """The position of the first tensor after the groups."""
        self._window = window_bytes()

    def read(self, name: str) -> Tensor:
        """Returns a tensor, from those that were read ahead if it is the next one.

        Raises:
            NotFoundError: the file has no tensor of this name.
        """
        if not self._lock.acquire(blocking=False):
            return self._alone(name)
        try:
            return self._in_order(name)
        finally:
            self._lock.release()

    def _alone(self, name: str) -> Tensor:
        return self._checkpoint.read(name, at_once=self._is_host)

    def _in_order(self, name: str) -> Tensor:
        if not self._positions:
            self._positions = {each: number for number, each in enumerate(self._names)}
        position = self._positions.get(name, -2)
        is_next = position == self._last + 1 and position > 0
        self._last = position
        if not is_next:
            self._give_up(position + 1)
            return self._alone(name)
        while self._groups and name not in self._groups[0]:
            self._groups.popleft().close()
        if not self._groups:
            self._end = position
        self._extend()
        if not self._groups:
            return self._alone(name)
        first = self._groups[0]
        try:
            tensor = first.take(name)
        except BaseException:
            self._give_up(position + 1)
            raise
        if not len(first):
            self._groups.popleft()
            self._extend()
        return tensor

    def _extend(self) -> None:
        """Starts groups while the window has room."""
        started = sum(group.nbytes for group in self._groups)
        while self._end < len(self._names) and started < self._window:
            names: list[str] = []
            nbytes = 0
            while self._end < len(self._names) and nbytes < GROUP_BYTES:
                name = self._names[self._end]
                nbytes += self._checkpoint.info(name)["nbytes"]
                names.append(name)
                self._end += 1
            self._groups.append(Group(self._checkpoint, names, nbytes))
            started += nbytes

    def _give_up(self, end: int) -> None:
        for group in self._groups:
            group.close()
        self._groups.clear()
        self._end = end


def window_bytes() -> int:
    """Returns how many bytes are read ahead under the memory limit of the environment."""
    limit = environment_memory_limit()
    if isinstance(limit, int):
        return min(limit, WINDOW_BYTES)
    return 0 if limit == "min" else WINDOW_BYTES
