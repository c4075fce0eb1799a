"""The worker's side of scripted faults: the decorator that lets user functions meet them."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, ParamSpec, TypeVar

import msgspec

from diaspora_parsl.testing.faults import script as f

#: Environment variable with the folder in which an endpoint records its active faults.
VARIABLE: Final = "DIASPORA_PARSL_FAULTS"
#: Environment variable with the node of a worker, such as ``label-0``.
NODE_VARIABLE: Final = "DIASPORA_PARSL_NODE"
_RECORD: Final = "faults.json"
_DRAWS: Final = "draws"

P = ParamSpec("P")
R = TypeVar("R")


class FlakyError(Exception):
    """Raised by `Flaky`."""


class BlackHoleError(Exception):
    """Raised by `BlackHole`."""


class subject_to_faults(Generic[P, R]):  # noqa: N801 - it is used as a decorator
    """Decorator: let a function meet the faults that a script applies to its endpoint.

    Put it below the decorator of the app. Without faults it costs one attempt to read a file. The workers must have
    this package installed. It is a class, because an instance is pickled by reference to this module.

    Example:
        >>> @parsl.python_app  # doctest: +SKIP
        ... @subject_to_faults
        ... def work(i): ...
    """

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, or raise what the active faults of the endpoint raise."""
        folder = os.environ.get(VARIABLE)
        faults = read_faults(Path(folder)) if folder else ()
        slow = _apply_faults(getattr(self, "__name__", ""), faults, Path(folder or "."))
        began = time.monotonic()
        result = self._function(*args, **kwargs)
        if slow > 1.0:
            time.sleep((time.monotonic() - began) * (slow - 1.0))
        return result


def write_faults(folder: Path, faults: tuple[f.WorkerFault, ...]) -> None:
    """Replace the active faults of the endpoint with this folder."""
    draft = folder / f"{_RECORD}.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(faults))
    draft.replace(folder / _RECORD)


def read_faults(folder: Path) -> tuple[f.WorkerFault, ...]:
    """Return the active faults of the endpoint with this folder."""
    try:
        return msgspec.json.decode((folder / _RECORD).read_bytes(), type=tuple[f.WorkerFault, ...])
    except FileNotFoundError:
        return ()  # no fault has begun yet


def _apply_faults(name: str, faults: tuple[f.WorkerFault, ...], folder: Path) -> float:
    """Raise the error of the first fault that fails the function, or return the slowdown factor."""
    slow = 1.0
    for fault in faults:
        if isinstance(fault, f.Slow):
            slow *= fault.factor
        else:
            error = _error(name, fault, folder)
            if error is not None:
                raise error
    return slow


def _error(
    name: str, fault: f.Flaky | f.BlackHole | f.WrongEnvironment | f.OutOfMemory, folder: Path
) -> Exception | None:
    match fault:
        case f.Flaky():
            return FlakyError(f"Flaky failed this attempt of {name}") if _draw(folder, fault) < fault.rate else None
        case f.BlackHole():
            node = os.environ.get(NODE_VARIABLE, "")
            return BlackHoleError(f"node {node} fails everything") if node.endswith(f"-{fault.node}") else None
        case f.WrongEnvironment():
            hit = fault.function in {None, name}
            return ModuleNotFoundError(f"No module named {name!r}", name=name) if hit else None
        case f.OutOfMemory():
            return MemoryError() if fault.function in {None, name} else None


def _draw(folder: Path, fault: f.Flaky) -> float:
    """Return the next number of the sequence of the fault, which all workers of the endpoint share."""
    with (folder / f"{_DRAWS}-{fault.seed}").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        number = file.tell()
        file.write(b".")
    return random.Random(f"{fault.seed}/{number}").random()  # noqa: S311 - reproducible on purpose
