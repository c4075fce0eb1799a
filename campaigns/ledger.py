"""The ledger: one row per settled molecule in SQLite, from which everything else is made."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, fields
from pathlib import Path
from typing import Self

from diaspora_parsl.campaigns.records import Row
from diaspora_parsl.errors import ConfigurationError

_COLUMNS = tuple(field.name for field in fields(Row))
_SCHEMA = """
CREATE TABLE IF NOT EXISTS molecules (
    molecule INTEGER PRIMARY KEY, name TEXT, smiles TEXT, status TEXT NOT NULL, detail TEXT,
    score REAL, predicted REAL, model INTEGER, pool_task INTEGER,
    submitted REAL, started REAL, ended REAL, seconds REAL,
    site TEXT, host TEXT, pid INTEGER, manager TEXT, block TEXT, pose TEXT
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Ledger:
    """Append-only record of a campaign.

    A row that `append` has returned from survives kill -9. The rollback journal is used, not the write-ahead log,
    because run directories are often on network file systems, where the latter does not work.

    Args:
        path: the database; made if it is not there.

    Raises:
        ConfigurationError: the file is not a ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path)
        try:
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ConfigurationError(
                f"{path} is not the ledger of a campaign ({error}). Write another --out."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, *rows: Row) -> None:
        """Write settled molecules, all or none.

        Raises:
            ValueError: a molecule has a row already.
        """
        marks = ", ".join(f":{name}" for name in _COLUMNS)
        try:
            with self._db:
                self._db.executemany(
                    f"INSERT INTO molecules ({', '.join(_COLUMNS)}) VALUES ({marks})",  # noqa: S608 - our own names
                    [asdict(row) for row in rows],
                )
        except sqlite3.IntegrityError as error:
            raise ValueError(f"A molecule is settled once; one of {[row.molecule for row in rows]} was.") from error

    def rows(self) -> list[Row]:
        """Everything written so far, in the order of the library."""
        cursor = self._db.execute(f"SELECT {', '.join(_COLUMNS)} FROM molecules ORDER BY molecule")  # noqa: S608
        return [Row(**dict(zip(_COLUMNS, values, strict=True))) for values in cursor]

    def remember(self, name: str, value: object) -> None:
        """Keep a fact about the campaign, such as its settings, as JSON."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def recall(self, name: str) -> object | None:
        """A fact kept by `remember`, or None."""
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def close(self) -> None:
        """Let go of the file; idempotent."""
        self._db.close()
