"""The ledger: what was chosen, what came of it, by which model, in which session; SQLite, append-only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from diaspora_parsl.errors import ConfigurationError

from ..records import Fit, Pick, Reroute, Row, Session
from .reroutes import Fault

#: Seconds that a writer waits for a reader, and the other way round.
_PATIENCE: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS molecules (
    molecule INTEGER PRIMARY KEY, name TEXT, smiles TEXT, status TEXT NOT NULL, detail TEXT,
    score REAL, predicted REAL, model INTEGER, attempts INTEGER, seed INTEGER, session INTEGER, pool_task INTEGER,
    submitted REAL, started REAL, ended REAL, seconds REAL,
    site TEXT, host TEXT, pid INTEGER, manager TEXT, block TEXT, pose TEXT
);
CREATE TABLE IF NOT EXISTS picks (
    number INTEGER PRIMARY KEY, molecule INTEGER NOT NULL, candidate INTEGER NOT NULL, predicted REAL,
    model INTEGER NOT NULL, session INTEGER NOT NULL, at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS picks_of_molecule ON picks (molecule);
CREATE TABLE IF NOT EXISTS fits (
    number INTEGER PRIMARY KEY, session INTEGER, trained_on INTEGER, began REAL, ended REAL,
    checked INTEGER, spearman REAL, error REAL
);
CREATE TABLE IF NOT EXISTS sessions (
    number INTEGER PRIMARY KEY, started REAL, ended REAL, ending TEXT, host TEXT, pid INTEGER, run_dir TEXT,
    command TEXT, versions TEXT, workers INTEGER, longest_wait REAL, waits_over_1s INTEGER
);
CREATE TABLE IF NOT EXISTS reroutes (
    session INTEGER, pool_task INTEGER, molecule INTEGER, dispatched REAL, given_up REAL, site TEXT, endpoint TEXT,
    reason TEXT, next_site TEXT
);
CREATE TABLE IF NOT EXISTS faults (at REAL, site TEXT, what TEXT);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE VIEW IF NOT EXISTS in_flight AS
    SELECT * FROM picks WHERE molecule NOT IN (SELECT molecule FROM molecules);
CREATE VIEW IF NOT EXISTS picked_again AS
    SELECT molecule, count(*) AS times FROM picks GROUP BY molecule HAVING count(*) > 1;
"""

RecordT = TypeVar("RecordT", Row, Pick, Fit, Session, Reroute, Fault)


class Ledger:
    """Append-only record of a campaign.

    What a method that writes has returned from survives kill -9. The rollback journal is used, not the write-ahead log,
    because run directories are often on network file systems, where the latter does not work.

    Args:
        path: the database; made if it is not there.
        read_only: look, also while another process writes; change and make nothing. What a killed writer had begun is
            undone first, as by any reader of the database.

    Raises:
        ConfigurationError: the file is not a ledger.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        # Not "ro": a writer that is killed in the middle of a transaction leaves a journal, and only a connection that
        # may write can undo that transaction. Without, the file could not be read before the next writer comes.
        mode = "rw" if read_only else "rwc"
        try:
            self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE)
        except sqlite3.OperationalError as error:
            raise ConfigurationError(f"There is no campaign in {path.parent}. Write the folder of one.") from error
        try:
            if read_only:
                self._db.execute("PRAGMA query_only = ON")
                self._db.execute("SELECT count(*) FROM picks").fetchone()
            else:
                self._db.execute("PRAGMA journal_mode = DELETE")
                self._db.execute("PRAGMA synchronous = FULL")
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

    def close(self) -> None:
        """Let go of the file; idempotent."""
        self._db.close()

    # --- molecules and picks --------------------------------------------------------------------------------------

    def append(self, *rows: Row) -> None:
        """Write settled molecules, all or none.

        Raises:
            ValueError: a molecule has a row already.
        """
        try:
            self._insert("molecules", rows)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"A molecule is settled once; one of {[row.molecule for row in rows]} was.") from error

    def refuse(self, rows: Iterable[Row], candidates: int) -> None:
        """Write what is no candidate, and how many candidates there are: the library has been read."""
        with self._db:
            self._put("molecules", rows)
            self._db.execute("INSERT INTO facts VALUES ('candidates', ?)", (json.dumps(candidates),))

    def rows(self) -> list[Row]:
        """Every settled molecule, in the order of the library."""
        return self._all(Row, "molecules", "molecule")

    def pick(self, *picks: Pick) -> None:
        """Write down what is about to be given to Parsl, before it is."""
        self._insert("picks", picks)

    def picks(self) -> list[Pick]:
        """Everything that was given to Parsl, in that order; more than once if a session was killed."""
        return self._all(Pick, "picks", "number")

    def in_flight(self) -> list[Pick]:
        """The last pick of each molecule that was given to Parsl and has no row, in order."""
        last = {pick.molecule: pick for pick in self._all(Pick, "in_flight", "number")}
        return sorted(last.values(), key=lambda pick: pick.number)

    # --- models ---------------------------------------------------------------------------------------------------

    def fit(self, fit: Fit) -> None:
        """Write down a fit of the surrogate, when it is adopted."""
        self._insert("fits", (fit,))

    def fits(self) -> list[Fit]:
        """Every fit, in order."""
        return self._all(Fit, "fits", "number")

    # --- sessions -------------------------------------------------------------------------------------------------

    def begin_session(self, session: Session) -> None:
        """Write down that a controller begins; one that was left open was killed, and is closed here.

        A killed session counts as ended at its last pick or result.
        """
        with self._db:
            self._db.execute(
                """UPDATE sessions SET ending = 'killed', ended = max(started,
                    coalesce((SELECT max(ended) FROM molecules m WHERE m.session = sessions.number), 0),
                    coalesce((SELECT max(at) FROM picks p WHERE p.session = sessions.number), 0))
                WHERE ending = ''"""
            )
        self._insert("sessions", (session,))

    def settle_session(self, number: int, **known: float | str | None) -> None:
        """Add what is known of a session, such as ``ended`` and ``ending``."""
        values = ", ".join(f"{name} = :{name}" for name in known)
        with self._db:
            self._db.execute(
                f"UPDATE sessions SET {values} WHERE number = :number",  # noqa: S608 - our own names
                {**known, "number": number},
            )

    def sessions(self) -> list[Session]:
        """Every session, in order."""
        return self._all(Session, "sessions", "number")

    # --- what happened to sites and tasks -------------------------------------------------------------------------

    def fault(self, *faults: Fault) -> None:
        """Write down what was done to a site on purpose."""
        self._insert("faults", faults)

    def faults(self) -> list[Fault]:
        """What was done to sites on purpose, in order."""
        return self._all(Fault, "faults", "at")

    def reroute(self, *reroutes: Reroute) -> None:
        """Write down attempts that the pool gave up."""
        self._insert("reroutes", reroutes)

    def reroutes(self) -> list[Reroute]:
        """Attempts that the pool gave up, in order."""
        return self._all(Reroute, "reroutes", "given_up")

    # --- facts ----------------------------------------------------------------------------------------------------

    def remember(self, name: str, value: object) -> None:
        """Keep a fact about the campaign, such as its settings, as JSON."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def recall(self, name: str) -> Any:
        """A fact kept by `remember`, or None."""
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def _insert(self, table: str, records: Iterable[RecordT]) -> None:
        with self._db:
            self._put(table, records)

    def _put(self, table: str, records: Iterable[RecordT]) -> None:
        values = map(asdict, records)
        first = next(values, None)
        if first is None:
            return
        names = ", ".join(first)
        marks = ", ".join(f":{name}" for name in first)
        self._db.executemany(
            f"INSERT INTO {table} ({names}) VALUES ({marks})",  # noqa: S608 - our own names
            chain([first], values),
        )

    def _all(self, kind: type[RecordT], table: str, order: str) -> list[RecordT]:
        names = [field.name for field in fields(kind)]
        cursor = self._db.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}")  # noqa: S608 - as above
        return [kind(**dict(zip(names, values, strict=True))) for values in cursor]
