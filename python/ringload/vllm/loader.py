"""`RingloadModelLoader`: loads the weights of a model that vLLM has built.

It is vLLM's default loader, of which it replaces the iterator over the weights of a source:

    get_all_weights (vLLM's) -> for each source of weights:
        files        as vLLM finds, downloads and filters them; or a location in a store
        names        all tensors except those that the model does not use, and those of experts that
                     other ranks own, as vLLM decides
        tensors      ringload.stream; with `distributed`, a load that the ranks of the
                     tensor-parallel group share
    -> model.load_weights -> vLLM's check that all parameters were loaded

Files that are not safetensors, and checkpoints that torchao has serialized, go through vLLM's own
iterators.

This module uses, of vLLM's `DefaultModelLoader`: `Source`, `_prepare_weights`,
`_get_weights_iterator`, `local_expert_ids`, `_encoder_only_lm_prefixes` and
`_encoder_only_weights_mapper`, and `get_tp_group`. It imports vLLM, so only `register` imports it.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight
from vllm.model_executor.model_loader.weight_utils import filter_mm_encoder_only_safetensors_files
from vllm.platforms import current_platform

import ringload

from .._errors import InvalidInputError, NotFoundError
from .options import Options

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = init_logger("vllm.ringload")


class RingloadModelLoader(DefaultModelLoader):  # type: ignore[misc]  # mypy does not see vLLM
    """The loader for `load_format="ringload"`."""

    counter_before_loading_weights: float

    def __init__(self, load_config: Any) -> None:
        """Reads the options in `load_config.model_loader_extra_config`.

        Raises:
            InvalidInputError: an option has an unknown key or an invalid value.
        """
        self.options = Options.of(load_config.model_loader_extra_config or {})
        config = copy.copy(load_config)
        # vLLM then looks for files as it does by default.
        config.load_format = "auto"
        config.model_loader_extra_config = self.options.of_vllm()
        super().__init__(config)
        self._model_weights: dict[str, str] = {}

    def download_model(self, model_config: Any) -> None:
        """Downloads the weights if they are in a repository of the Hub.

        Raises:
            ringload.Error, OSError: the weights cannot be found or downloaded.
        """
        self._remember(model_config)
        name = self._location(model_config.model)
        if not _is_remote(name):
            self._prepare_weights(name, None, model_config.revision, True, None)

    def get_all_weights(
        self, model_config: Any, model: nn.Module
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the names and tensors of all sources, in the order in which they complete.

        The tensors have the shapes and types in the checkpoint. The caller may keep them.

        Raises:
            ringload.Error: the weights could not be loaded; the message says why.
        """
        self._remember(model_config)
        yield from super().get_all_weights(model_config, model)

    def _remember(self, model_config: Any) -> None:
        """Where vLLM says that the weights of a model are not where its configuration is."""
        weights = getattr(model_config, "model_weights", None)
        if weights:
            self._model_weights[model_config.model] = weights

    def _location(self, name: str) -> str:
        """Returns the folder, repository or location of the weights of the model `name`."""
        name = self._model_weights.get(name, name)
        return self.options.locations.get(name, name)

    def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the weights of a source, in the order in which they complete."""
        name = self._location(source.model_or_path)
        if _is_remote(name):
            locations = _remote_locations(name, source)
        else:
            source = dataclasses.replace(source, model_or_path=name)
            files = self._safetensors_files(source)
            if files is None:
                return super()._get_weights_iterator(source)  # type: ignore[no-any-return]
            locations = files
        if self.counter_before_loading_weights == 0.0:
            self.counter_before_loading_weights = time.perf_counter()
        logger.info("Loading the weights of %s from %s with ringload", source.model_or_path, name)
        names = used_names(locations, source.is_unused_weight, self._is_of_other_ranks())
        tensors = self._tensors(locations, names)
        return ((source.prefix + name, tensor) for name, tensor in tensors)

    def _safetensors_files(self, source: Any) -> list[str] | None:
        """Returns the files of a source as vLLM finds them; None if vLLM has to read them."""
        if self.load_config.safetensors_load_strategy == "torchao":
            return None
        folder, files, are_safetensors, index = self._prepare_weights(
            source.model_or_path,
            source.subfolder,
            source.revision,
            source.fall_back_to_pt,
            source.allow_patterns_overrides,
        )
        if not are_safetensors:
            return None
        if self._encoder_only_lm_prefixes is not None:
            files = filter_mm_encoder_only_safetensors_files(
                files,
                folder,
                index,
                self._encoder_only_lm_prefixes,
                weights_mapper=self._encoder_only_weights_mapper,
            )
            if not files:
                raise NotFoundError(
                    f"{source.model_or_path}: no file has weights of the multimodal encoder"
                )
        return list(files)

    def _is_of_other_ranks(self) -> Callable[[str], bool] | None:
        """Returns whether the tensor of a name belongs to an expert of another rank."""
        local = self.local_expert_ids
        # The ranks of a shared load send each other the same tensors.
        if local is None or self.options.distributed:
            return None
        return lambda name: bool(should_skip_weight(name, local))

    def _tensors(
        self, locations: list[str], names: list[str] | None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        if self.options.distributed:
            with ringload.SafetensorsStreamer() as streamer:
                streamer.stream_files(
                    locations,
                    device=self._gpu("cpu"),
                    is_distributed=True,
                    tensor_names=names,
                    group=tensor_parallel_group(),
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


def _is_remote(name: str) -> bool:
    return "://" in name


def _remote_locations(name: str, source: Any) -> list[str]:
    """Returns the locations of a source's files in a store, for `ringload.stream`.

    Raises:
        NotFoundError: the model requires files that are not safetensors.
    """
    if source.subfolder:
        name = f"{name.rstrip('/')}/{source.subfolder}"
    if source.allow_patterns_overrides is None:
        return [name]
    patterns = source.allow_patterns_overrides
    safetensors = [pattern for pattern in patterns if pattern.endswith(".safetensors")]
    if not safetensors:
        raise NotFoundError(
            f"{name}: the model requires {', '.join(patterns)}, but ringload loads only "
            "safetensors from a store; use another load format"
        )
    return [f"{name.rstrip('/')}/{pattern}" for pattern in safetensors]


def tensor_parallel_group() -> tuple[Any, Any]:
    """Returns the ranks that divide this rank's layers among them: the groups for CPUs and GPUs.

    Other ranks of the world have other layers, or replicas of the model that load at another time.
    """
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    return group.cpu_group, group.device_group


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
