"""The worker's side of scripted faults: what user code meets at a place where something is wrong."""

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

#: Names the folder in which a place keeps what is wrong with it now.
VARIABLE: Final = "DIASPORA_PARSL_FAULTS"
#: The node that a worker runs on, as ``label-0``.
NODE_VARIABLE: Final = "DIASPORA_PARSL_NODE"
_RECORD: Final = "faults.json"
_DRAWS: Final = "draws"

P = ParamSpec("P")
R = TypeVar("R")


class FlakyError(Exception):
    """What `Flaky` raises."""


class BlackHoleError(Exception):
    """What `BlackHole` raises."""


class subject_to_faults(Generic[P, R]):  # noqa: N801 - it is used as a decorator
    """Let a function meet the faults that a script applies to the place where it runs.

    Put it below the decorator of the app. At a place without faults it costs one look at a file. The package must be
    installed where the workers run. (An object and not a closure, so that it travels by reference: what pytest puts
    into the modules of a plugin's package does not travel.)

    Example:
        >>> @parsl.python_app  # doctest: +SKIP
        ... @subject_to_faults
        ... def work(i): ...
    """

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, or fail as the place makes it fail."""
        folder = os.environ.get(VARIABLE)
        faults = wrong_now(Path(folder)) if folder else ()
        slow = _suffer(getattr(self, "__name__", ""), faults, Path(folder or "."))
        began = time.monotonic()
        result = self._function(*args, **kwargs)
        if slow > 1.0:
            time.sleep((time.monotonic() - began) * (slow - 1.0))
        return result


def make_wrong(folder: Path, faults: tuple[f.WorkerFault, ...]) -> None:
    """From now on this, and nothing else, is wrong at the place that keeps its record there."""
    draft = folder / f"{_RECORD}.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(faults))
    draft.replace(folder / _RECORD)


def wrong_now(folder: Path) -> tuple[f.WorkerFault, ...]:
    """What is wrong at the place that keeps its record there."""
    try:
        return msgspec.json.decode((folder / _RECORD).read_bytes(), type=tuple[f.WorkerFault, ...])
    except FileNotFoundError:
        return ()  # nothing was ever wrong there


def _suffer(name: str, faults: tuple[f.WorkerFault, ...], folder: Path) -> float:
    """Raise what these faults make of an attempt of the function, or return by how much it is slower."""
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
            return FlakyError(f"this attempt of {name} drew a blank") if _draw(folder, fault) < fault.rate else None
        case f.BlackHole():
            node = os.environ.get(NODE_VARIABLE, "")
            return BlackHoleError(f"node {node} fails everything") if node.endswith(f"-{fault.node}") else None
        case f.WrongEnvironment():
            hit = fault.function in {None, name}
            return ModuleNotFoundError(f"No module named {name!r}", name=name) if hit else None
        case f.OutOfMemory():
            return MemoryError() if fault.function in {None, name} else None


def _draw(folder: Path, fault: f.Flaky) -> float:
    """The next number of the fault's sequence, which all workers of the place draw from."""
    with (folder / f"{_DRAWS}-{fault.seed}").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        number = file.tell()
        file.write(b".")
    return random.Random(f"{fault.seed}/{number}").random()  # noqa: S311 - reproducible on purpose
