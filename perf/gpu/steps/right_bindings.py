"""The bytes that Python and C programs get: types, limits, casts, device maps, lifetimes, streams.

torch gets the tensors by DLPack, and reads them with kernels of its own.
"""

from __future__ import annotations

import gc
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import step
import torch
from safetensors.torch import save_file

STAND_IN = step.is_stand_in()
TYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint64, torch.uint32, torch.uint16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *[getattr(torch, name) for name in ("float8_e8m0fnu",) if hasattr(torch, name)],
]
SHAPES = [(), (0, 3), (1,), (7,), (63, 65), (3, 5, 1001), (1_000_003,)]
LIMITS = ["144KiB", "16MiB", "256MiB"]
C_MODEL_BYTES = 3_000_000

Tensors = dict[str, Any]


def content() -> Tensors:
    """Tensors of every type and shape, with random bytes."""
    tensors = {}
    generator = torch.Generator().manual_seed(0)
    for dtype in TYPES:
        width = torch.empty(0, dtype=dtype).element_size()
        for number, shape in enumerate(SHAPES):
            count = torch.Size(shape).numel()
            data = torch.randint(0, 256, (count * width,), dtype=torch.uint8, generator=generator)
            if dtype is torch.bool:
                data &= 1
            tensors[f"{dtype}.{number}"] = data.view(dtype).reshape(shape)
    return tensors


def load(ringload: Any, location: Path | str, **options: Any) -> Tensors:
    """Loads onto the GPU, for torch."""
    device = options.pop("device", step.DEVICE)
    if not STAND_IN:
        return ringload.load(location, device=device, **options)
    stream = ringload.Loader(device=device, **options).stream([str(location)])
    return {tensor.name: step.view(tensor) for tensor in stream}


def compare(found: Tensors, wanted: Tensors) -> int:
    """Raises unless all tensors have the same bytes."""
    if found.keys() != wanted.keys():
        raise AssertionError(f"{len(found)} tensors of {len(wanted)}")
    for name, tensor in found.items():
        right = STAND_IN or (tensor.shape == wanted[name].shape)
        if not right or not torch.equal(step.raw(tensor).cpu(), step.raw(wanted[name])):
            raise AssertionError(f"{name}: the bytes or the shape are wrong")
    return len(found)


def casts(ringload: Any, location: Path, wanted: Tensors) -> int:
    """Compares casts with those of torch. NaN may have other bits in torch."""
    names = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
    sources = (torch.float32, torch.float16, torch.bfloat16)
    cases = 0
    for name, dtype in names.items():
        for key, tensor in load(ringload, location, dtype=name, memory_limit="16MiB").items():
            if wanted[key].dtype not in sources:
                continue
            cast = wanted[key].to(dtype).flatten()
            found = tensor.cpu().contiguous().view(dtype).flatten()
            if not torch.equal(torch.nan_to_num(found.float()), torch.nan_to_num(cast.float())):
                raise AssertionError(f"{key} to {name}: the values are wrong")
            cases += 1
    return cases


def device_map(ringload: Any, location: Path, wanted: Tensors) -> int:
    """Loads one half to the host."""
    devices = {"*.float*": "cpu", "*": step.DEVICE}
    stream = ringload.Loader(device=devices).stream([str(location)])
    tensors = list(stream)
    on_host = {tensor.name for tensor in tensors if tensor.device == "cpu"}
    if on_host != {name for name in wanted if ".float" in name}:
        raise AssertionError(f"{len(on_host)} tensors are in host memory")
    return compare(load(ringload, location, device=devices), wanted)


def lifetimes(ringload: Any, location: Path, wanted: Tensors) -> int:
    """Keeps a few tensors, drops all else, and lets other loads use the memory."""
    kept = load(ringload, location)
    kept = {name: kept[name] for name in list(kept)[::5]}
    gc.collect()
    for _ in range(3):
        others = load(ringload, location, memory_limit="16MiB")
        if not STAND_IN:
            for tensor in others.values():
                step.raw(tensor).fill_(0x5A)
            torch.cuda.synchronize()
        del others
        gc.collect()
    return compare(kept, {name: wanted[name] for name in kept})


def streams(ringload: Any, location: Path, wanted: Tensors) -> int:
    """Reads each tensor on a stream of torch's own as soon as it is handed out, and drops it."""
    sums = {}
    if STAND_IN:
        for tensor in ringload.Loader(device=step.DEVICE).stream([str(location)]):
            sums[tensor.name] = step.view(tensor).long().sum()
    else:
        own = [torch.cuda.Stream() for _ in range(4)]
        for number, (name, tensor) in enumerate(ringload.stream(location, device=step.DEVICE)):
            with torch.cuda.stream(own[number % len(own)]):
                sums[name] = step.raw(tensor).long().sum()
        torch.cuda.synchronize()
    for name, found in sums.items():
        if int(found) != int(step.raw(wanted[name]).long().sum()):
            raise AssertionError(f"{name}: a kernel read other bytes")
    return len(sums)


def threads(ringload: Any, location: Path, wanted: Tensors) -> int:
    """Loads on three threads at once."""
    failed: list[BaseException] = []

    def one() -> None:
        try:
            compare(load(ringload, location, memory_limit="16MiB"), wanted)
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=one) for _ in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failed:
        raise failed[0]
    return len(running)


def c_program(directory: Path) -> int:
    """Runs the C program on the C library, which reads into GPU memory."""
    program, library = step.PACK / "capi-gpu", step.PACK / "libringload.so.gz"
    if not program.exists() or not library.exists():
        raise FileNotFoundError("the pack has no C library; MANIFEST says why")
    unpacked = directory / "libringload.so"
    import gzip

    with gzip.open(library) as source, unpacked.open("wb") as target:
        shutil.copyfileobj(source, target)
    model = directory / "c.safetensors"
    data = torch.randint(0, 256, (C_MODEL_BYTES,), dtype=torch.uint8)
    save_file({"first": data}, model)
    path = os.pathsep.join(filter(None, [str(directory), os.environ.get("LD_LIBRARY_PATH")]))
    ended = step.run(program, model, LD_LIBRARY_PATH=path)
    if ended.returncode != 0 or ended.stdout != "ok\n":
        raise AssertionError(f"{ended.returncode}: {ended.stderr}")
    return 1


def main() -> None:
    """Checks all of it."""
    step.use("ringload")
    import ringload

    directory = step.WORK / "bindings"
    directory.mkdir(exist_ok=True)
    location, wanted = directory / "all.safetensors", content()
    save_file(wanted, location)
    if not STAND_IN:
        step.note(f"torch {torch.__version__} on {torch.cuda.get_device_name()}")
    for limit in LIMITS:
        step.check(
            f"Python: every type and shape, ring of {limit}",
            lambda limit=limit: compare(load(ringload, location, memory_limit=limit), wanted),
        )
    step.check("Python: --verify", lambda: compare(load(ringload, location, verify=True), wanted))
    works = [casts, device_map, lifetimes, streams, threads]
    for work in works:
        step.check(f"Python: {work.__name__}", lambda work=work: work(ringload, location, wanted))
    step.check("C: reads into GPU memory", lambda: c_program(directory))


main()
