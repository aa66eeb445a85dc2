"""`from_pretrained` of transformers (5 or later), with ringload reading the weights.

    from transformers_from_pretrained import from_pretrained

    model = from_pretrained("/models/llama-8b")
    model = from_pretrained("s3://bucket/llama-8b/", config="/models/llama-8b", device="cuda")

How it works: the model is built from its config with parameters that have no memory (accelerate's
`init_empty_weights`), `load_file` brings the checkpoint's tensors, of any number of shards, to the
device, and `load_state_dict(assign=True)` makes them the parameters: nothing is initialised in vain
and nothing is copied. Three things are in no checkpoint, and have to be right nevertheless:

- Tied weights (an `lm_head` that is the embedding): transformers ties them again afterwards.
- Buffers that are not saved (the rotary embedding's `inv_freq`): `init_empty_weights` leaves
  buffers alone, so they were computed when the model was built, and only move to the device.
- Whatever else is missing, or is there and belongs nowhere, is an error, not a random value.

Checkpoints whose tensors transformers renames or merges as it loads them (the experts of Mixtral)
need its own code to do so. That takes a state dict as well, and copies nothing either:

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
    """The model at `location`, ready for inference, with the types of its checkpoint.

    Args:
        location: folder, file, index or URI of the weights, as ringload takes it.
        config: folder or name of what transformers reads itself (`config.json`,
            `generation_config.json`); by default, the location.
        device: where the model shall be: "cpu", "cuda", "cuda:N".

    Raises:
        ringload.Error: the weights could not be loaded; the text says why.
        ValueError: they are not those of the model that the config describes.
    """
    config = location if config is None else config
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config))
    fill(model, ringload.load_file(location, device=device))
    if model.can_generate():
        model.generation_config = generation_config(model, config)
    return model.to(device).eval()  # the buffers; the parameters are there


def fill(model: PreTrainedModel, state_dict: dict[str, torch.Tensor]) -> None:
    """Makes the tensors of `state_dict` the parameters of `model`.

    Raises:
        ValueError: some are missing, of other shapes, or belong nowhere.
    """
    try:
        found = model.load_state_dict(state_dict, strict=False, assign=True)
    except RuntimeError as error:  # shapes
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
            f"the checkpoint is not one of {type(model).__name__}: it lacks "
            f"{told(missing)}, and has {told(unexpected)} in addition; if transformers renames "
            "its tensors, give the state dict to transformers' own from_pretrained"
        )


def told(names: set[str]) -> str:
    """The first of these names, and how many there are."""
    few = ", ".join(sorted(names)[:3])
    return f"{few} ({len(names)} in all)" if len(names) > 3 else few or "nothing"


def generation_config(model: PreTrainedModel, config: str | PathLike[str]) -> GenerationConfig:
    """How the model generates: what lies beside its config, or else what follows from that."""
    try:
        return GenerationConfig.from_pretrained(config)
    except OSError:  # it has none
        return GenerationConfig.from_model_config(model.config)


def main() -> None:
    """Loads a model, and continues a sequence of tokens."""
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
