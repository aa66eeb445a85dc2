"""Loads safetensors checkpoints as fast as the hardware allows, under a hard memory limit.

    tensors = ringload.load_file("s3://bucket/model.safetensors", device="cuda:1")

    for name, tensor in ringload.stream("/models/llama-8b", memory_limit="4GiB"):
        ...

    with ringload.open("hf://openai-community/gpt2") as checkpoint:
        rows = checkpoint.get_slice("wte.weight")[100:200]

`load` and `load_file` return all tensors, `stream` yields them one at a time, and `open` reads the
tensors and slices that you ask for. They return tensors of torch, numpy or jax; the framework is
imported by the first call that needs it. `Loader` is the native layer below these functions: its
tensors can be imported by any framework that supports DLPack. All errors derive from `Error`.

`ringload.safetensors` has the interface of the package safetensors, and `patch` makes programs that
use that package use ringload.
"""

import atexit

from . import _cache, _progress, _ringload
from ._cache import set_local_cache_dir
from ._errors import (
    CancelledError,
    ChangedError,
    CorruptError,
    DeviceError,
    Error,
    InvalidCheckpointError,
    InvalidInputError,
    IoError,
    MemoryLimitError,
    NotFiniteError,
    NotFoundError,
    OutOfMemoryError,
    PermissionDeniedError,
    UnreachableError,
    UnsupportedError,
)
from ._load import load, load_file, stream
from ._open import SafeOpen, Slice, open
from ._patch import patch, unpatch
from ._ringload import Checkpoint, Loader, Progress, Stream, Tensor, __version__
from ._slices import Share
from .runai_model_streamer import (
    ObjectStorageModel,
    S3Credentials,
    SafetensorsStreamer,
    list_safetensors,
    pull_files,
)

__all__ = [
    "CancelledError",
    "ChangedError",
    "Checkpoint",
    "CorruptError",
    "DeviceError",
    "Error",
    "InvalidCheckpointError",
    "InvalidInputError",
    "IoError",
    "Loader",
    "MemoryLimitError",
    "NotFiniteError",
    "NotFoundError",
    "ObjectStorageModel",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "Progress",
    "S3Credentials",
    "SafeOpen",
    "SafetensorsStreamer",
    "Share",
    "Slice",
    "Stream",
    "Tensor",
    "UnreachableError",
    "UnsupportedError",
    "__version__",
    "list_safetensors",
    "load",
    "load_file",
    "open",
    "patch",
    "pull_files",
    "set_local_cache_dir",
    "stream",
    "unpatch",
]

# atexit runs the last registered function first: loads are stopped before their cache is flushed.
atexit.register(_cache.flush)
atexit.register(_ringload.stop_loads)
atexit.register(_progress.stop_all)
