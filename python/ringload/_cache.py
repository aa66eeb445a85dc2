"""The directory of the local file cache, as one setting for the whole process.

What a call says itself wins over it; it wins over the environment.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._ringload import Loader

_directory: str | None = None
"""None: nobody said anything. Empty: no cache."""

FLUSH_SECONDS = 10.0
"""The end of the interpreter waits so long for what is still to be written."""

_loaders: list[Loader] = []
"""Those whose cache may have something left to write."""


def set_local_cache_dir(path: str | os.PathLike[str] | None) -> None:
    """Keeps what is loaded from stores and web servers in a directory from now on.

    What streams in is written there behind the load, and read from there the next time. Any number
    of processes may share a directory. The end of the interpreter waits up to 10 s for what is
    still to be written; what is not written then is loaded again.

    Args:
        path: of the directory, which is made where it is missing; None for no cache, whatever the
            environment says.
    """
    global _directory  # noqa: PLW0603 - it is the setting of the process
    _directory = "" if path is None else os.fspath(path)


def with_cache(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a loader, with the directory of the process where they name none."""
    if _directory is None or options.get("cache_dir") is not None:
        return options
    return {**options, "cache_dir": _directory}


def remember(loader: Loader) -> None:
    """Waits for this loader's cache when the interpreter ends."""
    _loaders.append(loader)
    del _loaders[:-8]


def flush() -> None:
    """Waits until what was loaded is in the cache, at most for a moment."""
    for loader in _loaders:
        if not loader.flush(FLUSH_SECONDS):
            return
