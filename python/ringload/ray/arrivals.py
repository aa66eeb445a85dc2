"""The chunks of a load as they come to this node.

One call of the owner is on its way as long as chunks are missing, and waits there for news. Chunks
that the owner has given are on their way to this node meanwhile. The load waits for whichever comes
first.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError

from .leases import Leases
from .link import WAIT_SECONDS, Link, Unavailable
from .plan import Plan
from .report import Report

LOG = logging.getLogger("ringload.ray")

#: How often a chunk is asked for that cannot be had.
_TRIES = 3

#: How long to wait for what Ray says is there.
_GET_SECONDS = 10.0


class Arrivals:
    """The chunks that a load needs."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a load knows
        self,
        link: Link,
        leases: Leases,
        payload: dict[str, Any],
        plan: Plan,
        chunks: list[int],
        limit: int,
        report: Report,
        node: str,
        since: float,
    ) -> None:
        """Asks for nothing yet.

        Args:
            link: the owner.
            leases: what this process maps.
            payload: the request in plain types.
            plan: the version that is loaded.
            chunks: the numbers of the chunks that are needed.
            limit: how many are taken at a time.
            report: counts the bytes of chunks.
            node: the node of this process.
            since: the time of the owner when the load began.
        """
        self._link, self._leases, self._payload = link, leases, payload
        self._plan, self._limit, self._report = plan, limit, report
        self._node, self._since = node, since
        self._load = uuid.uuid4().hex
        self._missing = set(chunks)
        self._pending: dict[int, Any] = {}
        self._tries: dict[int, int] = {}
        self._lost: list[int] = []
        self._call: Any = None

    def __iter__(self) -> Iterator[tuple[int, Any, Any]]:
        """Yields the number of each chunk, its arrays, and what keeps it.

        Raises:
            Error: the owner could not read a chunk.
            Unavailable: the rest cannot be had from the owner.
        """
        while self._missing or self._pending:
            if self._missing and self._call is None and len(self._pending) < self._limit:
                self._ask()
            waiting = list(self._pending.values())
            if self._call is not None:
                waiting.append(self._call)
            ready: list[Any] = []
            try:
                if waiting:
                    ready, _ = ray.wait(waiting, num_returns=1, timeout=WAIT_SECONDS)
            except RayError as error:
                self._link.failed(error)
            if not ready:
                self._link.check_news()
            elif ready[0] == self._call:
                self._take_answer()
            else:
                number = next(n for n, ref in self._pending.items() if ref == ready[0])
                del ready, waiting
                yield from self._take(number)

    def close(self) -> None:
        """Tells the owner that this load has ended."""
        self._pending.clear()
        try:
            self._link.answered.leave.remote(self._plan.identity, self._load)
        except Exception as error:  # the owner forgets a load that says nothing
            LOG.debug("the owner was not told that a load has ended: %s", error)

    def _ask(self) -> None:
        plan = self._plan
        state = {
            "process": self._leases.process,
            "missing": sorted(self._missing),
            "pending": list(self._pending),
            "held": self._leases.held(self._link.incarnation, plan.identity),
            "lost": self._lost,
            "limit": self._limit - len(self._pending),
            "since": self._since,
        }
        self._lost = []
        try:
            call = self._link.handle.chunks
            self._call = call.remote(self._payload, plan.identity, self._load, state, WAIT_SECONDS)
        except RayError as error:
            self._link.failed(error)

    def _take_answer(self) -> None:
        call, self._call = self._call, None
        try:
            answer = self._link.answer(ray.get(call, timeout=_GET_SECONDS))
        except RayError as error:
            self._link.failed(error)
            return
        if answer.get("is_full"):
            raise Unavailable("all of the memory that the owner may use is in use; raise budget=")
        given = answer["chunks"]
        refs = [ref for (ref,), _ in given.values()]
        here = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0]) if refs else set()
        for number, ((ref,), is_fresh) in given.items():
            nbytes = self._plan.chunk_bytes(number)
            if ref in here or answer["node"] == self._node:
                self._report.node_bytes += nbytes
            else:
                self._report.other_node_bytes += nbytes
            self._report.read_for_this_load_bytes += nbytes if is_fresh else 0
            self._missing.discard(number)
            self._pending[number] = ref

    def _take(self, number: int) -> Iterator[tuple[int, Any, Any]]:
        ref = self._pending.pop(number)
        try:
            arrays = ray.get(ref, timeout=_GET_SECONDS)
        except RayError as error:
            LOG.info("chunk %d is lost: %s", number, error)
            self._missing.add(number)
            self._lost.append(number)
            self._tries[number] = self._tries.get(number, 0) + 1
            if self._tries[number] >= _TRIES:
                name = type(error).__name__
                raise Unavailable(f"a chunk was lost {_TRIES} times ({name})") from error
            self._link.check_news(error)
            return
        self._link.moved()
        identity = self._plan.identity
        mapped = self._leases.add(
            self._link.answered, self._link.incarnation, identity, number, ref
        )
        del ref
        yield number, arrays, mapped
