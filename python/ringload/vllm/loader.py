"""The loader: what vLLM asks for the weights of a model it has built.

    load_weights -> get_all_weights -> for each source of the model:
        locations    a local folder as it is, a store as it is named, the Hub downloaded by vLLM
        names        without what the model says it does not load
        tensors      ringload.stream, or with `distributed` the streamer that ranks share
    -> model.load_weights -> is everything there?

Of vLLM this uses `BaseModelLoader`, `download_weights_from_hf`,
`download_safetensors_index_file_from_hf` and `current_platform`, and of models the same attributes
as vLLM's own loaders: `secondary_weights`, `allow_patterns_overrides`,
`is_unused_checkpoint_weight`. Imported by `register` only, since it imports vLLM.
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
from .options import Options

if TYPE_CHECKING:
    import torch
    from torch import nn

_INDEX = "model.safetensors.index.json"

logger = init_logger("vllm.ringload")


class Source(NamedTuple):
    """A checkpoint that a model takes weights from."""

    name: str
    """A folder, a location, or a repository of the Hub."""
    revision: str | None
    subfolder: str | None = None
    patterns: Sequence[str] | None = None
    """Of its files; without, those that its index names, or all."""
    prefix: str = ""
    """What the model calls its tensors by, in addition to their names."""
    is_unused: Callable[[str], bool] | None = None
    """Whether the model does not load the tensor of a name (without the prefix)."""


class RingloadModelLoader(BaseModelLoader):  # type: ignore[misc]  # vLLM is not there for mypy
    """Loads safetensors checkpoints by ringload; `load_format="ringload"`."""

    def __init__(self, load_config: Any) -> None:
        """A loader with the options in `load_config.model_loader_extra_config`.

        Raises:
            InvalidInputError: for a key or value of them that cannot be used.
        """
        super().__init__(load_config)
        self.options = Options.of(load_config.model_loader_extra_config or {})

    def download_model(self, model_config: Any) -> None:
        """Downloads what is in a repository of the Hub; all else is read where it is.

        Raises:
            ringload.Error, OSError: the weights are not there.
        """
        self._locations(self._primary(model_config, None))

    def load_weights(self, model: nn.Module, model_config: Any) -> None:
        """Loads the weights into a model that is built.

        Raises:
            ringload.Error: they could not be loaded; the text says why.
            ValueError: the checkpoint does not have all of them.
        """
        # For mypy an attribute of a module is a tensor.
        loaded = cast("Any", model).load_weights(self.get_all_weights(model_config, model))
        if loaded is not None and getattr(model_config, "quantization", None) is None:
            check_that_all_came(model, loaded)

    def get_all_weights(
        self, model_config: Any, model: nn.Module
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors of all that the model takes weights from, in the order of arrival.

        The tensors have the shapes and types of the checkpoint. They are the caller's to keep.

        Raises:
            ringload.Error: they could not be loaded; the text says why.
        """
        yield from self._weights(self._primary(model_config, model))
        for source in getattr(model, "secondary_weights", ()):
            secondary = Source(
                source.model_or_path,
                source.revision,
                getattr(source, "subfolder", None),
                getattr(source, "allow_patterns_overrides", None),
                getattr(source, "prefix", ""),
                getattr(source, "is_unused_weight", None),
            )
            yield from self._weights(secondary)

    def _primary(self, model_config: Any, model: nn.Module | None) -> Source:
        return Source(
            getattr(model_config, "model_weights", None) or model_config.model,
            model_config.revision,
            patterns=getattr(model, "allow_patterns_overrides", None),
            is_unused=getattr(model, "is_unused_checkpoint_weight", None),
        )

    def _weights(self, source: Source) -> Iterator[tuple[str, torch.Tensor]]:
        locations = self._locations(source)
        logger.info("Loading the weights of %s from %s by ringload", source.name, locations)
        names = None if source.is_unused is None else used(locations, source.is_unused)
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
            # Models may hold on to some tensors until others come: the limit is for the rest.
            keep=True,
        )

    def _gpu(self, otherwise: str | None) -> str:
        """The GPU that vLLM gave this rank.

        Raises:
            InvalidInputError: it gave none, and there is nothing else to use.
        """
        if current_platform.is_cuda_alike():
            return f"cuda:{current_platform.current_device()}"
        if otherwise is None:
            raise InvalidInputError(
                'model_loader_extra_config: device is "cuda", and vLLM runs on no GPU; use "cpu"'
            )
        return otherwise

    def _locations(self, source: Source) -> list[str]:
        """Where a source's files are: as `ringload.stream` takes it.

        Raises:
            NotFoundError: there are no files of the patterns that the model wants.
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
                f"{source.name}: the model wants {', '.join(source.patterns)}, and ringload loads "
                "safetensors only; use another load format"
            )
        return [f"{name.rstrip('/')}/{pattern}" for pattern in patterns]

    def _download(self, name: str, source: Source) -> str:
        """The folder of a repository of the Hub, downloaded as vLLM does it."""
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


def used(locations: list[str], is_unused: Callable[[str], bool]) -> list[str] | None:
    """The names that a model loads; None, for all, where it says that it loads none of them.

    (That is what vLLM's loaders do then. The rest of the tensors is not read.)
    """
    with ringload.open(locations) as checkpoint:
        names = [name for name in checkpoint.keys() if not is_unused(name)]  # noqa: SIM118
    return names or None


def check_that_all_came(model: nn.Module, loaded: set[str]) -> None:
    """Fails where a parameter of an unquantized model was in no checkpoint.

    Parameters of modules that make them when loading is done are left out, as vLLM's own loader
    does it (scales of the cache of keys and values, for one).

    Raises:
        ValueError: with their names.
    """
    made = {
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        if _makes_parameters(module)
        for parameter, _ in module.named_parameters()
    }
    missing = sorted({name for name, _ in model.named_parameters()} - loaded - made)
    if missing:
        raise ValueError(
            f"the checkpoint lacks {len(missing)} weights of the model: {', '.join(missing[:10])}"
        )


def _makes_parameters(module: nn.Module) -> bool:
    method = getattr(module, "quant_method", None)
    return bool(
        getattr(method, "uses_meta_device", False)
        or getattr(method, "process_weights_after_loading", None)
    )
