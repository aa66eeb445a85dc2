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
from typing import Any, Callable

from .._errors import ChangedError
from .._frameworks import converter
from .._ringload import Checkpoint, Progress, ProgressPart
from . import cluster
from .arrivals import Arrivals
from .leases import leases
from .link import WAIT_SECONDS, Link, Unavailable
from .plan import Entry, Plan, described, of_plain
from .report import Report
from .request import Request, identity_of
from .views import maker, views_of

LOG = logging.getLogger("ringload.ray")

#: How many chunks a load takes at a time that does not keep them.
_PASSING_CHUNKS = 4

#: The share of a node's object store that a load may map.
_MAPPED_SHARE = 0.9

_TensorsOf = Callable[[list[Entry], Any, object], Iterator[tuple[str, Any]]]
"""Yields the names and tensors of a chunk: of its entries, its arrays, and what keeps it."""


class Reader:
    """A load of one process."""

    def __init__(self, request: Request, progress: Progress, *, keeps_all: bool) -> None:
        """Asks the owner for the plan, and creates the owner if there is none.

        Args:
            request: the arguments of the load.
            progress: counts what has arrived.
            keeps_all: whether the caller keeps all tensors.

        Raises:
            Error: the checkpoint cannot be opened, or lacks a tensor that was asked for.
        """
        cluster.check_connected()
        cluster.check_node(request.owner_node)
        self._began_at = time.monotonic()
        self._request, self._progress = request, progress
        self._maps_all = keeps_all and request.maps
        self._node = cluster.this_node()
        self._link = Link(request)
        self._plan: Plan | None = None
        #: What `metadata` and `has_tensor` return.
        self._metadata: dict[str, str] = {}
        self._names: frozenset[str] = frozenset()
        #: The tensors to load, with the bytes that are loaded of each.
        self._chosen: dict[str, int] = {}
        self._part: ProgressPart | None = None
        self.report = Report(", ".join(request.locations))
        try:
            self._plan = self._attach()
        except Unavailable as error:
            self._reads_itself(str(error))
            return
        self._metadata = self._plan.metadata
        self._names = frozenset(entry.name for entry in self._plan.entries)
        self._choose(self._described(self._plan))
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

    def _described(self, plan: Plan) -> Checkpoint:
        """Returns the checkpoint of a plan, of which loads can be planned."""
        tensors, offset = [], 0
        for entry in plan.entries:
            tensors.append((entry.name, entry.dtype, entry.shape, offset))
            offset += entry.nbytes
        loader = self._request.loader_of_chunks(**self._request.selection)
        return loader.in_memory(self._request.locations[0], tensors)

    def _choose(self, checkpoint: Checkpoint) -> None:
        """Finds the tensors to load, as a load that is not shared would."""
        accepted = set(self._request.parts.names(checkpoint))
        for name, _shape, nbytes, _read_bytes in checkpoint.planned():
            if name in accepted:
                self._chosen[name] = nbytes
        self._part = self._progress.part(sum(self._chosen.values()))

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
        tensors_of = self._views() if request.maps else self._copies()
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
                tensors = tensors_of(plan.of_chunk(number), arrays, mapped)
                # The chunk is kept by its tensors alone, and a tensor by the caller.
                del arrays, mapped
                for name, tensor in tensors:
                    if name in left:
                        left.discard(name)
                        self._deliver(name)
                        yield name, tensor
                    del tensor
        except Unavailable as error:
            self._reads_itself(str(error))
        finally:
            arrivals.close()

    def _views(self) -> _TensorsOf:
        """Returns what makes tensors of a chunk that are views of it."""
        framework = self._request.framework
        make = maker(framework)

        def views(entries: list[Entry], arrays: Any, mapped: object) -> Iterator[tuple[str, Any]]:
            made = views_of(entries, arrays, mapped, make, read_only=framework == "numpy")
            del arrays, mapped
            made.reverse()
            for entry in entries:
                yield entry.name, made.pop()

        return views

    def _copies(self) -> _TensorsOf:
        """Returns what loads tensors of a chunk from its memory, as other loads do from files.

        The memory goes to GPUs through the pinned ring of the loader, which keeps it for the next
        chunk.
        """
        request, loader = self._request, self._request.loader_of_chunks()
        convert = converter(request.framework)

        def copies(entries: list[Entry], arrays: Any, mapped: object) -> Iterator[tuple[str, Any]]:
            tensors = described(entries, [array.nbytes for array in arrays])
            opened = loader.in_memory(request.locations[0], tensors, arrays)
            names = [entry.name for entry in entries if entry.name in self._chosen]
            with opened.stream(names=names) as stream:
                for tensor in stream:
                    name, value = tensor.name, convert(tensor)
                    del tensor
                    yield name, value
                    del value

        return copies

    def _directly(self, names: list[str] | None) -> Iterator[tuple[str, Any]]:
        """Reads tensors from the store: `names`, or all that the request asks for."""
        request = self._request
        loader = request.loader(**request.options, **request.selection)
        opened = loader.open(request.locations)
        if self._plan is not None and identity_of(opened) != self._plan.identity:
            raise ChangedError(
                f"{self.report.location} was replaced in its store while it was being loaded, and "
                "the rest of what this load began with can no longer be read; load it again"
            )
        self._metadata, self._names = opened.metadata(), frozenset(opened.keys())
        if self._plan is None:
            self._choose(opened)
        convert = converter(request.framework)
        with opened.stream(names=list(self._chosen) if names is None else names) as stream:
            for tensor in stream:
                self.report.store_bytes += self._chosen[tensor.name]
                self._deliver(tensor.name)
                name, value = tensor.name, convert(tensor)
                del tensor
                yield name, value
                del value

    def _deliver(self, name: str) -> None:
        if self._part is not None:
            self._part.deliver(self._chosen[name])

    def _reads_itself(self, reason: str) -> None:
        """Records that this load reads from the store, and warns."""
        self.report.reason = reason
        text = f"{self.report.location}: this process reads from the store itself: {reason}"
        LOG.warning("%s", text)
        warnings.warn(text, RuntimeWarning, stacklevel=2)
