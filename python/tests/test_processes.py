"""Forks, threads, and the end of the interpreter cause no crashes and no hangs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from conftest import Server, run, same, sharded
from safetensors.torch import load_file, save_file

import ringload

FORK = """
import os, sys, time
import torch
def child(body):
    '''Runs body in a forked child, which has to exit with status 0 within 20 s.'''
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
"""


@pytest.mark.parametrize("before", ["", "load()", "load(); load()"])
def test_a_child_loads_whatever_its_parent_did(
    small: Path, server: Server, tmp_path: Path, before: str
) -> None:
    # A child does not share its parent's connections, threads, cache and credentials.
    out = run(f"""
{FORK}
import ringload
loader = ringload.Loader(cache_dir={str(tmp_path / "cache")!r})
def load():
    for location in [{str(small)!r}, {server.url("small.safetensors")!r}]:
        assert len(ringload.load_file(location)) == 4
        assert len(list(loader.stream([location]))) == 4
        assert ringload.open(location).get_slice("a")[1, 2] == 6
    loader.flush(5)
{before}
child(load)
child(lambda: child(load))
load()
print("done")
""")
    assert out == "done\n"


def test_objects_of_a_parent_are_safe_in_a_child(slow: Server, small: Path) -> None:
    out = run(f"""
{FORK}
import gc
import torch
import ringload
live = ringload.Loader().stream([{slow.url("slow.safetensors")!r}])
local = ringload.Loader().stream([{str(small)!r}])
tensor = next(local)
arrays = ringload.load_file({str(small)!r})
opened = ringload.open({str(small)!r})
def body():
    global live, local, tensor, arrays, opened
    for stream in [live, local]:
        try:
            next(stream)
        except ringload.CancelledError as error:
            assert "before the process forked" in str(error)
        else:
            raise AssertionError("a stream of the parent gave a tensor")
        stream.close()
    try:
        opened.keys()
    except ringload.CancelledError:
        pass
    # The child has its own copy of the memory.
    assert torch.from_dlpack(tensor).shape == (3, 4)
    arrays["a"].zero_()
    del live, local, tensor, opened
    arrays = stream = None
    gc.collect()
child(body)
assert arrays["a"][2, 3] == 11, "the child has changed the parent's memory"
live.close()
assert len(list(local)) == 3
print("done")
""")
    assert out == "done\n"


def test_a_child_ends_as_a_process_does(slow: Server, small: Path) -> None:
    out = run(f"""
import os, sys, time
import torch
import ringload
live = ringload.Loader().stream([{slow.url("slow.safetensors")!r}])
kept = ringload.load_file({str(small)!r}), next(ringload.Loader().stream([{str(small)!r}]))
pid = os.fork()
if pid == 0:
    own = ringload.stream({str(small)!r})
    next(own)
    sys.exit(3)  # runs the atexit handlers
for _ in range(1500):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    time.sleep(0.01)
else:
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
print(os.WEXITSTATUS(status))
""")
    assert out == "3\n"


def test_workers_of_multiprocessing(small: Path) -> None:
    for method in ["fork", "spawn"]:
        out = run(f"""
import multiprocessing
import ringload
def work(location):
    return sorted(ringload.load(location, framework="numpy", names=["a"]))
if __name__ == "__main__":
    ringload.load_file({str(small)!r})
    if {method!r} == "spawn":
        import builtins
        work = builtins.len
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(pool.map(work, [{str(small)!r}] * 4))
""")
        assert out.startswith("["), out


def test_each_tensor_goes_to_one_of_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({f"t{i}": torch.full((64,), i) for i in range(3000)}, path)
    stream = ringload.Loader().stream([str(path)])
    names: list[str] = []
    wrong: list[str] = []

    def take() -> None:
        for tensor in stream:
            value = torch.from_dlpack(tensor)
            if not bool((value == int(tensor.name[1:])).all()):
                wrong.append(tensor.name)
            names.append(tensor.name)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(names) == len(set(names)) == 3000 and not wrong


def test_one_loader_and_one_tensor_serve_many_threads(tmp_path: Path) -> None:
    expected = sharded(tmp_path / "m")
    loader = ringload.Loader()
    shared = next(iter(loader.stream([str(tmp_path / "m")])))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                for tensor in loader.stream([str(tmp_path / "m")]):
                    assert same(torch.from_dlpack(tensor), expected[tensor.name])
                assert same(torch.from_dlpack(shared), expected[shared.name])
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_tensor_outlives_everything(small: Path) -> None:
    stream = ringload.Loader().stream([str(small)])
    tensors = {tensor.name: torch.from_dlpack(tensor) for tensor in stream}
    stream.close()
    del stream
    expected = load_file(small)
    small.unlink()
    # Other loads may reuse free memory.
    others = [ringload.Loader for _ in range(3)]
    assert others and all(same(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "print('ending', flush=True); raise SystemExit(0)",
        "stream = ringload.stream(url); thread(next, stream)",
        "thread(ringload.open, silent)",
        "thread(ringload.load_file, url)",
        "[thread(list, live) for _ in range(4)]",
        "module.kept = live, held, tensors",
        "thread(list, ringload.stream(url, progress=True)); time.sleep(1.5)",
        "cycle = [live, held]; cycle.append(cycle)",
        "atexit.register(lambda: list(local))",
    ],
)
def test_the_interpreter_ends_in_mid_load(slow: Server, small: Path, ending: str) -> None:
    out = run(
        f"""
import atexit, socket, sys, threading, time, types
import torch
import ringload
url = {slow.url("slow.safetensors")!r}
listener = socket.create_server(("127.0.0.1", 0))
silent = "http://127.0.0.1:%d/x.safetensors" % listener.getsockname()[1]
def thread(call, argument):
    threading.Thread(target=call, args=(argument,), daemon=True).start()
module = types.ModuleType("kept")
sys.modules["kept"] = module
live = ringload.Loader().stream([url])
local = ringload.Loader().stream([{str(small)!r}])
held = next(local)
tensors = ringload.load_file({str(small)!r})
time.sleep(0.2)
{ending}
time.sleep(0.2)
print("ending", flush=True)
"""
    )
    assert out == "ending\n"


def test_threads_that_load_for_ever_do_not_delay_the_end(small: Path) -> None:
    for _ in range(5):
        out = run(f"""
import threading, time
import ringload
def forever():
    while True:
        for tensor in ringload.Loader().stream([{str(small)!r}]):
            tensor.name
for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
print("ending", flush=True)
""")
        assert out == "ending\n"
