"""Tensors for torch, numpy and jax: what each of them calls a type, and how it takes a tensor over.

None of them is imported before it is asked for. A framework gives a function from a native tensor
to its own; that is called once a tensor, so all that can be looked up before is.

Tensors cross by DLPack. A type that not every version of a framework takes so crosses as integers
of the same width, and is looked at as what it is by the framework.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Union

from ._errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from types import ModuleType

    import torch

    from ._ringload import Tensor

Converter = Callable[["Tensor"], Any]
"""Makes a framework's tensor of a native one."""

Device = Union[str, int, Any]
"""`"cpu"`, `"cuda"`, `"cuda:N"`, the number of a GPU, or a `torch.device`."""

NAMES = {"torch": "torch", "pt": "torch", "numpy": "numpy", "np": "numpy", "jax": "jax"}
NAMES["flax"] = "jax"

INSTALL = {"torch": "torch", "numpy": "numpy", "jax": "jax", "ml_dtypes": "ml_dtypes"}

# Types that torch has had, and taken by DLPack, since long before 2.1.
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

JAX_ALIGNMENT_BYTES = 64


def converter(framework: str) -> Converter:
    """Imports a framework and gives what makes its tensors of native ones.

    Args:
        framework: "torch" (or "pt"), "numpy" ("np") or "jax" ("flax").

    Raises:
        InvalidInputError: for another one.
        UnsupportedError: where it is not installed; says what to install.
    """
    name = NAMES.get(framework)
    if name == "torch":
        return _torch_converter()
    if name == "numpy":
        return _numpy_converter()
    if name == "jax":
        return _jax_converter()
    raise InvalidInputError(f"{framework!r} is not a framework; use torch, numpy or jax")


def device_name(device: Device | dict[str, Device] | None) -> str | dict[str, str]:
    """A device as the native module writes it.

    "cuda" without a number is torch's current device, where torch uses GPUs already, or the first.
    """
    if isinstance(device, dict):
        return {glob: _one_device_name(one) for glob, one in device.items()}
    return _one_device_name(device)


def is_host(device: str | dict[str, str]) -> bool:
    """Whether everything goes to host memory."""
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


def _needed(module: str, what: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        package = INSTALL[module.partition(".")[0]]
        raise UnsupportedError(
            f"{what} need {package}, which cannot be imported; pip install {package}"
        ) from error


def _torch_converter() -> Converter:
    _needed("torch", "torch tensors")
    take = _needed("torch.utils.dlpack", "torch tensors").from_dlpack
    direct = frozenset(TORCH_DIRECT)
    viewed: dict[str, Any] = {}

    def convert(tensor: Tensor) -> Any:
        dtype = tensor.dtype
        if dtype in direct:
            return take(tensor.__dlpack__())
        torch_dtype = viewed.get(dtype)
        if torch_dtype is None:
            torch_dtype = viewed[dtype] = torch_dtype_of(dtype, tensor.name)
        return take(tensor.dlpack_as_integers()).view(torch_dtype)

    return convert


def torch_dtype_of(dtype: str, name: str) -> torch.dtype:
    """Torch's type for the elements of tensor `name`, whose type safetensors calls `dtype`.

    Raises:
        UnsupportedError: where this torch has none.
    """
    module: Any = _needed("torch", "torch tensors")
    name_there = TORCH_DIRECT.get(dtype) or TORCH_VIEWED.get(dtype) or ""
    known: torch.dtype | None = getattr(module, name_there, None)
    if known is None:
        raise UnsupportedError(
            f"torch {module.__version__} has no type for tensor {name!r} of {dtype}; "
            "use a newer torch, or leave the tensor out"
        )
    return known


class _AsIntegers:
    """A tensor that DLPack takes for integers of the same width."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_options: object) -> Any:
        return self._tensor.dlpack_as_integers(max_version=max_version)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()


def _numpy_converter() -> Converter:
    numpy: Any = _needed("numpy", "numpy arrays")
    direct = frozenset(NUMPY_DIRECT)
    viewed: dict[str, Any] = {"BOOL": numpy.dtype(bool)}

    def convert(tensor: Tensor) -> Any:
        dtype = tensor.dtype
        if dtype in direct:
            return numpy.from_dlpack(tensor)
        numpy_dtype = viewed.get(dtype)
        if numpy_dtype is None:
            numpy_dtype = viewed[dtype] = _ml_dtype(numpy, dtype, tensor.name)
        return numpy.from_dlpack(_AsIntegers(tensor)).view(numpy_dtype)

    def checked(tensor: Tensor) -> Any:
        if tensor.device != "cpu":
            raise InvalidInputError(
                f"numpy arrays are in host memory and tensor {tensor.name!r} is on "
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
    ml_dtypes = _needed("ml_dtypes", f"numpy arrays of {dtype} (tensor {name!r})")
    return numpy.dtype(getattr(ml_dtypes, known))


def _jax_converter() -> Converter:
    jnp: Any = _needed("jax.numpy", "jax arrays")
    take = _needed("jax.dlpack", "jax arrays").from_dlpack
    in_numpy: list[Converter] = []

    def convert(tensor: Tensor) -> Any:
        is_aligned = tensor.address % JAX_ALIGNMENT_BYTES == 0
        if tensor.dtype in NUMPY_DIRECT and is_aligned and tensor.nbytes > 0:
            return take(tensor)
        if not in_numpy:
            in_numpy.append(_numpy_converter())
        # A copy: jax aliases aligned memory only.
        return jnp.array(in_numpy[0](tensor))

    return convert
