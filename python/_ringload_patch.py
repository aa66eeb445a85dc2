"""Makes a process call `ringload.patch()` when it imports safetensors.

The file `ringload_patch.pth`, which each start of the interpreter reads, imports this module where
`RINGLOAD_PATCH=1` is in the environment: also in the workers that vLLM, SGLang and others spawn.
It stands outside of the package, so that a program that does not import safetensors loads nothing
of ringload.
"""

import logging
import sys
from importlib.util import find_spec


class _Finder:
    """Patches the package safetensors once it was imported.

    Programs ask whether safetensors is there before they import it (`importlib.util.find_spec`), so
    it may be found any number of times before that.
    """

    def find_spec(self, name, _path=None, _target=None):
        if name != "safetensors":
            return None
        sys.meta_path.remove(self)
        try:
            spec = find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_patch(module):
            run(module)
            sys.meta_path.remove(self)
            try:
                import ringload

                ringload.patch()
            except Exception:
                # The program goes on with safetensors as it is.
                logging.getLogger("ringload").exception("RINGLOAD_PATCH=1 had no effect")

        spec.loader.exec_module = run_and_patch
        return spec


def wait():
    """Waits for the import of safetensors."""
    sys.meta_path.insert(0, _Finder())
