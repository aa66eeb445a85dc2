"""Tells owners which chunks this process maps.

A chunk counts as mapped until the last array of it is gone. Calls of loads tell the owner what is
mapped; a thread repeats it every few seconds for loads that have ended, as long as anything is
mapped.
"""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from contextlib import suppress
from typing import Any

import ray

#: How often the thread tells owners what is mapped; less than `resident.LEASE_SECONDS`.
BEAT_SECONDS = 5.0

_Key = tuple[str, str]
"""The incarnation of an owner, and the version of its checkpoint."""


class Mapped:
    """A chunk that arrays are views of. It is mapped as long as this object lives."""

    def __init__(self, ref: Any) -> None:
        """Keeps a reference of Ray, so that the object is not freed."""
        self.ref = ref


class Leases:
    """The chunks that this process maps."""

    def __init__(self) -> None:
        """Starts without any."""
        self.pid = os.getpid()
        self.process = uuid.uuid4().hex
        self._lock = threading.RLock()  # finalizers run at any place, also in these methods
        self._mapped: dict[_Key, dict[int, int]] = {}
        self._owners: dict[str, Any] = {}
        self._thread: threading.Thread | None = None

    def add(self, owner: Any, incarnation: str, identity: str, chunk: int, ref: Any) -> Mapped:
        """Records that a chunk is mapped until the returned object is gone."""
        key = (incarnation, identity)
        with self._lock:
            counts = self._mapped.setdefault(key, {})
            counts[chunk] = counts.get(chunk, 0) + 1
            self._owners[incarnation] = owner
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._beat, name="ringload-ray-leases", daemon=True
                )
                self._thread.start()
        mapped = Mapped(ref)
        weakref.finalize(mapped, self._drop, key, chunk).atexit = False
        return mapped

    def held(self, incarnation: str, identity: str) -> list[int]:
        """Returns the chunks of a version that are mapped."""
        with self._lock:
            return list(self._mapped.get((incarnation, identity), {}))

    def _drop(self, key: _Key, chunk: int) -> None:
        with self._lock:
            counts = self._mapped[key]
            counts[chunk] -= 1
            if counts[chunk] == 0:
                del counts[chunk]

    def _beat(self) -> None:
        while ray.is_initialized():
            for incarnation, owner, held in self._messages():
                # An owner that has ended does not need to know.
                with suppress(Exception):
                    owner.tell_held.remote(incarnation, self.process, held)
            with self._lock:
                if not self._owners:
                    self._thread = None
                    return
            threading.Event().wait(BEAT_SECONDS)
        with self._lock:
            self._thread = None

    def _messages(self) -> list[tuple[str, Any, dict[str, list[int]]]]:
        """Returns what each owner has to know. One of which nothing is mapped is told so once."""
        with self._lock:
            found = []
            for incarnation, owner in list(self._owners.items()):
                held = {i: list(m) for (of, i), m in self._mapped.items() if of == incarnation}
                found.append((incarnation, owner, held))
                if not any(held.values()):
                    del self._owners[incarnation]
                    for key in [key for key in self._mapped if key[0] == incarnation]:
                        del self._mapped[key]
            return found


_LEASES: Leases | None = None
_LEASES_LOCK = threading.Lock()


def leases() -> Leases:
    """Returns the chunks that this process maps."""
    global _LEASES  # noqa: PLW0603 - it belongs to the process
    with _LEASES_LOCK:
        if _LEASES is None or _LEASES.pid != os.getpid():
            _LEASES = Leases()
        return _LEASES
