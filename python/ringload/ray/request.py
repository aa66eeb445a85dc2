"""What a load asks for, and the name of the owner that serves it.

Two loads have the same owner if they name the same locations with the same options. Credentials
are the exception: they change while a checkpoint stays the same, so the owner uses the latest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _cache, _slices
from .._errors import InvalidInputError
from .._frameworks import NAMES, Device, device_name, is_host
from .._load import Locations, paths
from .._ringload import Checkpoint, Loader, parsed_memory_limit
from .._slices import Parts
from .plan import CHUNK_BYTES

#: Options that do not go with chunks that others use as well, and what to do instead.
_REFUSED = {
    "hold_timeout_seconds": "nothing waits for tensors that are held; leave it out",
    "is_distributed": "ranks share the owner's chunks; leave it out, and give rank and world",
    "keep": "no memory limit counts the tensors that are kept; leave it out",
    "manifest": "the owner reads ranges of files; check them with ringload.load",
    "runai_env": "the owner does not have this environment; leave it out",
    "verify": "the owner reads ranges of files; check them with ringload.load",
}

#: Of these options some values are refused.
_REFUSED_VALUES = {
    ("order", "file"): "chunks come as they are ready; leave it out, or use ringload.load",
    ("read_path", "mapped"): "the owner copies what it reads to Ray's object store; use auto",
    ("read_path", "gds"): "the owner reads into host memory; use auto",
}

#: Options that select tensors.
_SELECTING = ("names", "tensors")

#: Options of the tensors that this process makes. The first two make copies of them.
_OF_TENSORS = ("check_finite", "dtype", "allocation", "memory_limit")

#: How long an owner stays without a load and without a process that maps its chunks.
KEEP_SECONDS = 3600.0

#: How long a load waits for an owner that does not answer, before it reads by itself.
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """The arguments of a load."""

    locations: list[str]
    #: Options of `Loader` with which the owner opens the checkpoint.
    options: dict[str, Any]
    #: Options of `Loader` for the tensors of this process.
    own: dict[str, Any]
    #: Options of `Loader` that select tensors.
    selection: dict[str, Any]
    #: Which parts of the tensors to load, and which tensors a filter accepts.
    parts: Parts
    framework: str
    device: str | dict[str, str]
    writable: bool
    timeout_seconds: float
    #: Settings of the owner, if this load creates it.
    settings: dict[str, Any]
    #: The node on which the owner is created; None for that of the first load.
    owner_node: str | None

    @property
    def maps(self) -> bool:
        """Whether the tensors are views of the object store."""
        changes = self.parts.rules or self.own.get("dtype") or self.own.get("check_finite")
        copies = self.writable or self.framework == "jax" or changes
        return is_host(self.device) and not copies

    def loader(self, **options: Any) -> Loader:
        """Returns a loader that makes the tensors of this process."""
        return Loader(device=self.device, slices=self.parts.rules, **self.own, **options)

    def loader_of_chunks(self, **options: Any) -> Loader:
        """Returns a loader of tensors in memory, for which only the ring of GPUs has a limit."""
        limit = {"memory_limit": "none"} if is_host(self.device) else {}
        return self.loader(**limit, **options)

    def name(self) -> str:
        """Returns the name of the actor that owns what this load reads."""
        return owner_name(self.locations, self.options)

    def payload(self) -> dict[str, Any]:
        """Returns what the owner has to know, in plain types."""
        return {"locations": self.locations, "options": self.options}


def request(
    locations: Locations,
    framework: str,
    device: Device | dict[str, Device],
    options: dict[str, Any],
    *,
    writable: bool,
) -> Request:
    """Checks the arguments of a load. Of the options, those that say how it is shared are here.

    Raises:
        InvalidInputError: an argument does not go with a load that is shared.
    """
    name = device_name(device)
    known = NAMES.get(framework) if isinstance(framework, str) else None
    if known is None:
        raise InvalidInputError(f"{framework!r} is not a framework; use torch, numpy or jax")
    if known == "numpy" and not is_host(name):
        raise InvalidInputError(f"numpy has no arrays on {name}; load to cpu, or use torch")
    rest = {option: one for option, one in options.items() if one is not None}
    timeout_seconds = _positive("timeout_seconds", rest.pop("timeout_seconds", TIMEOUT_SECONDS))
    settings = {
        "budget_bytes": _bytes("budget", rest.pop("budget", None)),
        "chunk_bytes": _bytes("chunk_size", rest.pop("chunk_size", None)) or CHUNK_BYTES,
        "keep_seconds": _positive("keep_seconds", rest.pop("keep_seconds", KEEP_SECONDS)),
    }
    owner_node = rest.pop("owner_node", None)
    _refuse(rest, name)
    parts, rest = _slices.take(rest)
    selection = {option: rest.pop(option) for option in _SELECTING if option in rest}
    own = {option: rest.pop(option) for option in _OF_TENSORS if option in rest}
    found, opening = opened_with(locations, rest)
    # It names what is wrong with an option.
    Loader(device=name, slices=parts.rules, **opening, **selection, **own)
    return Request(
        found,
        opening,
        own,
        selection,
        parts,
        known,
        name,
        writable,
        timeout_seconds,
        settings,
        owner_node,
    )


def _refuse(options: dict[str, Any], device: str | dict[str, str]) -> None:
    """Takes options out of `options` that have no effect.

    Raises:
        InvalidInputError: an option does not go with a load that is shared.
    """
    for option, remedy in _REFUSED.items():
        if options.pop(option, None):
            raise InvalidInputError(f"{option} does not go with ringload.ray: {remedy}")
    for (option, value), remedy in _REFUSED_VALUES.items():
        if options.get(option) == value:
            raise InvalidInputError(f"{option}={value!r} does not go with ringload.ray: {remedy}")
    Loader(order=options.pop("order", None))
    if "memory_limit" in options and is_host(device):
        raise InvalidInputError(
            "memory_limit does not go with ringload.ray in host memory: chunks are in Ray's object "
            "store, which budget bounds; leave it out"
        )


def opened_with(locations: Locations, options: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Returns locations and options as the owner takes them, which has another directory."""
    rest = {name: one for name, one in _cache.with_cache(options).items() if one is not None}
    if rest.get("cache_dir"):
        rest["cache_dir"] = os.path.abspath(os.fspath(rest["cache_dir"]))
    return [_absolute(location) for location in paths(locations)], rest


def owner_name(locations: Sequence[str], options: dict[str, Any]) -> str:
    """Returns the name of the actor that owns the checkpoint at `locations`."""
    opened = {name: one for name, one in options.items() if name != "s3_credentials"}
    text = json.dumps([list(locations), opened], sort_keys=True, default=str)
    return "weights-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def identity_of(checkpoint: Checkpoint) -> str:
    """Returns a digest of the validators of all files. Equal digests mean equal bytes."""
    return hashlib.sha256(json.dumps(checkpoint.versions()).encode()).hexdigest()


def _absolute(location: str) -> str:
    return location if "://" in location else os.path.abspath(location)


def _positive(name: str, seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise InvalidInputError(f"{name} is {seconds!r}; use seconds, more than 0")
    return float(seconds)


def _bytes(name: str, size: Any) -> int | None:
    if size is None:
        return None
    try:
        parsed = parsed_memory_limit(str(size))
    except InvalidInputError:
        parsed = ""
    if not isinstance(parsed, int):
        raise InvalidInputError(f"{name} is {size!r}; use bytes, or text such as '20GiB'")
    return parsed
