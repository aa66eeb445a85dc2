"""`load_file`, `load` and `stream` of `ringload.ray`, and what shows and ends owners."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray

from .._frameworks import Device
from .._load import Locations, _may_share
from .._progress import Bar, Shown
from . import cluster
from .reader import Reader
from .report import Report
from .request import opened_with, owner_name, request

if TYPE_CHECKING:
    import torch

_STATUS_SECONDS = 10.0


class Loaded(dict[str, Any]):
    """The tensors of a load by name, with a report of where their bytes came from."""

    report: Report


class SharedStream(Iterator[tuple[str, Any]]):
    """The names and tensors of a load, as they come."""

    def __init__(self, reader: Reader, bar: Bar) -> None:
        """Starts with the first tensor."""
        self._pairs = _shown(reader, bar)
        #: Where the bytes came from, so far.
        self.report = reader.report

    def __next__(self) -> tuple[str, Any]:
        """Returns the next tensor and its name."""
        return next(self._pairs)

    def close(self) -> None:
        """Ends the load. Tensors that were yielded stay valid."""
        self._pairs.close()


def _shown(reader: Reader, bar: Bar) -> Generator[tuple[str, Any]]:
    with bar:
        yield from reader


def load_file(
    file_uri: Locations,
    device: Device = "cpu",
    region: str | None = None,
    *,
    framework: str = "torch",
    progress: Shown = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Loads a checkpoint that other replicas load as well. See `load`."""
    return load(
        file_uri, framework=framework, device=device, region=region, progress=progress, **options
    )


def load(
    locations: Locations,
    *,
    framework: str = "torch",
    device: Device = "cpu",
    progress: Shown = None,
    writable: bool = False,
    **options: Any,
) -> Loaded:
    """Loads all tensors of a checkpoint, which the store sends once for all loads of the cluster.

    In host memory the tensors are views of Ray's object store, which all processes of the node
    share: nothing may write to them. numpy enforces that; torch cannot, and a write changes the
    weights of all replicas of the node.

    Args:
        locations: a file, directory, pattern or index, given as a path or URI; or several of them.
        framework: "torch", "numpy" or "jax".
        device: the device that tensors are loaded to; see `ringload.load_file`.
        progress: whether to show a progress bar; see `ringload.load_file`.
        writable: whether to copy the tensors to memory of this process.
        **options: the options of `ringload.load`, except for those that look at whole files
            (`verify`, `manifest`) and some of the reading process, which are refused; and how the
            load is shared. Tensors are copies if `dtype`, `slices`, `tp_plan` or `check_finite` is
            given. `timeout_seconds` (30): how long to wait without news from the owner, before this
            process reads from the store. The load that creates the owner decides these: `budget`,
            how much of its node's object store it may use, in bytes or as text such as "20GiB" (by
            default 75 % of it); `chunk_size` (64 MiB); `keep_seconds` (3600), how long it stays
            when nobody uses it; and `owner_node`, the NodeID of the node that it is started on
            (by default that of this process).

    Returns:
        The tensors by name; `report` says where their bytes came from.

    Raises:
        Error: one of its subclasses; the message says what to do.
    """
    asked = request(locations, framework, device, options, writable=writable)
    with Bar(progress) as bar:
        reader = Reader(asked, bar.progress, keeps_all=True)
        tensors = Loaded(reader)
    for name, kept in reader.metadata().items():
        if kept in tensors and not reader.has_tensor(name) and _may_share(name, kept):
            tensors[name] = tensors[kept]
    tensors.report = reader.report
    return tensors


def stream(
    locations: Locations,
    *,
    framework: str = "torch",
    device: Device = "cpu",
    progress: Shown = None,
    writable: bool = False,
    **options: Any,
) -> SharedStream:
    """Loads the tensors of a checkpoint as `load` does, and yields each one when it is there.

    A chunk stays in memory as long as a tensor of it lives.
    """
    asked = request(locations, framework, device, options, writable=writable)
    bar = Bar(progress)
    return SharedStream(Reader(asked, bar.progress, keeps_all=False), bar)


def status() -> list[dict[str, Any]]:
    """Returns what the owners of the cluster have in memory: one dict for each.

    `read_bytes` is what an owner has read from the store, `resident_bytes` what it keeps now in the
    object store of `node`, of at most `budget_bytes`. An owner that does not answer is left out.
    """
    cluster.check_connected()
    calls = [(name, handle.status.remote()) for name, handle in cluster.owners()]
    found = []
    for name, call in calls:
        with suppress(ray.exceptions.RayError):
            found.append({"name": name, **ray.get(call, timeout=_STATUS_SECONDS)})
    return found


def release(locations: Locations | None = None, **options: Any) -> int:
    """Ends the owner of a checkpoint, or all owners. Tensors that processes map stay valid.

    Args:
        locations: as given to `load`; None for all owners of the cluster.
        **options: the options of `Loader` that were given to `load`.

    Returns:
        How many owners were ended.
    """
    cluster.check_connected()
    wanted = None if locations is None else owner_name(*opened_with(locations, options))
    handles = [one for name, one in cluster.owners() if wanted is None or name == wanted]
    for handle in handles:
        ray.kill(handle, no_restart=True)
    return len(handles)
