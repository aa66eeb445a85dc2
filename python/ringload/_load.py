"""Loading: all tensors at once, or one after the other as they come."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Union

from . import _cache
from ._frameworks import Converter, Device, converter, device_name
from ._progress import Bar
from ._ringload import Loader, Stream

if TYPE_CHECKING:
    import torch

Locations = Union[str, "os.PathLike[str]", Iterable[Union[str, "os.PathLike[str]"]]]
"""A file, directory, pattern or index; a path or a URI; or several of them."""


def load_file(
    file_uri: Locations,
    device: Device = "cpu",
    region: str | None = None,
    *,
    framework: str = "torch",
    progress: bool | None = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Loads a checkpoint from disk, an object store or a web server.

    Besides one file, as Anyscale's `load_file` does, it takes directories, indexes and patterns of
    shards. Names of shared tensors, which `safetensors.torch.save_model` leaves out of the file and
    notes in its metadata, are there again, for one and the same tensor.

    Args:
        file_uri: a path, or a URI: `s3://`, `gs://`, `az://`, `hf://`, `anyscale://`, `http(s)://`.
        device: "cpu", "cuda" (torch's current device), "cuda:N", N, or a `torch.device`; or a dict
            of globs of names to devices, of which the first that matches counts.
        region: of the bucket of an `s3://` URI, where the environment does not say.
        framework: "torch", "numpy" or "jax".
        progress: whether to show a bar on stderr; by default where that is a terminal or a notebook
            and the load takes longer than a second.
        **options: those of `Loader`, such as `memory_limit` (bytes, or text as "256MiB": on the way
            to a GPU it may be smaller than any tensor), `headers` and `s3_credentials`.

    Returns:
        The tensors by name, with the shapes and types of the file. They are yours to write to.

    Raises:
        Error: one of its classes; the text says what to do.
    """
    return load(
        file_uri, framework=framework, device=device, region=region, progress=progress, **options
    )


def load(
    locations: Locations,
    *,
    framework: str = "torch",
    device: Device | dict[str, Device] = "cpu",
    progress: bool | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Loads all tensors of a checkpoint, or those that `names` or the globs in `tensors` say.

    Args:
        locations: a file, directory, pattern or index; a path or a URI; or several of them.
        framework: "torch", "numpy" or "jax".
        device: where tensors go; see `load_file`.
        progress: whether to show a bar; see `load_file`.
        **options: those of `Loader`.

    Returns:
        The tensors by name, in the order in which they came. Shared tensors have all their names.

    Raises:
        Error: one of its classes; the text says what to do.
    """
    convert = converter(framework)
    started = start(locations, device, options, keep_all=True)
    tensors = dict(_pairs(started, convert, progress))
    for name, kept in started.metadata().items():
        # As safetensors notes a name that it left out: the name of the tensor that has the bytes.
        if kept in tensors and name not in tensors:
            tensors[name] = tensors[kept]
    return tensors


def stream(
    locations: Locations,
    *,
    framework: str = "torch",
    device: Device | dict[str, Device] = "cpu",
    progress: bool | None = None,
    **options: Any,
) -> Iterator[tuple[str, Any]]:
    """Loads the tensors of a checkpoint one after the other, as they complete.

    The load starts with the call. Closing the iterator stops it. With a `memory_limit`, memory is
    used again as tensors are dropped, and never while anyone holds them: who keeps them all gets a
    `MemoryLimitError`.

    Args:
        locations: a file, directory, pattern or index; a path or a URI; or several of them.
        framework: "torch", "numpy" or "jax".
        device: where tensors go; see `load_file`.
        progress: whether to show a bar; see `load_file`.
        **options: those of `Loader`.

    Returns:
        An iterator of names and tensors.

    Raises:
        Error: one of its classes; the text says what to do. Some come in mid-load.
    """
    convert = converter(framework)
    return _pairs(start(locations, device, options), convert, progress)


def start(
    locations: Locations,
    device: Device | dict[str, Device] | None,
    options: dict[str, Any],
    *,
    keep_all: bool = False,
) -> Stream:
    """Starts a load, with the process's cache."""
    options = _cache.with_cache(options)
    loader = Loader(device=device_name(device), **options)
    started = loader.stream(paths(locations), keep_all=keep_all)
    _cache.remember(loader)
    return started


def paths(locations: Locations) -> list[str]:
    """Locations as the native module takes them."""
    if isinstance(locations, (str, os.PathLike)):
        return [os.fspath(locations)]
    return [os.fspath(location) for location in locations]


def _pairs(started: Stream, convert: Converter, progress: bool | None) -> Iterator[tuple[str, Any]]:
    with started, Bar(started, progress):
        for tensor in started:
            name, value = tensor.name, convert(tensor)
            del tensor
            yield name, value
            # Whoever waits for memory waits in vain for what is held here.
            del value
