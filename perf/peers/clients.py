"""The clients, each of which loads a checkpoint into host memory as its documentation recommends.

A client is a function that gets a location, imports the client's package and returns another
function, which loads, so imports are not part of the measured time. The options are those of the
first example in the client's documentation and those set by environment variables.
Nothing is tuned.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from bare import bare
from measuring import Tensors

Pairs = Iterator[tuple[str, Any]]


def module(name: str) -> Any:
    """Imports a client's module after torch, which gets one thread."""
    import torch

    torch.set_num_threads(1)
    return importlib.import_module(name)


def streamer(package: str) -> Callable[[str], Tensors]:
    """Returns the client of a package with Run:ai's interface: Run:ai's, or our drop-in.

    For Run:ai's package, STREAMER_LIBRARY selects another library.
    """

    def client(location: str) -> Tensors:
        streamer_class = module(package).SafetensorsStreamer

        def tensors() -> Pairs:
            with streamer_class() as streamer:
                streamer.stream_file(location, device="cpu")
                yield from streamer.get_tensors()

        return tensors

    return client


def safetensors(location: str) -> Tensors:
    """The reference library, which maps the file; the measuring loop touches the pages."""
    load_file = module("safetensors.torch").load_file

    def tensors() -> Pairs:
        loaded = load_file(location)
        for name in list(loaded):
            yield name, loaded.pop(name)

    return tensors


def safetensors_next(location: str) -> Tensors:
    """The same of the next version, whose `prefetch` is for GPUs."""
    if not hasattr(module("safetensors").safe_open, "prefetch"):
        raise ImportError("safetensors has no prefetch: an older version is imported first")
    return safetensors(location)


def fastsafetensors(location: str) -> Tensors:
    """Reads the whole file into one buffer; without GPUDirect Storage."""
    package = module("fastsafetensors")

    def tensors() -> Pairs:
        loader = package.SafeTensorsFileLoader(None, device="cpu", nogds=True)
        loader.add_filenames({0: [location]})
        buffer = loader.copy_files_to_device()
        for name in loader.get_keys():
            yield name, buffer.get_tensor(name)
        buffer.close()
        loader.close()

    return tensors


def tensorizer(location: str) -> Tensors:
    """Tensorizer, which loads all tensors at once, from a converted file."""
    package = module("tensorizer")

    def tensors() -> Pairs:
        with package.TensorDeserializer(location, device="cpu") as loaded:
            for name in list(loaded.keys()):
                yield name, loaded[name].detach()

    return tensors


def ringload_stream(location: str) -> Tensors:
    """The interface of ringload itself."""
    package = module("ringload")
    return lambda: package.stream(location, device="cpu")


CLIENTS: dict[str, Callable[[str], Tensors]] = {
    "runai": streamer("runai_model_streamer"),
    "runai-s3": bare,
    "safetensors": safetensors,
    "safetensors-next": safetensors_next,
    "fastsafetensors": fastsafetensors,
    "tensorizer": tensorizer,
    "ringload": streamer("ringload"),
    "ringload-stream": ringload_stream,
}

#: Clients whose tensors in host memory are pages of the file.
MAPPING = ("safetensors", "safetensors-next")


def convert(path: str) -> None:
    """Converts a safetensors file to tensorizer's own format."""
    from safetensors.torch import load_file
    from tensorizer import TensorSerializer

    partial = path + ".partial"
    serializer = TensorSerializer(partial)
    serializer.write_state_dict(load_file(path))
    serializer.close()
    os.replace(partial, path + ".tensors")
