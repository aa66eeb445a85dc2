"""Runs a program with `ringload.patch()`, for a program that cannot be changed.

    python -m ringload.run script.py [ARGUMENTS]
    python -m ringload.run -m module [ARGUMENTS]

Processes that the program starts are patched, too, if they find `RINGLOAD_PATCH=1` in their
environment, which this sets.
"""

from __future__ import annotations

import os
import runpy
import sys

from ._patch import patch

USAGE = "usage: python -m ringload.run (script.py | -m module) [ARGUMENTS]"


def main() -> None:
    """Runs the program that the arguments name."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        sys.exit(USAGE)
    os.environ["RINGLOAD_PATCH"] = "1"
    patch()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        # As `python -m` does: modules of the current directory are found.
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
