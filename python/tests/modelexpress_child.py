"""Streams a model with ModelExpress's strategy for stores, for `test_vllm.py`.

    python modelexpress_child.py MODEL

Prints the SHA-256 of each tensor, and which libraries the process has mapped, as one JSON object.
ModelExpress's loader refuses machines without a GPU before it chooses a strategy, so the strategy
is called with the parts of the adapter for vLLM that it uses.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()

from modelexpress.engines.vllm.adapter import VllmAdapter  # noqa: E402
from modelexpress.load_strategy.model_streamer_strategy import ModelStreamerStrategy  # noqa: E402
from vllm.config.load import LoadConfig  # noqa: E402


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy()).hexdigest()


def main():
    adapter = VllmAdapter.__new__(VllmAdapter)
    adapter.load_config = LoadConfig(load_format="runai_streamer", use_tqdm_on_load=False)
    adapter.model_config = SimpleNamespace(revision=None, runner_type="generate")
    adapter.vllm_config = SimpleNamespace(
        load_config=adapter.load_config,
        speculative_config=None,
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
    )
    context = SimpleNamespace(adapter=adapter, global_rank=0, model_config=adapter.model_config)
    weights = ModelStreamerStrategy()._stream_weights(sys.argv[1], context)
    tensors = {name: digest(tensor) for name, tensor in weights}
    maps = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    print(json.dumps({"tensors": tensors, "maps": sorted(maps)}))


if __name__ == "__main__":
    main()
