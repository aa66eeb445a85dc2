"""A stand-in for the parts of vLLM that the plugin uses, for tests without vLLM.

The modules have the names and signatures of those in vLLM 0.33.0. `test_vllm.py` runs the plugin in
the real vLLM, too, if it is installed.
"""

import dataclasses
import glob
import json
import os
import sys
import types
from collections.abc import Callable


class Platform:
    """A platform on which this rank has the GPU `ordinal`; None for no GPU."""

    ordinal = None

    def is_cuda_alike(self):
        return self.ordinal is not None

    def current_device(self):
        return self.ordinal


class Hub:
    """A Hub that records downloads and has one repository, in `folder`."""

    def __init__(self):
        self.folder = None
        self.calls = []

    def weights(self, *arguments):
        self.calls.append(arguments)
        return self.folder


class LoadConfig:
    """The fields that loaders read."""

    def __init__(self, **extra):
        self.load_format = "ringload"
        self.model_loader_extra_config = extra
        self.safetensors_load_strategy = None
        self.download_dir = "/cache"
        self.ignore_patterns = ["original/**/*"]
        self.use_tqdm_on_load = False


class ModelConfig:
    def __init__(self, model, revision=None, quantization=None, model_weights=""):
        self.model = str(model)
        self.revision = revision
        self.quantization = quantization
        self.model_weights = model_weights


class DefaultModelLoader:
    """vLLM's loader. `owned` is its decision which experts this rank owns, and `hub` its Hub."""

    owned = None
    hub = None

    @dataclasses.dataclass
    class Source:
        model_or_path: str
        revision: str | None
        subfolder: str | None = None
        prefix: str = ""
        fall_back_to_pt: bool = True
        allow_patterns_overrides: list[str] | None = None
        is_unused_weight: Callable[[str], bool] | None = None

    counter_before_loading_weights = 0.0
    _encoder_only_weights_mapper = None

    def __init__(self, load_config):
        assert load_config.load_format == "auto"
        unexpected = load_config.model_loader_extra_config.keys() - {"enable_weights_track"}
        assert not unexpected, unexpected
        self.load_config = load_config
        self.local_expert_ids = None
        self._encoder_only_lm_prefixes = None
        self.track = load_config.model_loader_extra_config.get("enable_weights_track")

    def _prepare_weights(self, name, subfolder, revision, fall_back_to_pt, patterns):
        index = "model.safetensors.index.json"
        folder = name
        if not os.path.isdir(name):
            config = self.load_config
            patterns = patterns or ["*.safetensors", "*.bin"]
            ignored = config.ignore_patterns
            folder = self.hub.weights(
                name, config.download_dir, patterns, revision, subfolder, ignored
            )
        folder = os.path.join(folder, subfolder or "")
        for pattern in patterns or ["*.safetensors", "*.bin"]:
            files = glob.glob(os.path.join(folder, pattern))
            if files:
                break
        else:
            raise RuntimeError("Cannot find any model weights")
        if patterns is None and os.path.exists(os.path.join(folder, index)):
            with open(os.path.join(folder, index)) as file:
                listed = set(json.load(file)["weight_map"].values())
            files = [file for file in files if os.path.basename(file) in listed]
        return folder, files, pattern.endswith(".safetensors"), index

    def _get_weights_iterator(self, source):
        yield "from vLLM's own iterator", source

    def get_all_weights(self, model_config, model):
        primary = self.Source(
            model_config.model,
            model_config.revision,
            allow_patterns_overrides=getattr(model, "allow_patterns_overrides", None),
            is_unused_weight=getattr(model, "is_unused_checkpoint_weight", None),
        )
        yield from self._get_weights_iterator(primary)
        for source in getattr(model, "secondary_weights", ()):
            yield from self._get_weights_iterator(source)

    def load_weights(self, model, model_config):
        assert isinstance(model_config, ModelConfig)
        self.local_expert_ids = DefaultModelLoader.owned
        loaded = model.load_weights(self.get_all_weights(model_config, model))
        if self.track if self.track is not None else loaded is not None:
            missing = {name for name, _ in model.named_parameters()} - loaded
            if missing:
                raise ValueError(f"Following weights were not initialized: {missing}")


def filter_encoder(files, folder, index_file, prefixes, weights_mapper=None):
    """Keeps the files whose names begin with none of the prefixes of language models."""
    return [file for file in files if not os.path.basename(file).startswith(prefixes)]


def should_skip_weight(weight_name, local_expert_ids):
    """As in vLLM: skips the weights of experts that are not local, but not their scales."""
    parts = weight_name.split(".")
    if "experts" not in parts or not weight_name.endswith(".weight"):
        return False
    expert = parts[parts.index("experts") + 1]
    return expert.isdigit() and int(expert) not in local_expert_ids


class StandIn:
    """The modules of vLLM, which `install` adds to `sys.modules`."""

    def __init__(self):
        self.platform = Platform()
        self.hub = Hub()
        self.formats = {}

    def register(self, load_format):
        def decorate(cls):
            assert issubclass(cls, DefaultModelLoader)
            self.formats.setdefault(load_format, []).append(cls)
            self.model_loader._LOAD_FORMAT_TO_MODEL_LOADER[load_format] = cls
            return cls

        return decorate

    def install(self, monkeypatch):
        def module(name, **content):
            created = types.ModuleType(name)
            vars(created).update(content)
            monkeypatch.setitem(sys.modules, name, created)
            return created

        for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, "ringload.vllm.loader", raising=False)
        self.model_loader = module(
            "vllm.model_executor.model_loader",
            register_model_loader=self.register,
            _LOAD_FORMAT_TO_MODEL_LOADER={},
        )
        module("vllm", __path__=[])
        module("vllm.model_executor", model_loader=self.model_loader)
        self.tp_group = types.SimpleNamespace(cpu_group="cpu group", device_group="device group")
        module("vllm.distributed", __path__=[])
        module("vllm.distributed.parallel_state", get_tp_group=lambda: self.tp_group)
        module("vllm.platforms", current_platform=self.platform)
        module("vllm.logger", init_logger=__import__("logging").getLogger)
        loaders = "vllm.model_executor.model_loader"
        module(f"{loaders}.weight_utils", filter_mm_encoder_only_safetensors_files=filter_encoder)
        monkeypatch.setattr(DefaultModelLoader, "owned", None)
        monkeypatch.setattr(DefaultModelLoader, "hub", self.hub)
        self.default_loader = DefaultModelLoader
        module(f"{loaders}.default_loader", DefaultModelLoader=DefaultModelLoader)
        module(f"{loaders}.ep_weight_filter", should_skip_weight=should_skip_weight)
