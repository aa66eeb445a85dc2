"""A load: takes chunks from their owner, or else reads tensors from the store.

    owner answers        chunks arrive in the order in which they are ready; Ray moves them here
    owner is gone        it is asked again once Ray has started it, and learns what this load needs
    a chunk is lost      it is asked for again; after some tries the rest is read from the store
    nothing for a while  the rest is read from the store

Each wait has an end. A load that reads from the store compares the version of what it opens with
the version that it began with. So the tensors of a load are all of one version, or there is an
error.
"""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

from .._errors import ChangedError, NotFoundError
from .._frameworks import converter
from .._ringload import Loader
from . import cluster
from .arrivals import Arrivals
from .leases import leases
from .link import WAIT_SECONDS, Link, Unavailable
from .plan import Entry, Plan, of_plain
from .report import Report
from .request import Request, identity_of
from .views import maker, tensors_of

LOG = logging.getLogger("ringload.ray")

#: How many chunks a load takes at a time that does not keep them.
_PASSING_CHUNKS = 4

#: The share of a node's object store that a load may map.
_MAPPED_SHARE = 0.9


class Reader:
    """A load of one process."""

    def __init__(self, request: Request, *, keeps_all: bool) -> None:
        """Asks the owner for the plan, and creates the owner if there is none.

        Args:
            request: the arguments of the load.
            keeps_all: whether the caller keeps all tensors.

        Raises:
            Error: the checkpoint cannot be opened, or lacks a tensor that was asked for.
        """
        cluster.check_connected()
        self._began_at = time.monotonic()
        self._request = request
        self._maps_all = keeps_all and request.maps
        self._node = cluster.this_node()
        self._link = Link(request)
        self._plan: Plan | None = None
        #: What `metadata` and `has_tensor` return.
        self._metadata: dict[str, str] = {}
        self._names: frozenset[str] = frozenset()
        self.report = Report(", ".join(request.locations))
        try:
            self._plan = self._attach()
        except Unavailable as error:
            self._reads_itself(str(error))
            return
        self._metadata = self._plan.metadata
        self._names = frozenset(entry.name for entry in self._plan.entries)
        self._chosen = self._choose(self._plan.entries)
        self._chunks = [
            number
            for number in range(self._plan.chunk_count)
            if any(entry.name in self._chosen for entry in self._plan.of_chunk(number))
        ]
        if self._maps_all:
            self._check_room(self._plan)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yields the names and tensors, in the order in which they come.

        Raises:
            Error: reading failed.
        """
        if self._plan is None:
            yield from self._directly(None)
        else:
            left = set(self._chosen)
            if self.report.reason is None:
                yield from self._shared(self._plan, left)
            if left:
                yield from self._directly([e.name for e in self._plan.entries if e.name in left])
        self.report.seconds = time.monotonic() - self._began_at
        LOG.info("%s", self.report)

    def metadata(self) -> dict[str, str]:
        """Returns the metadata of the checkpoint, after the load."""
        return self._metadata

    def has_tensor(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name, after the load."""
        return name in self._names

    def _attach(self) -> Plan:
        load = uuid.uuid4().hex
        payload = self._request.payload()
        while True:
            answer = self._link.ask("attach", payload, load, WAIT_SECONDS)
            if answer is not None and "plan" in answer:
                self._since, self._budget_bytes = answer["now"], answer["budget"]
                if answer["warning"] is not None:
                    LOG.warning("%s: %s", self.report.location, answer["warning"])
                return of_plain(answer["plan"])

    def _choose(self, entries: list[Entry]) -> frozenset[str]:
        """Returns the names of the tensors to load."""
        names, accepts = self._request.names, self._request.accepts
        if names is not None:
            lacking = sorted(names - self._names)
            if lacking:
                raise NotFoundError(f"the checkpoint has no tensor called {lacking[0]!r}")
            entries = [entry for entry in entries if entry.name in names]
        if accepts is not None:
            entries = [e for e in entries if accepts(e.name, e.dtype, e.shape)]
        return frozenset(entry.name for entry in entries)

    def _check_room(self, plan: Plan) -> None:
        """Looks whether the object stores have room for all that this load maps."""
        needed = sum(plan.chunk_bytes(number) for number in self._chunks)
        here = cluster.store_bytes(self._node)
        if needed > self._budget_bytes:
            self._reads_itself(
                f"the tensors have {needed} bytes, and the owner may use {self._budget_bytes} of "
                "its node's object store; give the node more (object_store_memory of ray start), "
                "raise budget=, or copy the tensors (writable=True)"
            )
        elif here is not None and needed > here * _MAPPED_SHARE:
            self._reads_itself(
                f"the tensors have {needed} bytes, and the object store of this node has {here}; "
                "give the node more (object_store_memory of ray start), or copy the tensors "
                "(writable=True)"
            )

    def _shared(self, plan: Plan, left: set[str]) -> Iterator[tuple[str, Any]]:
        """Yields what the owner gives, and takes its names out of `left`."""
        request = self._request
        make = maker(request.framework, request.device, writable=request.writable)
        is_numpy = request.framework == "numpy"
        arrivals = Arrivals(
            self._link,
            leases(),
            request.payload(),
            plan,
            self._chunks,
            len(self._chunks) if self._maps_all else _PASSING_CHUNKS,
            self.report,
            self._node,
            self._since,
        )
        try:
            for number, arrays, mapped in arrivals:
                entries = plan.of_chunk(number)
                tensors = tensors_of(entries, arrays, mapped, make, read_only=is_numpy)
                # The chunk is kept by its tensors alone, and a tensor by the caller.
                del arrays, mapped
                for entry in entries:
                    tensor = tensors.pop(0)
                    if entry.name in left:
                        left.discard(entry.name)
                        yield entry.name, tensor
                    del tensor
        except Unavailable as error:
            self._reads_itself(str(error))
        finally:
            arrivals.close()

    def _directly(self, names: list[str] | None) -> Iterator[tuple[str, Any]]:
        """Reads tensors from the store: `names`, or all that the request asks for."""
        request = self._request
        own = dict(request.own)
        if names is None and request.names is not None:
            own["names"] = sorted(request.names)
        opened = Loader(device=request.device, **request.options, **own).open(request.locations)
        if self._plan is not None and identity_of(opened) != self._plan.identity:
            raise ChangedError(
                f"{self.report.location} was replaced in its store while it was being loaded, and "
                "the rest of what this load began with can no longer be read; load it again"
            )
        self._metadata, self._names = opened.metadata(), frozenset(opened.keys())
        if self._plan is None and request.accepts is not None:
            infos = [(name, opened.info(name)) for name in own.get("names", opened.keys())]
            names = [n for n, i in infos if request.accepts(n, i["dtype"], i["shape"])]
        convert = converter(request.framework)
        with opened.stream(names=names) as stream:
            for tensor in stream:
                self.report.store_bytes += tensor.nbytes
                name, value = tensor.name, convert(tensor)
                del tensor
                yield name, value
                del value

    def _reads_itself(self, reason: str) -> None:
        """Records that this load reads from the store, and warns."""
        self.report.reason = reason
        text = f"{self.report.location}: this process reads from the store itself: {reason}"
        LOG.warning("%s", text)
        warnings.warn(text, RuntimeWarning, stacklevel=2)
