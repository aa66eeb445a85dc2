#!/usr/bin/env python3
"""Runs the unit tests inside Run:ai's own wheel (0.17.0) on libringload.so.

    tests/runai.py PYTHON LIBRARY [MODULE]...

PYTHON is the interpreter of an environment with runai-model-streamer==0.17.0, torch, numpy and
safetensors; LIBRARY is the shared library. Without modules, all tests of the wheel run.

Some tests read files from their own directory, which the wheel does not contain. So the package is
copied, and files of the same names are created in the copy. `dist_test_*` run in two processes of a
gloo group. A test that fails or is skipped is a failure, unless EXCLUDED names it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

VERSION = "0.17.0"

# Tests that are not run: the end of the name, and the reason.
EXCLUDED = {
    "DstPreExists.test_invalid_model_path_raises_before_lock": "it skips itself",
}

# A program for PYTHON that checks the version of the package and prints its path.
FIND = """
import importlib.metadata, importlib.util
assert importlib.metadata.version("runai-model-streamer") == "%s"
print(importlib.util.find_spec("runai_model_streamer").submodule_search_locations[0])
"""

# A program for PYTHON that creates the files that the tests read.
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

# A program for PYTHON that runs the tests of the given modules, or all tests, and prints the names
# of skipped tests.
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
    # The tests run in another directory, so both paths have to be absolute.
    python, library = map(os.path.abspath, sys.argv[1:3])
    modules = sys.argv[3:]
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **{
                name: os.environ[name]
                for name in ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR")
                if name in os.environ
            },
            "STREAMER_LIBRARY": library,
            "PYTHONPATH": directory,
        }

        def run(*arguments):
            return subprocess.run([python, *arguments], env=environment, cwd=directory, timeout=600)

        found = subprocess.run(
            [python, "-c", FIND % VERSION], stdout=subprocess.PIPE, text=True, check=True
        )
        package = pathlib.Path(found.stdout.strip())
        shutil.copytree(package, pathlib.Path(directory) / package.name)
        files = pathlib.Path(directory) / package.name / "safetensors_streamer/tests/test_files"
        files.mkdir()
        run("-c", MAKE, str(files)).check_returncode()
        script = pathlib.Path(directory) / "run.py"
        script.write_text(RUN % (list(EXCLUDED),))
        failures = run(str(script), directory, *modules).returncode
        if not modules:
            for module in DISTRIBUTED:
                launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
                failures += run(*launch, str(script), directory, module).returncode
    for name, why in EXCLUDED.items():
        print(f"not run: {name}: {why}", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
