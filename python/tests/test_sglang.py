"""The SGLang plugin: when it is active, its stream, and its hooks in SGLang."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from needs import need

import ringload.sglang

CHILD = Path(__file__).with_name("sglang_child.py")
CHILD_SECONDS_MAX = 300
ITERATORS = ("safetensors_weights_iterator", "buffered_multi_thread_safetensors_weights_iterator")


def write(folder):
    import torch
    from safetensors.torch import save_file

    tensors = {f"t{i}": torch.full((50, i + 1), float(i)) for i in range(6)}
    for number in range(2):
        chosen = {name: tensor for name, tensor in tensors.items() if int(name[1:]) % 2 == number}
        save_file(chosen, folder / f"model-{number}.safetensors")
    return tensors


def test_importing_it_imports_neither_sglang_nor_torch():
    code = "import sys, ringload.sglang; assert not {'sglang', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_pyproject_names_register_as_sglangs_plugin():
    text = (CHILD.parents[1] / "pyproject.toml").read_text()
    table = '[project.entry-points."sglang.srt.plugins"]\nringload = "ringload.sglang:register"'
    assert table in text


@pytest.mark.parametrize(
    ("plugins", "is_active"),
    [(None, False), ("", False), ("other", False), ("ringload", True), ("other, ringload", True)],
)
def test_it_is_active_where_sglangs_variable_names_it(monkeypatch, plugins, is_active):
    """SGLang calls every installed plugin: installing ringload alone must not change it."""
    hooks = []

    class HookRegistry:
        register = staticmethod(lambda *hook: hooks.append(hook))

    for name in ("sglang", "sglang.srt", "sglang.srt.plugins"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    registry = types.ModuleType("hook_registry")
    registry.HookRegistry, registry.HookType = HookRegistry, types.SimpleNamespace(REPLACE="it")
    monkeypatch.setitem(sys.modules, "sglang.srt.plugins.hook_registry", registry)
    if plugins is None:
        monkeypatch.delenv("SGLANG_PLUGINS", raising=False)
    else:
        monkeypatch.setenv("SGLANG_PLUGINS", plugins)
    ringload.sglang.register()
    targets = [f"sglang.srt.model_loader.loader.{name}" for name in ITERATORS]
    expected = [(target, ringload.sglang.weights, "it") for target in targets] if is_active else []
    assert hooks == expected


def test_all_tensors_of_all_files_arrive_and_may_be_kept(tmp_path, monkeypatch):
    need("RINGLOAD_TEST_EXAMPLES", "torch", "safetensors")
    import torch

    tensors = write(tmp_path)
    monkeypatch.setenv("RINGLOAD_MEMORY_LIMIT", "min")
    files = sorted(map(str, tmp_path.glob("*.safetensors")))
    held = dict(ringload.sglang.weights(files, max_workers=4, drop_cache_after_load=True))
    assert held.keys() == tensors.keys()
    assert all(torch.equal(held[name], tensors[name]) for name in tensors)


def test_sglangs_loaders_read_through_it(tmp_path):
    need("RINGLOAD_TEST_SGLANG", "sglang")
    write(tmp_path)
    result = tmp_path / "result.json"
    environment = {**os.environ, "SGLANG_PLUGINS": "ringload"}
    command = [sys.executable, CHILD, tmp_path, result]
    finished = subprocess.run(
        list(map(str, command)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS_MAX,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    answer = json.loads(result.read_text())
    assert len(answer["theirs"]) == 6
    for name in ITERATORS:
        assert answer[name] == {"streams": 1, "tensors": answer["theirs"]}
