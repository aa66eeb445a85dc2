"""The part of an owner that knows which chunks are in memory, who uses them, and which go first.

    absent --read--> resident --given up--> absent

A chunk is used while a load has been given it and has not taken it yet, and while a process maps
it. Both are told by each call of a load; processes also tell it every few seconds (`leases`). What
nobody has repeated for `LEASE_SECONDS` does not count any longer: the process has ended. Should it
live after all, its memory is safe, as Ray frees an object only after the last reference to it.

When a chunk needs memory, the one goes that was used least recently: of those that no load waits
for first. A chunk in use is never given up, as that would free nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .plan import Plan

#: How long a load or a process that says nothing is taken to be there.
LEASE_SECONDS = 45.0


@dataclass
class Chunk:
    """A chunk, in memory or not."""

    nbytes: int
    #: Ray's reference; None if the chunk is not in memory.
    ref: Any = None
    read_at: float = 0.0
    used_at: float = 0.0


@dataclass
class Load:
    """A load as its last call has described it."""

    process: str
    #: The chunks that it still needs.
    missing: set[int]
    #: The chunks that it was given and has not taken yet.
    pending: set[int]
    told_at: float


@dataclass
class Version:
    """The checkpoint as it was when it was opened: one version of its objects."""

    checkpoint: Any
    plan: Plan
    chunks: list[Chunk]
    loads: dict[str, Load] = field(default_factory=dict)
    #: Since when a later version has taken its place.
    superseded_at: float | None = None
    is_filling: bool = False
    #: How often reading has failed, and with what at last.
    failures: int = 0
    failure: tuple[str, str] | None = None
    read_bytes: int = 0

    def wanted(self) -> set[int]:
        """Returns the chunks that loads wait for."""
        return set().union(*(load.missing for load in self.loads.values()))

    def absent(self, chunks: Iterable[int]) -> list[int]:
        """Returns those of `chunks` that are not in memory, in the order of the checkpoint."""
        return sorted(chunk for chunk in chunks if self.chunks[chunk].ref is None)

    def resident_bytes(self) -> int:
        """Returns the length of the chunks that are in memory."""
        return sum(chunk.nbytes for chunk in self.chunks if chunk.ref is not None)


class Resident:
    """All versions of a checkpoint, and the processes that map their chunks."""

    def __init__(self, budget_bytes: int) -> None:
        """Starts with nothing in memory."""
        self.budget_bytes = budget_bytes
        self.versions: dict[str, Version] = {}
        #: The chunks of each version that a process maps, and when it said so.
        self._held: dict[str, tuple[float, dict[str, set[int]]]] = {}
        #: When loads ended that another call of theirs may still tell of.
        self._left: dict[str, float] = {}

    def add(self, checkpoint: Any, plan: Plan, now: float) -> Version:
        """Adds a version, which takes the place of all others."""
        chunks = [Chunk(plan.chunk_bytes(number)) for number in range(plan.chunk_count)]
        self.versions[plan.identity] = Version(checkpoint, plan, chunks)
        return self.make_latest(plan.identity, now)

    def make_latest(self, identity: str, now: float) -> Version:
        """Records that the store has this version, and no other."""
        for other in self.versions.values():
            other.superseded_at = other.superseded_at or now
        version = self.versions[identity]
        version.superseded_at = None
        return version

    def used_bytes(self) -> int:
        """Returns the length of all chunks in memory."""
        return sum(version.resident_bytes() for version in self.versions.values())

    def tell(self, identity: str, load: str, state: Load, held: Iterable[int]) -> None:
        """Records what a load needs, and what its process maps of this version.

        A call that was waiting when the load ended tells of it afterwards, which does not count.
        """
        if load in self._left:
            return
        self.versions[identity].loads[load] = state
        _, of_process = self._held.get(state.process, (0.0, {}))
        self._held[state.process] = (state.told_at, {**of_process, identity: set(held)})

    def tell_held(self, process: str, held: dict[str, list[int]], now: float) -> None:
        """Records all that a process maps."""
        self._held[process] = (now, {identity: set(some) for identity, some in held.items()})

    def leave(self, identity: str, load: str, now: float) -> None:
        """Records that a load has ended."""
        self._left[load] = now
        version = self.versions.get(identity)
        if version is not None:
            version.loads.pop(load, None)

    def expire(self, now: float) -> None:
        """Forgets loads and processes that have not said anything for too long."""
        since = now - LEASE_SECONDS
        self._held = {name: one for name, one in self._held.items() if one[0] >= since}
        self._left = {load: when for load, when in self._left.items() if when >= since}
        for version in self.versions.values():
            loads = version.loads.items()
            version.loads = {name: load for name, load in loads if load.told_at >= since}

    def in_use(self, identity: str) -> set[int]:
        """Returns the chunks of a version that may not be given up."""
        loads = self.versions[identity].loads.values()
        held = (some.get(identity, set()) for _, some in self._held.values())
        return set().union(*(load.pending for load in loads), *held)

    def is_used(self) -> bool:
        """Whether a load is running, or a process maps a chunk."""
        is_held = any(any(some.values()) for _, some in self._held.values())
        return is_held or any(version.loads for version in self.versions.values())

    def drop_superseded(self, now: float, after_seconds: float) -> list[str]:
        """Forgets versions that others have replaced and that nobody uses; returns which."""
        gone = [
            identity
            for identity, version in self.versions.items()
            if version.superseded_at is not None
            and now - version.superseded_at >= after_seconds
            and not version.loads
            and not version.is_filling
            and not self.in_use(identity)
        ]
        for identity in gone:
            del self.versions[identity]
        return gone

    def over_budget(self, nbytes: int) -> int:
        """Returns by how much a chunk of `nbytes` would exceed the budget; 0 or less if it fits."""
        return self.used_bytes() + nbytes - self.budget_bytes

    def give_up(self, nbytes: int, *, wanted: bool) -> int:
        """Gives chunks up until they have `nbytes` together, or nothing is left to give up.

        Args:
            nbytes: the bytes that are lacking.
            wanted: whether to give up chunks that loads wait for, which are then read again.

        Returns:
            How many bytes are still lacking; 0 or less if they were found.
        """
        for _, chunk in sorted(self._idle(wanted=wanted), key=lambda one: one[0]):
            if nbytes <= 0:
                break
            chunk.ref = None
            nbytes -= chunk.nbytes
        return nbytes

    def _idle(self, *, wanted: bool) -> Iterator[tuple[tuple[bool, float], Chunk]]:
        """Yields the chunks that may be given up, with what sorts them."""
        for identity, version in self.versions.items():
            used, needed = self.in_use(identity), version.wanted()
            for number, chunk in enumerate(version.chunks):
                if chunk.ref is None or number in used or (number in needed and not wanted):
                    continue
                yield (number in needed, chunk.used_at), chunk

    def process_count(self) -> int:
        """Returns how many processes map chunks."""
        return sum(any(some.values()) for _, some in self._held.values())

    def use(self, version: Version, chunks: Iterable[int], now: float) -> None:
        """Records that chunks were given to a load."""
        for number in chunks:
            version.chunks[number].used_at = now
