"""`RingloadModelLoader`: loads the weights of a model that vLLM has built.

    load_weights -> get_all_weights -> for each source of weights:
        locations    a local folder or a store location; repositories are downloaded by vLLM
        names        all tensors except those that the model does not use, and those of experts that
                     other ranks own (`experts`)
        tensors      ringload.stream; with `distributed`, a load that the ranks share
    -> model.load_weights -> check that all parameters were loaded

This module uses `BaseModelLoader`, `download_weights_from_hf`,
`download_safetensors_index_file_from_hf` and `current_platform` of vLLM, and the attributes of
models that vLLM's own loaders use: `secondary_weights`, `allow_patterns_overrides` and
`is_unused_checkpoint_weight`. It imports vLLM, so only `register` imports it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vllm.logger import init_logger
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.weight_utils import (
    download_safetensors_index_file_from_hf,
    download_weights_from_hf,
)
from vllm.platforms import current_platform

import ringload

from .._errors import InvalidInputError, NotFoundError
from .experts import skipped_experts
from .options import Options

if TYPE_CHECKING:
    import torch
    from torch import nn

_INDEX = "model.safetensors.index.json"

logger = init_logger("vllm.ringload")


class WeightSource(NamedTuple):
    """A checkpoint that contains weights of a model."""

    name: str
    """A folder, a location, or a repository of the Hub."""
    revision: str | None
    subfolder: str | None = None
    patterns: Sequence[str] | None = None
    """The patterns of the files; None for the files in the index, or all without an index."""
    prefix: str = ""
    """The prefix that the model expects before the names of the tensors."""
    is_unused: Callable[[str], bool] | None = None
    """Returns whether the model does not use the tensor of a name (without the prefix)."""


class RingloadModelLoader(BaseModelLoader):  # type: ignore[misc]  # mypy does not see vLLM
    """The loader for `load_format="ringload"`, which reads safetensors checkpoints."""

    def __init__(self, load_config: Any) -> None:
        """Reads the options in `load_config.model_loader_extra_config`.

        Raises:
            InvalidInputError: an option has an unknown key or an invalid value.
        """
        super().__init__(load_config)
        self.options = Options.of(load_config.model_loader_extra_config or {})
        self._is_skipped: Callable[[str], bool] | None = None

    def download_model(self, model_config: Any) -> None:
        """Downloads the weights if they are in a repository of the Hub.

        Raises:
            ringload.Error, OSError: the weights cannot be found or downloaded.
        """
        self._locations(self._primary(model_config, None))

    def load_weights(self, model: nn.Module, model_config: Any) -> None:
        """Loads the weights into a model.

        Raises:
            ringload.Error: the weights could not be loaded; the message says why.
            ValueError: the checkpoint lacks weights of the model.
        """
        # The ranks of a shared load send each other the same tensors.
        self._is_skipped = None if self.options.distributed else skipped_experts(model_config)
        # mypy takes attributes of modules for tensors.
        loaded = cast("Any", model).load_weights(self.get_all_weights(model_config, model))
        if loaded is not None and getattr(model_config, "quantization", None) is None:
            check_all_loaded(model, loaded)

    def get_all_weights(
        self, model_config: Any, model: nn.Module
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the names and tensors of all sources, in the order in which they complete.

        The tensors have the shapes and types in the checkpoint. The caller may keep them.

        Raises:
            ringload.Error: the weights could not be loaded; the message says why.
        """
        yield from self._weights(self._primary(model_config, model))
        for source in getattr(model, "secondary_weights", ()):
            secondary = WeightSource(
                source.model_or_path,
                source.revision,
                getattr(source, "subfolder", None),
                getattr(source, "allow_patterns_overrides", None),
                getattr(source, "prefix", ""),
                getattr(source, "is_unused_weight", None),
            )
            yield from self._weights(secondary)

    def _primary(self, model_config: Any, model: nn.Module | None) -> WeightSource:
        return WeightSource(
            getattr(model_config, "model_weights", None) or model_config.model,
            model_config.revision,
            patterns=getattr(model, "allow_patterns_overrides", None),
            is_unused=getattr(model, "is_unused_checkpoint_weight", None),
        )

    def _weights(self, source: WeightSource) -> Iterator[tuple[str, torch.Tensor]]:
        locations = self._locations(source)
        logger.info("Loading the weights of %s from %s with ringload", source.name, locations)
        names = used_names(locations, source.is_unused, self._is_skipped)
        for name, tensor in self._tensors(locations, names):
            yield source.prefix + name, tensor

    def _tensors(
        self, locations: list[str], names: list[str] | None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        if self.options.distributed:
            with ringload.SafetensorsStreamer() as streamer:
                streamer.stream_files(
                    locations, device=self._gpu("cpu"), is_distributed=True, tensor_names=names
                )
                yield from streamer.get_tensors()
            return
        device = "cpu" if self.options.device == "cpu" else self._gpu(None)
        yield from ringload.stream(
            locations,
            device=device,
            progress=None if self.load_config.use_tqdm_on_load else False,
            memory_limit=self.options.memory_limit,
            engines=self.options.concurrency,
            names=names,
            # A model may hold tensors until others arrive: these must not count for the limit.
            keep=True,
        )

    def _gpu(self, default: str | None) -> str:
        """Returns the GPU that vLLM assigned to this rank, or `default` if it runs on no GPU.

        Raises:
            InvalidInputError: vLLM runs on no GPU, and `default` is None.
        """
        if current_platform.is_cuda_alike():
            return f"cuda:{current_platform.current_device()}"
        if default is None:
            raise InvalidInputError(
                'model_loader_extra_config: device is "cuda", but vLLM runs on no GPU; use "cpu"'
            )
        return default

    def _locations(self, source: WeightSource) -> list[str]:
        """Returns the locations of a source's files, for `ringload.stream`.

        Raises:
            NotFoundError: the model requires files that are not safetensors.
        """
        name = self.options.locations.get(source.name, source.name)
        if "://" not in name and not os.path.exists(name):
            name = self._download(name, source)
        if source.subfolder:
            name = f"{name.rstrip('/')}/{source.subfolder}"
        if source.patterns is None:
            return [name]
        patterns = [pattern for pattern in source.patterns if pattern.endswith(".safetensors")]
        if not patterns:
            raise NotFoundError(
                f"{source.name}: the model requires {', '.join(source.patterns)}, but ringload "
                "loads only safetensors; use another load format"
            )
        return [f"{name.rstrip('/')}/{pattern}" for pattern in patterns]

    def _download(self, name: str, source: WeightSource) -> str:
        """Downloads a repository of the Hub as vLLM does; returns its local folder."""
        config = self.load_config
        folder = download_weights_from_hf(
            name,
            config.download_dir,
            list(source.patterns or ["*.safetensors"]),
            source.revision,
            subfolder=source.subfolder,
            ignore_patterns=config.ignore_patterns,
        )
        if source.patterns is None:
            download_safetensors_index_file_from_hf(
                name,
                _INDEX,
                cache_dir=config.download_dir,
                subfolder=source.subfolder,
                revision=source.revision,
            )
        return str(folder)


def used_names(locations: list[str], *are_unused: Callable[[str], bool] | None) -> list[str] | None:
    """Returns the names of the tensors that a model uses; the others are not read.

    If nothing says that a tensor is unused, or if the model uses none of them, the result is None,
    which loads all tensors as vLLM's own loaders do.
    """
    tests = [is_unused for is_unused in are_unused if is_unused is not None]
    if not tests:
        return None
    with ringload.open(locations) as checkpoint:
        keys = checkpoint.keys()
        names = [name for name in keys if not any(is_unused(name) for is_unused in tests)]
    return names or None


def check_all_loaded(model: nn.Module, loaded: set[str]) -> None:
    """Checks that all parameters of an unquantized model were loaded.

    The check skips modules that create parameters after loading (such as the scales of the KV
    cache), as vLLM's own loader does.

    Raises:
        ValueError: parameters were not loaded; the message has their names.
    """
    created = {
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        if _creates_parameters(module)
        for parameter, _ in module.named_parameters()
    }
    missing = sorted({name for name, _ in model.named_parameters()} - loaded - created)
    if missing:
        raise ValueError(
            f"the checkpoint lacks {len(missing)} weights of the model: {', '.join(missing[:10])}"
        )


def _creates_parameters(module: nn.Module) -> bool:
    method = getattr(module, "quant_method", None)
    return bool(
        getattr(method, "uses_meta_device", False)
        or getattr(method, "process_weights_after_loading", None)
    )
