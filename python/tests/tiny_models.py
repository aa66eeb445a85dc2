"""Tiny models with random weights, written by transformers."""

import torch

LLAMA = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def write_llama(folder, *, tied=False, dtype="float32", shard="1GB"):
    """Writes a Llama with 2 layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**LLAMA, tie_word_embeddings=tied, dtype=dtype)
    return write(LlamaForCausalLM, config, folder, dtype, shard)


def write_gpt2(folder, *, dtype="float32", shard="1GB"):
    """Writes a GPT-2 with 2 layers, whose head is tied to its embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=128, n_positions=64, n_embd=64, n_layer=2, n_head=4, dtype=dtype)
    return write(GPT2LMHeadModel, config, folder, dtype, shard)


def write_mixtral(folder, *, dtype="float32", shard="1GB"):
    """Writes a Mixtral with 2 layers of 4 experts, which are separate tensors in its files."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2, dtype=dtype)
    return write(MixtralForCausalLM, config, folder, dtype, shard)


def write(kind, config, folder, dtype, shard):
    torch.manual_seed(5)
    model = kind(config).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)
    return folder
