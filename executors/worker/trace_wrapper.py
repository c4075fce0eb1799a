"""A wrapper that runs on a worker and gives the user's function its trace context."""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable
from typing import Any, Final

#: Functions whose wrappers are kept, so that Parsl, too, serialises each of them once.
_KEPT: Final = 128


def around(function: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper to be called as ``traced(traceparent, *args, **kwargs)``, in a process that runs one task at a time.

    While the function runs, the environment variable ``TRACEPARENT`` has the context of its attempt: for OpenTelemetry
    in the function, and for programs that it starts. It travels by value and needs nothing of this package.
    """
    try:
        return _around(function)
    except TypeError:  # not hashable, so that Parsl cannot keep its serialised form either
        return _make(function)


@functools.lru_cache(_KEPT)
def _around(function: Callable[..., Any]) -> Callable[..., Any]:
    return _make(function)


def _make(function: Callable[..., Any]) -> Callable[..., Any]:
    def traced(traceparent: str, /, *args: Any, **kwargs: Any) -> Any:
        import os  # noqa: PLC0415 - it travels alone

        os.environ["TRACEPARENT"] = traceparent
        try:
            return function(*args, **kwargs)
        finally:
            os.environ.pop("TRACEPARENT", None)

    # A function of no module, so that the worker imports nothing for it.
    names = {"__builtins__": builtins, "__name__": "__main__"}
    name = getattr(function, "__name__", "traced")
    alone = types.FunctionType(traced.__code__, names, name, None, traced.__closure__)
    alone.__module__ = "__main__"
    alone.__wrapped__ = function  # type: ignore[attr-defined]  # who asks what this is looks through it
    return alone
