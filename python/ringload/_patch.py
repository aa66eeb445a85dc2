"""`patch` and `unpatch`: programs that use safetensors use ringload instead, unchanged.

The names that load are replaced in the modules of safetensors, and, by identity, wherever a module
has imported one of them: `from safetensors import safe_open` binds the class itself. Modules are
looked through without calling them, so that those which import lazily stay as lazy as they are.
What is imported later gets the replacements from safetensors. Nothing else is changed.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any

log = logging.getLogger("ringload")

NAMES = {
    "safetensors": ("safe_open", "_safe_open_handle"),
    "safetensors.torch": ("load_file", "load_model"),
    "safetensors.numpy": ("load_file",),
    "safetensors.flax": ("load_file",),
    "safetensors.tensorflow": ("load_file",),
    "safetensors.paddle": ("load_file",),
    "safetensors.mlx": ("load_file",),
}
"""The modules, and the names in each that are replaced."""

_lock = Lock()
_replaced: list[tuple[Any, Any]] = []
"""Pairs of what was replaced and what it was replaced by. Empty: nothing is patched."""
_finder: _Finder | None = None


def patch() -> None:
    """Makes programs that use safetensors use ringload, from now on and in this process.

    `safe_open`, `load_file` and `load_model` are replaced by those of `ringload.safetensors` in
    safetensors, and in modules that imported them. A line of the logger "ringload" at INFO says how
    many. Calling this again does nothing.

    Raises:
        ImportError: safetensors is not installed.
    """
    global _finder  # noqa: PLW0603 - this is a setting of the process
    with _lock:
        if _finder is not None:
            return
        import_module("safetensors")
        _finder = _Finder()
        sys.meta_path.insert(0, _finder)
        found = [name for name in NAMES if name in sys.modules]
        places = sum(_patch_module(name) for name in found)
        what = sorted({f"{name}.{each}" for name in found for each in NAMES[name]})
        log.info("ringload replaced %s, in %d places", ", ".join(what), places)


def unpatch() -> None:
    """Undoes `patch`, also in modules that imported a replacement meanwhile."""
    global _finder  # noqa: PLW0603 - this is a setting of the process
    with _lock:
        if _finder is None:
            return
        sys.meta_path.remove(_finder)
        _finder = None
        pairs = [(ours, theirs) for theirs, ours in _replaced]
        _replaced.clear()
        _substitute(pairs)


def _patch_module(name: str) -> int:
    """Replaces the names of one module of safetensors. Returns in how many places."""
    module = sys.modules[name]
    ours = import_module(f"ringload.{name}")
    pairs = []
    for each in NAMES[name]:
        theirs = getattr(module, each, None)
        if theirs is not None:
            pairs.append((theirs, getattr(ours, each)))
    _replaced.extend(pairs)
    return _substitute(pairs)


def _substitute(pairs: list[tuple[Any, Any]]) -> int:
    """Replaces the first of each pair by the second in all modules but ringload's."""
    by_identity = {id(old): new for old, new in pairs}
    count = 0
    for name, module in list(sys.modules.items()):
        if name == "ringload" or name.startswith("ringload."):
            continue
        try:
            # Not `vars` or `getattr`, which a module may answer by importing something.
            names = ModuleType.__getattribute__(module, "__dict__")
        except (AttributeError, TypeError):
            continue  # something else than a module
        for each, value in list(names.items()):
            new = by_identity.get(id(value))
            if new is not None:
                names[each] = new
                count += 1
    return count


class _Finder:
    """Replaces the names of a module of safetensors once it is imported."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        """Finds the modules of safetensors with the other finders, and no other modules."""
        if name not in NAMES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            with _lock:
                if _finder is self:
                    _patch_module(name)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec
