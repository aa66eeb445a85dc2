"""The directory of the local file cache, as a setting of the process.

The `cache_dir` of a call overrides this setting, and this setting overrides the environment.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._ringload import Loader

_directory: str | None = None
"""None: the process has not chosen a directory. Empty: the process has switched the cache off."""

FLUSH_SECONDS = 10.0
"""How long the interpreter waits at its end for the cache of each loader to be written."""

_loaders: list[Loader] = []
"""The loaders whose cache may still have data to write: the last few that started a load."""


def set_local_cache_dir(path: str | os.PathLike[str] | None) -> None:
    """Caches files from object stores and web servers in a local directory from now on.

    The data of a load is written to the directory in the background, and later loads read it from
    there. Any number of processes may share a directory. The interpreter waits up to 10 s at its
    end for data that is still being written; data that is not written by then is downloaded again
    by the next load.

    Args:
        path: the path of the directory, which is created if it does not exist; None disables the
            cache even where the environment configures one.
    """
    global _directory  # noqa: PLW0603 - this is a setting of the process
    _directory = "" if path is None else os.fspath(path)


def with_cache(options: dict[str, Any]) -> dict[str, Any]:
    """Adds the process's cache directory to the options of a loader that name none."""
    if _directory is None or options.get("cache_dir") is not None:
        return options
    return {**options, "cache_dir": _directory}


def flush_at_exit(loader: Loader) -> None:
    """Registers a loader whose cache is flushed when the interpreter ends."""
    _loaders.append(loader)
    del _loaders[:-8]


def flush() -> None:
    """Waits until the caches of the registered loaders are written, up to `FLUSH_SECONDS`."""
    for loader in _loaders:
        if not loader.flush(FLUSH_SECONDS):
            return
