"""The device that a streamer loads tensors to.

The native module loads tensors directly to host memory and to CUDA GPUs. For torch's other devices
(`xpu`, `mps`, and the GPUs of ROCm builds) it loads them to host memory, and torch copies each one
to the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import InvalidInputError
from .._frameworks import device_name

if TYPE_CHECKING:
    import torch


class TargetDevice:
    """The device that tensors are loaded to, as torch and the native module name it."""

    def __init__(self, device: str | torch.device | None) -> None:
        """Parses a device; None is host memory.

        Raises:
            InvalidInputError: torch has no such device.
        """
        import torch

        try:
            self.torch = torch.device("cpu" if device is None else device)
        except (RuntimeError, TypeError) as error:
            raise InvalidInputError(f"{device!r} is not a device: {error}") from error
        is_gpu = self.torch.type == "cuda" and torch.version.hip is None
        #: Whether torch copies tensors from host memory to the device.
        self.needs_copy = not is_gpu and self.torch.type != "cpu"
        #: The native module's name of the device that it loads to.
        self.native = str(device_name(self.torch)) if is_gpu else "cpu"
        #: torch's name of the device.
        self.name = str(self.torch)

    @property
    def is_gpu(self) -> bool:
        """Whether the native module loads tensors directly to a GPU."""
        return self.native != "cpu"

    @property
    def native_device(self) -> torch.device:
        """The device that the native module loads to."""
        import torch

        return torch.device(self.native)

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copies a tensor from host memory to the device."""
        return tensor.to(self.torch)
