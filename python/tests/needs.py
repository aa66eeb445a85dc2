"""Tests of what is not always installed are skipped with a reason, or fail where they must run."""

import importlib.util
import os

import pytest


def need(variable, *modules):
    """Skips the test unless all `modules` are installed.

    Where `variable` is "require" in the environment, it fails instead: there they were installed
    for the tests, and a test that is skipped tests nothing.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    sentence = f"not installed: {', '.join(missing)}"
    if os.environ.get(variable) == "require":
        pytest.fail(sentence)
    pytest.skip(sentence)
