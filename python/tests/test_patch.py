"""`ringload.patch()`: programs that use safetensors use ringload."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from conftest import run
from safetensors.torch import load_file, save_file

import ringload
import ringload.safetensors


def test_names_are_replaced_everywhere_and_put_back(caplog: pytest.LogCaptureFixture) -> None:
    stock = safetensors.safe_open
    user = types.ModuleType("a_user_of_safetensors")
    user.safe_open, user.other, user.load = stock, SafetensorsUser, load_file  # type: ignore[attr-defined]

    class Lazy(types.ModuleType):
        def __getattr__(self, name: str) -> None:
            raise AssertionError(f"{name} was looked up, which would import something")

    sys.modules |= {"a_user_of_safetensors": user, "a_lazy_module": Lazy("a_lazy_module")}
    sys.modules["not_a_module"] = object()  # type: ignore[assignment]
    try:
        with caplog.at_level(logging.INFO, logger="ringload"):
            ringload.patch()
            ringload.patch()
        assert len(caplog.records) == 1
        assert "safetensors.safe_open" in caplog.text and "places" in caplog.text
        assert safetensors.safe_open is ringload.safetensors.safe_open is user.safe_open
        assert user.load is ringload.safetensors.torch.load_file is safetensors.torch.load_file
        assert user.other is SafetensorsUser and SafetensorsUser.safe_open is stock
        assert safetensors.SafetensorError is not ringload.safetensors.SafetensorError
    finally:
        ringload.unpatch()
        ringload.unpatch()
        for name in ["a_user_of_safetensors", "a_lazy_module", "not_a_module"]:
            del sys.modules[name]
    assert safetensors.safe_open is stock is user.safe_open
    assert user.load is load_file is safetensors.torch.load_file


class SafetensorsUser:
    """Attributes of classes are not replaced: only names of modules."""

    safe_open = safetensors.safe_open


def test_modules_of_safetensors_that_are_imported_later_are_patched() -> None:
    out = run(
        "import ringload, sys; ringload.patch()\n"
        "assert 'torch' not in sys.modules and 'safetensors.torch' not in sys.modules\n"
        "from safetensors.torch import load_file\n"
        "from safetensors import safe_open\n"
        "print(load_file.__module__, safe_open.__module__)\n"
        "ringload.unpatch()\n"
        "print(sys.modules['safetensors.torch'].load_file.__module__, load_file.__module__)\n"
    )
    assert out.split() == [
        "ringload.safetensors.torch",
        "ringload.safetensors._open",
        "safetensors.torch",
        "safetensors.torch",
    ]


SCRIPT = """
import sys
from safetensors import safe_open
print(safe_open.__module__, sys.argv[1:], __name__)
"""


def test_a_variable_patches_every_interpreter_that_imports_safetensors() -> None:
    """The workers that a server spawns cannot be told otherwise."""
    assert run(SCRIPT, RINGLOAD_PATCH="1").startswith("ringload.safetensors._open")
    assert run(SCRIPT, RINGLOAD_PATCH="0").startswith("builtins")
    loaded = "import sys; print([name for name in sys.modules if 'ringload' in name])"
    assert run(loaded, RINGLOAD_PATCH="1").strip() == "['_ringload_patch']"
    assert run(loaded).strip() == "[]"
    # diffusers asks whether safetensors is there, and imports it later: it was not patched.
    asked = "from importlib.util import find_spec\nassert find_spec('safetensors')\n" * 2
    assert run(asked + SCRIPT, RINGLOAD_PATCH="1").startswith("ringload.safetensors._open")
    spawned = (
        "import multiprocessing as m\n"
        "import safetensors\n"
        "def name(_): import safetensors; return safetensors.safe_open.__module__\n"
        "if __name__ == '__main__': print(name(0))\n"
    )
    assert run(spawned, RINGLOAD_PATCH="1").strip() == "ringload.safetensors._open"


def test_a_program_that_cannot_be_changed_is_run_patched(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "import beside\n")
    (tmp_path / "beside.py").write_text("")
    child = "import os, subprocess, sys\nsubprocess.check_call([sys.executable, *sys.argv[1:]])\n"
    (tmp_path / "child.py").write_text(child)

    def ringload_run(*arguments: str) -> str:
        command = [sys.executable, "-m", "ringload.run", *arguments]
        return subprocess.run(
            command, check=True, text=True, capture_output=True, cwd=tmp_path, env=dict(os.environ)
        ).stdout

    expected = "ringload.safetensors._open ['--flag', 'x'] __main__\n"
    assert ringload_run(str(script), "--flag", "x") == expected
    assert ringload_run("-m", "script", "--flag", "x") == expected
    assert ringload_run("child.py", str(script), "--flag", "x") == expected
    usage = subprocess.run(
        [sys.executable, "-m", "ringload.run"], check=False, text=True, capture_output=True
    )
    assert usage.returncode != 0 and "usage" in usage.stderr


def test_loads_by_the_replaced_names_are_the_same(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(100, 3), "b": torch.arange(7)}
    save_file(tensors, tmp_path / "t.safetensors")
    ringload.patch()
    try:
        found = safetensors.torch.load_file(tmp_path / "t.safetensors")
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    finally:
        ringload.unpatch()
