"""The interface of `safetensors.torch`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._open import safe_open

if TYPE_CHECKING:
    import os

    import torch
    from safetensors.torch import load, save, save_file, save_model

__all__ = ["load", "load_file", "load_model", "save", "save_file", "save_model"]


def load_file(
    filename: str | os.PathLike[str], device: str | int = "cpu", *, backend: str = "mmap"
) -> dict[str, torch.Tensor]:
    """Loads the tensors of a file; see `safe_open` for the arguments."""
    with safe_open(filename, framework="pt", device=device, backend=backend) as opened:
        return opened.get_tensors()


def load_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    strict: bool = True,
    device: str | int = "cpu",
    *,
    backend: str = "mmap",
) -> tuple[set[str], list[str]]:
    """Loads a file that `save_model` wrote into a model.

    Args:
        model: the model.
        filename: the file; see `safe_open` for this and the other arguments.
        strict: whether names that only one of both has are an error.
        device: the device of the tensors.
        backend: how the bytes are loaded.

    Returns:
        The names that only the model has, and those that only the file has. A name of a shared
        tensor that `save_model` left out is in neither.

    Raises:
        RuntimeError: `strict` is set, and there are such names.
    """
    tensors = load_file(filename, device=device, backend=backend)
    shared: dict[str, list[str]] = import_module("safetensors.torch")._remove_duplicate_names(
        model.state_dict(), preferred_names=list(tensors)
    )
    found = model.load_state_dict(tensors, strict=False)
    missing, unexpected = set(found.missing_keys), list(found.unexpected_keys)
    for left_out in (name for names in shared.values() for name in names):
        if left_out in missing:
            missing.remove(left_out)
        else:
            unexpected.append(left_out)
    if strict and (missing or unexpected):
        lines = [f"Error(s) in loading state_dict for {type(model).__name__}:"]
        for kind, names in (("Missing", missing), ("Unexpected", unexpected)):
            if names:
                quoted = ", ".join(f'"{name}"' for name in sorted(names))
                lines.append(f"{kind} key(s) in state_dict: {quoted}")
        raise RuntimeError("\n    ".join(lines))
    return missing, unexpected


def __getattr__(name: str) -> Any:
    """Returns a name of safetensors that ringload has no version of."""
    return getattr(import_module("safetensors.torch"), name)
