"""Where tensors are to end up, in torch's words and in the native module's.

Host memory and CUDA GPUs are loaded to directly. For any other device of torch (`xpu`, `mps`, and
GPUs of builds for ROCm) tensors are loaded to host memory, and torch brings them there one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import InvalidInputError
from .._frameworks import device_name

if TYPE_CHECKING:
    import torch


class Device:
    """A device that was asked for."""

    def __init__(self, device: str | torch.device | None) -> None:
        """Reads what was asked for; None is host memory.

        Raises:
            InvalidInputError: for what torch knows no device by.
        """
        import torch

        try:
            self.torch = torch.device("cpu" if device is None else device)
        except (RuntimeError, TypeError) as error:
            raise InvalidInputError(f"{device!r} is not a device: {error}") from error
        is_gpu = self.torch.type == "cuda" and torch.version.hip is None
        #: Whether tensors are brought there by torch.
        self.is_elsewhere = not is_gpu and self.torch.type != "cpu"
        #: As the native module calls it.
        self.native = str(device_name(self.torch)) if is_gpu else "cpu"
        #: As torch calls it.
        self.text = str(self.torch)

    @property
    def is_gpu(self) -> bool:
        """Whether tensors are loaded to a GPU directly."""
        return self.native != "cpu"

    @property
    def loaded_to(self) -> torch.device:
        """Where the native module loads to."""
        import torch

        return torch.device(self.native)

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        """Brings a tensor of host memory there."""
        return tensor.to(self.torch)
