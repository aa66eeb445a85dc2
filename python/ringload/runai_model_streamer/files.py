"""Listing and downloading the files of a model in a store.

Patterns are those of `fnmatch`: `*` also matches slashes. They are compared with the whole key of
an object, as Run:ai's streamer does, and with its path below the model, as one would expect.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from typing import Any, Union

from .._errors import InvalidInputError, UnsupportedError
from .._ringload import Loader
from .credentials import loader_options

_SAFETENSORS = "*.safetensors"

#: One pattern or several.
Patterns = Union[str, Sequence[str], None]


def list_safetensors(path: str | os.PathLike[str], s3_credentials: Any | None = None) -> list[str]:
    """The safetensors files in a directory, sorted; not those further down.

    Args:
        path: a local directory, or one of a store that can be listed: `s3://`, `gs://`, `az://`,
            `hf://`.
        s3_credentials: for `s3://`; without them, those that the AWS SDKs find.

    Returns:
        Their paths or URIs; none where there is no such directory.

    Raises:
        Error: what the store says.
    """
    directory = os.fsdecode(path)
    if "://" not in directory:
        return sorted(glob.glob(os.path.join(glob.escape(directory), _SAFETENSORS)))
    listed = _loader(directory, s3_credentials).list(_as_directory(directory))
    return [file for file, _ in listed if fnmatch(file, _SAFETENSORS)]


def pull_files(
    model_path: str,
    dst: str | os.PathLike[str],
    allow_pattern: Patterns = None,
    ignore_pattern: Patterns = None,
    s3_credentials: Any | None = None,
) -> None:
    """Downloads the files below a directory of a store, of any kind, to a local one.

    Each file is written whole or not at all, and replaces one that exists. When the download breaks
    off, the hidden directory `.ringload-download` in `dst` holds what has arrived, and the next
    call resumes there.

    Args:
        model_path: the directory in the store.
        dst: the local directory, made if need be.
        allow_pattern: only files that match one of these.
        ignore_pattern: no files that match one of these.
        s3_credentials: for `s3://`; without them, those that the AWS SDKs find.

    Raises:
        UnsupportedError: for a local `model_path`.
        InvalidInputError: for an object whose name would lead out of `dst`.
        Error: what the store or the file system says.
    """
    if "://" not in model_path:
        raise UnsupportedError(f"{model_path} is local already; pull_files is for object stores")
    directory = _as_directory(model_path)
    loader = _loader(directory, s3_credentials)
    root = os.path.realpath(os.fsdecode(dst))
    files = [
        (file, _inside(root, file[len(directory) :]), size)
        for file, size in loader.list(directory, recursive=True)
        if not file.endswith("/")
        and (allow_pattern is None or _matches(file, directory, allow_pattern))
        and (ignore_pattern is None or not _matches(file, directory, ignore_pattern))
    ]
    loader.download(
        root, [(file, os.path.relpath(path, root)) for file, path, size in files if size > 0]
    )
    for _, path, size in files:
        if size == 0:  # stores refuse a range of an empty object
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb"):
                pass


def _loader(location: str, s3_credentials: Any | None) -> Loader:
    # What becomes a file is not kept a second time.
    options = loader_options(s3_credentials, [location])
    return Loader(cache_dir="", runai_env=True, **options)


def _as_directory(location: str) -> str:
    return location if location.endswith("/") else f"{location}/"


def _matches(file: str, directory: str, patterns: str | Iterable[str]) -> bool:
    """Whether one of `patterns` matches the key of `file`, or its path below `directory`."""
    below = file[len(directory) :]
    key = file.partition("://")[2].partition("/")[2]
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch(key, pattern) or fnmatch(below, pattern) for pattern in listed)


def _inside(root: str, name: str) -> str:
    """The path of `name` below `root`, which is a real path.

    Raises:
        InvalidInputError: where that would be somewhere else.
    """
    path = os.path.realpath(os.path.join(root, name.lstrip("/")))
    if os.path.commonpath([root, path]) != root or path == root:
        raise InvalidInputError(f"the object {name!r} would be written outside of {root}")
    return path
