"""A stand-in for the parts of vLLM that the plugin uses, for tests without vLLM.

The modules have the names and signatures of those in vLLM 0.33.0. `test_vllm.py` runs the plugin in
the real vLLM, too, if it is installed.
"""

import sys
import types


class BaseModelLoader:
    def __init__(self, load_config):
        self.load_config = load_config


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

    def weights(
        self,
        model_name_or_path,
        cache_dir,
        allow_patterns,
        revision=None,
        subfolder=None,
        ignore_patterns=None,
    ):
        self.calls.append(
            (model_name_or_path, cache_dir, allow_patterns, revision, subfolder, ignore_patterns)
        )
        return self.folder

    def index(self, model_name_or_path, index_file, cache_dir, subfolder=None, revision=None):
        self.calls.append((model_name_or_path, index_file, cache_dir, subfolder, revision))


class LoadConfig:
    """The fields that loaders read."""

    def __init__(self, **extra):
        self.model_loader_extra_config = extra
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
    """vLLM's loader, which decides which experts this rank owns; `owned` is its decision."""

    owned = None

    def _init_ep_weight_filter(self, model_config):
        assert isinstance(model_config, ModelConfig)
        self.local_expert_ids = DefaultModelLoader.owned


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
            assert issubclass(cls, BaseModelLoader)
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
        module("vllm.platforms", current_platform=self.platform)
        module("vllm.logger", init_logger=__import__("logging").getLogger)
        module("vllm.model_executor.model_loader.base_loader", BaseModelLoader=BaseModelLoader)
        module(
            "vllm.model_executor.model_loader.weight_utils",
            download_weights_from_hf=self.hub.weights,
            download_safetensors_index_file_from_hf=self.hub.index,
        )
        loaders = "vllm.model_executor.model_loader"
        monkeypatch.setattr(DefaultModelLoader, "owned", None)
        self.default_loader = DefaultModelLoader
        module(f"{loaders}.default_loader", DefaultModelLoader=DefaultModelLoader)
        module(f"{loaders}.ep_weight_filter", should_skip_weight=should_skip_weight)
