"""Queue of unsent events: a SQLite file with a size limit, or memory."""

from __future__ import annotations

import ctypes
import logging
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.events import Event, decode, encode

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
_MEMORY_MAX_BYTES: Final = 32 * 1024 * 1024
_ROW_BYTES: Final = 32  # approximate overhead of SQLite per row
_DROP_ROWS: Final = 200

# With WAL and synchronous=NORMAL a commit is one append without fsync. It survives a killed process; a power failure
# loses the newest rows but not the file. The exclusive lock keeps the WAL index on the heap, because an index in shared
# memory breaks on network file systems. Use node-local disk: a commit takes 20 µs there, and may hang elsewhere.
_OPEN: Final = """
PRAGMA locking_mode=EXCLUSIVE;
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS samples ON events (n) WHERE state = 0;
"""


class _Store:
    """A SQLite database with a size limit; raises errors of SQLite."""

    def __init__(self, path: Path | None, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=0.2, check_same_thread=False)
        try:
            self.db.executescript(_OPEN)
            row = self.db.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM events").fetchone()
        except sqlite3.Error:
            self.db.close()
            raise
        self.rows: int = row[0]
        self.bytes: int = row[1] + self.rows * _ROW_BYTES

    def append(self, items: Sequence[tuple[bool, bytes]]) -> None:
        self.db.execute("BEGIN")
        try:
            self.db.executemany("INSERT INTO events (state, body) VALUES (?, ?)", items)
            self.db.execute("COMMIT")
        except sqlite3.Error:
            if self.db.in_transaction:  # a full disk may have rolled it back already
                self.db.execute("ROLLBACK")
            raise
        self.rows += len(items)
        self.bytes += sum(len(body) for _, body in items) + len(items) * _ROW_BYTES

    def drop_oldest(self, *, state: bool) -> int:
        """Delete some of the oldest events of one class; return their number."""
        return self._delete(
            "SELECT n, length(body) FROM events WHERE state = ? ORDER BY n LIMIT ?", (int(state), _DROP_ROWS)
        )

    def first(self, n: int) -> list[bytes]:
        return [row[0] for row in self.db.execute("SELECT body FROM events ORDER BY n LIMIT ?", (n,))]

    def delete_first(self, n: int) -> None:
        self._delete("SELECT n, length(body) FROM events ORDER BY n LIMIT ?", (n,))

    def _delete(self, query: str, arguments: tuple[int, ...]) -> int:
        rows = self.db.execute(query, arguments).fetchall()
        self.db.execute("BEGIN")
        try:
            self.db.executemany("DELETE FROM events WHERE n = ?", [(row[0],) for row in rows])
            self.db.execute("COMMIT")
        except sqlite3.Error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        self.rows -= len(rows)
        self.bytes -= sum(row[1] for row in rows) + len(rows) * _ROW_BYTES
        return len(rows)


class Outbox:
    """A queue of events that survives the process, oldest first. Thread-safe; one process at a time.

    A full outbox drops its oldest resource samples first, and state changes only when no samples are left. If the file
    cannot be written, it logs a warning and keeps events in memory. Events of an earlier process in the file are
    delivered too.

    Args:
        path: SQLite file, preferably on node-local disk; None for memory only.
        max_bytes: Largest total size of the stored events, bytes.

    Raises:
        ConfigurationError: ``max_bytes`` is too small.
    """

    def __init__(self, path: str | Path | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 10_000:  # noqa: PLR2004 - the message names the limit
            raise ConfigurationError(f"max_bytes={max_bytes} keeps next to nothing. Write 10000 or more.")
        self.dropped_state_changes = 0
        self.dropped_samples = 0
        self.path = Path(path) if path else None
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._stores: list[_Store] = []  # read from the first, written to the last
        if self.path is not None:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._stores.append(_Store(self.path, max_bytes))
            except (OSError, sqlite3.Error) as error:
                self._warn(error)
        if not self._stores:
            self._to_memory()

    def __len__(self) -> int:
        return sum(store.rows for store in self._stores)

    @property
    def where(self) -> str:
        """Location of new events: the path, or "memory"."""
        return str(self._stores[-1].path or "memory") if self._stores else "memory"

    def _warn(self, error: Exception) -> None:
        logger.warning(
            "Events cannot be kept in %s (%s). They are kept in memory, and lost if this process ends before the "
            "fabric is back.",
            self.path,
            error,
        )

    def _to_memory(self) -> None:
        self._stores.append(_Store(None, min(self._max_bytes, _MEMORY_MAX_BYTES)))

    def keep(self, events: Sequence[Event]) -> None:
        """Append events, and drop and count the least valuable old ones if the outbox is full. Never raises."""
        items = [(event.is_state_change, encode(event)) for event in events]
        if not items:
            return
        with self._lock:
            if not self._stores:  # closed
                self._count(items)
                return
            try:
                self._stores[-1].append(items)
            except sqlite3.Error as error:
                self._warn(error)
                self._to_memory()
                self._stores[-1].append(items)
            self._make_room(self._stores[-1])

    def _count(self, items: Sequence[tuple[bool, bytes]]) -> None:
        states = sum(state for state, _ in items)
        self.dropped_state_changes += states
        self.dropped_samples += len(items) - states

    def _make_room(self, store: _Store) -> None:
        try:
            while store.bytes > store.max_bytes and store.rows:
                if samples := store.drop_oldest(state=False):
                    self.dropped_samples += samples
                else:
                    self.dropped_state_changes += store.drop_oldest(state=True)
        except sqlite3.Error as error:
            logger.warning("Old events cannot be removed from %s: %s", self.path, error)

    def peek(self, n: int) -> list[Event]:
        """Return up to ``n`` of the oldest events without removing them."""
        with self._lock:
            for store in self._stores:
                try:
                    while bodies := store.first(n):
                        if events := _readable(bodies):
                            return events
                        store.delete_first(1)  # a damaged event must not block later ones
                        self.dropped_state_changes += 1
                except sqlite3.Error as error:
                    self._abandon(store, error)
            return []

    def _abandon(self, store: _Store, error: Exception) -> None:
        """Skip an unreadable file, so that it does not block later events."""
        logger.warning("%s events in %s are unreadable and lost: %s", store.rows, self.path, error)
        self.dropped_state_changes += store.rows
        store.rows = store.bytes = 0

    def forget(self, n: int) -> None:
        """Remove the ``n`` oldest events, after those of `peek` were delivered."""
        with self._lock:
            for store in self._stores:
                if store.rows:
                    try:
                        store.delete_first(n)
                    except sqlite3.Error as error:
                        logger.warning("Delivered events stay in %s, and will be sent twice: %s", self.path, error)
                        store.rows = store.bytes = 0
                    return

    def close(self) -> None:
        """Close the file, and remove it if it is empty. Idempotent."""
        with self._lock:
            stores, self._stores = self._stores, []
            for store in stores:
                if store.path is None and store.rows:
                    states = store.db.execute("SELECT count(*) FROM events WHERE state = 1").fetchone()[0]
                    self.dropped_state_changes += states
                    self.dropped_samples += store.rows - states
                store.db.close()
                if store.path is not None and not store.rows:
                    for name in (store.path.name, f"{store.path.name}-wal", f"{store.path.name}-shm"):
                        store.path.with_name(name).unlink(missing_ok=True)

    def leave_to_parent(self) -> None:
        """In a forked child: leave the file open, because closing it would checkpoint the WAL of the parent."""
        for store in self._stores:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(store.db))  # survives even the child's interpreter
        self._stores = []


def _readable(bodies: list[bytes]) -> list[Event]:
    """Return the events before the first damaged one."""
    events = []
    for body in bodies:
        try:
            events.append(decode(body))
        except ValueError:
            break
    return events
