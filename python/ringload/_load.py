"""`load_file`, `load` and `stream`: loading all tensors at once, or one at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Union

from . import _cache, _slices
from ._frameworks import Converter, Device, converter, device_name
from ._progress import Bar, Shown
from ._ringload import Loader, Progress, Stream

if TYPE_CHECKING:
    import torch

    from .distributed.load import SharedParts

# The beginning of a URI that was made a path.
PATH_OF_URI = re.compile("(s3|gs|az|hf|anyscale|https?):/[^/]")

Locations = Union[str, "os.PathLike[str]", Iterable[Union[str, "os.PathLike[str]"]]]
"""A file, directory, pattern or index, given as a path or URI; or several of them."""


def load_file(
    file_uri: Locations,
    device: Device = "cpu",
    region: str | None = None,
    *,
    framework: str = "torch",
    progress: Shown = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Loads a checkpoint from disk, an object store or a web server.

    The arguments are those of Anyscale's `load_file`, which loads a single file; this function also
    loads directories, indexes and patterns of shards. `safetensors.torch.save_model` writes only
    one name of a shared tensor and lists the others in the metadata: the result has all names that
    are the same attribute of different modules, for the same tensor.

    Args:
        file_uri: a path, or a URI: `s3://`, `gs://`, `az://`, `hf://`, `anyscale://`, `http(s)://`.
        device: "cpu", "cuda" (torch's current device), "cuda:N", N, or a `torch.device`; or a dict
            from globs of tensor names to devices, in which the first match applies.
        region: the region of the bucket of an `s3://` URI, if the environment does not set it.
        framework: "torch", "numpy" or "jax".
        progress: whether to show a progress bar on stderr. By default it is shown if stderr is a
            terminal or a notebook and the load takes longer than a second. A `ringload.Progress`
            shows no bar: any thread can ask it how many bytes have arrived.
        **options: the options of `Loader`, such as `memory_limit` (a number of bytes, or text such
            as "256MiB"; for loads to a GPU it may be smaller than the largest tensor), `headers`
            and `s3_credentials`.

    Returns:
        The tensors by name, with the shapes and types in the file. The caller may write to them.

    Raises:
        Error: one of its subclasses; the message says what to do.
    """
    return load(
        file_uri, framework=framework, device=device, region=region, progress=progress, **options
    )


def load(
    locations: Locations,
    *,
    framework: str = "torch",
    device: Device | dict[str, Device] = "cpu",
    progress: Shown = None,
    **options: Any,
) -> dict[str, Any]:
    """Loads all tensors of a checkpoint, or those that the options `names` and `tensors` select.

    Args:
        locations: a file, directory, pattern or index, given as a path or URI; or several of them.
        framework: "torch", "numpy" or "jax".
        device: the device that tensors are loaded to; see `load_file`.
        progress: whether to show a progress bar; see `load_file`.
        **options: the options of `Loader`. `names` selects tensors by name, `tensors` by globs, and
            `filter`, a callable of name, type and shape, of those the ones that it returns true
            for. `slices` says which part of tensors to load, by a dict of globs: a dimension that
            is divided among the ranks, a `ringload.Share`, or an index as a slice or a tuple of
            slices. The first glob that matches counts. `tp_plan` is the plan of tensor parallelism
            of a model of transformers (`model.tp_plan`). `rank` and `world`, or `group`, a process
            group of torch, say which rank loads its part. With `is_distributed=True` all ranks of
            `group` make this call at the same point of their programs: each reads one part of the
            bytes that any of them keeps, and sends the others what they keep of it. They load torch
            tensors to one device. `memory_limit` is then that of the bytes on their way; with
            staging, that takes up to 1.4 times as much. Without one, it is 64 MiB, and what a rank
            alone keeps is read to its place beside it.

    Returns:
        The tensors by name, in the order in which they completed. Shared tensors have all their
        names.

    Raises:
        Error: one of its subclasses; the message says what to do.
    """
    convert = converter(framework)
    with Bar(progress) as bar:
        started = _start(locations, framework, device, options, bar.progress, keep_all=True)
        tensors = dict(_pairs(started, convert))
    for name, kept in started.metadata().items():
        if kept in tensors and not started.has_tensor(name) and _may_share(name, kept):
            tensors[name] = tensors[kept]
    return tensors


def _may_share(name: str, kept: str) -> bool:
    """Whether metadata may say that the tensor `kept` is also called `name`.

    `safetensors.torch.save_model` maps each name that it omits to the name under which it stores
    the tensor. Other metadata is free text, whose values may be the names of tensors, too. Shared
    parameters are the same attribute of two modules: `lm_head.weight`, `embed_tokens.weight`.
    """
    module, _, attribute = name.rpartition(".")
    return bool(module) and kept.endswith("." + attribute)


def stream(
    locations: Locations,
    *,
    framework: str = "torch",
    device: Device | dict[str, Device] = "cpu",
    progress: Shown = None,
    **options: Any,
) -> Iterator[tuple[str, Any]]:
    """Loads the tensors of a checkpoint and yields each one when it is complete.

    The call starts the load, and closing the iterator stops it. Under a `memory_limit` the memory
    of a tensor is reused once the tensor is dropped, and never before: a caller that holds more
    tensors than the limit allows gets a `MemoryLimitError`.

    Args:
        locations: a file, directory, pattern or index, given as a path or URI; or several of them.
        framework: "torch", "numpy" or "jax".
        device: the device that tensors are loaded to; see `load_file`.
        progress: whether to show a progress bar; see `load_file`.
        **options: the options of `Loader`.

    Returns:
        An iterator of names and tensors.

    Raises:
        Error: one of its subclasses; the message says what to do. Errors of reading are raised by
            the iterator.
    """
    convert = converter(framework)
    bar = Bar(progress)
    return _pairs(_start(locations, framework, device, options, bar.progress), convert, bar)


def _start(  # noqa: PLR0913 - those of `load`
    locations: Locations,
    framework: str,
    device: Device | dict[str, Device],
    options: dict[str, Any],
    progress: Progress,
    *,
    keep_all: bool = False,
) -> Stream | SharedParts:
    """Starts a load of this rank alone, or with `is_distributed` one that ranks share."""
    if "is_distributed" in options:
        from .distributed import load as shared

        is_distributed, options = shared.take(options)
        if is_distributed:
            started = shared.start(paths(locations), framework, device, options, progress)
            if started is not None:
                return started
    return start(locations, device, options, keep_all=keep_all, progress=progress)


def start(
    locations: Locations,
    device: Device | dict[str, Device] | None,
    options: dict[str, Any],
    *,
    keep_all: bool = False,
    progress: Progress | None = None,
) -> Stream:
    """Starts a load with the cache directory of the process."""
    parts, options = _slices.take(_cache.with_cache(options))
    loader = Loader(device=device_name(device), slices=parts.rules, **options)
    if parts.accepts is None:
        started = loader.stream(paths(locations), keep_all=keep_all, progress=progress)
    else:
        opened = loader.open(paths(locations), progress=progress)
        names = parts.names(opened)
        started = opened.stream(names=names, keep_all=keep_all, progress=progress)
    _cache.flush_at_exit(loader)
    return started


def paths(locations: Locations) -> list[str]:
    """Returns the locations as a list of strings, which the native module takes."""
    if isinstance(locations, (str, os.PathLike)):
        return [_text(locations)]
    if isinstance(locations, (bytes, bytearray)) or not isinstance(locations, Iterable):
        raise _not_a_location(locations)
    return [_text(location) for location in locations]


def _text(location: str | os.PathLike[str]) -> str:
    """Returns a location as text. `pathlib` makes one slash of the two of a URI."""
    if not isinstance(location, (str, os.PathLike)):
        raise _not_a_location(location)
    text = os.fsdecode(location)
    if isinstance(location, str) or not PATH_OF_URI.match(text):
        return text
    scheme, rest = text.split(":/", 1)
    return f"{scheme}://{rest}"


def _not_a_location(given: object) -> TypeError:
    kind = type(given).__name__
    return TypeError(f"a location must be a str or a path, or several of them, not {kind}")


def _pairs(
    started: Stream | SharedParts, convert: Converter, bar: Bar | None = None
) -> Iterator[tuple[str, Any]]:
    if not isinstance(started, Stream):
        with bar or nullcontext():
            yield from started
        return
    with started, bar or nullcontext():
        for tensor in started:
            name, value = tensor.name, convert(tensor)
            del tensor
            yield name, value
            # The load may need the memory of this tensor before it can deliver the next one.
            del value
