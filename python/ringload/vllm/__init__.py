"""A plugin for vLLM that adds `load_format="ringload"`.

    vllm serve /models/llama-8b --load-format ringload

vLLM finds `register` by its entry point (group `vllm.general_plugins`) and calls it in each of its
processes. If `VLLM_PLUGINS` is set, it has to include `ringload`. Checked against vLLM 0.33.0.

How it works: vLLM builds the model. The loader (`loader.py`) is vLLM's default loader with another
iterator, which yields the names and tensors of the checkpoint in the order in which they complete.
The model copies the part of each tensor that its rank needs into its parameters on the GPU. As with
vLLM's own `runai_streamer`, the tensors are in host memory, and each rank reads the whole
checkpoint. With `distributed`, each rank reads a part and sends it to the others, and the tensors
are on the rank's GPU. A tensor is not overwritten while the model holds it, so no other copy is
needed.

Options are the keys of `--model-loader-extra-config` (checked in `options.py`):

    memory_limit   the limit of the host memory that tensors pass through: bytes, or text such as
                   "4GiB"; 0 or "min" for the size of the largest tensor; -1 or "unlimited" (the
                   default) for no limit. Tensors that the model holds do not count
    concurrency    the number of threads that read; by default it grows while throughput improves
    device         "cpu" (default), or "cuda": tensors are loaded to the rank's GPU, in addition to
                   the memory of the model
    distributed    whether each rank of the tensor-parallel group reads a part and sends it to the
                   others; default false
    enable_weights_track
                   vLLM's own: whether a weight that the checkpoint lacks is an error
    locations      maps the name of a model, as given to vLLM, to the location of its weights

By default the weights are where vLLM expects them: in a local folder, or in a repository of the
Hugging Face Hub, which vLLM downloads. To stream them from an object store, give its location in
`locations`; vLLM reads the config and tokenizer from the model's folder:

    vllm serve /models/llama-8b --load-format ringload --model-loader-extra-config
        '{"locations": {"/models/llama-8b": "s3://bucket/llama-8b/"}}'

(vLLM accepts `s3://`, `gs://` and `az://` as the model itself only with its own load formats. For
those, use ringload's C library: `STREAMER_LIBRARY` and `--load-format runai_streamer`.)

Importing this package imports neither vLLM nor torch.
"""

from __future__ import annotations

LOAD_FORMAT = "ringload"

__all__ = ["LOAD_FORMAT", "register"]


def register() -> None:
    """Registers the load format with vLLM. May be called any number of times.

    Raises:
        ImportError: vLLM is not installed, or its version is not supported.
    """
    from vllm.model_executor import model_loader

    from .loader import RingloadModelLoader

    known = getattr(model_loader, "_LOAD_FORMAT_TO_MODEL_LOADER", {})
    if known.get(LOAD_FORMAT) is not RingloadModelLoader:
        model_loader.register_model_loader(LOAD_FORMAT)(RingloadModelLoader)
