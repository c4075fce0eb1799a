"""The workers of a block on this node, and which of them died."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Names the folder, below the temporary directory, where workers write down what they run.
BOARD_VARIABLE: Final = "DIASPORA_PARSL_WORKERS"
_ATTEMPT: Final = struct.Struct("<q")


class Death(NamedTuple):
    """A worker that is gone."""

    pid: int
    attempt: int
    """What it ran; 0 if that is not known, or nothing."""


class Workers:
    """Watches the processes that managers start for tasks.

    Its manager misses a worker that died only now and then; from beside it can be seen at once. One that goes together
    with its manager is not told: then the block ends, which others tell.
    """

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._others: set[int] = set()
        self._served: set[int] = set()
        name = os.environ.get(BOARD_VARIABLE, "")
        self._board = Path(tempfile.gettempdir()) / name if name else None

    def __len__(self) -> int:
        return len(self._known)

    def deaths(self, managers: Iterable[int]) -> list[Death]:
        """Those since the last look.

        Args:
            managers: process ids of the managers that live now.
        """
        living = set(managers)
        children = {pid: manager for manager in living for pid in _children(manager)}
        dead = [pid for pid, manager in self._known.items() if pid not in children or _has_ended(pid)]
        gone = [pid for pid in dead if self._known[pid] in living]
        for pid in dead:
            del self._known[pid]
        self._others &= children.keys()
        fresh = [pid for pid in children.keys() - self._known.keys() - self._others - set(dead) if not _has_ended(pid)]
        for pid in sorted(fresh, key=_since):
            manager = children[pid]
            # The first that a manager spawns serves the others, and runs no task.
            if not _is_spawned(pid):
                self._others.add(pid)
            elif manager not in self._served:
                self._served.add(manager)
                self._others.add(pid)
            else:
                self._known[pid] = manager
        self._served &= living
        found = [Death(pid, self._ran(pid)) for pid in gone]
        for pid in dead:
            self._forget(pid)
        return found

    def close(self) -> None:
        """Remove the folder if nothing is in it."""
        if self._board is not None:
            for pid in self._known:
                self._forget(pid)
            with contextlib.suppress(OSError):  # another agent of this node uses it
                self._board.rmdir()

    def _ran(self, pid: int) -> int:
        if self._board is None:
            return 0
        try:
            return int(_ATTEMPT.unpack((self._board / str(pid)).read_bytes())[0])
        except (OSError, struct.error):
            return 0  # it never ran anything that writes it down

    def _forget(self, pid: int) -> None:
        if self._board is not None:
            with contextlib.suppress(OSError):
                (self._board / str(pid)).unlink(missing_ok=True)


def _children(pid: int) -> Iterator[int]:
    """Of one process; on Linux without a look at all others."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - twice a second: pathlib costs as much again
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:  # noqa: PTH123
                yield from map(int, file.read().split())
    except FileNotFoundError:
        with contextlib.suppress(psutil.Error):
            yield from (child.pid for child in psutil.Process(pid).children())
    except OSError:
        return  # it ended while it was looked at


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _since(pid: int) -> tuple[float, int]:
    try:
        return psutil.Process(pid).create_time(), pid
    except psutil.Error:
        return float("inf"), pid


def _is_spawned(pid: int) -> bool:
    """Whether multiprocessing spawned it, as a manager does its workers."""
    try:
        return any("spawn_main" in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
