"""The options in `model_loader_extra_config`, and their checks.

The options are checked when vLLM creates the loader, before it builds a model, so that a misspelt
key is reported at once, with the list of valid keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .._errors import InvalidInputError


@dataclass(frozen=True)
class Options:
    """The options, which the docstring of the package describes."""

    locations: Mapping[str, str] = field(default_factory=dict)
    memory_limit: int | str | None = None
    concurrency: int | None = None
    device: str = "cpu"
    distributed: bool = False
    enable_weights_track: bool | None = None

    def of_vllm(self) -> dict[str, Any]:
        """Returns the options that are those of vLLM's default loader."""
        if self.enable_weights_track is None:
            return {}
        return {"enable_weights_track": self.enable_weights_track}

    @classmethod
    def of(cls, extra: object) -> Options:
        """Returns the options in a `model_loader_extra_config`.

        Raises:
            InvalidInputError: a key is unknown, or a value is invalid.
        """
        if not isinstance(extra, Mapping):
            raise _invalid("must be an object of keys and values", extra)
        known = [option.name for option in fields(cls)]
        unknown = sorted(str(key) for key in extra if key not in known)
        if unknown:
            raise _invalid(f"accepts the keys {', '.join(known)}", unknown)
        checked: dict[str, Any] = {key: _CHECKS[key](key, value) for key, value in extra.items()}
        options = cls(**checked)
        if options.distributed and (options.memory_limit, options.concurrency) != (None, None):
            raise InvalidInputError(
                "model_loader_extra_config: distributed excludes memory_limit and concurrency; "
                "set RINGLOAD_MEMORY_LIMIT and RINGLOAD_CONCURRENCY for the machine instead"
            )
        return options


def _locations(key: str, value: Any) -> Mapping[str, str]:
    is_text = isinstance(value, Mapping) and all(
        isinstance(text, str) and text for pair in value.items() for text in pair
    )
    if not is_text:
        raise _invalid(f"{key} must be an object from model names to locations of weights", value)
    return dict(value)


def _memory_limit(key: str, value: Any) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise _invalid(f"{key} must be a number of bytes, 0, -1, or text such as 4GiB", value)
    return {-1: "unlimited", 0: "min"}.get(value, value)


def _concurrency(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _invalid(f"{key} must be a number, at least 1", value)
    return value


def _device(key: str, value: Any) -> str:
    if value not in ("cpu", "cuda"):
        raise _invalid(f'{key} must be "cpu" or "cuda" (the GPU of the rank)', value)
    return str(value)


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(f"{key} must be true or false", value)
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "locations": _locations,
    "memory_limit": _memory_limit,
    "concurrency": _concurrency,
    "device": _device,
    "distributed": _flag,
    "enable_weights_track": _flag,
}


def _invalid(requirement: str, value: object) -> InvalidInputError:
    return InvalidInputError(f"model_loader_extra_config {requirement}, not {value!r}")
