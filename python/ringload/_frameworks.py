"""Conversion of native tensors to tensors of torch, numpy and jax.

A framework is imported when a converter for it is requested. The converter is called once for each
tensor, so everything that can be looked up in advance is looked up when the converter is made.

Tensors are passed to torch and jax by DLPack, and to numpy by its array interface, because numpy
before 2.1 makes read-only arrays of DLPack. A type that some versions of the framework do not
accept in this way is passed as integers of the same width, and the framework views them as the
type.
"""

from __future__ import annotations

import sys
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any, Callable, Union

from ._errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import torch

    from ._ringload import Tensor

Converter = Callable[["Tensor"], Any]
"""Converts a native tensor to a tensor of a framework."""

Device = Union[str, int, Any]
"""A device: `"cpu"`, `"cuda"`, `"cuda:N"`, the number of a GPU, or a `torch.device`."""

NAMES = {"torch": "torch", "pt": "torch", "numpy": "numpy", "np": "numpy", "jax": "jax"}
NAMES["flax"] = "jax"

INSTALL = {"torch": "torch", "numpy": "numpy", "jax": "jax", "ml_dtypes": "ml_dtypes"}

# Types that every supported version of torch (2.1 or later) accepts by DLPack.
TORCH_DIRECT = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
}
TORCH_VIEWED = {
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F4": "float4_e2m1fn_x2",
}

NUMPY_DIRECT = ("F64", "F32", "F16", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8")
NUMPY_BY_ML_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}

# Types narrower than a byte, whose elements are packed.
SUB_BYTE_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}

JAX_ALIGNMENT_BYTES = 64


def converter(framework: str) -> Converter:
    """Imports a framework and returns the converter to its tensors.

    Args:
        framework: "torch" (or "pt"), "numpy" ("np") or "jax" ("flax").

    Raises:
        InvalidInputError: `framework` is none of these.
        UnsupportedError: the framework is not installed; the message says what to install.
    """
    name = NAMES.get(framework) if isinstance(framework, str) else None
    if name == "torch":
        return _torch_converter()
    if name == "numpy":
        return _numpy_converter()
    if name == "jax":
        return _jax_converter()
    raise InvalidInputError(f"{framework!r} is not a framework; use torch, numpy or jax")


def device_name(device: Device | dict[str, Device] | None) -> str | dict[str, str]:
    """Returns the native module's name for a device, or for each device of a dict.

    "cuda" without a number is torch's current device if torch has initialised CUDA, else GPU 0.
    """
    if isinstance(device, dict):
        return {glob: _one_device_name(one) for glob, one in device.items()}
    return _one_device_name(device)


def is_host(device: str | dict[str, str]) -> bool:
    """Returns whether all tensors are loaded to host memory."""
    return device == "cpu" if isinstance(device, str) else set(device.values()) <= {"cpu"}


def _one_device_name(device: Device | None) -> str:
    if device is None or device == "cpu:0":
        return "cpu"
    if isinstance(device, int) and not isinstance(device, bool):
        return f"cuda:{device}"
    name = str(device)
    if name == "cpu:0":
        return "cpu"
    return f"cuda:{_current_gpu()}" if name == "cuda" else name


def _current_gpu() -> int:
    torch: Any = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.current_device())


def _import(module: str, what: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        package = INSTALL[module.partition(".")[0]]
        raise UnsupportedError(
            f"{what} need {package}, which cannot be imported; pip install {package}"
        ) from error


def _torch_converter() -> Converter:
    _import("torch", "torch tensors")
    from_dlpack = _import("torch.utils.dlpack", "torch tensors").from_dlpack
    direct = frozenset(TORCH_DIRECT)
    viewed: dict[str, Any] = {}

    def convert(tensor: Tensor) -> Any:
        dtype = tensor.dtype
        if dtype in direct:
            return from_dlpack(tensor.__dlpack__())
        torch_dtype = viewed.get(dtype)
        if torch_dtype is None:
            torch_dtype = viewed[dtype] = torch_dtype_of(dtype, tensor.name)
        return from_dlpack(tensor.dlpack_as_integers()).view(torch_dtype)

    return convert


def torch_dtype_of(dtype: str, name: str) -> torch.dtype:
    """Returns torch's type for a safetensors type.

    Args:
        dtype: the name of the type in safetensors, such as "BF16".
        name: the name of the tensor, for the error message.

    Raises:
        UnsupportedError: the installed version of torch does not have the type.
    """
    module: Any = _import("torch", "torch tensors")
    torch_name = TORCH_DIRECT.get(dtype) or TORCH_VIEWED.get(dtype) or ""
    known: torch.dtype | None = getattr(module, torch_name, None)
    if known is None:
        raise UnsupportedError(
            f"torch {module.__version__} has no type for tensor {name!r} of {dtype}; "
            "use a newer torch, or leave the tensor out"
        )
    return known


def packed_shape(dtype: str, shape: Sequence[int]) -> list[int]:
    """Returns the shape in which frameworks have a tensor.

    It is the shape in the file, except for elements narrower than a byte. Of these the last
    dimension counts bytes: torch's `float4_e2m1fn_x2` has two F4 in each element. Where rows are
    not whole bytes, there is only one dimension.

    Args:
        dtype: the name of the type in safetensors, such as "F4".
        shape: the shape in the file, or that of a part of the tensor.
    """
    bits = SUB_BYTE_BITS.get(dtype)
    if bits is None:
        return list(shape)
    if shape and shape[-1] * bits % 8 == 0:
        return [*shape[:-1], shape[-1] * bits // 8]
    return [prod(shape) * bits // 8]


def _numpy_converter() -> Converter:
    numpy: Any = _import("numpy", "numpy arrays")
    direct = frozenset(NUMPY_DIRECT)
    viewed: dict[str, Any] = {"BOOL": numpy.dtype(bool)}

    def convert(tensor: Tensor) -> Any:
        dtype = tensor.dtype
        if dtype in direct:
            return numpy.asarray(tensor.array())
        numpy_dtype = viewed.get(dtype)
        if numpy_dtype is None:
            numpy_dtype = viewed[dtype] = _ml_dtype(numpy, dtype, tensor.name)
        return numpy.asarray(tensor.array(as_integers=True)).view(numpy_dtype)

    def checked(tensor: Tensor) -> Any:
        if tensor.device != "cpu":
            raise InvalidInputError(
                f"numpy arrays are in host memory, but tensor {tensor.name!r} is on "
                f"{tensor.device}; load it to cpu"
            )
        return convert(tensor)

    return checked


def _ml_dtype(numpy: Any, dtype: str, name: str) -> Any:
    known = NUMPY_BY_ML_DTYPES.get(dtype)
    if known is None:
        raise UnsupportedError(
            f"numpy has no type for tensor {name!r} of {dtype}; leave the tensor out, or use torch"
        )
    ml_dtypes = _import("ml_dtypes", f"numpy arrays of {dtype} (tensor {name!r})")
    return numpy.dtype(getattr(ml_dtypes, known))


def _jax_converter() -> Converter:
    jnp: Any = _import("jax.numpy", "jax arrays")
    from_dlpack = _import("jax.dlpack", "jax arrays").from_dlpack
    numpy_converter: list[Converter] = []

    def convert(tensor: Tensor) -> Any:
        is_aligned = tensor.address % JAX_ALIGNMENT_BYTES == 0
        if tensor.dtype in NUMPY_DIRECT and is_aligned and tensor.nbytes > 0:
            return from_dlpack(tensor)
        if not numpy_converter:
            numpy_converter.append(_numpy_converter())
        # jax aliases only aligned memory, so this tensor is copied.
        return jnp.array(numpy_converter[0](tensor))

    return convert
