#!/usr/bin/env python3
"""Runs the unit tests inside Run:ai's own wheel (0.17.0) on libringload.so.

    tests/runai.py PYTHON LIBRARY [MODULE]...

PYTHON is that of an environment with runai-model-streamer==0.17.0, torch, numpy and safetensors;
LIBRARY the shared library. Without modules, all of the wheel's tests run.

Tests that read real files look for them beside themselves, and the wheel does not have them. So the
package is copied, and files of the same names are made there. `dist_test_*` run in two processes of
one gloo group. A test that is skipped, or that fails, is a failure here, unless EXCLUDED names it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

VERSION = "0.17.0"

# Tests that are not run, by the end of their name, and why.
EXCLUDED = {
    "DstPreExists.test_invalid_model_path_raises_before_lock": "it skips itself",
}

# Runs in PYTHON: where the package is, if it is the right one.
FIND = """
import importlib.metadata, importlib.util
assert importlib.metadata.version("runai-model-streamer") == "%s"
print(importlib.util.find_spec("runai_model_streamer").submodule_search_locations[0])
"""

# Runs in PYTHON: the files that the tests look for.
MAKE = """
import sys, pathlib, torch
from safetensors.torch import save_file
directory = pathlib.Path(sys.argv[1])
dtypes = ["float16", "bfloat16", "float32", "float64"]
dtypes += ["bool", "int8", "uint8", "int16", "int32", "int64"]
tensors = {}
for number in 1, 2, 3:
    for name in dtypes:
        tensor = (torch.arange(number * 1000) % 200 - 100).to(getattr(torch, name))
        tensors[f"tensor{number}.{name}"] = tensor.reshape(number, 10, 100)
save_file(tensors, directory / "test.safetensors")
save_file({}, directory / "test_empty.safetensors")
"""

# Runs in PYTHON: the tests of modules, or all; prints the names of those that were skipped.
RUN = """
import os, sys, unittest
modules, excluded = sys.argv[2:], %r
if "RANK" in os.environ:
    import torch.distributed as dist
    dist.init_process_group("gloo")
loader = unittest.TestLoader()
if modules:
    suite = loader.loadTestsFromNames(modules)
else:
    suite = loader.discover("runai_model_streamer", top_level_dir=sys.argv[1])
def chosen(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test)
        elif not test.id().endswith(tuple(excluded)):
            yield test
result = unittest.TextTestRunner(verbosity=1).run(unittest.TestSuite(chosen(suite)))
for test, why in result.skipped:
    print(f"skipped: {test}: {why}", file=sys.stderr)
from runai_model_streamer.libstreamer import STREAMER_LIBRARY
assert STREAMER_LIBRARY == os.environ["STREAMER_LIBRARY"]
if "RANK" in os.environ:
    dist.destroy_process_group()
sys.exit(not result.wasSuccessful() or bool(result.skipped) or result.testsRun == 0)
"""

DISTRIBUTED = [
    "runai_model_streamer.distributed_streamer.tests.dist_test_distributed_streamer",
    "runai_model_streamer.safetensors_streamer.tests.dist_test_safetensors_streamer",
]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    # Of the program, too: it is run in another directory.
    python, library = map(os.path.abspath, sys.argv[1:3])
    modules = sys.argv[3:]
    with tempfile.TemporaryDirectory() as place:
        environment = {
            **{
                name: os.environ[name]
                for name in ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR")
                if name in os.environ
            },
            "STREAMER_LIBRARY": library,
            "PYTHONPATH": place,
        }

        def run(*arguments):
            return subprocess.run([python, *arguments], env=environment, cwd=place, timeout=600)

        found = subprocess.run(
            [python, "-c", FIND % VERSION], stdout=subprocess.PIPE, text=True, check=True
        )
        package = pathlib.Path(found.stdout.strip())
        shutil.copytree(package, pathlib.Path(place) / package.name)
        files = pathlib.Path(place) / package.name / "safetensors_streamer/tests/test_files"
        files.mkdir()
        run("-c", MAKE, str(files)).check_returncode()
        script = pathlib.Path(place) / "run.py"
        script.write_text(RUN % (list(EXCLUDED),))
        failures = run(str(script), place, *modules).returncode
        if not modules:
            for module in DISTRIBUTED:
                launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
                failures += run(*launch, str(script), place, module).returncode
    for name, why in EXCLUDED.items():
        print(f"not run: {name}: {why}", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
