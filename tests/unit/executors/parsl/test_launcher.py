"""Agents are started on every node of a block, whatever launches the managers."""

from __future__ import annotations

import os
import pickle
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher, SingleNodeLauncher, SrunLauncher, WrappedLauncher
from parsl.launchers.base import Launcher
from parsl.providers import LocalProvider

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.parsl import adapter
from diaspora_parsl.executors.parsl.launcher import AgentLauncher

URL = "redis://:s3cr$et@host:6379/0"
#: Runs its script on two "nodes", as `srun` does on those of a job.
SRUN = """#!/bin/sh
for last; do :; done
for node in n0 n1; do NODE=$node bash "$last" & done
wait
"""
#: Writes down that it was started, where, for whom, and whether that one lived.
AGENT = """#!/bin/sh
kill -0 "$3" && alive=yes
echo "$NODE $1 $2 $alive $4 $5 $DIASPORA_PARSL_FABRIC $DIASPORA_PARSL_WORKERS" >> "$BOOK"
"""


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


def run(launcher: Launcher, folder: Path, nodes: int) -> tuple[str, list[list[str]]]:
    """What the managers printed, and what the agents wrote down."""
    program(folder, "srun", SRUN)
    program(folder, "diaspora-parsl", AGENT)
    program(folder, "prefix", '#!/bin/sh\nexec "$@"\n')
    book = folder / "book"
    book.touch()
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}", "BOOK": str(book), "SLURM_JOB_NAME": "job", "JOBNAME": "job",
        "SLURM_CPUS_ON_NODE": "1", "SLURM_JOB_NUM_NODES": str(nodes), "NODE": "n0",
    }  # fmt: skip
    script = launcher("sh -c 'echo manager; sleep 0.5'", 1, nodes)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 10
    while len(lines := book.read_text().splitlines()) < nodes and time.monotonic() < end:
        time.sleep(0.02)
    return done.stdout, sorted(line.split() for line in lines)


@pytest.mark.parametrize(
    ("inner", "nodes"),
    [
        (SimpleLauncher(), 1),
        (SingleNodeLauncher(debug=False), 1),
        (WrappedLauncher("prefix"), 1),
        (SrunLauncher(), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_agent_is_beside_each_manager(inner: Launcher, nodes: int, tmp_path: Path) -> None:
    printed, agents = run(AgentLauncher(inner, endpoint="alpha", site="anl", fabric=URL), tmp_path, nodes)
    assert printed.splitlines().count("manager") == nodes
    assert [agent[:6] for agent in agents] == [
        [f"n{node}", "agent", "--parent", "yes", "--endpoint", "alpha"] for node in range(nodes)
    ]
    # A dollar sign in a password comes through every shell: it is written as an URL may.
    assert {agent[6] for agent in agents} == {"redis://:s3cr%24et@host:6379/0"}
    assert all(agent[7].startswith("diaspora-parsl-workers-") for agent in agents)


def test_without_the_package_blocks_start_as_ever(tmp_path: Path) -> None:
    script = AgentLauncher(SimpleLauncher(), endpoint="alpha", fabric=tmp_path / "fabric.json")("echo manager", 1, 1)
    done = subprocess.run(
        ["/bin/bash", "-euc", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "manager\n", "")


def test_it_travels_and_hides_passwords() -> None:
    launcher = AgentLauncher(SrunLauncher(), endpoint="alpha", site="anl", fabric=URL)
    assert "s3cr" not in repr(launcher)
    again = pickle.loads(pickle.dumps(launcher))  # noqa: S301 - it was made here
    assert (again.endpoint, again.site, again.fabric, type(again.inner)) == ("alpha", "anl", URL, SrunLauncher)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="around one of Parsl's launchers"):
        AgentLauncher(AgentLauncher(SimpleLauncher(), endpoint="a", fabric=URL), endpoint="a", fabric=URL)
    with pytest.raises(ConfigurationError, match="speaks for an endpoint"):
        AgentLauncher(SimpleLauncher(), endpoint=" ", fabric=URL)


def test_a_pool_puts_it_around_once_per_generation(tmp_path: Path) -> None:
    provider = LocalProvider(launcher=SingleNodeLauncher())
    executor = HighThroughputExecutor(label="alpha", address="127.0.0.1", provider=provider)
    for _ in range(2):
        assert adapter.launch_agents(executor, "alpha", "anl", tmp_path / "fabric.json") == ""
        assert isinstance(provider.launcher, AgentLauncher)
        assert isinstance(provider.launcher.inner, SingleNodeLauncher)


def test_where_nothing_is_launched_blocks_start_it_themselves(tmp_path: Path) -> None:
    executor: Any = SimpleNamespace(provider=None)
    assert "diaspora-parsl agent" in adapter.launch_agents(executor, "alpha", "anl", tmp_path / "fabric.json")
