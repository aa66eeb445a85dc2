"""Loads of `ringload.ray` to GPUs, with the stand-in for the CUDA driver.

torch has no GPU here. The programs take ringload's own tensors, whose memory the host can read.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import run, sharded
from needs import need

FOLDER = os.environ.get("RINGLOAD_TEST_STAND_IN", "")

pytestmark = pytest.mark.skipif(not FOLDER, reason="RINGLOAD_TEST_STAND_IN is not set")

PROGRAM = """
import ctypes, glob, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import ray
import ringload.ray
from ringload.ray import reader
from safetensors.numpy import load_file

reader.converter = lambda framework: lambda tensor: tensor
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
ray.init(num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
"""


def test_chunks_go_to_the_gpu_through_the_pinned_ring(tmp_path: Path) -> None:
    need("RINGLOAD_TEST_EXAMPLES", "ray", "numpy")
    sharded(tmp_path / "m")
    location, log = str(tmp_path / "m"), tmp_path / "log"
    out = run(
        PROGRAM
        + f"""
expected = {{}}
for file in glob.glob({location!r} + "/*.safetensors"):
    expected |= load_file(file)

def content(tensor):
    return ctypes.string_at(tensor.address, tensor.nbytes)

for memory_limit in (None, "min"):
    options = {{"memory_limit": memory_limit, "chunk_size": "20KiB"}}
    loaded = ringload.ray.load_file({location!r}, device="cuda:1", **options)
    assert {{tensor.device for tensor in loaded.values()}} == {{"cuda:1"}}
    assert {{n: content(t) for n, t in loaded.items()}} == {{
        n: array.tobytes() for n, array in expected.items()
    }}
    assert (loaded.report.store_bytes, loaded.report.reason) == (0, None)
(owner,) = ringload.ray.status()
print(owner["read_bytes"] == owner["resident_bytes"])

devices = {{"layer.0.*": "cuda:0", "layer.1.*": "cuda:1"}}
part = {{"slices": {{"*": 0}}, "rank": 1, "world": 2}}
loaded = ringload.ray.load({location!r}, device=devices, **part, chunk_size="20KiB")
for name, tensor in loaded.items():
    assert tensor.device == devices.get(name[:8] + "*", "cpu")
    assert content(tensor) == expected[name][25:].tobytes()
print(len(loaded))
""",
        LD_LIBRARY_PATH=FOLDER,
        CUDA_STAND_IN_LOG=str(log),
    )
    assert out == "True\n12\n"
    calls = log.read_text()
    # Of the six chunks of each load, only those register memory that need a larger ring.
    assert 0 < calls.count("cuMemHostRegister") <= 3 * 2
    assert calls.count("cuMemcpyHtoDAsync") >= 3 * 6
