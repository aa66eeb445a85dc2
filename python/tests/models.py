"""Small models for tests: tensors of every type, in files that `safetensors` writes."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import torch

#: torch's types that safetensors has, too.
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e8m0fnu,
]

Model = dict[str, torch.Tensor]


def noise(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Returns a tensor of random bytes, which depend only on `seed` and the size."""
    size = torch.empty(shape, dtype=dtype, device="meta").nbytes
    random = torch.Generator().manual_seed(seed)
    bytes_ = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=random)
    if dtype == torch.bool:
        bytes_ &= 1
    return bytes_.view(dtype).reshape(shape)


def of_all_types() -> Model:
    """Returns a model with a tensor of each type, a scalar, and a tensor without elements."""
    model = {f"type.{dtype}": noise(n, (3, 5 + n), dtype) for n, dtype in enumerate(DTYPES)}
    model["scalar"] = noise(50, (), torch.float32)
    model["nothing"] = torch.empty(0, 7, dtype=torch.bfloat16)
    return model


def digest(tensor: torch.Tensor) -> str:
    """Returns the type, the shape and a hash of the bytes of a tensor."""
    bytes_ = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    about = f"{tensor.dtype} {tuple(tensor.shape)} "
    return about + hashlib.sha256(bytes_).hexdigest()


def digests(model: Model) -> dict[str, str]:
    return {name: digest(tensor) for name, tensor in model.items()}


def write(path: Path, model: Model) -> str:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model, str(path))
    return str(path)


def write_raw(path: Path, header: object, data: bytes = b"") -> str:
    """Writes a file with any header, which may be invalid."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def shards(directory: Path, model: Model, count: int) -> list[str]:
    """Writes the model to `count` files with about the same number of tensors."""
    names = list(model)
    cut = -(-len(names) // count)
    return [
        write(
            directory / f"model-{n + 1:05}-of-{count:05}.safetensors",
            {name: model[name] for name in names[n * cut : (n + 1) * cut]},
        )
        for n in range(count)
    ]
