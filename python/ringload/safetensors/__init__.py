"""The interface of the package safetensors, on top of ringload.

    from ringload.safetensors import safe_open        # was: from safetensors import safe_open
    from ringload.safetensors.torch import load_file  # was: from safetensors.torch import ...

The names of safetensors are all here, and take the same arguments. Wherever a file name is taken,
it may also be a location such as `s3://bucket/model.safetensors`. What is loaded is loaded by
ringload; what is saved, or is in memory already, is handled by safetensors itself, which is
imported when such a name is first used.

| module | |
| --- | --- |
| `_open` | `safe_open` |
| `_mapped`, `_reading` | the two ways in which it gets at the bytes of a file |
| `_prefetch` | `PrefetchLoader`, of safetensors 0.9 |
| `_index`, `_devices`, `_convert` | indices, devices and frameworks, as safetensors takes them |
| `torch`, `numpy`, `flax`, `tensorflow`, `paddle`, `mlx` | the modules of these names |
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._error import SafetensorError
from ._open import TensorMeta, _safe_open_handle, safe_open
from ._prefetch import PrefetchLoader

if TYPE_CHECKING:
    from safetensors import TensorSpec, deserialize, serialize, serialize_file

__all__ = [
    "PrefetchLoader",
    "SafetensorError",
    "TensorMeta",
    "TensorSpec",
    "_safe_open_handle",
    "deserialize",
    "safe_open",
    "serialize",
    "serialize_file",
]


def __getattr__(name: str) -> Any:
    """Returns a name of safetensors that ringload has no version of."""
    if name.startswith("__") and name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("safetensors"), name)
