from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.campaigns.ledger import Ledger
from diaspora_parsl.campaigns.records import Row
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
        "from diaspora_parsl.campaigns.ledger import Ledger\n"
        "from diaspora_parsl.campaigns.records import Row\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]))\n"
        "for n in range(20): ledger.append(Row(molecule=n, name='m', smiles='C', status='ok'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "l.sqlite"], check=False, env=dict(os.environ))
    assert ended.returncode == -signal.SIGKILL
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert len(ledger.rows()) == 20
