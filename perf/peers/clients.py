"""The clients, each of which loads a checkpoint as its documentation recommends.

A client is a function that imports the client's package and returns another function, which loads,
so imports are not part of the measured time. The options are those of the first example in the
client's documentation and those set by environment variables; nothing is tuned.

    runai             SafetensorsStreamer; a file or s3://. STREAMER_LIBRARY selects another library
    runai-s3          Run:ai's library alone, without torch: see bare.py
    safetensors       load_file, which maps the file; the measuring loop touches the pages
    safetensors-next  0.9: to a GPU with prefetch, which accepts no other device; to host memory
                      with load_file
    fastsafetensors   without GPUDirect Storage (nogds)
    instanttensor     safe_open; only for GPUs
    tensorizer        TensorDeserializer, from a converted file
    ringload          SafetensorsStreamer of ringload, for a program that only changed its import
    ringload-stream   ringload.stream
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bare import bare
from measuring import Tensors

Pairs = Iterator[tuple[str, Any]]


class Load(NamedTuple):
    """The parameters of a load.

    Attributes:
        location: a path or a URI.
        device: torch's name of the device.
        keep: whether the caller keeps all tensors. A client that reuses their memory has to copy
            them.
    """

    location: str
    device: str
    keep: bool


class Client(NamedTuple):
    """A client.

    Attributes:
        package: the name of its package on PyPI.
        prepare: imports the package and returns the load.
        beside: other packages whose versions are relevant.
        maps_file: whether its tensors in host memory are pages of the file.
        reads_files: whether it loads local files.
    """

    package: str
    prepare: Callable[[Load], Tensors]
    beside: tuple[str, ...] = ("torch",)
    maps_file: bool = False
    reads_files: bool = True


def runai(load: Load) -> Tensors:
    """Run:ai's streamer. It reuses the memory of tensors, so tensors to keep are copied."""
    import torch
    from runai_model_streamer import SafetensorsStreamer

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(load.location, device=load.device)
            yield from copies(streamer.get_tensors()) if load.keep else streamer.get_tensors()

    return tensors


def safetensors(load: Load) -> Tensors:
    """The reference library."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    return lambda: popped(load_file(load.location, device=load.device))


def safetensors_next(load: Load) -> Tensors:
    """The reference library's next version."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    if not hasattr(safe_open, "prefetch"):
        raise ImportError("safetensors has no prefetch: an older version is imported first")
    torch.set_num_threads(1)

    def prefetched() -> Pairs:
        with safe_open(load.location, "pt", device=load.device) as file, file.prefetch() as loader:
            yield from loader

    if load.device == "cpu":
        return lambda: popped(load_file(load.location))
    return prefetched


def fastsafetensors(load: Load) -> Tensors:
    """fastsafetensors, which reads the whole file into one buffer."""
    import torch
    from fastsafetensors import SafeTensorsFileLoader

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        loader = SafeTensorsFileLoader(None, device=load.device, nogds=True)
        loader.add_filenames({0: [load.location]})
        buffer = loader.copy_files_to_device()
        for name in loader.get_keys():
            yield name, buffer.get_tensor(name)
        buffer.close()
        loader.close()

    return tensors


def instanttensor(load: Load) -> Tensors:
    """InstantTensor, which raises an error for devices other than GPUs."""
    import torch  # imported first, because InstantTensor's library needs torch's libraries
    from instanttensor import safe_open

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with safe_open(load.location, framework="pt", device=load.device) as file:
            yield from copies(file.tensors()) if load.keep else file.tensors()

    return tensors


def tensorizer(load: Load) -> Tensors:
    """Tensorizer, which loads all tensors at once."""
    import torch
    from tensorizer import TensorDeserializer

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with TensorDeserializer(load.location, device=load.device) as loaded:
            for name in list(loaded.keys()):
                yield name, loaded[name].detach()

    return tensors


def ringload(load: Load) -> Tensors:
    """Run:ai's interface of ringload, which does not reuse the memory of tensors that are kept."""
    import torch
    from ringload import SafetensorsStreamer

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(load.location, device=load.device)
            yield from streamer.get_tensors()

    return tensors


def ringload_stream(load: Load) -> Tensors:
    """The interface of ringload itself."""
    import ringload as package
    import torch

    torch.set_num_threads(1)
    return lambda: package.stream(load.location, device=load.device)


CLIENTS = {
    "runai": Client("runai-model-streamer", runai),
    "runai-s3": Client(
        "runai-model-streamer-s3",
        lambda load: bare(load.location),
        beside=("runai-model-streamer", "boto3"),
        reads_files=False,
    ),
    "safetensors": Client("safetensors", safetensors, maps_file=True),
    "safetensors-next": Client("safetensors", safetensors_next, maps_file=True),
    "fastsafetensors": Client("fastsafetensors", fastsafetensors),
    "instanttensor": Client("instanttensor", instanttensor),
    "tensorizer": Client("tensorizer", tensorizer),
    "ringload": Client("ringload", ringload),
    "ringload-stream": Client("ringload", ringload_stream),
}

#: Clients that have their own file format, and the suffix of its files.
CONVERTERS = {"tensorizer": ".tensors"}


def convert(client: str, path: str) -> str:
    """Converts a safetensors file to the client's own format; returns the path of the new file.

    Raises:
        ValueError: the client does not have its own format.
    """
    if client not in CONVERTERS:
        raise ValueError(f"{client} does not have its own format: it loads {path} unchanged")
    from safetensors.torch import load_file
    from tensorizer import TensorSerializer

    converted = path + CONVERTERS[client]
    partial = converted + ".partial"
    serializer = TensorSerializer(partial)
    serializer.write_state_dict(load_file(path))
    serializer.close()
    os.replace(partial, converted)
    return converted


def synchronize(device: str) -> Callable[[], None]:
    """Returns a function that waits until a device has finished all its work."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(device)


def copies(tensors: Pairs) -> Pairs:
    """Yields copies of tensors, for clients that reuse the tensors' memory."""
    for name, tensor in tensors:
        yield name, tensor.clone()


def popped(tensors: dict[str, Any]) -> Pairs:
    """Yields the tensors of a dictionary and removes each of them from it."""
    for name in list(tensors):
        yield name, tensors.pop(name)
