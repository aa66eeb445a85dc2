"""The vLLM plugin: its options, its loader with a stand-in for vLLM, and its loads in vLLM."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

import ringload.vllm
from ringload import InvalidInputError, NotFoundError
from ringload.vllm.options import Options

CHILD = Path(__file__).with_name("vllm_child.py")
CHILD_SECONDS_MAX = 300


class TestOptions:
    def test_none_are_the_defaults(self):
        assert Options.of({}) == Options({}, None, None, "cpu", False, None)

    @pytest.mark.parametrize(
        ("given", "meant"),
        [(-1, "unlimited"), (0, "min"), (4_000_000_000, 4_000_000_000), ("4GiB", "4GiB")],
    )
    def test_memory_limits_are_run_ais_or_ringloads(self, given, meant):
        assert Options.of({"memory_limit": given}).memory_limit == meant

    @pytest.mark.parametrize(
        ("extra", "sentence"),
        [
            ({"colour": 1}, r"accepts the keys locations, .*, not \['colour'\]"),
            (["memory_limit"], "must be an object"),
            ({"memory_limit": -2}, "memory_limit must be"),
            ({"memory_limit": True}, "memory_limit must be"),
            ({"memory_limit": 1.5}, "memory_limit must be"),
            ({"concurrency": 0}, "concurrency must be"),
            ({"concurrency": "4"}, "concurrency must be"),
            ({"device": "cuda:1"}, "the GPU of the rank"),
            ({"distributed": "yes"}, "true or false"),
            ({"enable_weights_track": 1}, "true or false"),
            ({"locations": "s3://bucket/"}, "locations must be"),
            ({"locations": {"model": 1}}, "locations must be"),
            ({"locations": {"model": ""}}, "locations must be"),
            ({"distributed": True, "memory_limit": 0}, "RINGLOAD_MEMORY_LIMIT"),
        ],
    )
    def test_invalid_options_are_named(self, extra, sentence):
        with pytest.raises(InvalidInputError, match=sentence):
            Options.of(extra)


def test_importing_it_imports_neither_vllm_nor_torch():
    code = (
        "import sys, ringload.vllm, ringload.vllm.options; "
        "assert not {'vllm', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_pyproject_names_register_as_vllms_plugin():
    text = (CHILD.parents[1] / "pyproject.toml").read_text()
    assert (
        '[project.entry-points."vllm.general_plugins"]\nringload = "ringload.vllm:register"' in text
    )


@pytest.fixture
def vllm(monkeypatch):
    need("RINGLOAD_TEST_EXAMPLES", "torch", "safetensors")
    import vllm_stand_in

    stand_in = vllm_stand_in.StandIn()
    stand_in.install(monkeypatch)
    stand_in.LoadConfig, stand_in.ModelConfig = vllm_stand_in.LoadConfig, vllm_stand_in.ModelConfig
    return stand_in


@pytest.fixture
def loader(vllm):
    """Creates a loader with an extra config."""
    from ringload.vllm.loader import RingloadModelLoader

    return lambda **extra: RingloadModelLoader(vllm.LoadConfig(**extra))


def write(path, **tensors):
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    filled = {name: torch.full((3, 2), float(value)) for name, value in tensors.items()}
    save_file(filled, path)
    return filled


def model(*names, **attributes):
    """Returns a model with the parameters `names`, which loads weights as vLLM's models do."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            for name in names:
                self.register_parameter(name, nn.Parameter(torch.zeros(3, 2)))

        def load_weights(self, weights):
            parameters = dict(self.named_parameters())
            loaded = set()
            for name, tensor in list(weights):  # some of vLLM's models hold all tensors
                parameters[name].data.copy_(tensor)
                loaded.add(name)
            return loaded

    made = Model()
    vars(made).update(attributes)
    return made


def values(model):
    return {name: parameter.flatten()[0].item() for name, parameter in model.named_parameters()}


class TestLoader:
    def test_register_may_be_called_again(self, vllm):
        for _ in range(3):
            ringload.vllm.register()
        from ringload.vllm.loader import RingloadModelLoader

        assert vllm.formats == {"ringload": [RingloadModelLoader]}

    def test_a_folder_with_its_index_is_loaded(self, vllm, loader, tmp_path):
        write(tmp_path / "one.safetensors", a=1)
        write(tmp_path / "two.safetensors", b=2)
        write(tmp_path / "consolidated.safetensors", a=9, b=9)  # some models have a second copy
        index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        made = model("a", "b")
        loader().load_weights(made, vllm.ModelConfig(tmp_path))
        assert values(made) == {"a": 1.0, "b": 2.0}

    def test_a_repository_is_downloaded_by_vllm(self, vllm, loader, tmp_path):
        write(tmp_path / "model.safetensors", a=3)
        vllm.hub.folder = str(tmp_path)
        made, config = model("a"), vllm.ModelConfig("owner/repository", revision="main")
        loader().download_model(config)
        patterns = ["*.safetensors", "*.bin"]
        call = ("owner/repository", "/cache", patterns, "main", None, ["original/**/*"])
        assert vllm.hub.calls == [call]
        loader().load_weights(made, config)
        assert values(made) == {"a": 3.0}

    def test_locations_apply_only_to_the_model_that_they_name(self, vllm, loader, tmp_path):
        """A draft model, or a reload from another location, has the same load config."""
        write(tmp_path / "store" / "model.safetensors", a=4)
        write(tmp_path / "draft" / "model.safetensors", a=5)
        locations = {str(tmp_path / "model"): str(tmp_path / "store")}
        loads = loader(locations=locations)
        made = model("a")
        loads.load_weights(made, vllm.ModelConfig(tmp_path / "model"))
        assert values(made) == {"a": 4.0}
        loads.load_weights(made, vllm.ModelConfig(tmp_path / "draft"))
        assert values(made) == {"a": 5.0}
        elsewhere = vllm.ModelConfig("a folder", model_weights=str(tmp_path / "store"))
        loads.load_weights(made, elsewhere)
        assert values(made) == {"a": 4.0}

    def test_a_model_may_hold_all_tensors_under_a_limit(self, vllm, loader, tmp_path):
        import torch
        from safetensors.torch import save_file

        tensors = {f"t{i}": torch.full((1 << 18,), float(i)) for i in range(8)}  # 1 MiB each
        save_file(tensors, tmp_path / "model.safetensors")
        loads = loader(memory_limit="2MiB")
        held = dict(loads.get_all_weights(vllm.ModelConfig(tmp_path), model()))
        assert held.keys() == tensors.keys()
        assert all(torch.equal(held[name], tensors[name]) for name in tensors)

    def test_a_limit_below_the_largest_tensor_is_the_engines_error(self, vllm, loader, tmp_path):
        import torch
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1 << 20)}, tmp_path / "model.safetensors")
        weights = loader(memory_limit=1 << 20).get_all_weights(vllm.ModelConfig(tmp_path), model())
        with pytest.raises(ringload.MemoryLimitError, match="limit of 1 MiB"):
            list(weights)

    def test_experts_that_other_ranks_own_are_not_read(self, vllm, loader, tmp_path):
        """vLLM decides; without its filter, and in a load that ranks share, all experts come."""
        names = [f"layers.0.experts.{i}.up.weight" for i in range(4)]
        scale = "layers.0.experts.3.up.scale"
        write(tmp_path / "model.safetensors", **dict.fromkeys([*names, scale, "router"], 1))
        read = []

        class Model:
            secondary_weights = ()

            def load_weights(self, weights):
                read.extend(name for name, _ in weights)

        for owned, expected in [
            ({0, 2}, {names[0], names[2], scale, "router"}),
            (None, {*names, scale, "router"}),
        ]:
            vllm.default_loader.owned = owned
            read.clear()
            loader().load_weights(Model(), vllm.ModelConfig(tmp_path))
            assert set(read) == expected

    def test_tensors_that_the_model_does_not_use_are_not_read(self, vllm, loader, tmp_path):
        write(tmp_path / "model.safetensors", a=1, mtp=2)
        made = model("a", is_unused_checkpoint_weight=lambda name: name == "mtp")
        weights = dict(loader().get_all_weights(vllm.ModelConfig(tmp_path), made))
        assert weights.keys() == {"a"}
        vars(made)["is_unused_checkpoint_weight"] = lambda name: True
        weights = dict(loader().get_all_weights(vllm.ModelConfig(tmp_path), made))
        assert weights.keys() == {"a", "mtp"}

    def test_secondary_weights_have_their_prefix(self, vllm, loader, tmp_path):
        write(tmp_path / "model.safetensors", a=1)
        write(tmp_path / "heads" / "head.safetensors", weight=2)
        write(tmp_path / "heads" / "other.safetensors", weight=9)
        source = vllm.default_loader.Source(
            model_or_path=str(tmp_path),
            revision=None,
            subfolder="heads",
            allow_patterns_overrides=["head.safetensors"],
            prefix="head_",
        )
        made = model("a", "head_weight", secondary_weights=[source])
        loader().load_weights(made, vllm.ModelConfig(tmp_path))
        assert values(made) == {"a": 1.0, "head_weight": 2.0}

    def test_what_is_not_safetensors_is_read_by_vllm(self, vllm, loader, tmp_path):
        (tmp_path / "pytorch_model.bin").write_bytes(b"x")
        [(name, source)] = loader().get_all_weights(vllm.ModelConfig(tmp_path), model())
        assert (name, source.model_or_path) == ("from vLLM's own iterator", str(tmp_path))
        # In a store nothing but safetensors is read.
        made = model(allow_patterns_overrides=["*.gguf"])
        stored = loader(locations={"model": "s3://bucket/model/"})
        with pytest.raises(NotFoundError, match=r"requires \*\.gguf"):
            list(stored.get_all_weights(vllm.ModelConfig("model"), made))

    def test_what_torchao_has_serialized_is_read_by_vllm(self, vllm, loader, tmp_path):
        write(tmp_path / "model.safetensors", a=1)
        loads = loader()
        loads.load_config.safetensors_load_strategy = "torchao"
        [(name, _)] = loads.get_all_weights(vllm.ModelConfig(tmp_path), model())
        assert name == "from vLLM's own iterator"

    def test_files_without_weights_of_the_encoder_are_not_read(self, vllm, loader, tmp_path):
        write(tmp_path / "language.safetensors", a=1)
        write(tmp_path / "vision.safetensors", b=2)
        loads = loader()
        loads._encoder_only_lm_prefixes = ("language",)
        weights = dict(loads.get_all_weights(vllm.ModelConfig(tmp_path), model()))
        assert weights.keys() == {"b"}
        loads._encoder_only_lm_prefixes = ("language", "vision")
        with pytest.raises(NotFoundError, match="weights of the multimodal encoder"):
            list(loads.get_all_weights(vllm.ModelConfig(tmp_path), model()))

    def test_whether_a_missing_weight_is_an_error_is_vllms_option(self, vllm, loader, tmp_path):
        write(tmp_path / "model.safetensors", a=1)
        with pytest.raises(ValueError, match=r"not initialized: \{'b'\}"):
            loader().load_weights(model("a", "b"), vllm.ModelConfig(tmp_path))
        relaxed = loader(enable_weights_track=False)
        relaxed.load_weights(model("a", "b"), vllm.ModelConfig(tmp_path))

    def test_tensors_are_loaded_to_the_gpu_of_the_rank(self, vllm, loader, tmp_path, monkeypatch):
        write(tmp_path / "model.safetensors", a=1)
        seen = []
        monkeypatch.setattr(
            ringload, "stream", lambda locations, **how: seen.append((locations, how)) or iter(())
        )
        config = vllm.ModelConfig(tmp_path)
        list(loader(concurrency=3).get_all_weights(config, model()))
        vllm.platform.ordinal = 5
        list(loader(device="cuda", memory_limit="1GiB").get_all_weights(config, model()))
        assert [locations for locations, _ in seen] == [[str(tmp_path / "model.safetensors")]] * 2
        assert [how["device"] for _, how in seen] == ["cpu", "cuda:5"]
        assert [how["engines"] for _, how in seen] == [3, None]
        assert [how["memory_limit"] for _, how in seen] == [None, "1GiB"]
        vllm.platform.ordinal = None
        with pytest.raises(InvalidInputError, match="runs on no GPU"):
            list(loader(device="cuda").get_all_weights(config, model()))

    @pytest.mark.parametrize(("ordinal", "device"), [(None, "cpu"), (2, "cuda:2")])
    def test_distributed_ranks_share_the_load(
        self, vllm, loader, tmp_path, monkeypatch, ordinal, device
    ):
        seen = []

        class Streamer:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def stream_files(self, paths, **how):
                seen.append((paths, how))

            def get_tensors(self):
                return iter([("a", 1)])

        monkeypatch.setattr(ringload, "SafetensorsStreamer", Streamer, raising=False)
        vllm.platform.ordinal = ordinal
        write(tmp_path / "model.safetensors", a=1)
        weights = loader(distributed=True).get_all_weights(vllm.ModelConfig(tmp_path), model())
        assert list(weights) == [("a", 1)]
        # The ranks that divide this rank's layers, and not all ranks of the world.
        groups = ("cpu group", "device group")
        how = {"device": device, "is_distributed": True, "tensor_names": None, "group": groups}
        assert seen == [([str(tmp_path / "model.safetensors")], how)]


class TestInVllm:
    """vLLM builds a Llama and loads it with ringload and with its own loader."""

    CASES = (
        {"load_format": "safetensors"},
        {"load_format": "ringload"},
        {"load_format": "ringload", "model_loader_extra_config": {"memory_limit": 0}},
        {"load_format": "ringload", "model_loader_extra_config": {"distributed": True}},
        {"load_format": "ringload", "model_loader_extra_config": {"colour": "red"}},
    )

    @pytest.mark.parametrize("ranks", [1, 2])
    def test_parameters_of_every_rank_are_those_of_vllms_own_loader(self, tmp_path, ranks):
        need("RINGLOAD_TEST_VLLM", "vllm", "transformers")
        from tiny_models import write_llama

        folder = write_llama(tmp_path / "model", shard="100KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
        answers = self.run(folder, tmp_path, ranks)
        for theirs, *ours, refused in answers:
            assert theirs["model"] == "LlamaForCausalLM"
            assert ours == [theirs] * 3
            assert refused["error"] == "InvalidInputError"
        if ranks == 2:
            assert answers[0] != answers[1]  # each rank has its own part of the model

    def test_weights_that_are_not_safetensors_are_loaded_too(self, tmp_path):
        need("RINGLOAD_TEST_VLLM", "vllm", "transformers")
        import torch
        from safetensors.torch import load_file
        from tiny_models import write_llama

        folder = write_llama(tmp_path / "model", shard="100KB")
        weights = {}
        for file in folder.glob("*.safetensors*"):
            if file.suffix == ".safetensors":
                weights.update(load_file(file))
            file.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        cases = [{"load_format": "hf"}, {"load_format": "ringload"}]
        [[theirs, ours]] = self.run(folder, tmp_path, 1, cases)
        assert theirs["model"] == "LlamaForCausalLM"
        assert ours == theirs

    def test_run_ais_format_reads_with_the_c_library(self, tmp_path, c_library):
        from tiny_models import write_llama

        folder = write_llama(tmp_path / "model", shard="100KB")
        cases = [{"load_format": "safetensors"}, {"load_format": "runai_streamer"}]
        [[theirs, ours]] = self.run(folder, tmp_path, 1, cases)
        assert theirs["model"] == "LlamaForCausalLM"
        assert ours == theirs

    def test_modelexpress_reads_with_the_c_library(self, tmp_path, c_library):
        need("RINGLOAD_TEST_VLLM", "modelexpress")
        from safetensors import safe_open
        from tiny_models import write_llama

        folder = write_llama(tmp_path / "model", shard="100KB")
        done = subprocess.run(
            [sys.executable, CHILD.with_name("modelexpress_child.py"), folder],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            check=False,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS_MAX,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        result = json.loads(done.stdout.splitlines()[-1])
        assert str(c_library) in result["maps"]
        stored = {}
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "np") as opened:
                for name in opened.keys():  # noqa: SIM118 - it cannot be iterated
                    array = opened.get_tensor(name)
                    stored[name] = hashlib.sha256(array.tobytes()).hexdigest()
        assert result["tensors"] == stored

    @pytest.fixture
    def c_library(self, monkeypatch):
        """The C library, which Run:ai's package loads in place of its own."""
        need("RINGLOAD_TEST_VLLM", "vllm", "transformers", "runai_model_streamer")
        path = os.environ.get("RINGLOAD_TEST_LIBRARY")
        if not path:
            pytest.skip("RINGLOAD_TEST_LIBRARY does not name libringload.so")
        monkeypatch.setenv("STREAMER_LIBRARY", path)
        return Path(path)

    def run(self, folder, scratch, ranks, cases=CASES):
        """Returns the results of the cases for each rank."""
        logs = [scratch / f"log{rank}" for rank in range(ranks)]
        results = [scratch / f"result{rank}.json" for rank in range(ranks)]
        children = []
        try:
            for rank in range(ranks):
                command = [CHILD, folder, results[rank], rank, ranks, scratch / "store"]
                with open(logs[rank], "w") as log:
                    child = subprocess.Popen(
                        [sys.executable, *map(str, command)],
                        env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        text=True,
                    )
                children.append(child)
                child.stdin.write(json.dumps(cases))
                child.stdin.close()
            for child, log in zip(children, logs):
                assert child.wait(CHILD_SECONDS_MAX) == 0, log.read_text()[-4000:]
        finally:
            for child in children:
                child.kill()
                child.wait()
        return [json.loads(result.read_text()) for result in results]
