"""A plugin for SGLang that reads the weights of models with ringload.

    SGLANG_PLUGINS=ringload python -m sglang.launch_server --model-path /models/llama-8b

SGLang finds `register` by its entry point (group `sglang.srt.plugins`) and calls it in each of its
processes. Without `SGLANG_PLUGINS` it calls the plugins of all installed packages, so `register`
does nothing unless `SGLANG_PLUGINS` names `ringload`. Checked against SGLang 0.5.23.

How it works: SGLang's loaders find, download and filter files, and pass them to one of two
iterators over the tensors of safetensors files. Hooks replace both by `weights`, a stream. What
SGLang does before and after that is unchanged, and so are other formats. The options of a stream
are those of the environment (`RINGLOAD_MEMORY_LIMIT`, `RINGLOAD_CONCURRENCY`).

Importing this module imports neither SGLang nor torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ringload

if TYPE_CHECKING:
    import torch

__all__ = ["register", "weights"]

_NAME = "ringload"
_MODULE = "sglang.srt.model_loader.loader"
_ITERATORS = ("safetensors_weights_iterator", "buffered_multi_thread_safetensors_weights_iterator")


def register() -> None:
    """Registers the hooks with SGLang, if `SGLANG_PLUGINS` names this plugin.

    Raises:
        ImportError: SGLang is not installed, or its version has no plugins.
    """
    named = os.environ.get("SGLANG_PLUGINS", "").split(",")
    if _NAME not in (name.strip() for name in named):
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for iterator in _ITERATORS:
        HookRegistry.register(f"{_MODULE}.{iterator}", weights, HookType.REPLACE)


def weights(
    hf_weights_files: Sequence[str], *_: Any, **__: Any
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the names and tensors of safetensors files, in the order in which they complete.

    The tensors are in host memory, and the caller may keep them. The other arguments of SGLang's
    iterators say how those read files.

    Raises:
        ringload.Error: the weights could not be loaded; the message says why.
    """
    # A model may hold tensors until others arrive: these must not count for a memory limit.
    yield from ringload.stream(list(hf_weights_files), keep=True, progress=_shows_progress())


def _shows_progress() -> bool | None:
    """Whether a bar is shown: as in SGLang, by the first rank alone."""
    import torch

    distributed = torch.distributed
    is_first = not distributed.is_initialized() or distributed.get_rank() == 0
    return None if is_first else False
