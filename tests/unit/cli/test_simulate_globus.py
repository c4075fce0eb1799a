from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diaspora_parsl.cli.simulate_globus import labels
from diaspora_parsl.testing import globus
from diaspora_parsl.testing.faults import FaultScript, Kill

COMMAND = [sys.executable, "-m", "diaspora_parsl.cli.main", "simulate-globus", "--endpoints", "2", "--workers", "1"]


@pytest.mark.skipif(globus.why_not() is not None, reason=str(globus.why_not()))
def test_a_service_runs_until_it_is_interrupted(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_bytes(FaultScript((Kill(at=0.0, endpoint="beta", until=1e6),)).to_json())
    with subprocess.Popen([*COMMAND, "--faults", str(script)], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        lines = iter(program.stdout.readline, "")
        said = [next(lines)]
        while "requests" not in said[-1]:
            said.append(next(lines))
        program.send_signal(signal.SIGINT)
        assert program.wait(30.0) == 0
    assert any(text.startswith("export BETA=") for text in said)
    assert "alpha online 1/1 idle" in said[-1]


def test_endpoints_have_names_of_their_own() -> None:
    assert labels(2) == ["alpha", "beta"]
    assert labels(10)[7:] == ["theta", "endpoint-8", "endpoint-9"]
    assert len(set(labels(30))) == 30
