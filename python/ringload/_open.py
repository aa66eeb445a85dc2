"""`open`: a checkpoint whose tensors, or slices of them, are read on request.

Opening a checkpoint reads its headers only. Reading a slice reads the byte ranges that the slice
covers, and ranges that are close together are read as one. All reads use the shards as they were
opened: the same version of each object, the same connections and the same credentials.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Union, cast

from . import _cache, _slices
from ._errors import InvalidInputError
from ._frameworks import Device, converter, device_name, is_host, packed_shape
from ._load import Locations, paths
from ._ringload import Checkpoint, Loader, Stream, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import EllipsisType

    Index = Union[int, slice, EllipsisType]

DimensionRange = tuple[int, int, int]
"""The selected indices of one dimension: start, count and step."""


def open(
    location: Locations,
    framework: str = "torch",
    device: Device = "cpu",
    **options: Any,
) -> SafeOpen:
    """Opens a checkpoint, reading its headers only.

    Args:
        location: a file, directory, pattern or index, given as a path or URI; or several of them.
        framework: "torch", "numpy" or "jax".
        device: the device of the tensors: "cpu", "cuda", "cuda:N", N, or a `torch.device`.
        **options: the options of `Loader`.

    Returns:
        The open checkpoint, which is a context manager.

    Raises:
        Error: one of its subclasses; the message says what to do.
    """
    convert = converter(framework)
    parts, options = _slices.take(_cache.with_cache(options))
    if parts.accepts is not None:
        raise InvalidInputError("filter is for load and stream; an open checkpoint reads by name")
    name = device_name(device)
    loader = Loader(device=name, slices=parts.rules, **options)
    opened = loader.open(paths(location))
    _cache.flush_at_exit(loader)
    return SafeOpen(opened, convert, None if is_host(name) else device)


class SafeOpen:
    """An open checkpoint, with the interface of `safetensors.safe_open`.

    The checkpoint may have any number of shards, in any storage that ringload supports.
    """

    def __init__(self, checkpoint: Checkpoint, convert: Any, device: Device | None) -> None:
        """Wraps a native checkpoint.

        Args:
            checkpoint: the native checkpoint.
            convert: the converter of the framework.
            device: the GPU that slices are moved to; None if they stay in host memory.
        """
        self._checkpoint: Checkpoint | None = checkpoint
        self._convert = convert
        self._device = device
        self._prefetch: _Prefetch | None = None

    def __enter__(self) -> SafeOpen:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files of the checkpoint. Tensors that were read stay valid."""
        self._checkpoint = None
        if self._prefetch is not None:
            self._prefetch.stream.close()
            self._prefetch = None

    @property
    def checkpoint(self) -> Checkpoint:
        """The native checkpoint."""
        if self._checkpoint is None:
            raise InvalidInputError("the checkpoint is closed; open it again")
        return self._checkpoint

    def keys(self) -> list[str]:
        """Returns the names of the tensors, in the order of the files."""
        return self.checkpoint.keys()

    def offset_keys(self) -> list[str]:
        """Returns `keys()`; `safetensors.safe_open` has this method, too."""
        return self.keys()

    def metadata(self) -> dict[str, str]:
        """Returns the `__metadata__` of all files. For a repeated key the first file's value."""
        return self.checkpoint.metadata()

    def get_tensor(self, name: str) -> Any:
        """Reads a tensor.

        Raises:
            NotFoundError: the checkpoint has no tensor of this name.
        """
        return self._convert(self.checkpoint.read(name))

    def get_slice(self, name: str) -> Slice:
        """Returns a tensor whose slices can be read: `get_slice(name)[a:b, c:d]`.

        Raises:
            NotFoundError: the checkpoint has no tensor of this name.
        """
        return Slice(self, name)

    def prefetch(self, plan: Mapping[str, Index | tuple[Index, ...]]) -> None:
        """Declares slices that `get_slice` will read, and starts to read them, in any order.

        `get_slice(name)[index]` with a declared index waits for that slice only. A slice that was
        declared is kept in host memory until it is read once; others are read as without this
        call. A further call replaces what was declared before and not read.

        Args:
            plan: an index for each name, as `get_slice` takes it. Integers and empty slices are
                not read ahead.

        Raises:
            NotFoundError: the checkpoint has no tensor of one of the names.
            IndexError: an index is out of range.
            InvalidInputError: an index is of another kind.
        """
        checkpoint = self.checkpoint
        rules, declared = [], {}
        for name, index in plan.items():
            shape = checkpoint.info(name)["shape"]
            ranges, _ = resolve(index, shape)
            if ranges and all(count > 0 for _, count, _ in ranges):
                stops = [(start, start + (n - 1) * step + 1, step) for start, n, step in ranges]
                rules.append((escaped(name), stops))
                declared[name] = ranges
        if self._prefetch is not None:
            self._prefetch.stream.close()
        stream = checkpoint.stream(names=list(declared), memory_limit="none", slices=rules)
        self._prefetch = _Prefetch(stream, declared)

    def _read(self, name: str, ranges: list[DimensionRange], shape: list[int]) -> Any:
        ahead = None if self._prefetch is None else self._prefetch.take(name, ranges)
        native = self.checkpoint.read(name, ranges) if ahead is None else ahead
        part = self._convert(native).reshape(packed_shape(native.dtype, shape))
        if self._device is None:
            return part
        if not hasattr(part, "to"):
            raise InvalidInputError("only torch can move slices to a GPU; read them to cpu")
        return part.to(self._device)

    def __len__(self) -> int:
        return len(self.checkpoint)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()


class _Prefetch:
    """Slices that are being read ahead."""

    def __init__(self, stream: Stream, declared: dict[str, list[DimensionRange]]) -> None:
        self.stream = stream
        self._declared = declared
        self._arrived: dict[str, Tensor] = {}

    def take(self, name: str, ranges: list[DimensionRange]) -> Tensor | None:
        """Returns the slice `ranges` of a tensor, if it was declared and not taken before."""
        if self._declared.get(name) != ranges:
            return None
        del self._declared[name]
        while name not in self._arrived:
            tensor = next(self.stream)
            self._arrived[tensor.name] = tensor
        return self._arrived.pop(name)


def escaped(name: str) -> str:
    """Returns a glob that matches `name` alone."""
    return "".join("\\" + one if one in "*?[]{}\\" else one for one in name)


class Slice:
    """A tensor whose slices are read on request."""

    def __init__(self, opened: SafeOpen, name: str) -> None:
        """Refers to the tensor `name` of an open checkpoint."""
        self._opened = opened
        self._name = name
        self._info = opened.checkpoint.info(name)

    def get_shape(self) -> list[int]:
        """Returns the dimensions of the tensor, outermost first; empty for a scalar."""
        return list(self._info["shape"])

    def get_dtype(self) -> str:
        """Returns the name of the element type in safetensors, such as "BF16"."""
        return self._info["dtype"]

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Any:
        """Reads a slice of the tensor; the rest of the tensor is not read.

        Args:
            index: integers (which drop their dimension), slices with steps above 0, and at most one
                Ellipsis, with numpy's meaning; negative indices count from the end.

        The index counts elements, also of types narrower than a byte (F4), of which torch has
        several in one of its own elements.

        Returns:
            The slice, as a contiguous tensor.

        Raises:
            IndexError: the index has more entries than the tensor has dimensions, or an integer is
                out of range.
            InvalidInputError: the index is of another kind, or cuts a byte of a type narrower than
                a byte.
        """
        shape = self._info["shape"]
        ranges, result_shape = resolve(index, shape)
        return self._opened._read(self._name, ranges, result_shape)


def resolve(index: Any, shape: tuple[int, ...]) -> tuple[list[DimensionRange], list[int]]:
    """Returns the range that an index selects in each dimension, and the shape of the result.

    Raises:
        IndexError: the index has more entries than `shape`, or an integer is out of range.
        InvalidInputError: an entry is neither an integer, a slice nor an Ellipsis, or a step is
            below 1.
    """
    indices: list[Any] = list(index) if isinstance(index, tuple) else [index]
    ellipses = sum(one is Ellipsis for one in indices)
    if ellipses > 1:
        raise InvalidInputError("an index may have only one Ellipsis")
    if len(indices) - ellipses > len(shape):
        raise IndexError(
            f"{len(indices) - ellipses} indices are too many for {len(shape)} dimensions"
        )
    missing = [slice(None)] * (len(shape) - len(indices) + ellipses)
    at = next((i for i, one in enumerate(indices) if one is Ellipsis), len(indices))
    indices[at : at + ellipses] = missing
    ranges = []
    result_shape = []
    for dimension, (one, size) in enumerate(zip(indices, shape)):
        if isinstance(one, slice):
            ranges.append(_slice_range(one, size))
            result_shape.append(ranges[-1][1])
        else:
            ranges.append((_position(one, dimension, size), 1, 1))
    return ranges, result_shape


def _slice_range(one: slice, size: int) -> DimensionRange:
    start, stop, step = one.indices(size)
    if step < 1:
        raise InvalidInputError(f"a slice has the step {step}; steps must be above 0")
    # A longer step has the same result, and might not fit into 64 bits.
    return start, len(range(start, stop, step)), min(step, max(size, 1))


def _position(one: object, dimension: int, size: int) -> int:
    if isinstance(one, bool) or not hasattr(one, "__index__"):
        raise InvalidInputError(f"{one!r} is not an index; use integers, slices and one Ellipsis")
    number = operator.index(cast("Any", one))
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of range for dimension {dimension} of size {size}")
    return number + size if number < 0 else number
