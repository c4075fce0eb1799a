"""What was sent to a service and has not come back, on disk: so that it is not sent again after a crash."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from diaspora_parsl.errors import ConfigurationError

#: Globus Compute forgets tasks after two weeks.
_OLDEST: Final = 14 * 24 * 3600.0
#: Seconds that a write waits for another process that holds the file.
_PATIENCE: Final = 5.0

_journals: weakref.WeakValueDictionary[Path, Journal] = weakref.WeakValueDictionary()
_journals_lock: Final = threading.Lock()


class Journal:
    """A SQLite file with a row for each task that a service has: a digest of function and arguments, and the task's id.

    A row is deleted when its result has come. What is found at the start was in flight when the process before this one
    ended; the first call with the same function and arguments may claim it.

    Args:
        path: of the file; made if need be.

    Raises:
        ConfigurationError: it cannot be used as such a file.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._left: defaultdict[str, list[str]] = defaultdict(list)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False, isolation_level=None)
            weakref.finalize(self, self._rows.close)
            self._rows.execute("PRAGMA journal_mode=WAL")  # survives kill -9 without waiting for the disk each time
            self._rows.execute("PRAGMA synchronous=NORMAL")
            self._rows.execute("CREATE TABLE IF NOT EXISTS sent (task TEXT PRIMARY KEY, digest TEXT, at REAL)")
            self._rows.execute("DELETE FROM sent WHERE at < ?", (time.time() - _OLDEST,))
            found = self._rows.execute("SELECT digest, task FROM sent ORDER BY at DESC, task DESC").fetchall()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"journal={str(path)!r} cannot be used: {error}. Give a file of its own."
            ) from error
        for digest, task in found:
            self._left[digest].append(task)

    @staticmethod
    def digest(*parts: str) -> str:
        """What a task is known by."""
        total = hashlib.sha256()
        for part in parts:
            total.update(f"{len(part)}:{part}".encode())
        return total.hexdigest()

    def claim(self, digest: str) -> str | None:
        """The id of such a task that was in flight at the start, the oldest first; each is given once."""
        with self._lock:
            tasks = self._left.get(digest)
            return tasks.pop() if tasks else None

    def sent(self, tasks: Iterable[tuple[str, str]]) -> None:
        """A service has these tasks: of each the id and the digest."""
        now = time.time()
        with self._lock:
            self._rows.execute("BEGIN")
            self._rows.executemany("INSERT OR REPLACE INTO sent VALUES (?, ?, ?)", [(*task, now) for task in tasks])
            self._rows.execute("COMMIT")

    def came_back(self, task: str) -> None:
        """The result of a task is here, or will never come."""
        with self._lock:
            self._rows.execute("DELETE FROM sent WHERE task = ?", (task,))


def journal_at(path: str | Path) -> Journal:
    """The journal in that file: in one process the same object for all endpoints that name it.

    Raises:
        ConfigurationError: it cannot be used.
    """
    place = Path(path).absolute()
    with _journals_lock:
        journal = _journals.get(place)
        if journal is None:
            journal = _journals[place] = Journal(place)
        return journal
