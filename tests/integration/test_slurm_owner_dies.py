"""kill -9 of the process that owns a Slurm cluster: nothing of the cluster stays behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.runtime import block_processes
from diaspora_parsl.testing.services.slurm import LocalSlurm

OWNER = """
import os, signal, time
from diaspora_parsl.testing.services.slurm import LocalSlurm
with LocalSlurm("alpha") as alpha:
    alpha.run("sbatch", "--output=/dev/null", "--wrap=sleep 600")
    while not any("sleep" in process.name() for process in alpha.processes()):
        time.sleep(0.05)
    print(alpha._conf, len(alpha.processes()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def steps_of(folder: str) -> list[str]:
    """Files in the cluster's folder that a step holds open, deleted or not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == "slurmstepd":
                files = [str(file.readlink()) for file in Path(f"/proc/{process.pid}/fd").iterdir()]
                found += [file for file in files if file.startswith(folder)]
    return found


def test_a_killed_owner_leaves_nothing_behind() -> None:
    reason = LocalSlurm.why_not()
    if reason is not None:
        pytest.skip(f"no Slurm cluster can run here: {reason}")
    done = subprocess.run([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -9
    conf, count = done.stdout.split()
    folder = str(Path(conf).parent)
    assert int(count) >= 5, "munged, slurmctld, slurmd, a step and its job"
    end = time.monotonic() + 30.0
    while block_processes.of_block(conf, variable="SLURM_CONF") or steps_of(folder) or Path(folder).exists():
        assert time.monotonic() < end, "something stays behind"
        time.sleep(0.1)


def test_what_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    if LocalSlurm.why_not() is None:
        with pytest.raises(ConfigurationError, match="letters and digits"):
            LocalSlurm("no-dash")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigurationError, match="apt-get install slurm-wlm munge"):
        LocalSlurm("alpha")
