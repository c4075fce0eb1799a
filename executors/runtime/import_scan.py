"""What a function imports, and which modules the distributions at an endpoint bring."""

from __future__ import annotations

import dis
import functools
import re
import sys
import types
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, Final

_OWN: Final = frozenset({"diaspora_parsl", "parsl"})
#: Functions whose imports are remembered.
_REMEMBERED: Final = 4096
_NOTHING: Final = frozenset[str]()


class Imports:
    """Finds the top-level modules that plain functions import in their bodies. Not thread-safe: one thread submits."""

    def __init__(self) -> None:
        #: The code is kept, so that its id means it and nothing else.
        self._known: dict[int, tuple[types.CodeType, frozenset[str]]] = {}

    def of(self, function: Callable[..., Any]) -> frozenset[str]:
        """Normalised names of what it imports, the standard library aside; nothing if it is no plain function."""
        code = _code_of(function)
        if code is None:
            return _NOTHING
        known = self._known.get(id(code))
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[id(code)] = (code, _imported(code) or _NOTHING)
        return known[1]


def _code_of(function: Any) -> types.CodeType | None:
    """The code that the user wrote, inside the wrappers of Parsl."""
    for _ in range(10):
        inner = getattr(function, "__wrapped__", None)
        if inner is None and isinstance(function, functools.partial):
            inner = function.args[0] if function.args and callable(function.args[0]) else function.func
        if inner is None:
            break
        function = inner
    return function.__code__ if isinstance(function, types.FunctionType) else None


def _imported(code: types.CodeType) -> frozenset[str]:
    names = {
        str(step.argval).partition(".")[0]
        for step in dis.get_instructions(code)
        if step.opname == "IMPORT_NAME" and step.argval
    }
    found = frozenset(normalised(name) for name in names if name not in sys.stdlib_module_names and name not in _OWN)
    return found.union(*(_imported(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def modules_of(distributions: Iterable[str]) -> frozenset[str]:
    """Normalised names of the top-level modules that these distributions bring, as far as can be known.

    A distribution that is installed here lists its modules. The module of any other is assumed to have its name.
    """
    there = frozenset(normalised(name) for name in distributions)
    brought = {module for module, owners in _owners().items() if not owners.isdisjoint(there)}
    return there | brought


@functools.cache
def _owners() -> dict[str, frozenset[str]]:
    """The distributions that bring each module that is installed here. Takes a moment, the first time."""
    return {
        normalised(module): frozenset(normalised(owner) for owner in owners)
        for module, owners in metadata.packages_distributions().items()
    }


def normalised(name: str) -> str:
    """One spelling per name, as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
