"""Lists and downloads the files of a model in an object store.

Patterns have the syntax of `fnmatch`, in which `*` also matches slashes. A file matches a pattern
if its whole object key matches, as in Run:ai's streamer, or its path relative to the model does.
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

#: The beginnings of names of files that are not the model itself, by what they are, as the loads of
#: directories know them: `src/checkpoint/resolve/selection.rs`.
_PURPOSES: tuple[tuple[str, ...], ...] = (
    ("consolidated",),
    ("adapter",),
    ("optimizer", "scheduler", "training", "random_states", "rng_state", "tmp_"),
)

#: One pattern or several.
Patterns = Union[str, Sequence[str], None]


def list_safetensors(path: str | os.PathLike[str], s3_credentials: Any | None = None) -> list[str]:
    """Lists the safetensors files of a model in a directory, without its subdirectories.

    Files that frameworks leave out are left out where there are files of the model itself: those in
    the format of the authors (`consolidated`), adapters, and the state of a training.

    Args:
        path: a local directory, or a directory in a store: `s3://`, `gs://`, `az://`, `hf://`.
        s3_credentials: the credentials for `s3://`; None for those that the AWS SDKs would use.

    Returns:
        The sorted paths or URIs of the files; empty if the directory does not exist.

    Raises:
        Error: the store cannot be listed.
    """
    directory = os.fsdecode(path)
    if "://" not in directory:
        found = sorted(glob.glob(os.path.join(glob.escape(directory), _SAFETENSORS)))
        return _of_the_model(found)
    listed = _loader(directory, s3_credentials).list(_as_directory(directory))
    return _of_the_model([file for file, _ in listed if fnmatch(file, _SAFETENSORS)])


def pull_files(
    model_path: str,
    dst: str | os.PathLike[str],
    allow_pattern: Patterns = None,
    ignore_pattern: Patterns = None,
    s3_credentials: Any | None = None,
) -> None:
    """Downloads all files below a directory of an object store to a local directory.

    The files may be of any type. Each file appears in `dst` when it is complete, and replaces an
    existing file. If the download fails, the hidden directory `.ringload-download` in `dst` keeps
    the data that has arrived, and the next call resumes from it.

    Args:
        model_path: the directory in the store.
        dst: the local directory, which is created if it does not exist.
        allow_pattern: downloads only files that match one of these patterns.
        ignore_pattern: does not download files that match one of these patterns.
        s3_credentials: the credentials for `s3://`; None for those that the AWS SDKs would use.

    Raises:
        UnsupportedError: `model_path` is a local path.
        InvalidInputError: an object has a name that would be written outside of `dst`.
        Error: the store or the file system failed.
    """
    if "://" not in model_path:
        raise UnsupportedError(
            f"{model_path} is a local path; pull_files downloads from object stores"
        )
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
        if size == 0:  # object stores reject range requests for empty objects
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb"):
                pass


def _of_the_model(files: list[str]) -> list[str]:
    """Returns the files of the first purpose, in the order of `_PURPOSES`, that any file has."""
    purposes = [_purpose(file) for file in files]
    first = min(purposes, default=0)
    return [file for file, purpose in zip(files, purposes) if purpose == first]


def _purpose(file: str) -> int:
    name = file.rpartition("/")[2]
    for number, prefixes in enumerate(_PURPOSES, 1):
        if name.startswith(prefixes):
            return number
    return 0


def _loader(location: str, s3_credentials: Any | None) -> Loader:
    # The files are written to `dst`, so the local file cache is switched off.
    options = loader_options(s3_credentials, [location])
    return Loader(cache_dir="", runai_env=True, **options)


def _as_directory(location: str) -> str:
    return location if location.endswith("/") else f"{location}/"


def _matches(file: str, directory: str, patterns: str | Iterable[str]) -> bool:
    """Returns whether a pattern matches the key of `file` or its path relative to `directory`."""
    below = file[len(directory) :]
    key = file.partition("://")[2].partition("/")[2]
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch(key, pattern) or fnmatch(below, pattern) for pattern in listed)


def _inside(root: str, name: str) -> str:
    """Returns the path of `name` below `root`, which has no symbolic links.

    Raises:
        InvalidInputError: the path is outside of `root`.
    """
    path = os.path.realpath(os.path.join(root, name.lstrip("/")))
    if os.path.commonpath([root, path]) != root or path == root:
        raise InvalidInputError(f"the object {name!r} would be written outside of {root}")
    return path
