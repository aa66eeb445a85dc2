"""The experts of other ranks, whose weights are not read under expert parallelism.

vLLM's default loader decides which experts a rank owns, by its ranks of data and tensor parallelism
and its placement of experts, and which of their tensors it skips; `--enable-ep-weight-filter` turns
that on. This module asks that loader, so the ranks of this one are the same. It uses
`DefaultModelLoader._init_ep_weight_filter` and `ep_weight_filter.should_skip_weight`, and skips
nothing where vLLM does not have them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


def skipped_experts(model_config: Any) -> Callable[[str], bool] | None:
    """Returns whether the tensor of a name belongs to an expert of another rank.

    Returns:
        None if this rank owns all experts, or vLLM does not filter.
    """
    try:
        from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
        from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight
    except ImportError:
        return None
    decide = getattr(DefaultModelLoader, "_init_ep_weight_filter", None)
    if decide is None:
        return None
    loader = SimpleNamespace(local_expert_ids=None)
    decide(loader, model_config)
    local = loader.local_expert_ids
    if local is None:
        return None
    return lambda name: bool(should_skip_weight(name, local))
