"""The clients: how each of them loads a checkpoint, as its own documentation says.

Each is a function that imports what it needs and gives another one, which loads: so imports are not
part of a load's time. Nothing is tuned: options are what a user has who reads the first example,
and what environment variables say.

    runai             SafetensorsStreamer; a file or s3://. STREAMER_LIBRARY names another library
    runai-s3          its library alone, without torch: see bare.py
    safetensors       load_file: maps the file; its pages are touched by the loop
    safetensors-next  0.9: onto a GPU by prefetch, which refuses any other device; into host memory
                      by load_file, as before
    fastsafetensors   without GPUDirect Storage (nogds)
    instanttensor     safe_open; for GPUs alone
    tensorizer        TensorDeserializer, of a file that was converted
    ringload          SafetensorsStreamer from ringload: a program that changed its import
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
    """What is loaded, and where to.

    Attributes:
        location: a path, or a URI.
        device: as torch writes it.
        keep: whether the caller keeps all tensors, so that a client that would use their memory
            again has to copy them.
    """

    location: str
    device: str
    keep: bool


class Client(NamedTuple):
    """A client.

    Attributes:
        package: its name on PyPI.
        prepare: imports what it needs, and gives the load.
        beside: other packages whose versions matter.
        maps_file: its tensors in host memory are pages of the file.
        reads_files: it takes paths.
    """

    package: str
    prepare: Callable[[Load], Tensors]
    beside: tuple[str, ...] = ("torch",)
    maps_file: bool = False
    reads_files: bool = True


def runai(load: Load) -> Tensors:
    """Run:ai's streamer, of which a tensor that is kept has to be copied."""
    import torch
    from runai_model_streamer import SafetensorsStreamer

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(load.location, device=load.device)
            yield from kept(streamer.get_tensors()) if load.keep else streamer.get_tensors()

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
        raise ImportError("safetensors has no prefetch: an older version comes first")
    torch.set_num_threads(1)

    def prefetched() -> Pairs:
        with safe_open(load.location, "pt", device=load.device) as file, file.prefetch() as loader:
            yield from loader

    if load.device == "cpu":
        return lambda: popped(load_file(load.location))
    return prefetched


def fastsafetensors(load: Load) -> Tensors:
    """What reads the whole file into one buffer."""
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
    """InstantTensor, which says itself that it wants a GPU."""
    import torch  # before its own library, which needs torch's
    from instanttensor import safe_open

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with safe_open(load.location, framework="pt", device=load.device) as file:
            yield from kept(file.tensors()) if load.keep else file.tensors()

    return tensors


def tensorizer(load: Load) -> Tensors:
    """Tensorizer gives all tensors at once."""
    import torch
    from tensorizer import TensorDeserializer

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with TensorDeserializer(load.location, device=load.device) as loaded:
            for name in list(loaded.keys()):
                yield name, loaded[name].detach()

    return tensors


def ringload(load: Load) -> Tensors:
    """This project, by Run:ai's interface. Nothing that is kept is overwritten."""
    import torch
    from ringload import SafetensorsStreamer

    torch.set_num_threads(1)

    def tensors() -> Pairs:
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(load.location, device=load.device)
            yield from streamer.get_tensors()

    return tensors


def ringload_stream(load: Load) -> Tensors:
    """This project, by its own interface."""
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

#: Clients that have a format of their own, and the suffix of its files.
CONVERTERS = {"tensorizer": ".tensors"}


def convert(client: str, path: str) -> str:
    """Writes a safetensors file in the client's own format, beside it; gives the new file's path.

    Raises:
        ValueError: where the client has no format of its own.
    """
    if client not in CONVERTERS:
        raise ValueError(f"{client} has no format of its own: it loads {path} as it is")
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
    """What waits until a device has all that it was given."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(device)


def kept(tensors: Pairs) -> Pairs:
    """Copies of tensors whose memory the client is going to use again."""
    for name, tensor in tensors:
        yield name, tensor.clone()


def popped(tensors: dict[str, Any]) -> Pairs:
    """The tensors of a dictionary, each of which it forgets."""
    for name in list(tensors):
        yield name, tensors.pop(name)
