"""What an agent sees of its node, and of workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diaspora_parsl.monitors.agent import node_metrics
from diaspora_parsl.monitors.agent.node_metrics import JobEnd, LibraryGpus, Node, ProgramGpus, gpu_of, job_end
from diaspora_parsl.monitors.agent.worker_watch import BOARD_VARIABLE, Death, Workers

#: A manager as Parsl's: a process that serves the others, and two workers.
MANAGER = """
import multiprocessing, time
def work():
    time.sleep(60)
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    for _ in range(3):
        spawn.Process(target=work, daemon=True).start()
        time.sleep(0.05)
    print("started", flush=True)
    time.sleep(60)
"""


def test_a_look_at_this_node() -> None:
    here = Node()
    sample = here.sample()
    here.close()
    assert sample.memory > sample.memory_free > 0
    assert sample.disk >= sample.disk_free >= 0
    assert sample.cores == os.cpu_count()
    assert sample.load >= 0


def test_slurm_says_in_the_environment_when_a_job_ends() -> None:
    assert JobEnd({"SLURM_JOB_END_TIME": "1000"}, lambda: 400.0).left() == 600.0
    assert JobEnd({"SLURM_JOB_END_TIME": "1000"}, lambda: 1400.0).left() == 0.0
    assert JobEnd({}, lambda: 0.0).left() == -1.0


def test_or_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "scontrol"
    program.write_text("#!/bin/sh\necho JobId=$5 EndTime=2026-01-31T12:10:00 Deadline=N/A\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    end = JobEnd({"SLURM_JOB_ID": "7"}, lambda: 0.0)
    deadline = time.monotonic() + 10
    while end.left() < 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert end.left() > 1e9
    end.close()


def test_what_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qstat"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    now = [0.0]
    end = JobEnd({"PBS_JOBID": "7"}, lambda: now[0])
    assert end.left() == -1.0
    now[0] = 31.0
    assert end.left() == -1.0
    assert end._asked is None


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Job Id: 7\n    resources_used.walltime = 00:10:00\n    Resource_List.walltime = 01:00:00\n", 3000.0),
        ("    Resource_List.walltime = 01:00:00\n", 3600.0),
        ("JobId=7 EndTime=Unknown", None),
        ("qstat: Unknown Job Id", None),
    ],
)
def test_answers_of_batch_systems(answer: str, left: float | None) -> None:
    end = job_end(answer, 100.0)
    assert end == (None if left is None else 100.0 + left)


def test_gpus_by_their_library() -> None:
    gone = [False]

    def rates(handle: int) -> Any:
        if gone[0]:
            raise RuntimeError("GPU is lost")
        return SimpleNamespace(gpu=10 * handle)

    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=3, total=8),
        nvmlDeviceGetUtilizationRates=rates,
    )
    gpus = LibraryGpus(library)
    assert gpus.look() == ((0.0, 3, 8), (10.0, 3, 8))
    gone[0], gpus._due = True, 0.0
    assert gpus.look() == ()
    gpus.close()


def test_gpus_by_a_program() -> None:
    gpus = ProgramGpus(["sh", "-c", "echo '12, 100, 1000'; echo '[N/A], 1, 2'; exec sleep 60"])
    end = time.monotonic() + 10
    while not gpus.look():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert gpus.look() == ((12.0, 100 << 20, 1000 << 20),)
    gpus.close()
    assert gpu_of("no devices were found") is None


def test_without_gpus_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert node_metrics._gpus().look() == ()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "process_worker_pool.py"
    script.write_text(MANAGER)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, process_group=0)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def seen(look: Callable[[], list[Death]]) -> list[Death]:
    end = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_a_worker_that_dies_is_told_with_what_it_ran(
    manager: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BOARD_VARIABLE, "board")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    workers = Workers()
    assert workers.deaths([manager.pid]) == []
    assert len(workers) == 2, "the first one serves the others"
    first, second = sorted(workers._known)
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / str(first)).write_bytes((42).to_bytes(8, "little"))
    os.kill(first, signal.SIGKILL)
    assert seen(lambda: workers.deaths([manager.pid])) == [Death(first, 42)]
    assert not list((tmp_path / "board").iterdir())
    os.kill(second, signal.SIGKILL)
    assert seen(lambda: workers.deaths([manager.pid])) == [Death(second, 0)], "it had run nothing"
    assert workers.deaths([manager.pid]) == []
    workers.close()
    assert not (tmp_path / "board").exists()


def test_workers_that_go_with_their_manager_are_not_told(manager: subprocess.Popen[str]) -> None:
    workers = Workers()
    workers.deaths([manager.pid])
    assert len(workers) == 2
    os.killpg(manager.pid, signal.SIGKILL)
    manager.wait(10)
    assert workers.deaths([]) == []
    assert len(workers) == 0
