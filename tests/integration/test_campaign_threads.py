"""A campaign from a library full of garbage to the report, on nothing but threads, by the command."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import typer
from rdkit import Chem

from diaspora_parsl.campaigns.screening.results.ledger import Ledger
from diaspora_parsl.cli.screen import register
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
from parsl.config import Config
from parsl.executors import ThreadPoolExecutor

config = Config(executors=[ThreadPoolExecutor(label="threads", max_threads=1)])
"""
LIBRARY = f"""smiles,name
O=C(NCc1ccccc1)c1ccccc1,amide
NC1CCCCC1,amine
CC(=O)[O-].[Na+],salt
[Pt](Cl)(Cl)(N)N,metal
{"C" * 150},giant
C1#CC1,strained
garbage,garbage
NC1CCCCC1,double

"""
COMMAND = [sys.executable, "-m", "diaspora_parsl.cli.main", "screen", "run", "--config", "sites.py", "--in-flight", "3"]
ENVIRONMENT = {**os.environ, "DIASPORA_PARSL_SITE": "here", "COLUMNS": "200"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sites.py").write_text(CONFIG)
    (tmp_path / "library.csv").write_text(LIBRARY)
    return tmp_path


def screen(*options: str) -> None:
    """The command in this process: for what ends before anything is started."""
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    app(["screen", "run", *options], standalone_mode=False)


def docking_processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "campaigns.sandbox.child" in " ".join(process.info["cmdline"] or []) and process.cwd() == str(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_garbage_is_accounted_for_and_the_rest_docked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--library", "library.csv", "--budget", "10", "--max-evals", "2000", "--out", "run"]
    ended = subprocess.run(
        [*COMMAND, *options], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 tasks were submitted, 0 lost." in ended.stdout
    out = folder / "run"
    with (out / "ranked.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "amide": "ok",
        "amine": "ok",
        "salt": "ok",
        "metal": "prepare",
        "giant": "prepare",
        "strained": "embed",
        "garbage": "parse",
        "double": "duplicate",
        "molecule 9": "parse",
    }
    assert float(rows["amide"]["score"]) < float(rows["salt"]["score"]) < 0
    assert {row["site"] for row in rows.values() if row["score"]} == {"here"}
    with Chem.SDMolSupplier(str(out / "best_poses.sdf")) as poses:
        assert len(poses) == 3
    assert "giant" in (out / "report.html").read_text()
    assert (out / "events.jsonl").read_bytes() == b""  # threads are no pool: nobody told
    with Ledger(out / "campaign.sqlite") as ledger:
        assert len(ledger.rows()) == 9
        settings = ledger.recall("settings")
    assert json.loads(json.dumps(settings))["budget"] == 10
    assert (out / "parsl").is_dir()
    assert not docking_processes(folder)

    monkeypatch.chdir(folder)
    with pytest.raises(ConfigurationError, match="holds a campaign already"):
        screen("--config", "sites.py", *options)


@pytest.mark.timeout(300)
def test_ctrl_c_keeps_what_there_is_and_resume_goes_on(folder: Path) -> None:
    (folder / "library.smi").write_text("".join(f"N{'C' * number}c1ccccc1 m{number}\n" for number in range(1, 41)))
    options = ["--library", "library.smi", "--budget", "40", "--max-evals", "20000", "--out", "run"]
    with subprocess.Popen(
        [*COMMAND, *options], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        ledger = folder / "run" / "campaign.sqlite"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.2)
            if ledger.exists() and count(ledger):
                break
        running.send_signal(signal.SIGINT)
        output, problems = running.communicate(timeout=60)
    assert running.returncode == 130, output + problems
    assert "Traceback" not in problems
    assert "Interrupted" in output
    found = count(ledger)
    assert 0 < found < 40
    with (folder / "run" / "ranked.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == found
    assert "was interrupted" in (folder / "run" / "report.html").read_text()
    assert not docking_processes(folder)

    again = [*COMMAND[:4], "resume", "run", "--budget", str(found + 4)]
    ended = subprocess.run(again, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with Ledger(folder / "run" / "campaign.sqlite", read_only=True) as kept:
        assert len(kept.rows()) == max(found + 4, len({pick.molecule for pick in kept.picks()}))
        assert [session.ending for session in kept.sessions()] == ["interrupted", "finished"]


def count(path: Path) -> int:
    with Ledger(path) as ledger:
        return len(ledger.rows())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--library", "nowhere.smi"], "There is no library nowhere.smi"),
        (["--library", "library.csv", "--smiles-column", "x"], 'no column "x"'),
        (["--library", "library.csv", "--center", "1", "-2", "3"], "Write --receptor"),
        (["--library", "library.csv", "--receptor", "library.csv", "--center", "1", "-2", "3"], "no ATOM lines"),
        (["--library", "library.csv", "--config", "library.csv"], "raised SyntaxError"),
        (["--library", "library.csv", "--config", "nowhere.py"], "There is no file"),
        (["--library", "library.csv", "--globus", "alpha=4711"], "Give one of them"),
        (["--library", "library.csv", "--globus-journal", "journal"], "Write --globus LABEL=UUID"),
    ],
)
def test_wrong_input_is_answered_with_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        screen("--budget", "3", "--config", "sites.py", *options)
    assert not (folder / "screen-run" / "report.html").exists()
