"""The example project and its workflow as they are, and what a user sees of a test that fails."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "ci"
WORKFLOW = EXAMPLE / ".github" / "workflows" / "resilience.yml"
PLUGINS = ["-p", "no:cacheprovider", "-p", "diaspora_parsl.testing.pytest_plugin", "-p", "pytest_timeout"]

NOT_RESILIENT = """
import parsl
import pytest
from diaspora_parsl.testing.faults import Kill

@parsl.python_app
def book(number, folder):
    import os, time
    os.mkdir(f"{folder}/{number}")  # a second run finds it there
    time.sleep(8.0)
    return number

@pytest.mark.faults(Kill(at=5.0, endpoint="alpha"))
def test_booking(resilient_pool, tmp_path):
    with resilient_pool("alpha", "beta", workers=2):
        assert [future.result() for future in [book(number, tmp_path) for number in range(4)]] == [0, 1, 2, 3]
"""
SEEDS = """
import pytest

@pytest.mark.faults(seed=7, count=2, seconds=10, endpoints=["alpha", "beta"])
def test_drawn(fault_script):
    assert fault_script.to_json() == b"something else"

def test_without_marks(fault_script):
    assert not fault_script
"""


def run(command: list[str], folder: Path, limit: float = 200.0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        [sys.executable, *command, *PLUGINS],
        cwd=folder,
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # metadata of an older install may be around
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


@pytest.fixture
def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return loaded


def steps(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step.get("name", step.get("uses")): step for step in workflow["jobs"]["faults"]["steps"]}


def test_the_workflow_is_what_it_is_said_to_be(workflow: dict[str, Any]) -> None:
    job = workflow["jobs"]["faults"]
    assert job["strategy"]["matrix"] == {"python": ["3.11", "3.12", "3.13"], "seed": [1, 2, 3]}
    assert job["strategy"]["fail-fast"] is False
    assert job["timeout-minutes"] <= 30
    python, install, test, keep = list(steps(workflow).values())[1:]
    assert python["with"]["cache"] == "pip"
    needed = EXAMPLE / python["with"]["cache-dependency-path"]
    assert shlex.split(install["run"]) == ["python", "-m", "pip", "install", "-r", needed.name]
    assert "diaspora-parsl" in needed.read_text(encoding="utf-8").split()
    assert keep["if"] == "failure()"
    assert f"--basetemp={keep['with']['path'].rstrip('/')}" in test["run"].split()


def test_the_example_survives_as_the_workflow_runs_it(tmp_path: Path, workflow: dict[str, Any]) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    seed = str(workflow["jobs"]["faults"]["strategy"]["matrix"]["seed"][0])
    python, *command = shlex.split(steps(workflow)["test"]["run"].replace("${{ matrix.seed }}", seed))
    assert python == "python"
    done = run(command, project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert list((project / "runs").glob("*/runinfo/000/parsl.log"))


@pytest.mark.serial
def test_the_example_runs_side_by_side_in_an_environment_that_is_not_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != scripts))
    assert shutil.which("interchange.py") is None
    done = run(["-m", "pytest", "-p", "xdist.plugin", "-n", "2", "--basetemp=runs"], project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.serial
def test_a_test_that_is_not_resilient_reports_the_history(tmp_path: Path) -> None:
    (tmp_path / "test_booking.py").write_text(NOT_RESILIENT, encoding="utf-8")
    done = run(["-m", "pytest", "--strict-markers", "-W", "error"], tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FileExistsError" in done.stdout
    head, _, story = done.stdout.partition("what happened to the pool")
    assert "Kill(at=5.0, endpoint='alpha')," in head.partition("faults of this test")[2]
    assert "FAULT begins: Kill(at=5.0, endpoint='alpha')" in story
    assert "alpha is down: its interchange" in story
    assert re.search(r"\(test_booking.book\) rerouted from alpha to (alpha|beta): its interchange", story)
    assert re.search(r"failed at (alpha|beta): FileExistsError", story)
    assert "LOST" not in story
    assert "logs: " in story
    assert "DEBUG" not in done.stdout


def test_seeds_come_from_marks_or_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "test_seeds.py").write_text(SEEDS, encoding="utf-8")
    said = []
    for option in ([], ["--fault-seed", "7"], ["--fault-seed", "8"]):
        done = run(["-m", "pytest", "-q", "--strict-markers", *option], tmp_path)
        assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
        said.append([line for line in done.stdout.splitlines() if line.endswith("),") or line.startswith("seed ")])
    assert said[0] == said[1] != said[2]
    assert said[2][0] == "seed 8; the same faults again: pytest --fault-seed 8"
    assert len(said[2]) == 3
