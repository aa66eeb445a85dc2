"""Tensors of a framework that are views of chunks in Ray's object store.

Ray maps an object of the node's store into the process, and gives arrays that may not be written
to. numpy's views keep that mark. torch has no such mark, and would warn of every one of these
arrays, so that it is given the same memory without it; the tensors have an attribute
`is_shared_memory` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._errors import UnsupportedError
from .._frameworks import (
    NUMPY_BY_ML_DTYPES,
    NUMPY_DIRECT,
    packed_shape,
    torch_dtype_of,
)
from .plan import Entry, places

#: The attribute of tensors of torch that are views of the object store.
MARK = "is_shared_memory"

_NUMPY_NAMES = {"F": "float", "I": "int", "U": "uint", "C": "complex"}

Make = Callable[[Entry, Any], Any]
"""Makes a tensor of its bytes, which are an array."""


class Borrowed:
    """Memory of a chunk as numpy imports it. Arrays of it keep the chunk."""

    def __init__(self, array: Any, chunk: object, *, read_only: bool) -> None:
        """Refers to the memory of `array`, which belongs to `chunk`."""
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (address, read_only),
        }
        self._kept = (array, chunk)


def views_of(
    entries: Sequence[Entry], arrays: Sequence[Any], chunk: object, make: Make, *, read_only: bool
) -> list[Any]:
    """Returns the tensors of a chunk, made of arrays which keep the object `chunk` alive."""
    import numpy

    found, _ = places(entries)
    whole = [numpy.asarray(Borrowed(array, chunk, read_only=read_only)) for array in arrays]
    none = numpy.empty(0, dtype=numpy.uint8)
    made = []
    for entry, (position, offset) in zip(entries, found):
        memory = none if position < 0 else whole[position][offset : offset + entry.nbytes]
        made.append(make(entry, memory))
    return made


def maker(framework: str) -> Make:
    """Returns what makes views of a framework, which is torch or numpy."""
    return _torch() if framework == "torch" else _numpy


def _torch() -> Make:
    import torch

    dtypes: dict[str, torch.dtype] = {}

    def make(entry: Entry, memory: Any) -> Any:
        dtype = dtypes.get(entry.dtype)
        if dtype is None:
            dtype = dtypes[entry.dtype] = torch_dtype_of(entry.dtype, entry.name)
        if entry.nbytes:
            elements = torch.from_numpy(memory).view(dtype)
        else:
            elements = torch.empty(0, dtype=dtype)
        tensor = elements.reshape(packed_shape(entry.dtype, entry.shape))
        setattr(tensor, MARK, True)
        return tensor

    return make


def _numpy(entry: Entry, memory: Any) -> Any:
    return memory.view(numpy_dtype(entry)).reshape(packed_shape(entry.dtype, entry.shape))


def numpy_dtype(entry: Entry) -> Any:
    """Returns numpy's type, or that of ml_dtypes, for a tensor.

    Raises:
        UnsupportedError: there is none, or ml_dtypes is not installed.
    """
    import numpy

    if entry.dtype == "BOOL":
        return numpy.dtype(bool)
    if entry.dtype in NUMPY_DIRECT:
        return numpy.dtype(_NUMPY_NAMES[entry.dtype[0]] + entry.dtype[1:])
    known = NUMPY_BY_ML_DTYPES.get(entry.dtype)
    if known is None:
        raise UnsupportedError(
            f"numpy has no type for tensor {entry.name!r} of {entry.dtype}; leave the tensor out, "
            "or use torch"
        )
    try:
        import ml_dtypes
    except ImportError as error:
        raise UnsupportedError(
            f"numpy arrays of {entry.dtype} (tensor {entry.name!r}) need ml_dtypes; "
            "pip install ml_dtypes"
        ) from error
    return numpy.dtype(getattr(ml_dtypes, known))
