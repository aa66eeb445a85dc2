"""Loads to GPUs, with the stand-in for the CUDA driver, whose GPU memory the host can read.

tests/python.sh builds the stand-in and sets RINGLOAD_TEST_STAND_IN to its folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import run, sharded

FOLDER = os.environ.get("RINGLOAD_TEST_STAND_IN", "")

pytestmark = pytest.mark.skipif(not FOLDER, reason="RINGLOAD_TEST_STAND_IN is not set")

COMMON = """
import ctypes
import ringload
from safetensors.numpy import load_file
import glob
def expected(directory):
    files = sorted(glob.glob(directory + "/*.safetensors"))
    return {name: array.tobytes() for file in files for name, array in load_file(file).items()}
def content(tensor):
    return ctypes.string_at(tensor.address, tensor.nbytes)
"""


def on_stand_in(text: str, **environment: str) -> str:
    return run(COMMON + text, LD_LIBRARY_PATH=FOLDER, **environment)


@pytest.mark.parametrize("seed", range(3))
def test_tensors_reach_the_gpu_that_was_named(tmp_path: Path, seed: int) -> None:
    sharded(tmp_path / "m")
    location = str(tmp_path / "m")
    out = on_stand_in(
        f"""
loader = ringload.Loader(device="cuda:1", memory_limit="min")
for _ in range(3):  # later loads reuse the pinned memory
    tensors = list(loader.stream([{location!r}]))
    for tensor in tensors:
        assert tensor.device == "cuda:1" and tensor.__dlpack_device__() == (2, 1)
        capsules = tensor.__dlpack__(), tensor.__dlpack__(max_version=(1, 0), stream=1)
    found = {{tensor.name: content(tensor) for tensor in tensors}}
    assert found == expected({location!r})
opened = ringload.Loader(device="cuda").open([{location!r}])
name = opened.keys()[5]
assert content(opened.read(name)) == expected({location!r})[name]
assert opened.read(name).device == "cuda:0"
mixed = ringload.Loader(device={{"layer.0.*": "cuda:1", "*": "cpu"}}).stream([{location!r}])
print(sorted({{(tensor.name[6], tensor.device) for tensor in mixed}}))
try:
    list(ringload.Loader(device="cuda:7").stream([{location!r}]))
except ringload.Error as error:
    print(error)
try:
    ringload.load({location!r}, device="cuda", framework="numpy")
except ValueError as error:
    print(error)
""",
        CUDA_STAND_IN_SEED=str(seed),
    )
    assert "[('0', 'cuda:1'), ('1', 'cpu'), ('2', 'cpu')]" in out
    assert "cuda:7" in out
    assert "load it to cpu" in out


def test_loaders_of_a_process_share_their_pinned_ring(tmp_path: Path) -> None:
    # The stand-in aborts if the ring is still pinned when the interpreter has ended.
    sharded(tmp_path / "m")
    location, log = str(tmp_path / "m"), tmp_path / "calls"
    out = on_stand_in(
        f"""
import os
for _ in range(3):
    tensors = list(ringload.Loader(device="cuda").stream([{location!r}]))
    assert {{tensor.name: content(tensor) for tensor in tensors}} == expected({location!r})
child = os.fork()
if child == 0:  # has neither the ring nor the thread that unpins it
    assert list(ringload.Loader(device="cpu").stream([{location!r}]))
    try:
        list(ringload.Loader(device="cuda").stream([{location!r}]))
    except ringload.Error:
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        CUDA_STAND_IN_LOG=str(log),
    )
    assert out == "7\n"
    calls = log.read_text()
    assert (calls.count("cuMemHostRegister"), calls.count("cuMemHostUnregister")) == (1, 1)


def test_a_copy_on_a_gpu_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path / "m")
    out = on_stand_in(f"""
tensor = next(ringload.Loader(device="cuda").stream([{str(tmp_path / "m")!r}]))
for request in [dict(copy=True), dict(dl_device=(1, 0))]:
    try:
        tensor.__dlpack__(**request)
    except BufferError as error:
        print(error)
""")
    assert "it is on a GPU" in out and "load it to the device that it is requested on" in out


@pytest.mark.parametrize("seed", range(4))
def test_the_interpreter_ends_with_gpus_in_use(tmp_path: Path, seed: int) -> None:
    # The stand-in aborts if contexts, streams or memory are not released.
    sharded(tmp_path / "m", 5)
    out = on_stand_in(
        f"""
loader = ringload.Loader(device={{"*.0": "cuda:1", "*": "cuda:0"}})
streams = [loader.stream([{str(tmp_path / "m")!r}]) for _ in range(3)]
kept = [next(stream) for stream in streams]
capsule = kept[0].__dlpack__()
print("ending", flush=True)
""",
        CUDA_STAND_IN_SEED=str(seed),
    )
    assert out == "ending\n"


def test_a_stream_that_is_never_dropped_is_stopped_at_the_end(tmp_path: Path) -> None:
    sharded(tmp_path / "m", 5)
    out = on_stand_in(f"""
loader = ringload.Loader(device="cuda", memory_limit="min")
stream = loader.stream([{str(tmp_path / "m")!r}])
ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
print("ending", flush=True)
""")
    assert out == "ending\n"


def test_a_child_loads_and_its_parent_goes_on(tmp_path: Path) -> None:
    # The driver cannot be used after a fork. Nothing may hang, and the parent has to go on.
    sharded(tmp_path / "m")
    out = on_stand_in(f"""
import os, time
location = {str(tmp_path / "m")!r}
loader = ringload.Loader(device="cuda")
kept = list(loader.stream([location]))
pid = os.fork()
if pid == 0:
    del kept
    assert len(list(ringload.Loader().stream([location]))) == 12
    os._exit(0)
for _ in range(1000):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    time.sleep(0.01)
else:
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
assert {{tensor.name: content(tensor) for tensor in kept}} == expected(location)
print(status, len(list(loader.stream([location]))))
""")
    assert out == "0 12\n"
