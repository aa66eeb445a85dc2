"""Loads a model with the real vLLM on a machine without a GPU, for `test_vllm.py`.

    python vllm_child.py MODEL RESULT RANK WORLD STORE < cases.json

The process is one of `WORLD` ranks, which rendezvous through the file `STORE`. For each case (a
load config) it writes the digest of every parameter and buffer of the model that vLLM's `get_model`
returns, or the error, to the JSON file `RESULT`. It uses vLLM's CPU platform, which the GPU wheel
contains, too.
"""

import hashlib
import json
import sys

import torch
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()

from vllm.config import set_current_vllm_config  # noqa: E402
from vllm.config.load import LoadConfig  # noqa: E402
from vllm.distributed import init_distributed_environment, initialize_model_parallel  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.model_executor.model_loader import get_model  # noqa: E402
from vllm.plugins import load_general_plugins  # noqa: E402


def main():
    model, result, rank, world, store = sys.argv[1:]
    rank, world = int(rank), int(world)
    load_general_plugins()
    arguments = EngineArgs(
        model=model,
        skip_tokenizer_init=True,
        enforce_eager=True,
        dtype="float32",
        max_model_len=64,
        tensor_parallel_size=world,
        distributed_executor_backend="external_launcher" if world > 1 else None,
    )
    config = arguments.create_engine_config()
    answers = []
    with set_current_vllm_config(config):
        init_distributed_environment(world, rank, f"file://{store}", rank, "gloo")
        initialize_model_parallel(world, 1)
        for case in json.load(sys.stdin):
            answers.append(loaded(config, LoadConfig(use_tqdm_on_load=False, **case)))
    with open(result, "w") as file:
        json.dump(answers, file)


def loaded(config, load_config):
    config.compilation_config.static_forward_context.clear()  # entries of the previous model
    try:
        model = get_model(vllm_config=config, load_config=load_config)
    except Exception as error:
        return {"error": type(error).__name__, "sentence": str(error)}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {"model": type(model).__name__, "tensors": {name: digest(t) for name, t in tensors}}


def digest(tensor):
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    return f"{list(tensor.shape)} {hashlib.sha256(flat.numpy().tobytes()).hexdigest()}"


if __name__ == "__main__":
    main()
