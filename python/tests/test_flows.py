"""Programs that load weights by safetensors give the same results on `ringload.patch()`.

Each runs twice, in processes of their own: on safetensors, and with `RINGLOAD_PATCH=1`. It prints a
digest of what it computed or loaded. `--full` installs what they need.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run
from needs import need

COMMON = """
import hashlib, os, sys, torch
torch.manual_seed(7)
def digest(tensors):
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw)
    return found.hexdigest()
def logits(model):
    with torch.no_grad():
        return {"logits": model(torch.arange(16).reshape(2, 8)).logits}
def show(*found):
    print(*map(digest, found))
"""

LOADED = """
import safetensors
kind = safetensors.safe_open.__module__
assert kind.startswith("ringload" if os.environ.get("RINGLOAD_PATCH") else "builtins"), kind
"""

TRANSFORMERS = """
sys.path.insert(0, {tests!r})
from tiny_models import write_gpt2, write_llama
from transformers import AutoModelForCausalLM
for make, how in [
    (lambda folder: write_llama(folder, shard="60KB"), {{}}),
    (lambda folder: write_llama(folder, tied=True, dtype="bfloat16"), {{"dtype": "auto"}}),
    (write_gpt2, {{"device_map": "cpu"}}),
    (write_gpt2, {{"dtype": torch.float16}}),
]:
    folder = os.path.join({scratch!r}, make.__name__ + str(len(os.listdir({scratch!r}))))
    make(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, **how)
    show(model.state_dict(), logits(model.float()))
"""

DISK_OFFLOAD = """
sys.path.insert(0, {tests!r})
from tiny_models import write_llama
from transformers import AutoModelForCausalLM
folder = write_llama(os.path.join({scratch!r}, "m"), shard="60KB")
places = {{"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
           "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}}
model = AutoModelForCausalLM.from_pretrained(
    folder, device_map=places, offload_folder=os.path.join({scratch!r}, "offload"))
show(logits(model), logits(model))
"""

ACCELERATE = """
from accelerate import Accelerator, init_empty_weights, load_checkpoint_and_dispatch
from safetensors.torch import save_file
def build():
    return torch.nn.Sequential(*[torch.nn.Linear(32, 32) for _ in range(6)])
file = os.path.join({scratch!r}, "m.safetensors")
save_file(build().state_dict(), file)
with init_empty_weights():
    model = build()
places = {{str(n): "cpu" if n < 3 else "disk" for n in range(6)}}
model = load_checkpoint_and_dispatch(
    model, file, device_map=places, offload_folder=os.path.join({scratch!r}, "offload"))
with torch.no_grad():
    show({{"y": model(torch.ones(2, 32))}})
accelerator = Accelerator(cpu=True)
trained = build()
optimizer = torch.optim.Adam(trained.parameters())
trained, optimizer = accelerator.prepare(trained, optimizer)
trained(torch.ones(2, 32)).sum().backward()
optimizer.step()
accelerator.save_state(os.path.join({scratch!r}, "state"))
saved = digest(trained.state_dict())
with torch.no_grad():
    for parameter in trained.parameters():
        parameter.zero_()
accelerator.load_state(os.path.join({scratch!r}, "state"))
assert digest(trained.state_dict()) == saved
show(trained.state_dict())
"""

PEFT = """
sys.path.insert(0, {tests!r})
from tiny_models import write_llama
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
folder = write_llama(os.path.join({scratch!r}, "m"))
base = AutoModelForCausalLM.from_pretrained(folder)
adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
adapted.save_pretrained(os.path.join({scratch!r}, "adapter"))
again = PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(folder), os.path.join({scratch!r}, "adapter"))
show(again.state_dict(), logits(again), logits(again.merge_and_unload()))
"""

SENTENCES = """
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, BertTokenizer
folder = os.path.join({scratch!r}, "bert")
os.mkdir(folder)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "weights", "load", "fast"]
with open(os.path.join(folder, "vocab.txt"), "w") as file:
    file.write("\\n".join(words))
BertTokenizer(os.path.join(folder, "vocab.txt")).save_pretrained(folder)
BertModel(BertConfig(
    vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
)).save_pretrained(folder)
whole = os.path.join({scratch!r}, "whole")
SentenceTransformer(folder, device="cpu").save(whole)
found = SentenceTransformer(whole, device="cpu").encode(["weights load fast", "load"])
show({{"found": torch.from_numpy(found)}})
"""

DATA_LOADER = """
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
file = os.path.join({scratch!r}, "data.safetensors")
save_file({{f"row{{i:03}}": torch.randn(300) for i in range(200)}}, file)
class Rows(Dataset):
    def __init__(self):
        self.opened = safe_open(file, framework="pt")
        self.names = self.opened.keys()
        self.first = self.opened.get_tensor(self.names[0])
    def __len__(self):
        return len(self.names)
    def __getitem__(self, number):
        name = self.names[number]
        return self.opened.get_tensor(name) + self.opened.get_slice(name)[:] + self.first
if __name__ == "__main__":
    loader = DataLoader(Rows(), batch_size=8, num_workers=3, multiprocessing_context="fork")
    show({{str(n): batch for n, batch in enumerate(loader)}})
"""


def outcomes(program: str, directory: Path) -> list[str]:
    """Runs a program on safetensors and on ringload; returns what each prints."""
    found = []
    for name in ("safetensors", "ringload"):
        scratch = directory / name
        scratch.mkdir()
        tests = str(Path(__file__).parent)
        text = COMMON + program.format(scratch=str(scratch), tests=tests) + LOADED
        environment = {"RINGLOAD_PATCH": "1"} if name == "ringload" else {}
        found.append(run(text, HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", **environment))
    return found


def test_workers_of_a_data_loader_use_a_handle_of_their_parent(tmp_path: Path) -> None:
    theirs, ours = outcomes(DATA_LOADER, tmp_path)
    assert ours == theirs and len(theirs) > 60


@pytest.mark.parametrize(
    ("program", "modules"),
    [
        pytest.param(TRANSFORMERS, ["transformers"], id="transformers"),
        pytest.param(DISK_OFFLOAD, ["transformers", "accelerate"], id="disk offload"),
        pytest.param(ACCELERATE, ["accelerate"], id="accelerate"),
        pytest.param(PEFT, ["transformers", "peft"], id="peft"),
        pytest.param(SENTENCES, ["sentence_transformers"], id="sentence-transformers"),
    ],
)
def test_results_are_bit_identical(program: str, modules: list[str], tmp_path: Path) -> None:
    need("RINGLOAD_TEST_FLOWS", *modules)
    theirs, ours = outcomes(program, tmp_path)
    assert ours == theirs and len(theirs) > 60
