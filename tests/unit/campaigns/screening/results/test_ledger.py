from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.campaigns.screening.records import Fit, Pick, Reroute, Row, Session
from diaspora_parsl.campaigns.screening.results.ledger import Ledger
from diaspora_parsl.campaigns.screening.results.reroutes import Fault
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

ROW = Row(molecule=3, name="a", smiles="CCO", status="ok", score=-5.5, predicted=-5.0, model=2, site="alpha", pose="x")


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    other = Row(molecule=1, name="b", smiles="?", status="parse", detail="RDKit cannot read this SMILES.")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.append(ROW, other)
        ledger.remember("settings", {"seed": 1})
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.rows() == [other, ROW]
        assert ledger.recall("settings") == {"seed": 1}
        assert ledger.recall("nothing") is None


def test_a_molecule_has_one_row(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.append(ROW)
        with pytest.raises(ValueError, match="settled once"):
            ledger.append(Row(molecule=9, name="c", smiles="C", status="ok"), ROW)
        assert ledger.rows() == [ROW]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_text("this is a letter to my grandmother, not a database at all" * 20)
    with pytest.raises(ConfigurationError, match="not the ledger"):
        Ledger(tmp_path / "l.sqlite")


def test_rows_survive_kill_9(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal, pathlib\n"
        "from diaspora_parsl.campaigns.screening.results.ledger import Ledger\n"
        "from diaspora_parsl.campaigns.screening.records import Row\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]))\n"
        "for n in range(20): ledger.append(Row(molecule=n, name='m', smiles='C', status='ok'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "l.sqlite"], check=False, env=dict(os.environ))
    assert ended.returncode == -signal.SIGKILL
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert len(ledger.rows()) == 20


PICK = Pick(number=1, molecule=3, candidate=2, predicted=-5.0, model=2, session=1, at=10.0)


def test_what_was_given_to_parsl_and_has_no_row_is_in_flight(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        other = replace(PICK, number=2, molecule=9)
        again = replace(PICK, number=3, molecule=9, session=2)
        ledger.pick(PICK, other, again)
        assert ledger.in_flight() == [PICK, again]
        ledger.append(ROW)
        assert ledger.in_flight() == [again]
        assert ledger.picks() == [PICK, other, again]


def test_a_session_that_was_killed_is_closed_by_the_next(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.begin_session(Session(number=1, started=5.0))
        ledger.pick(PICK)
        ledger.append(replace(ROW, ended=12.0))
        ledger.begin_session(Session(number=2, started=50.0, pid=4))
        ledger.settle_session(2, ended=60.0, ending="finished", workers=3)
        first, second = ledger.sessions()
    assert (first.ending, first.ended) == ("killed", 12.0)
    assert second == Session(number=2, started=50.0, pid=4, ended=60.0, ending="finished", workers=3)


def test_fits_faults_and_reroutes_come_back(tmp_path: Path) -> None:
    fit = Fit(number=1, session=1, trained_on=20, began=1.0, ended=2.0, checked=9, spearman=0.5, error=0.3)
    fault = Fault(at=3.0, site="beta", what="frozen")
    lost = Reroute(session=1, pool_task=4, molecule=None, dispatched=1.0, given_up=2.0, site="beta",
                   endpoint="beta", reason="silent", next_site="alpha")  # fmt: skip
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.fit(fit)
        ledger.fault(fault)
        ledger.reroute(lost)
        assert (ledger.fits(), ledger.faults(), ledger.reroutes()) == ([fit], [fault], [lost])


def test_a_library_is_read_once_and_for_all(tmp_path: Path) -> None:
    bad = Row(molecule=1, name="b", smiles="?", status="parse")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.refuse([bad], 17)
        assert (ledger.rows(), ledger.recall("candidates")) == ([bad], 17)


def test_reading_changes_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no campaign"):
        Ledger(tmp_path / "l.sqlite", read_only=True)
    assert not list(tmp_path.iterdir())
    with Ledger(tmp_path / "l.sqlite") as ledger, Ledger(tmp_path / "l.sqlite", read_only=True) as reader:
        ledger.append(ROW)
        assert reader.rows() == [ROW]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.remember("a", 1)


def test_a_writer_killed_in_the_middle_of_a_transaction_keeps_no_reader_out(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.append(ROW)
    code = (
        "import os, signal, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1])\n"
        "db.execute('PRAGMA cache_size = 5')\n"  # pages go to the file before the transaction ends
        "db.executemany('INSERT INTO facts VALUES (?, ?)', ((str(n), 'x' * 1000) for n in range(1000)))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "l.sqlite"], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "l.sqlite-journal").stat().st_size
    with Ledger(tmp_path / "l.sqlite", read_only=True) as reader:
        assert reader.rows() == [ROW]
        assert reader.recall("1") is None
