"""Devices as safetensors takes them.

ringload loads to host memory and to CUDA devices. Tensors for other devices are loaded to host
memory and moved by their framework.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from ._error import SafetensorError

FRAMEWORKS = {
    "pt": "pytorch",
    "torch": "pytorch",
    "pytorch": "pytorch",
    "np": "numpy",
    "numpy": "numpy",
    "tf": "tensorflow",
    "tensorflow": "tensorflow",
    "jax": "flax",
    "flax": "flax",
    "mlx": "mlx",
    "paddle": "paddle",
}
"""The names that safetensors takes, and the names in its messages."""

KINDS = ("cpu", "cuda", "musa", "mps", "npu", "xpu", "xla", "mlu", "hpu")


class Target(NamedTuple):
    """Where tensors are to be."""

    load: str
    """The device that ringload loads them to: "cpu" or "cuda:N"."""
    move: str | int | None
    """The device that their framework moves them to from there."""


HOST = Target("cpu", None)


def framework_of(name: object) -> str:
    """Returns the framework's name in messages of safetensors.

    Raises:
        SafetensorError: safetensors knows no framework of this name.
    """
    if not isinstance(name, str):
        raise TypeError(f"a framework is a name, not {type(name).__name__}")
    known = FRAMEWORKS.get(name)
    if known is None:
        raise SafetensorError(f"framework {name} is invalid")
    return known


def target_of(device: Any, framework: str) -> Target:
    """Returns where the tensors of `framework` are to be.

    Args:
        device: a name such as "cuda:1", a number, a `torch.device`, or None for host memory.
        framework: the framework, as `framework_of` returns it.

    Raises:
        SafetensorError: the device is none, or the framework has no tensors there.
    """
    if device is None:
        return HOST
    if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
        kind, name = "", str(device)
    elif isinstance(device, str) or type(device).__module__ == "torch":
        kind, name = _checked(str(device)), str(device)
    else:
        raise SafetensorError(f"device {device!r} is invalid")
    if kind == "cpu":
        return HOST
    if framework not in ("pytorch", "paddle"):
        raise SafetensorError(f"Device {name} is not supported for framework {framework}")
    if framework == "paddle":
        return Target("cpu", f"gpu:{name[5:] or 0}" if kind == "cuda" else name)
    if kind == "cuda":
        return Target(name if ":" in name else "cuda:0", None)
    if not kind:
        return Target(f"cuda:{device}", None) if _has_cuda() else Target("cpu", int(device))
    return Target("cpu", name)


def _checked(name: str) -> str:
    kind, colon, number = name.partition(":")
    if kind not in KINDS or (colon and (kind == "cpu" or not number.isascii())):
        raise SafetensorError(f"device {name} is invalid")
    if colon and not number.isdigit():
        raise SafetensorError(f"device {name} is invalid")
    if kind == "mps" and colon and int(number) != 0:
        raise SafetensorError(f"device {name} is invalid: only mps or mps:0 is supported")
    return kind


def _has_cuda() -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())
