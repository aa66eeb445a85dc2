"""The owner of a checkpoint: the actor that reads it once, and keeps it in Ray's object store.

    attach(request)           opens the location, and answers with the plan of what it found
    chunks(identity, state)   answers with references to chunks; waits a moment if there are none
    tell_held(process, ...)   which chunks a process maps
    leave(identity, load)     a load has ended
    status()                  what is in memory, and what it cost

One task reads: the chunks that loads wait for and that are not in memory, in the order of the
files, through a ring of some hundred MiB. It puts each into the object store of this node when it
is complete.

Objects live as long as their owner. If the process ends, Ray starts it again, on another node if
this one is gone. It knows nothing then: loads that go on name the version that they need. A version
that the store no longer has is an error.

Only the event loop touches the state (`resident`). Whatever blocks runs in threads. Calls take and
return plain types; errors are returned as the name of their class and their text.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Coroutine
from typing import Any

from .._ringload import Loader
from . import cluster
from .fill import Full, fill
from .plan import plan_of
from .request import identity_of
from .resident import Load, Resident, Version

LOG = logging.getLogger("ringload.ray")

#: The share of the node's object store that chunks take, unless a budget is given.
_SHARE = 0.75

#: How long loads are waited for that need the chunk which would have to go.
_PACE_SECONDS = 5.0

#: How long chunks that are in use are waited for, before the loads are told that memory is full.
_FULL_SECONDS = 10.0

#: How long a version is kept that the store has replaced and nobody uses.
_SUPERSEDED_SECONDS = 60.0

_TICK_SECONDS = 5.0

#: How long it counts what Ray has said about its object store.
_FREE_SECONDS = 5.0


class Owner:
    """The actor. Its methods are called by loads only."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Starts with nothing in memory.

        Args:
            settings: `budget_bytes`, which may be None; `chunk_bytes` and `keep_seconds`.
        """
        self._incarnation = uuid.uuid4().hex
        self._node = cluster.this_node()
        self._keep_seconds: float = settings["keep_seconds"]
        self._store_bytes = cluster.store_bytes(self._node)
        self._chunk_bytes: int = settings["chunk_bytes"]
        budget_bytes = settings["budget_bytes"]
        if budget_bytes is None:
            budget_bytes = int((self._store_bytes or 0) * _SHARE)
        self._resident = Resident(budget_bytes)
        #: What chunks may take of the object store until when, without asking Ray.
        self._free_bytes, self._free_until = 0, 0.0
        self._warning = _warning(self._store_bytes)
        self._locations: list[str] = []
        self._changed = asyncio.Event()
        self._called_at = time.monotonic()
        self._opening: asyncio.Task[Version] | None = None
        #: What the loads wait for that have called `attach`.
        self._attaching: dict[str, asyncio.Task[Version]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticking = False

    async def attach(
        self, payload: dict[str, Any], load: str, wait_seconds: float
    ) -> dict[str, Any]:
        """Opens the location, once for all loads that ask at the same time.

        Args:
            payload: the `locations`, and the `options` to open them with.
            load: the identifier of the load, which repeats the call until there is an answer.
            wait_seconds: how long to wait for it.

        Returns:
            The `plan`, the `budget` in bytes, the time `now`, and a `warning` or None; or `error`;
            or none of these, if the location is still being opened.
        """
        self._begin_call(payload)
        try:
            version = await self._opened(payload, load, wait_seconds)
        except asyncio.TimeoutError:
            return self._answer()
        except Exception as error:
            return self._answer(error=_plain_error(error))
        return self._answer(
            plan=version.plan.plain(),
            budget=self._resident.budget_bytes,
            now=time.monotonic(),
            warning=self._warning,
        )

    async def chunks(
        self,
        payload: dict[str, Any],
        identity: str,
        load: str,
        state: dict[str, Any],
        wait_seconds: float,
    ) -> dict[str, Any]:
        """Gives a load chunks that it needs.

        Args:
            payload: what to open, if this process has been started again.
            identity: the version that the load reads.
            load: the identifier of the load.
            state: `process`, `missing`, `pending`, `held` and `lost` of the load: lists of chunks;
                `limit`, how many it takes at most; `since`, the time of `attach`.
            wait_seconds: how long to wait for a chunk.

        Returns:
            `chunks`: for each its reference in a list, and whether it was read for this load;
            `is_full` if memory is full of chunks in use; `error`.
        """
        self._begin_call(payload)
        deadline = time.monotonic() + wait_seconds
        version = self._resident.versions.get(identity)
        if version is None:
            try:
                version = await self._opened(payload, load, wait_seconds)
            except asyncio.TimeoutError:
                return self._answer(chunks={})
            except Exception as error:
                return self._answer(error=_plain_error(error))
            if version.plan.identity != identity:
                return self._answer(error=_replaced(self._locations))
        await self._check_lost(version, state["lost"])
        missing, failures = set(state["missing"]), version.failures
        now = time.monotonic()
        told = Load(state["process"], missing, set(state["pending"]), now)
        self._resident.tell(identity, load, told, state["held"])
        self._notify()
        while True:
            found = sorted(chunk for chunk in missing if version.chunks[chunk].ref is not None)
            found = found[: state["limit"]]
            if found or time.monotonic() >= deadline or not missing:
                return self._given(version, told, found, state["since"])
            if version.failures > failures:
                return self._answer(error=version.failure, is_full=version.failure is None)
            self._start_filling(version)
            await self._wait(deadline - time.monotonic())

    async def tell_held(self, incarnation: str, process: str, held: dict[str, list[int]]) -> None:
        """Records which chunks of each version a process maps."""
        if incarnation == self._incarnation:  # else the chunks are those of a process before this
            self._begin_call(None)
            self._resident.tell_held(process, held, time.monotonic())
            self._notify()

    async def leave(self, identity: str, load: str) -> None:
        """Records that a load has ended."""
        self._resident.leave(identity, load, time.monotonic())
        self._notify()

    async def status(self) -> dict[str, Any]:
        """Returns what is in memory, and what it cost."""
        latest = [v for v in self._resident.versions.values() if v.superseded_at is None]
        versions = self._resident.versions.values()
        use = await asyncio.to_thread(cluster.store_use, self._node)
        return {
            "locations": self._locations,
            "node": self._node,
            "pid": os.getpid(),
            "budget_bytes": self._resident.budget_bytes,
            "checkpoint_bytes": sum(c.nbytes for v in latest for c in v.chunks),
            "resident_bytes": self._resident.used_bytes(),
            "read_bytes": sum(version.read_bytes for version in versions),
            "versions": len(versions),
            "loads": sum(len(version.loads) for version in versions),
            "processes": self._resident.process_count(),
            "object_store_bytes": self._store_bytes,
            "object_store_used_bytes": None if use is None else use.used,
            "spilled_bytes": None if use is None else use.spilled,
        }

    def _begin_call(self, payload: dict[str, Any] | None) -> None:
        self._called_at = time.monotonic()
        if payload is not None:
            self._locations = payload["locations"]
        if not self._ticking:
            self._ticking = True
            self._spawn(self._tick())

    def _answer(self, **items: Any) -> dict[str, Any]:
        return {"incarnation": self._incarnation, "node": self._node, **items}

    async def _opened(self, payload: dict[str, Any], load: str, wait_seconds: float) -> Version:
        """Returns the version of the checkpoint that the store has; opens it for the first call."""
        opening = self._attaching.get(load)
        if opening is None:
            if self._opening is None:
                self._opening = self._spawn(self._open(payload))
            opening = self._attaching[load] = self._opening
        version = await asyncio.wait_for(asyncio.shield(opening), max(wait_seconds, 0.01))
        self._attaching.pop(load, None)
        return version

    async def _open(self, payload: dict[str, Any]) -> Version:
        try:
            opened = await asyncio.to_thread(_open, payload, self._chunk_bytes)
        finally:
            self._opening = None
        checkpoint, identity, plan = opened
        now = time.monotonic()
        if identity in self._resident.versions:
            return self._resident.make_latest(identity, now)
        version = self._resident.add(checkpoint, plan, now)
        total = sum(chunk.nbytes for chunk in version.chunks)
        LOG.info("%s: %d chunks, %d bytes", self._locations, plan.chunk_count, total)
        return version

    async def _check_lost(self, version: Version, lost: list[int]) -> None:
        """Reads chunks again that a load could not get, if this node does not have them either."""
        for number in lost:
            chunk = version.chunks[number]
            ref = chunk.ref
            if ref is not None and not await asyncio.to_thread(cluster.has, ref):
                LOG.warning("%s: chunk %d was lost and is read again", self._locations, number)
                if chunk.ref is ref:
                    chunk.ref = None

    def _given(
        self, version: Version, told: Load, found: list[int], since: float
    ) -> dict[str, Any]:
        now = time.monotonic()
        self._resident.use(version, found, now)
        told.pending.update(found)
        told.missing.difference_update(found)
        given = {}
        for number in found:
            chunk = version.chunks[number]
            given[number] = ([chunk.ref], chunk.read_at >= since)
        return self._answer(chunks=given)

    def _start_filling(self, version: Version) -> None:
        if not version.is_filling:
            version.is_filling = True
            self._spawn(self._fill(version))

    async def _fill(self, version: Version) -> None:
        """Reads what loads wait for, until nothing is left."""
        loop = asyncio.get_running_loop()

        def in_loop(call: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(call, loop).result()

        def room(nbytes: int) -> None:
            in_loop(self._room(nbytes))

        def arrived(number: int, ref: Any) -> None:
            in_loop(self._arrived(version, number, ref))

        try:
            while chunks := version.absent(version.wanted()):
                await asyncio.to_thread(
                    fill, version.checkpoint, version.plan, chunks, room, arrived
                )
        except Full:
            version.failures, version.failure = version.failures + 1, None
            LOG.warning(
                "%s: all of the %d bytes of the budget are in use; loads read from the store",
                self._locations,
                self._resident.budget_bytes,
            )
        except Exception as error:
            version.failures, version.failure = version.failures + 1, _plain_error(error)
            LOG.warning("%s: %s", self._locations, error)
        finally:
            version.is_filling = False
            self._notify()

    async def _room(self, nbytes: int) -> None:
        """Makes room for a chunk, or waits for it.

        Raises:
            Full: everything in memory is in use, or the object store has no room.
        """
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            patient = waited < _PACE_SECONDS
            lacking = self._resident.over_budget(nbytes)
            if self._resident.give_up(lacking, wanted=not patient) <= 0:
                lacking = await self._lacking_in_store(nbytes)
                if lacking <= 0:
                    return
                # Ray frees the memory a moment later, and then there is room.
                self._resident.give_up(lacking, wanted=not patient)
            if waited >= _FULL_SECONDS:
                raise Full
            await self._wait(0.5)

    async def _lacking_in_store(self, nbytes: int) -> int:
        """Returns how much the node's object store lacks to take a chunk without using the disk.

        Ray may take most of a second to answer, so half of what was free is used before it is
        asked again.
        """
        now = time.monotonic()
        if now < self._free_until and nbytes <= self._free_bytes:
            self._free_bytes -= nbytes
            return 0
        use = await asyncio.to_thread(cluster.store_use, self._node)
        if use is None or self._store_bytes is None:
            return 0
        left = self._store_bytes - use.used - nbytes
        self._free_until, self._free_bytes = now + _FREE_SECONDS, left // 2
        return -left

    async def _arrived(self, version: Version, number: int, ref: Any) -> None:
        chunk, now = version.chunks[number], time.monotonic()
        chunk.ref, chunk.read_at, chunk.used_at = ref, now, now
        version.read_bytes += chunk.nbytes
        self._notify()

    def _notify(self) -> None:
        """Wakes all calls that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, seconds: float) -> None:
        """Waits for a change."""
        try:
            await asyncio.wait_for(self._changed.wait(), max(seconds, 0.01))
        except asyncio.TimeoutError:
            return

    async def _tick(self) -> None:
        """Forgets what has ended, and ends this actor when nobody has used it for long enough."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            self._resident.expire(now)
            self._resident.drop_superseded(now, _SUPERSEDED_SECONDS)
            if not self._resident.is_used():
                self._attaching.clear()
            if not self._resident.is_used() and now - self._called_at >= self._keep_seconds:
                LOG.info("%s: nobody has used it for %s s", self._locations, self._keep_seconds)
                cluster.end_this_actor()

    def _spawn(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _open(payload: dict[str, Any], chunk_bytes: int) -> tuple[Any, str, Any]:
    checkpoint = Loader(**payload["options"]).open(payload["locations"])
    identity = identity_of(checkpoint)
    return checkpoint, identity, plan_of(checkpoint, identity, chunk_bytes)


def _warning(store_bytes: int | None) -> str | None:
    memory_bytes = cluster.shared_memory_bytes()
    if store_bytes is None or memory_bytes is None or store_bytes <= memory_bytes:
        return None
    return (
        f"the object store of the node has {store_bytes} bytes and /dev/shm {memory_bytes}, so "
        "that Ray keeps objects in /tmp, which is slow; give /dev/shm the size of the store"
    )


def _plain_error(error: Exception) -> tuple[str, str]:
    return type(error).__name__, str(error)


def _replaced(locations: list[str]) -> tuple[str, str]:
    return (
        "ChangedError",
        f"{', '.join(locations)} was replaced in its store while it was being loaded, and what was "
        "read of it before is no longer in memory; load it again",
    )
