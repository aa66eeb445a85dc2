"""The memory of the tensors that an exchange receives, and their views of it.

In host memory, long tensors are in huge pages where the kernel has them, as in the ring of a load:
filling 4 KiB pages for the first time takes three times as long as the copy into them. What does
not fill a huge page is in small pages, so that a tensor takes no more memory than it has bytes.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import TYPE_CHECKING

from .._frameworks import packed_shape, torch_dtype_of

if TYPE_CHECKING:
    import torch

_HUGE_PAGE_BYTES = 2 << 20


def new_memory(nbytes: int, device: torch.device) -> torch.Tensor:
    """Returns memory for `nbytes` on a device; its content is undefined."""
    import torch

    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if device.type != "cpu" or nbytes < _HUGE_PAGE_BYTES or advice is None:
        return torch.empty(nbytes, dtype=torch.uint8, device=device)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(advice, 0, nbytes // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES)
    return torch.frombuffer(memory, dtype=torch.uint8)


def aligned(memory: torch.Tensor, dtype: str, name: str) -> torch.Tensor:
    """Returns memory of a tensor that was read to it, or a copy if the file is not aligned.

    Args:
        memory: the bytes, one-dimensional.
        dtype: the element type of the tensor in safetensors.
        name: its name.
    """
    is_aligned = memory.data_ptr() % torch_dtype_of(dtype, name).itemsize == 0
    return memory if is_aligned else memory.clone()


def tensor_of(name: str, dtype: str, shape: tuple[int, ...], memory: torch.Tensor) -> torch.Tensor:
    """Returns a view of `memory` as a tensor.

    Args:
        name: the name of the tensor.
        dtype: its element type in safetensors, such as "BF16".
        shape: its shape, or that of the part of it.
        memory: its bytes, one-dimensional.

    Raises:
        UnsupportedError: torch does not have the type.
    """
    elements = memory.view(torch_dtype_of(dtype, name))
    return elements.reshape(packed_shape(dtype, shape))
