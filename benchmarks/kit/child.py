"""Run one case in its own process with a time limit, and end everything that it started."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.kit.experiment import Case
from benchmarks.kit.schema import Measurement

ROOT = Path(__file__).parents[2]
#: Environment variable that marks every process of a case.
MARK = "DIASPORA_PARSL_BENCHMARK"
_GRACE = 3.0
#: Seconds in which a case must end after its last figure.
_EXIT = 20.0
_POLL = 0.5
_TAIL = 300


def run_case(experiment: str, case: Case, python: str) -> Measurement:
    """Measure one case, and kill its remaining processes in any event."""
    folder = Path(tempfile.mkdtemp(prefix="diaspora-bench-"))
    mark = uuid.uuid4().hex
    family = _Family(mark)
    try:
        return _run(experiment, case, python, folder, family)
    finally:
        family.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _run(experiment: str, case: Case, python: str, folder: Path, family: _Family) -> Measurement:
    out, log = folder / "figures.json", folder / "log"
    command = [python, str(ROOT / "benchmarks" / "case.py"), case.peer, experiment, json.dumps(case.spec), str(out)]
    environment = {
        **os.environ,
        MARK: family.mark,
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
        "PYTHONWARNINGS": "ignore",
    }
    environment.pop("DIASPORA_PARSL_FABRIC", None)  # do not publish to the user's fabric
    load = os.getloadavg()[0]
    began, began_unix = time.monotonic(), time.time()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
    family.root = process.pid
    ended = False
    reported_at = None
    while time.monotonic() < (began + case.limit if reported_at is None else reported_at + _EXIT):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL)
            ended = True
            break
        family.record()
        if reported_at is None and out.exists():
            reported_at = time.monotonic()
    seconds = time.monotonic() - began
    left = family.left(_GRACE if ended else 0.0)
    if not ended:
        family.kill()
        process.wait(10)
    reported: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    figures = {name: value for name, value in reported.items() if name != "_at"}
    exit_seconds = began_unix + seconds - reported["_at"] if ended and reported else None
    if not ended and reported:
        status, detail = "hangs", f"did not end within {_EXIT:.0f} s of its last figure, and was killed"
    elif not ended:
        status, detail = "too slow", f"reported nothing within {case.limit:.0f} s, and was killed"
    elif process.returncode != 0:
        status, detail = "failed", _last_line(log)
    else:
        status, detail = "ok", ""
    return Measurement(
        peer=case.peer,
        variant=case.variant,
        status=status,  # type: ignore[arg-type] # one of the words above
        detail=detail,
        seconds=round(seconds, 3),
        exit_seconds=None if exit_seconds is None else round(exit_seconds, 3),
        processes_left=left,
        load=round(load, 1),
        figures=figures,
    )


@dataclass
class _Family:
    """Every process that a case started: a descendant while it ran, or marked.

    Parsl's interchange overwrites its environment with its title, so the mark alone does not find it.
    """

    mark: str
    root: int = 0
    _known: dict[tuple[int, float], psutil.Process] = field(default_factory=dict)

    def record(self) -> None:
        """Record its current processes."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        with contextlib.suppress(psutil.Error):  # the process has ended
            root = psutil.Process(self.root)
            found = [root, *root.children(recursive=True)]
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, psutil.Error):  # the process has ended, or belongs to another user
                if wanted in (place / "environ").read_bytes():
                    found.append(psutil.Process(int(place.name)))
        for process in found:
            with contextlib.suppress(psutil.Error):
                self._known[process.pid, process.create_time()] = process

    def running(self) -> list[psutil.Process]:
        """Return the running processes, including stopped ones."""
        self.record()
        found = []
        for (pid, _), process in self._known.items():
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE and pid != os.getpid():
                    found.append(process)
        return found

    def left(self, grace: float) -> int:
        """Return the number of processes that still run after ``grace`` seconds."""
        end = time.monotonic() + grace
        while (found := self.running()) and time.monotonic() < end:
            time.sleep(0.1)
        return len(found)

    def kill(self) -> None:
        """Send SIGKILL to all processes."""
        for _ in range(20):  # a process may fork during the scan
            left = self.running()
            if not left:
                return
            for process in left:
                with contextlib.suppress(psutil.Error):  # the process has ended
                    process.kill()
            psutil.wait_procs(left, timeout=0.2)
        raise RuntimeError(f"processes survive SIGKILL: {self.running()}")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:_TAIL] if lines else "it said nothing"
