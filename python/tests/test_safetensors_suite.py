"""safetensors' own tests, from its source distribution, on `ringload.patch()`.

tests/python.sh downloads them. What passes on safetensors has to pass here, without exception.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

SUITE = "RINGLOAD_TEST_SAFETENSORS"
"""The variable that names the folder with the tests."""

# Their modules import frameworks that are not installed for tests.
OTHER_FRAMEWORKS = ["tf", "paddle", "mlx"]

PLUGIN = "import os\nif os.environ['PATCHED'] == '1':\n    import ringload\n    ringload.patch()\n"


def passed(tests: Path, directory: Path, *, patched: bool) -> tuple[set[str], str]:
    """Runs the tests; returns the names of those that pass, and the output."""
    directory.mkdir()
    shutil.copytree(tests, directory / "tests")
    (directory / "plugin_of_suite.py").write_text(PLUGIN)
    ignored = [f"--ignore=tests/test_{name}_comparison.py" for name in OTHER_FRAMEWORKS]
    # A file of settings of its own: pytest looks into no directory above it.
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "plugin_of_suite", "-q"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--junitxml=junit.xml"]
    environment = {**os.environ, "PYTHONPATH": str(directory), "PATCHED": str(int(patched))}
    done = subprocess.run(
        [*command, *ignored, "tests"],
        check=False,
        cwd=directory,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    cases = ElementTree.parse(directory / "junit.xml").iter("testcase")
    assert done.returncode == 0, done.stdout
    names = {
        f"{case.get('classname')}.{case.get('name')}"
        for case in cases
        if not any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
    }
    return names, done.stdout


def test_what_passes_on_safetensors_passes_on_ringload(tmp_path: Path) -> None:
    folder = os.environ.get(SUITE)
    if not folder:
        pytest.skip("tests/python.sh downloads safetensors' tests")
    ours, output = passed(Path(folder), tmp_path / "ours", patched=True)
    if os.environ.get("RINGLOAD_TEST_FULL"):
        theirs, _ = passed(Path(folder), tmp_path / "theirs", patched=False)
        assert theirs - ours == set(), output
    # Those that are skipped are for GPUs and other devices.
    assert len(ours) >= 68, output
