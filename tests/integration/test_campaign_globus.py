"""A campaign on emulated Globus Compute endpoints, by the command: one of three dies in the middle, and no molecule."""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from diaspora_parsl.campaigns.screening.results.ledger import Ledger
from diaspora_parsl.cli.screen import register
from diaspora_parsl.executors.globus import sdk
from diaspora_parsl.testing.globus import LocalGlobusCompute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUDGET = 24
LABELS = ("alpha", "beta", "gamma")


@pytest.mark.timeout(400)
def test_one_of_three_endpoints_dies_and_no_molecule_is_lost(
    tmp_path: Path, report: Callable[[str, float], None]
) -> None:
    command = [
        sys.executable,
        "-m",
        "diaspora_parsl.cli.main",
        "demo",
        "--globus",
        "--budget",
        str(BUDGET),
        "--out",
        "run",
    ]
    environment = {**os.environ, "COLUMNS": "200", "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=360, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{BUDGET} tasks were submitted, 0 lost." in ended.stdout
    assert "Site beta was killed" in ended.stdout
    rerouted = re.search(r"(\d+) tasks? (?:was|were) rerouted after beta was killed", ended.stdout)
    assert rerouted, ended.stdout
    assert int(rerouted[1]) >= 1
    started = re.search(r"From the kill to the first start of a rerouted task it took ([\d.]+) seconds", ended.stdout)
    assert started, ended.stdout
    report("kill to first rerouted start", float(started[1]))
    with Ledger(tmp_path / "run" / "campaign.sqlite") as ledger:
        rows = ledger.rows()
    assert collections.Counter(row.status for row in rows) == {"ok": BUDGET}
    assert len({row.molecule for row in rows}) == BUDGET
    assert {row.site for row in rows} <= set(LABELS)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "emulated Globus Compute" in page
    for label in LABELS:
        assert f"<td>{label}</td><td>up</td>" in page
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(("diaspora-", "receptor-"))]
    assert not left


def test_screen_runs_on_the_endpoints_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "library.smi").write_text("".join(f"N{'C' * number}c1ccccc1 m{number}\n" for number in range(1, 7)))
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    options = ["--library", "library.smi", "--budget", "6", "--max-evals", "2000", "--globus-journal", "journal"]
    with LocalGlobusCompute() as service:
        monkeypatch.setattr(sdk, "default_client", service.client)
        places = [service.endpoint(label) for label in ("alpha", "beta")]
        given = [word for place in places for word in ("--globus", f"{place.label}={place.id}")]
        app(["screen", "run", *options, *given, "--out", "run"], standalone_mode=False)
    assert "6 tasks were submitted, 0 lost." in capsys.readouterr().out
    with Ledger(tmp_path / "run" / "campaign.sqlite") as ledger:
        assert {row.status for row in ledger.rows()} == {"ok"}
        assert {row.site for row in ledger.rows()} <= {"alpha", "beta"}
    assert (tmp_path / "journal").exists()
