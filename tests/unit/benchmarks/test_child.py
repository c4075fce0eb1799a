"""A case is measured in a process of its own, and nothing of it runs afterwards (which every test is checked for)."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.experiments.every import EXPERIMENTS
from benchmarks.kit import child
from benchmarks.kit.child import run_case
from benchmarks.kit.experiment import Case
from benchmarks.kit.runner import run
from benchmarks.peers.common import second_starts
from benchmarks.tasks import Line

SIDE = """
import subprocess, sys, time

def hangs(spec, tell):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    tell({"x": 1.0})
    time.sleep(300)

def silent(spec, tell):
    time.sleep(300)

def breaks(spec, tell):
    raise RuntimeError("so it is")

def leaves(spec, tell):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    tell({"x": spec["x"]})
"""


@pytest.fixture
def _odd_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that behaves badly, in a tree of its own."""
    for folder in ("benchmarks", "benchmarks/peers"):
        (tmp_path / folder).mkdir()
    (tmp_path / "benchmarks/case.py").write_text((child.ROOT / "benchmarks/case.py").read_text())
    (tmp_path / "benchmarks/peers/odd_side.py").write_text(SIDE)
    monkeypatch.setattr(child, "ROOT", tmp_path)
    monkeypatch.setattr(child, "_EXIT", 0.5)
    monkeypatch.setattr(child, "_GRACE", 0.5)


@pytest.mark.usefixtures("_odd_peer")
@pytest.mark.parametrize(
    ("name", "limit", "status", "says", "left"),
    [
        ("hangs", 60, "hangs", "did not end", 2),
        ("silent", 2, "too slow", "reported nothing", 1),
        ("breaks", 60, "failed", "RuntimeError: so it is", 0),
        ("leaves", 60, "ok", "", 1),
    ],
)
@pytest.mark.serial
def test_bad_cases_are_told_and_ended(name: str, limit: float, status: str, says: str, left: int) -> None:
    seen = run_case(name, Case("odd", "a", {"x": 2.0}, limit), sys.executable)
    assert (seen.status, seen.processes_left) == (status, left)
    assert says in seen.detail
    assert seen.figures == {"hangs": {"x": 1.0}, "leaves": {"x": 2.0}}.get(name, {})
    assert (seen.exit_seconds is None) == (name != "leaves")


@pytest.mark.serial
def test_a_short_experiment_measures_the_pool(tmp_path: Path) -> None:
    doomed = EXPERIMENTS["doomed"]
    one = dataclasses.replace(
        doomed, cases=lambda quick: [dataclasses.replace(c, spec={**c.spec, "tasks": 1}) for c in doomed.cases(quick)]
    )
    with (tmp_path / "log").open("w") as log:
        reported = run(one, quick=True, console=Console(file=log), peers=["pool"])
    (measurement,) = reported.measurements
    assert measurement.status == "ok", measurement.detail
    assert measurement.processes_left == 0
    assert (measurement.figure("executions") or 0) >= 1
    assert (measurement.figure("to_failure") or 0) >= 0.2
    assert "executions of each" in (tmp_path / "log").read_text()


def test_a_peer_that_is_not_installed_is_told_as_such(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        reported = run(
            EXPERIMENTS["doomed"], quick=True, console=Console(file=log), peers=["ray"], ray_python=str(tmp_path / "no")
        )
    assert [(m.peer, m.status, m.figures) for m in reported.measurements] == [("ray", "not installed", {})]


def test_second_starts_tell_a_reroute_from_waste(tmp_path: Path) -> None:
    book = tmp_path / "book"
    lines = [
        Line("start", 1, "alpha", 10, 99.0), Line("start", 2, "beta", 11, 99.5), Line("end", 2, "beta", 11, 99.7),
        Line("start", 1, "beta", 11, 103.0), Line("start", 3, "alpha", 10, 99.9), Line("start", 3, "beta", 11, 102.0),
        Line("start", 2, "alpha", 12, 104.0),
    ]  # fmt: skip
    book.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
    reported = second_starts(str(book), 100.0, lambda line: line.site == "alpha")
    assert reported == {"rerouted": 2.0, "needless": 1}
    assert second_starts(str(tmp_path / "none"), 100.0, lambda _: True) == {"rerouted": None, "needless": 0}


def test_the_command_says_what_there_is() -> None:
    said = subprocess.run(
        [sys.executable, "benchmarks/run.py", "--help"], cwd=child.ROOT, capture_output=True, text=True, check=True
    )
    assert all(name in said.stdout for name in EXPERIMENTS)
