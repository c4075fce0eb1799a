"""The gate: runs beside the user's function on a worker, says where that is, and refuses a place to be avoided."""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..parsl import adapter

#: What every report begins with; the next character says which it is.
_MARK: Final = "\x00diaspora-parsl"
_RESULT, _RAISED, _REFUSED = "=", "!", "~"
#: Functions whose gates are kept, so that Parsl, too, serialises each of them once.
_KEPT: Final = 128
#: Seconds that a refusal takes: a bad worker is the one that is always free, and must not spin.
PAUSE: Final = 0.25


class Report(NamedTuple):
    """What came back through a gate."""

    node: str
    """Host, block and manager, separated by blanks."""
    value: Any
    """The result, or Parsl's wrapper around what the function raised."""
    raised: bool = False
    """The gate itself wrapped an exception: without it, the function would have raised it."""
    refused: bool = False
    """The function was not run."""


def around(function: Callable[..., Any]) -> Callable[..., Any]:
    """A gate around a function, to be called as ``gate(attempt, known, avoid, *args, **kwargs)``.

    It travels by value and needs nothing of this package where it runs. It refuses to run the function

    - on a host, or under a manager, named in ``avoid`` (separated by blanks);
    - in a worker where the function failed and has never succeeded (or failed three times in a row), if the pool did
      not know that yet when it sent this attempt: ``known`` is the last failed attempt that it had seen. So a worker
      that fails everything runs one attempt of what is queued, and does not swallow all of it.
    """
    try:
        return _around(function)
    except TypeError:  # not hashable, so that Parsl cannot keep its serialised form either
        return _make(function)


@functools.lru_cache(_KEPT)
def _around(function: Callable[..., Any]) -> Callable[..., Any]:
    return _make(function)


def _make(function: Callable[..., Any]) -> Callable[..., Any]:  # noqa: C901, PLR0915 - it travels in one piece
    name, mark, pause = adapter.describe(function).name, _MARK, PAUSE

    def gate(attempt: int, known: int, avoid: str, /, *args: Any, **kwargs: Any) -> Any:  # noqa: C901 - the same
        import sys  # noqa: PLC0415 - it travels alone

        memory: Any = sys.modules.get("_diaspora_parsl_gate")
        if memory is None:  # the first task of this worker process
            import os  # noqa: PLC0415
            import socket  # noqa: PLC0415
            import types  # noqa: PLC0415

            memory = types.ModuleType("_diaspora_parsl_gate", "What a worker remembers between tasks.")
            host = "".join((os.environ.get("DIASPORA_PARSL_NODE") or socket.gethostname()).split()) or "?"
            block, manager = (os.environ.get(f"PARSL_WORKER_{name}_ID", "?") for name in ("BLOCK", "POOL"))
            memory.here = {host, manager}
            memory.place = f"{host} {block} {manager}"
            memory.assessor = board = None  # where an agent reads what a worker ran that died
            if name_of_board := os.environ.get("DIASPORA_PARSL_WORKERS"):
                import mmap  # noqa: PLC0415
                import tempfile  # noqa: PLC0415

                try:
                    folder = f"{tempfile.gettempdir()}/{name_of_board}"
                    os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103 - pathlib costs a worker 10 ms
                    board = os.open(f"{folder}/{os.getpid()}", os.O_RDWR | os.O_CREAT, 0o600)
                    os.ftruncate(board, 8)
                    memory.assessor = mmap.mmap(board, 8)
                except (OSError, ValueError):
                    memory.assessor = None  # a full disk: the manager finds out on its own, later
                if board is not None:
                    os.close(board)
            memory.streaks = {}  # by function: whether it ever succeeded, failures in a row, the last failed attempt
            sys.modules["_diaspora_parsl_gate"] = memory
        streak = memory.streaks.get(name)
        if (avoid and not memory.here.isdisjoint(avoid.split())) or (
            streak is not None and streak[1] >= (3 if streak[0] else 1) and streak[2] > known
        ):
            import time  # noqa: PLC0415

            time.sleep(pause)
            return f"{mark}~{memory.place}", None
        if memory.assessor is not None:
            memory.assessor[:] = attempt.to_bytes(8, "little")
        try:
            value = function(*args, **kwargs)
        except Exception:  # noqa: BLE001 - it goes on, with the place where it was raised
            from parsl.app.errors import RemoteExceptionWrapper  # noqa: PLC0415

            kind, error, trace = sys.exc_info()
            value = RemoteExceptionWrapper(kind, error, trace and trace.tb_next)  # type: ignore[arg-type]
            how, has_failed = "!", True
        else:
            how, has_failed = "=", type(value).__name__ == "RemoteExceptionWrapper"
        if memory.assessor is not None:
            memory.assessor[:] = bytes(8)
        if has_failed:
            worked, row, _ = streak or (False, 0, 0)
            memory.streaks[name] = (worked, row + 1, attempt)
        elif streak is None or streak[1]:
            memory.streaks[name] = (True, 0, 0)
        return f"{mark}{how}{memory.place}", value

    # A function of no module, so that the worker imports nothing for it.
    names = {"__builtins__": builtins, "__name__": "__main__"}
    alone = types.FunctionType(gate.__code__, names, getattr(function, "__name__", "gate"), None, gate.__closure__)
    alone.__module__ = "__main__"
    return alone


def opened(value: Any) -> Report | None:
    """What a gate reports, or None if this result came through none."""
    if type(value) is not tuple or len(value) != 2 or type(value[0]) is not str:  # noqa: PLR2004 - a pair
        return None
    head: str = value[0]
    if not head.startswith(_MARK):
        return None
    sign = head[len(_MARK)]
    return Report(head[len(_MARK) + 1 :], value[1], sign == _RAISED, sign == _REFUSED)
