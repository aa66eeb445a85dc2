"""Skips tests whose requirements are not installed, or fails them where they have to run."""

import importlib.util
import os

import pytest


def need(variable, *modules):
    """Skips the test unless all `modules` are installed.

    If the environment variable `variable` is "require", the modules were installed for the tests,
    and the test fails instead.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get(variable) == "require":
        pytest.fail(reason)
    pytest.skip(reason)
