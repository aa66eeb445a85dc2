"""What a load asks for, and the name of the owner that serves it.

Two loads have the same owner if they name the same locations with the same options. Credentials
are the exception: they change while a checkpoint stays the same, so the owner uses the latest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import _cache
from .._errors import InvalidInputError
from .._frameworks import NAMES, Device, device_name
from .._load import Locations, paths
from .._ringload import Checkpoint, Loader, parsed_memory_limit
from .plan import CHUNK_BYTES

#: Options of loads that do not go with chunks that others use as well.
_REFUSED = (
    "allocation",
    "check_finite",
    "dtype",
    "group",
    "is_distributed",
    "manifest",
    "rank",
    "slices",
    "tensors",
    "tp_plan",
    "verify",
    "world",
)

#: Options that only concern the memory of the process that reads.
_OF_PROCESS = ("hold_timeout_seconds", "keep", "memory_limit", "order")

#: How long an owner stays without a load and without a process that maps its chunks.
KEEP_SECONDS = 3600.0

#: How long a load waits for an owner that does not answer, before it reads by itself.
TIMEOUT_SECONDS = 30.0

Filter = Callable[[str, str, "tuple[int, ...]"], Any]


@dataclass(frozen=True)
class Request:
    """The arguments of a load."""

    locations: list[str]
    #: Options of `Loader` with which the owner opens the checkpoint.
    options: dict[str, Any]
    #: Further options with which this process reads if it has to.
    own: dict[str, Any]
    framework: str
    device: str
    names: frozenset[str] | None
    accepts: Filter | None
    writable: bool
    timeout_seconds: float
    #: Settings of the owner, if this load creates it.
    settings: dict[str, Any]

    @property
    def maps(self) -> bool:
        """Whether the tensors are views of the object store."""
        return self.device == "cpu" and not self.writable and self.framework != "jax"

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
    if isinstance(name, dict):
        raise InvalidInputError("ringload.ray loads to one device; give one, not a dict of globs")
    known = NAMES.get(framework) if isinstance(framework, str) else None
    if known is None:
        raise InvalidInputError(f"{framework!r} is not a framework; use torch, numpy or jax")
    if name != "cpu" and known != "torch":
        raise InvalidInputError(f"ringload.ray loads to {name} with torch only, not with {known}")
    rest, own = dict(options), {}
    timeout_seconds = _positive("timeout_seconds", rest.pop("timeout_seconds", TIMEOUT_SECONDS))
    settings = {
        "budget_bytes": _bytes("budget", rest.pop("budget", None)),
        "chunk_bytes": _bytes("chunk_size", rest.pop("chunk_size", None)) or CHUNK_BYTES,
        "keep_seconds": _positive("keep_seconds", rest.pop("keep_seconds", KEEP_SECONDS)),
    }
    names, accepts = rest.pop("names", None), rest.pop("filter", None)
    if accepts is not None and not callable(accepts):
        raise TypeError(f"filter must be callable, not {type(accepts).__name__}")
    for option in _REFUSED:
        if rest.pop(option, None):
            raise InvalidInputError(
                f"{option} does not go with ringload.ray, whose chunks hold whole tensors as they "
                f"are in the files; leave it out, or use ringload.load"
            )
    for option in _OF_PROCESS:
        if option in rest:
            own[option] = rest.pop(option)
    found, opening = opened_with(locations, rest)
    Loader(**opening, **own)  # it names what is wrong with an option
    return Request(
        found,
        opening,
        own,
        known,
        name,
        None if names is None else frozenset(names),
        accepts,
        writable,
        timeout_seconds,
        settings,
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
