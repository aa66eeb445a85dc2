"""A `from_pretrained` for transformers (5 or later) that loads the weights with ringload.

    from transformers_from_pretrained import from_pretrained

    model = from_pretrained("/models/llama-8b")
    model = from_pretrained("s3://bucket/llama-8b/", config="/models/llama-8b", device="cuda")

How it works: the model is built from its config with parameters that have no memory (accelerate's
`init_empty_weights`), `load_file` loads the checkpoint's tensors, from any number of shards, to the
device, and `load_state_dict(assign=True)` makes them the parameters. No parameter is initialised
and no tensor is copied. A checkpoint does not contain everything that a model needs:

- Tied weights, such as an `lm_head` that is the embedding: transformers ties them after loading.
- Buffers that are not saved, such as the rotary embedding's `inv_freq`: `init_empty_weights` does
  not affect buffers, so they are computed when the model is built, and are moved to the device.
- Other missing tensors, and tensors that the model does not have, are errors.

transformers renames or merges the tensors of some checkpoints as it loads them (the experts of
Mixtral). Such checkpoints have to be loaded by its own code, which accepts a state dict, too, and
does not copy it:

    state_dict = ringload.load_file(location)
    model = MixtralForCausalLM.from_pretrained(None, config=config, state_dict=state_dict)
"""

from __future__ import annotations

import argparse
import re
from os import PathLike

import ringload
import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel


def from_pretrained(
    location: str | PathLike[str],
    config: str | PathLike[str] | None = None,
    device: str = "cpu",
) -> PreTrainedModel:
    """Loads the model at `location` for inference, with the types in its checkpoint.

    Args:
        location: the folder, file, index or URI of the weights, as ringload takes it.
        config: the folder or name from which transformers reads `config.json` and
            `generation_config.json`; by default the location.
        device: the device of the model: "cpu", "cuda", "cuda:N".

    Raises:
        ringload.Error: the weights could not be loaded; the message says why.
        ValueError: the weights do not fit the model that the config describes.
    """
    config = location if config is None else config
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config))
    fill(model, ringload.load_file(location, device=device))
    if model.can_generate():
        model.generation_config = generation_config(model, config)
    return model.to(device).eval()  # moves only the buffers: the parameters are on the device


def fill(model: PreTrainedModel, state_dict: dict[str, torch.Tensor]) -> None:
    """Makes the tensors of `state_dict` the parameters of `model`.

    Raises:
        ValueError: tensors are missing, have other shapes, or are not in the model.
    """
    try:
        found = model.load_state_dict(state_dict, strict=False, assign=True)
    except RuntimeError as error:  # a tensor has another shape than the parameter
        raise ValueError(str(error)) from None
    missing = set(found.missing_keys)
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    unexpected = {
        name
        for name in found.unexpected_keys
        if not any(re.search(pattern, name) for pattern in ignored)
    }
    if missing or unexpected:
        raise ValueError(
            f"the checkpoint does not fit {type(model).__name__}: it lacks {summary(missing)}, "
            f"and has {summary(unexpected)} in addition; if transformers renames its tensors, "
            "pass the state dict to transformers' own from_pretrained"
        )


def summary(names: set[str]) -> str:
    """Returns up to three of the names, and their number if there are more."""
    few = ", ".join(sorted(names)[:3])
    return f"{few} ({len(names)} in all)" if len(names) > 3 else few or "nothing"


def generation_config(model: PreTrainedModel, config: str | PathLike[str]) -> GenerationConfig:
    """Returns the generation config beside the model's config, or else one derived from that."""
    try:
        return GenerationConfig.from_pretrained(config)
    except OSError:  # there is no generation_config.json
        return GenerationConfig.from_model_config(model.config)


def main() -> None:
    """Loads a model and continues a sequence of tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("location", help="folder, file, index or URI of the weights")
    parser.add_argument("--config", help="folder or name of the config; by default, the location")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 3], help="the sequence")
    arguments = parser.parse_args()
    model = from_pretrained(arguments.location, arguments.config, arguments.device)
    tokens = torch.tensor([arguments.tokens], device=arguments.device)
    print(model.generate(tokens, max_new_tokens=8, do_sample=False)[0].tolist())


if __name__ == "__main__":
    main()
