"""Loads safetensors checkpoints as fast as the hardware allows, under a hard memory cap.

    tensors = ringload.load_file("s3://bucket/model.safetensors", device="cuda:1")

    for name, tensor in ringload.stream("/models/llama", memory_limit="1GiB"):
        ...

    with ringload.open("hf://openai-community/gpt2") as checkpoint:
        rows = checkpoint.get_slice("wte.weight")[100:200]

`load` and `load_file` give all tensors, `stream` one after the other, `open` what is asked for; of
torch, numpy or jax, none of which is imported before. `Loader` is below them: its tensors are for
whatever knows DLPack. Errors are `Error`.
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
    NotFoundError,
    OutOfMemoryError,
    PermissionDeniedError,
    UnreachableError,
    UnsupportedError,
)
from ._load import load, load_file, stream
from ._open import SafeOpen, Slice, open
from ._ringload import Checkpoint, Loader, Stream, Tensor, __version__
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
    "NotFoundError",
    "ObjectStorageModel",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "S3Credentials",
    "SafeOpen",
    "SafetensorsStreamer",
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
    "pull_files",
    "set_local_cache_dir",
    "stream",
]

# The last one registered comes first: loads are stopped before their cache is waited for.
atexit.register(_cache.flush)
atexit.register(_ringload.stop_loads)
atexit.register(_progress.end)
