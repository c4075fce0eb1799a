"""Docking one molecule as a Parsl task: importable at every worker, and it always returns a result."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Final

from diaspora_parsl.campaigns.records import DockResult, Where
from diaspora_parsl.campaigns.settings import Docking, Target

#: Names the site in the results; set it in the ``worker_init`` of a site.
SITE_VARIABLE: Final = "DIASPORA_PARSL_SITE"
#: Makes a worker slower on purpose: 2 means that a task takes twice its time. For demonstrations.
SLOWDOWN_VARIABLE: Final = "DIASPORA_PARSL_SLOWDOWN"
#: Seconds allowed for what is not the molecule's fault: starting the process and computing the maps.
START_LIMIT: Final = 300.0

_local = threading.local()


class DockingUnavailableError(RuntimeError):
    """Docking does not work at this worker, whatever the molecule: the place's fault, not the task's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The docking process on {socket.gethostname()} cannot be used: {self.reason}. "
            "Check that diaspora-parsl[campaigns] is installed there; the worker's log says what failed."
        )


class DockingProcess:
    """The process beside a worker in which molecules are docked; started when needed, replaced when it died."""

    def __init__(self) -> None:
        self._end: weakref.finalize[..., DockingProcess] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def dock(self, smiles: str, target: Target, docking: Docking) -> DockResult:
        """Dock one molecule, within its time.

        Raises:
            DockingUnavailableError: the process cannot be started here.
        """
        process, pipe = self._started()
        try:
            pipe.send((smiles, target, docking))
            if pipe.poll(START_LIMIT + docking.timeout):
                answer: DockResult = pipe.recv()
                return answer
        except (EOFError, OSError):
            code = process.wait(timeout=10)
            self.close()
            if code == -signal.SIGALRM:
                return DockResult(status="timeout", detail=f"Longer than the limit of {docking.timeout:g} s.")
            return DockResult(status="crash", detail=f"The docking process ended with exit code {code}.")
        self.close()
        return DockResult(status="timeout", detail="The docking process did not answer and was replaced.")

    def close(self) -> None:
        """End the process; idempotent."""
        if self._end is not None:
            self._end()
        self._end = self._process = self._pipe = None

    def _started(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._process is None or self._pipe is None or self._process.poll() is not None:
            self.close()
            ours, theirs = Pipe()
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "diaspora_parsl.campaigns.docking_child", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            self._pipe = ours
            # Also runs when the worker's interpreter ends, and when a thread that owned this object is gone.
            self._end = weakref.finalize(self, _end, self._process, ours)
            try:
                if not ours.poll(START_LIMIT):
                    raise DockingUnavailableError(f"it did not start within {START_LIMIT:g} s")
                ours.recv()
            except EOFError:
                code = self._process.wait()
                self.close()
                raise DockingUnavailableError(f"it ended with exit code {code} before it was ready") from None
        return self._process, self._pipe


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.wait()


def here() -> Where:
    """Where this code runs, told from the environment of a Parsl worker."""
    host = socket.gethostname()
    return Where(
        site=os.environ.get(SITE_VARIABLE) or host,
        host=host,
        pid=os.getpid(),
        manager=os.environ.get("PARSL_WORKER_POOL_ID", ""),
        block=os.environ.get("PARSL_WORKER_BLOCK_ID", ""),
    )


def dock_molecule(smiles: str, target: Target, docking: Docking) -> DockResult:
    """Dock one molecule in the docking process of this worker.

    Args:
        smiles: the molecule.
        target: receptor and box.
        docking: settings and limits.

    Returns:
        The score and the pose, or the reason why there is none; never raises for a bad molecule.

    Raises:
        DockingUnavailableError: this worker cannot dock anything.
    """
    if not hasattr(_local, "process"):
        _local.process = DockingProcess()
    began = time.time()
    clock = time.monotonic()
    result: DockResult = _local.process.dock(smiles, target, docking)
    seconds = time.monotonic() - clock
    slowdown = float(os.environ.get(SLOWDOWN_VARIABLE) or 1)
    if slowdown > 1:
        time.sleep((slowdown - 1) * seconds)
    return replace(result, seconds=seconds, started=began, ended=time.time(), where=here())
