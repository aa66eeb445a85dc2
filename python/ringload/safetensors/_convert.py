"""Converters to the tensors of the frameworks that safetensors knows."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable

from .._errors import UnsupportedError
from .._frameworks import Converter, converter
from ._error import error_of_type

if TYPE_CHECKING:
    from .._ringload import Tensor

_NAMES = {"pytorch": "torch", "flax": "jax"}


@cache
def converter_to(framework: str) -> Converter:
    """Imports a framework and returns the converter to its tensors in host memory.

    Args:
        framework: the framework, as `framework_of` returns it.
    """
    if framework in ("tensorflow", "mlx", "paddle"):
        convert = _by_numpy(framework)
    else:
        convert = converter(_NAMES.get(framework, framework))

    def checked(tensor: Tensor) -> Any:
        try:
            return convert(tensor)
        except UnsupportedError as error:
            raise error_of_type(tensor.dtype, error) from error

    return checked


def _by_numpy(framework: str) -> Converter:
    to_numpy = converter("numpy")
    make: Callable[[Any], Any]
    if framework == "tensorflow":
        make = import_module("tensorflow").convert_to_tensor
    elif framework == "mlx":
        make = import_module("mlx.core").array
    else:
        make = import_module("paddle").to_tensor
    return lambda tensor: make(to_numpy(tensor))
