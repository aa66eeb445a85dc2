"""A checkpoint opened lazily: names and shapes at once, tensors and parts of them when asked for.

Only headers are read when it is opened. A part of a tensor is read as the runs of bytes that it is,
near ones together, from any source; shards stay as they were opened (the same version of an object,
its connections and credentials).
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Union, cast

from . import _cache
from ._errors import InvalidInputError
from ._frameworks import Device, converter, device_name, is_host
from ._load import Locations, paths
from ._ringload import Checkpoint, Loader

if TYPE_CHECKING:
    from types import EllipsisType

    Index = Union[int, slice, EllipsisType]

Pick = tuple[int, int, int]
"""Of one dimension: start, count, step."""


def open(
    location: Locations,
    framework: str = "torch",
    device: Device = "cpu",
    **options: Any,
) -> SafeOpen:
    """Opens a checkpoint, reading its headers only.

    Args:
        location: a file, directory, pattern or index; a path or a URI; or several of them.
        framework: "torch", "numpy" or "jax".
        device: where tensors go: "cpu", "cuda", "cuda:N", N, or a `torch.device`.
        **options: those of `Loader`.

    Returns:
        What is in it; a context manager.

    Raises:
        Error: one of its classes; the text says what to do.
    """
    convert = converter(framework)
    options = _cache.with_cache(options)
    name = device_name(device)
    loader = Loader(device=name, **options)
    opened = loader.open(paths(location))
    _cache.remember(loader)
    return SafeOpen(opened, convert, None if is_host(name) else device)


class SafeOpen:
    """An open checkpoint, as `safetensors.safe_open` gives one, of any number of files anywhere."""

    def __init__(self, checkpoint: Checkpoint, convert: Any, device: Device | None) -> None:
        """Of a native checkpoint; `device` is where parts are moved to, None leaves them."""
        self._checkpoint: Checkpoint | None = checkpoint
        self._convert = convert
        self._device = device

    def __enter__(self) -> SafeOpen:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its files. What was read stays valid."""
        self._checkpoint = None

    @property
    def checkpoint(self) -> Checkpoint:
        """The native checkpoint."""
        if self._checkpoint is None:
            raise InvalidInputError("the checkpoint is closed; open it anew")
        return self._checkpoint

    def keys(self) -> list[str]:
        """The names of its tensors, in the order of the files."""
        return self.checkpoint.keys()

    def offset_keys(self) -> list[str]:
        """The same, as `safetensors.safe_open` calls it."""
        return self.keys()

    def metadata(self) -> dict[str, str]:
        """The `__metadata__` of its files; where two have the same key, the first one's value."""
        return self.checkpoint.metadata()

    def get_tensor(self, name: str) -> Any:
        """Reads a tensor.

        Raises:
            NotFoundError: where there is none of this name.
        """
        return self._convert(self.checkpoint.read(name))

    def get_slice(self, name: str) -> Slice:
        """A tensor of which parts can be read: `get_slice(name)[a:b, c:d]`.

        Raises:
            NotFoundError: where there is none of this name.
        """
        return Slice(self, name)

    def _read(self, name: str, picks: list[Pick], shape: list[int]) -> Any:
        part = self._convert(self.checkpoint.read(name, picks)).reshape(shape)
        if self._device is None:
            return part
        if not hasattr(part, "to"):
            raise InvalidInputError("parts of tensors reach GPUs by torch only; read them to cpu")
        return part.to(self._device)

    def __len__(self) -> int:
        return len(self.checkpoint)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()


class Slice:
    """A tensor that is read in parts."""

    def __init__(self, opened: SafeOpen, name: str) -> None:
        """Of the tensor called `name`."""
        self._opened = opened
        self._name = name
        self._info = opened.checkpoint.info(name)

    def get_shape(self) -> list[int]:
        """Its dimensions, outermost first; empty for a scalar."""
        return list(self._info["shape"])

    def get_dtype(self) -> str:
        """The type of its elements, as safetensors calls it: "BF16"."""
        return self._info["dtype"]

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Any:
        """Reads a part, and no more.

        Args:
            index: integers (which drop their dimension), slices with steps above 0, and one
                Ellipsis, as numpy takes them; negative ones count from the end.

        Returns:
            The part, in memory of its own.

        Raises:
            IndexError: for more indices than dimensions, and integers out of range.
            InvalidInputError: for any other index.
        """
        shape = self._info["shape"]
        picks, kept = resolve(index, shape)
        return self._opened._read(self._name, picks, kept)


def resolve(index: Any, shape: tuple[int, ...]) -> tuple[list[Pick], list[int]]:
    """What an index takes of each dimension, and the shape of the result.

    Raises:
        IndexError: for more indices than dimensions, and integers out of range.
        InvalidInputError: for what is neither integer, slice nor Ellipsis, and steps below 1.
    """
    indices: list[Any] = list(index) if isinstance(index, tuple) else [index]
    ellipses = sum(one is Ellipsis for one in indices)
    if ellipses > 1:
        raise InvalidInputError("an index may have one Ellipsis only")
    if len(indices) - ellipses > len(shape):
        raise IndexError(
            f"{len(indices) - ellipses} indices are too many for {len(shape)} dimensions"
        )
    missing = [slice(None)] * (len(shape) - len(indices) + ellipses)
    at = next((i for i, one in enumerate(indices) if one is Ellipsis), len(indices))
    indices[at : at + ellipses] = missing
    picks = []
    kept = []
    for dimension, (one, size) in enumerate(zip(indices, shape)):
        if isinstance(one, slice):
            picks.append(_of_slice(one, size))
            kept.append(picks[-1][1])
        else:
            picks.append((_of_integer(one, dimension, size), 1, 1))
    return picks, kept


def _of_slice(one: slice, size: int) -> Pick:
    start, stop, step = one.indices(size)
    if step < 1:
        raise InvalidInputError(f"a slice has the step {step}; steps must be above 0")
    # One step beyond would be out of 64 bits for no reason.
    return start, len(range(start, stop, step)), min(step, max(size, 1))


def _of_integer(one: object, dimension: int, size: int) -> int:
    if isinstance(one, bool) or not hasattr(one, "__index__"):
        raise InvalidInputError(f"{one!r} is not an index; use integers, slices and one Ellipsis")
    number = operator.index(cast("Any", one))
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of range for dimension {dimension} of size {size}")
    return number + size if number < 0 else number
