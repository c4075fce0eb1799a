from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from pyarrow import parquet

from diaspora_parsl.campaigns.orphans import end_orphans
from diaspora_parsl.campaigns.screening.records import Pick, Row, Session
from diaspora_parsl.campaigns.screening.results.ledger import Ledger
from diaspora_parsl.campaigns.screening.results.reroutes import Fault
from diaspora_parsl.campaigns.screening.workspace import LEDGER, locked, read_folder, write_files
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import pathlib, sys, time
from diaspora_parsl.campaigns.screening.workspace import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_has_one_controller_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigurationError, match=f"in use by another controller \\(process {holder.pid} on "):
            locked(tmp_path).__enter__()
        holder.kill()
    with locked(tmp_path), pytest.raises(ConfigurationError, match=f"process {os.getpid()} on "):
        locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass


def row(molecule: int, session: int, started: float) -> Row:
    return Row(
        molecule=molecule, name=f"m{molecule}", smiles="C" * (1 + molecule), status="ok", score=-float(molecule),
        session=session, pool_task=1, site="alpha", host="h", pid=1, submitted=started,
        started=started, ended=started + 1,
    )  # fmt: skip


def a_campaign(folder: Path) -> None:
    with Ledger(folder / LEDGER) as ledger:
        for name, value in {
            "title": "{candidates} molecules",
            "command": "x",
            "settings": {"a": 1},
            "poses": 3,
        }.items():
            ledger.remember(name, value)
        ledger.refuse([Row(molecule=0, name="bad", smiles="?", status="parse")], 7)
        ledger.begin_session(Session(number=1, started=100.0, host="h", pid=1))
        for number, (molecule, session) in enumerate([(1, 1), (2, 1), (3, 1), (2, 2)], start=1):
            ledger.pick(Pick(number=number, molecule=molecule, candidate=molecule, predicted=None, model=0,
                             session=session, at=100.0 + number))  # fmt: skip
        ledger.append(row(1, 1, started=101.0))
        ledger.fault(Fault(at=101.5, site="alpha", what="killed"))
        ledger.begin_session(Session(number=2, started=200.0, host="h", pid=2))
        ledger.append(row(2, 2, started=201.0))


def test_a_report_needs_nothing_but_the_folder_and_a_running_campaign_can_be_reported(tmp_path: Path) -> None:
    a_campaign(tmp_path)
    record = read_folder(tmp_path)
    assert (record.tried, record.in_flight, record.candidates) == (3, 1, 7)
    assert [session.ending for session in record.sessions] == ["killed", ""]
    assert record.said[-1] == (
        "The controller was killed once and resumed: 1 molecules that were in flight were docked again, no others."
    )
    files = write_files(tmp_path, record)
    assert "7 molecules" in files["report"].read_text()
    table = parquet.read_table(files["table"])
    assert table.column("molecule").to_pylist() == [0, 1, 2]
    assert table.column("score").to_pylist() == [None, -1.0, -2.0]
    with Ledger(tmp_path / LEDGER) as ledger:
        ledger.settle_session(2, ended=202.0, ending="interrupted")
    assert "1 were in flight" in read_folder(tmp_path).said[-1]


def test_a_folder_without_a_campaign_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no campaign"):
        read_folder(tmp_path)
    with Ledger(tmp_path / LEDGER), pytest.raises(ConfigurationError, match="has not begun yet"):
        read_folder(tmp_path)


def test_only_parsls_own_programs_in_the_folder_are_ended(tmp_path: Path) -> None:
    script = tmp_path / "submit_scripts" / "block.sh"
    script.parent.mkdir()
    script.write_text("sleep 60 & wait")
    block = subprocess.Popen(["sh", str(script)])
    reader = subprocess.Popen(["sh", "-c", "sleep 60 & wait", str(tmp_path / "parsl.log")])
    try:
        deadline = time.monotonic() + 20
        while not psutil.Process(block.pid).children() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert end_orphans(tmp_path) == 2
        block.wait(timeout=10)
        assert reader.poll() is None
    finally:
        for process in (block, reader):
            for child in psutil.Process(process.pid).children() if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait()
    assert end_orphans(tmp_path) == 0
