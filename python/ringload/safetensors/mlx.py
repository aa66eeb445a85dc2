"""The interface of `safetensors.mlx`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._open import safe_open

if TYPE_CHECKING:
    import os

    from safetensors.mlx import load, save, save_file

__all__ = ["load", "load_file", "save", "save_file"]


def load_file(filename: str | os.PathLike[str], *, backend: str = "mmap") -> dict[str, Any]:
    """Loads the tensors of a file; see `safe_open` for the arguments."""
    with safe_open(filename, framework="mlx", backend=backend) as opened:
        return opened.get_tensors()


def __getattr__(name: str) -> Any:
    """Returns a name of safetensors that ringload has no version of."""
    return getattr(import_module("safetensors.mlx"), name)
