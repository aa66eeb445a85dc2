"""vLLM's `load_format="ringload"`.

    vllm serve /models/llama-8b --load-format ringload

vLLM finds `register` by its entry point (group `vllm.general_plugins`) and calls it in each of its
processes; where `VLLM_PLUGINS` is set, it has to name `ringload`. Checked against vLLM 0.33.0.

How it works: vLLM builds the model, and the loader (`loader.py`) hands it name and tensor of all
that the checkpoint has, in the order in which they come. The model copies of each what its rank
needs to where it needs it, on its GPU. As with vLLM's own `runai_streamer`, tensors come in host
memory, and each rank reads the checkpoint; with `distributed` the ranks read a part each and give
it to the others, and tensors come on the rank's GPU. No tensor is overwritten while the model
holds it, so none is copied besides.

Options are the keys of `--model-loader-extra-config` (checked in `options.py`):

    memory_limit   of the host memory that tensors pass through: bytes, or text as "4GiB"; 0 or
                   "min", the largest tensor; -1 or "unlimited", the default. What the model holds
                   on to does not count
    concurrency    threads that read; by default as many as help
    device         "cpu" (default), or "cuda": tensors come on the rank's GPU, besides the model
    distributed    whether the ranks read a part each, and exchange them; default false
    locations      where the weights of a model are, by the model's name as given to vLLM

Weights are where vLLM says: in a local folder, or in a repository of the Hub, which vLLM downloads.
To stream them from a store, name it in `locations`; vLLM reads config and tokenizer from the
model's folder:

    vllm serve /models/llama-8b --load-format ringload --model-loader-extra-config
        '{"locations": {"/models/llama-8b": "s3://bucket/llama-8b/"}}'

(vLLM allows `s3://`, `gs://` and `az://` for the model itself with its own load formats only. For
them there is the C library: `STREAMER_LIBRARY` and `--load-format runai_streamer`.)

Importing this imports neither vLLM nor torch.
"""

from __future__ import annotations

LOAD_FORMAT = "ringload"

__all__ = ["LOAD_FORMAT", "register"]


def register() -> None:
    """Makes the load format known to vLLM. May be called any number of times.

    Raises:
        ImportError: vLLM is not installed, or is one that this cannot work with.
    """
    from vllm.model_executor import model_loader

    from .loader import RingloadModelLoader

    known = getattr(model_loader, "_LOAD_FORMAT_TO_MODEL_LOADER", {})
    if known.get(LOAD_FORMAT) is not RingloadModelLoader:
        model_loader.register_model_loader(LOAD_FORMAT)(RingloadModelLoader)
