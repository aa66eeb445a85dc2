"""Runs the programs in `examples/` with models that the tests create."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from needs import need

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RAY_SECONDS_MAX = 300


def example(name):
    """Imports an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def addresses(tensors):
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


class LoadRecorder:
    """Wraps `ringload.load_file` and records the addresses of the tensors of the last load."""

    def __init__(self, monkeypatch):
        import ringload

        self.load_file = ringload.load_file
        monkeypatch.setattr(ringload, "load_file", self)

    def __call__(self, *args, **options):
        tensors = self.load_file(*args, **options)
        self.addresses = addresses(tensors)
        return tensors


class TestPytorch:
    @pytest.fixture
    def pytorch(self):
        need("RINGLOAD_TEST_EXAMPLES", "torch", "safetensors")
        return example("pytorch")

    @pytest.fixture
    def checkpoint(self, pytorch, tmp_path):
        return pytorch.make_checkpoint(tmp_path / "model.safetensors")

    def test_it_scores_as_the_model_that_was_saved(self, pytorch, checkpoint):
        import torch

        torch.manual_seed(0)
        saved = pytorch.Classifier().eval()
        features = torch.randn(7, 64)
        assert torch.equal(pytorch.load(checkpoint)(features), saved(features))

    def test_tensors_become_parameters_without_a_copy(self, pytorch, checkpoint, monkeypatch):
        recorder = LoadRecorder(monkeypatch)
        model = pytorch.load(checkpoint)
        assert addresses(model.state_dict()) == recorder.addresses
        assert all(parameter.requires_grad for parameter in model.parameters())

    def test_a_checkpoint_of_something_else_is_refused(self, pytorch, tmp_path):
        import torch
        from safetensors.torch import save_file

        path = tmp_path / "other.safetensors"
        save_file({"first.weight": torch.zeros(256, 64)}, path)
        with pytest.raises(RuntimeError, match=r"second\.weight"):
            pytorch.load(str(path))

    def test_it_runs_as_a_program(self, pytorch):
        program = [sys.executable, EXAMPLES / "pytorch.py"]
        done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=True)
        assert len(done.stdout.strip("[]\n").split(",")) == 2


class TestTransformers:
    @pytest.fixture
    def transformers(self):
        need("RINGLOAD_TEST_EXAMPLES", "torch", "transformers", "accelerate")
        return example("transformers_from_pretrained")

    @pytest.fixture(params=["llama", "llama tied", "llama bfloat16", "gpt2 in shards"])
    def model(self, request, tmp_path):
        need("RINGLOAD_TEST_EXAMPLES", "torch", "transformers", "accelerate")
        from tiny_models import write_gpt2, write_llama

        write = {
            "llama": lambda: write_llama(tmp_path),
            "llama tied": lambda: write_llama(tmp_path, tied=True),
            "llama bfloat16": lambda: write_llama(tmp_path, dtype="bfloat16"),
            "gpt2 in shards": lambda: write_gpt2(tmp_path, shard="100KB"),
        }
        folder = write[request.param]()
        shards = len(list(folder.glob("*.safetensors")))
        assert shards == 1 if "shards" not in request.param else shards > 2
        return folder

    def test_logits_and_generation_are_those_of_from_pretrained(self, transformers, model):
        import torch
        from transformers import AutoModelForCausalLM

        theirs = AutoModelForCausalLM.from_pretrained(model).eval()
        ours = transformers.from_pretrained(model)
        tokens = torch.arange(1, 21)[None]
        with torch.no_grad():
            assert torch.equal(ours(tokens).logits, theirs(tokens).logits)
        again = [it.generate(tokens, max_new_tokens=5, do_sample=False) for it in (ours, theirs)]
        assert torch.equal(*again)
        assert ours.dtype == theirs.dtype
        assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()

    def test_every_tensor_is_there_tied_as_it_should_and_not_copied(
        self, transformers, model, monkeypatch
    ):
        import torch
        from transformers import AutoModelForCausalLM

        recorder = LoadRecorder(monkeypatch)
        theirs = AutoModelForCausalLM.from_pretrained(model)
        ours = transformers.from_pretrained(model)
        assert set(addresses(dict(ours.named_parameters())).values()) <= set(
            recorder.addresses.values()
        )
        # Buffers such as inv_freq are not in the checkpoint.
        buffers, expected = dict(ours.named_buffers()), dict(theirs.named_buffers())
        assert buffers.keys() == expected.keys()
        assert all(torch.equal(buffers[name], expected[name]) for name in buffers)
        head, embedding = ours.get_output_embeddings().weight, ours.get_input_embeddings().weight
        assert (head is embedding) == ours.config.tie_word_embeddings

    def test_a_state_dict_serves_transformers_own_loading_too(self, transformers, model):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        import ringload

        theirs = AutoModelForCausalLM.from_pretrained(model).eval()
        config, state_dict = AutoConfig.from_pretrained(model), ringload.load_file(model)
        given = addresses(state_dict)
        ours = type(theirs).from_pretrained(None, config=config, state_dict=state_dict).eval()
        tokens = torch.arange(1, 21)[None]
        with torch.no_grad():
            assert torch.equal(ours(tokens).logits, theirs(tokens).logits)
        assert {p.data_ptr() for p in ours.parameters()} <= set(given.values())

    def test_missing_and_additional_tensors_are_errors(self, transformers, tmp_path):
        import torch
        from safetensors.torch import load_file, save_file
        from tiny_models import write_llama

        path = write_llama(tmp_path) / "model.safetensors"
        whole = load_file(path)
        norm = "model.layers.1.input_layernorm.weight"
        save_file({name: tensor for name, tensor in whole.items() if name != norm}, path)
        with pytest.raises(ValueError, match=f"lacks {norm}, and has nothing"):
            transformers.from_pretrained(tmp_path)
        save_file({**whole, "extra": torch.zeros(1)}, path)
        with pytest.raises(ValueError, match="lacks nothing, and has extra"):
            transformers.from_pretrained(tmp_path)
        save_file({**whole, norm: torch.zeros(3)}, path)
        with pytest.raises(ValueError, match=norm):
            transformers.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
class TestRayServe:
    def test_a_replica_loads_its_model_and_answers(self, tmp_path):
        need("RINGLOAD_TEST_EXAMPLES", "ray", "transformers", "accelerate", "fastapi", "requests")
        mark = f"ringload-test-{uuid.uuid4()}"
        environment = {
            **os.environ,
            "RINGLOAD_TEST_MARK": mark,
            "RAY_USAGE_STATS_ENABLED": "0",
            # Replicas import ringload from the same path as this process.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        log = tmp_path / "log"
        try:
            with open(log, "w") as errors:
                done = subprocess.run(
                    [sys.executable, EXAMPLES / "ray_serve.py"],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    timeout=RAY_SECONDS_MAX,
                    check=False,
                )
            assert done.returncode == 0, log.read_text()[-4000:]
            assert self.expected(tmp_path) in done.stdout.splitlines()
            wait_until_gone(mark)
        finally:
            for pid in marked(mark):
                os.kill(pid, signal.SIGKILL)

    def expected(self, folder):
        """Returns the answer of the app's model when safetensors loads it."""
        from safetensors.torch import load_file
        from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

        arguments = example("ray_serve").make_tiny_model(folder)
        model = MistralForCausalLM(MistralConfig.from_pretrained(arguments["config"]))
        model.load_state_dict(load_file(arguments["weights"]))
        tokenizer = AutoTokenizer.from_pretrained(arguments["config"])
        tokens = tokenizer("<s>[INST] hello [/INST]", return_tensors="pt", add_special_tokens=False)
        answer = model.eval().generate(tokens.input_ids, max_new_tokens=8, do_sample=False)
        return tokenizer.batch_decode(answer)[0]


def marked(mark):
    """Returns the processes that have `mark` in their environment."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                pids.append(int(folder.name))
        except OSError:  # the process has ended, or belongs to another user
            continue
    return pids


def wait_until_gone(mark, seconds=300):
    end = time.monotonic() + seconds
    while pids := marked(mark):
        assert time.monotonic() < end, f"these processes have not ended: {pids}"
        time.sleep(0.2)
