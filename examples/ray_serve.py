"""A Ray Serve app that streams its model's weights: Anyscale's example app with ringload.

    python examples/ray_serve.py                    # serves one request with a tiny model
    serve run ray_serve:build config=/models/mistral weights=s3://bucket/mistral.safetensors

Anyscale's example (https://docs.anyscale.com, "Fast model loading") imports `load_file` from
`ray.anyscale.safetensors.torch`; this app imports it from `ringload`. In addition, the model, the
location of the weights and the device (`device=cuda`) are arguments, so the app can be tried with a
tiny model, which it creates itself, on a machine without a GPU.

How it works: each replica builds the model with empty weights, loads the weights directly to its
device, and answers `GET /?prompt=...` with the model's continuation of the prompt.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import requests
import torch
from accelerate import init_empty_weights
from fastapi import FastAPI
from ray import init, serve, shutdown
from ray.serve import Application
from ringload import load_file
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

fastapi_app = FastAPI()


@serve.deployment
@serve.ingress(fastapi_app)
class MistralApp:
    """Continues prompts.

    Args:
        config: the folder or name of the model's config and tokenizer.
        weights: the location of the weights: any path or URI that ringload supports.
        device: the device of the model: "cpu", "cuda", "cuda:N".
    """

    def __init__(self, config: str, weights: str, device: str = "cpu") -> None:
        # The weights have no memory yet, and are not initialised.
        with init_empty_weights():
            self._model = MistralForCausalLM(MistralConfig.from_pretrained(config))

        # The tensors are loaded directly to the device and become the parameters without a copy.
        state_dict: dict[str, torch.Tensor] = load_file(weights, device=device)
        self._model.load_state_dict(state_dict, assign=True)
        self._model.to(device).eval()
        self._device = device

        self._tokenizer = AutoTokenizer.from_pretrained(config)

    @fastapi_app.get("/")
    def predict(self, prompt: str, max_new_tokens: int = 100) -> str:
        """Returns the prompt and the model's continuation."""
        messages = [{"role": "user", "content": prompt}]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        encoded = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)
        generated = self._model.generate(
            encoded.input_ids.to(self._device),
            attention_mask=encoded.attention_mask.to(self._device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        answer: str = self._tokenizer.batch_decode(generated.to("cpu"))[0]
        return answer


def build(arguments: dict[str, str]) -> Application:
    """Builds the app, for `serve run ray_serve:build config=... weights=... [device=...]`."""
    device = arguments.get("device", "cpu")
    gpus = 0 if device == "cpu" else 1
    deployment = MistralApp.options(ray_actor_options={"num_cpus": 1, "num_gpus": gpus})
    return deployment.bind(arguments["config"], arguments["weights"], device)


def make_tiny_model(folder: Path) -> dict[str, str]:
    """Creates a 2-layer Mistral with random weights and a byte-level tokenizer in `folder`.

    Returns:
        The arguments for `build`.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    fast.save_pretrained(folder)

    config = MistralConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
        pad_token_id=vocabulary["</s>"],
    )
    config.save_pretrained(folder)
    torch.manual_seed(0)
    weights = folder / "weights" / "mistral.safetensors"
    weights.parent.mkdir()
    save_file(MistralForCausalLM(config).state_dict(), weights)
    return {"config": str(folder), "weights": str(weights)}


def main() -> None:
    """Starts Ray, serves a tiny model, sends one request, and stops Ray."""
    # Ray creates sockets in this folder, and the paths of sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        model = Path(folder) / "model"
        model.mkdir()
        arguments = make_tiny_model(model)
        init(num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        try:
            port = free_port()
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(build(arguments))
            send_prompt(port)
        finally:
            serve.shutdown()
            shutdown()


def free_port() -> int:
    """Returns a port on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def send_prompt(port: int) -> None:
    """Sends one prompt to the app, and prints the answer."""
    url = f"http://127.0.0.1:{port}/"
    answer = requests.get(url, params={"prompt": "hello", "max_new_tokens": "8"}, timeout=60)
    answer.raise_for_status()
    print(answer.json())


if __name__ == "__main__":
    main()
