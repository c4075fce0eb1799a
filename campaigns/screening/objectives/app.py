"""Scoring one molecule as a Parsl task: importable at every worker, and it always returns a result."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import replace
from typing import Final

from ...sandbox.child import UnavailableError
from ...sandbox.pool import START_LIMIT, Child, FailedError, NotUsableError
from ..objective import Objective, Refused, Scorer
from ..records import Result, Status, Where

#: Names the site in the results; set it in the ``worker_init`` of a site.
SITE_VARIABLE: Final = "DIASPORA_PARSL_SITE"
#: Makes a worker slower on purpose: 2 means that a task takes twice its time. For demonstrations.
SLOWDOWN_VARIABLE: Final = "DIASPORA_PARSL_SLOWDOWN"
_STATUS: Final[dict[str, Status]] = {"timeout": "timeout", "memory": "memory", "crash": "crash", "raised": "dock"}

_local = threading.local()
#: In the process beside the worker: what the last objective has loaded. One at a time: maps take some 100 MB.
_loaded: dict[str, Scorer] = {}


class ObjectiveUnavailableError(RuntimeError):
    """An objective does not work at this worker, whatever the molecule: the place's fault, not the task's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The scoring process on {socket.gethostname()} cannot be used: {self.reason}. "
            "Check that diaspora-parsl[campaigns], and what the objective needs, are installed there."
        )


class ScoringProcess:
    """The process beside a worker in which molecules are scored; started when needed, replaced when it died."""

    def __init__(self) -> None:
        self._child = Child()
        self._ready = (0, "")

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._child.pid

    def score(self, smiles: str, objective: Objective) -> Result:
        """Score one molecule, within its limits.

        Raises:
            ObjectiveUnavailableError: the objective cannot be used here.
        """
        limits = objective.limits
        try:
            self._child.start()
            if self._ready != (self._child.generation, objective.digest):
                # What it loads is not the molecule's time or memory.
                self._child.call(load, objective, timeout=START_LIMIT)
                self._ready = (self._child.generation, objective.digest)
        except FailedError as error:
            raise ObjectiveUnavailableError(error.detail) from error
        except NotUsableError as error:
            raise ObjectiveUnavailableError(str(error)) from error
        try:
            return self._child.call(run, objective.digest, smiles, timeout=limits.timeout, memory=limits.memory)
        except FailedError as error:
            return Result(status=_STATUS[error.kind], detail=error.detail)
        except NotUsableError as error:
            raise ObjectiveUnavailableError(str(error)) from error

    def close(self) -> None:
        """End the process; idempotent."""
        self._child.close()


def load(objective: Objective) -> None:
    """In the process beside the worker: load an objective in place of the last one."""
    _loaded.clear()
    try:
        _loaded[objective.digest] = objective.scorer()
    except Refused as refusal:
        result = refusal.result  # it fails everywhere: a result for every molecule, not a fault of this place
        _loaded[objective.digest] = lambda _smiles: result
    except MemoryError as error:
        raise UnavailableError("there is too little memory") from error


def run(digest: str, smiles: str) -> Result:
    """In the process beside the worker: score one molecule with what is loaded."""
    try:
        return _loaded[digest](smiles)
    except Refused as refusal:
        return refusal.result


def here() -> Where:
    """Return the endpoint of this process, from the environment of a Parsl worker."""
    host = socket.gethostname()
    return Where(
        site=os.environ.get(SITE_VARIABLE) or host,
        host=host,
        pid=os.getpid(),
        manager=os.environ.get("PARSL_WORKER_POOL_ID", ""),
        block=os.environ.get("PARSL_WORKER_BLOCK_ID", ""),
    )


def score_molecule(smiles: str, objective: Objective) -> Result:
    """Score one molecule; in the process beside this worker, if the objective is code that may take a worker with it.

    Args:
        smiles: the molecule, canonical.
        objective: what to ask about it; ``objective.part_for(smiles)`` is enough, and less to send.

    Returns:
        The score, or the reason why there is none; never raises for a bad molecule.

    Raises:
        ObjectiveUnavailableError: this worker cannot score anything.
    """
    began = time.time()
    clock = time.monotonic()
    if objective.isolated:
        if not hasattr(_local, "process"):
            _local.process = ScoringProcess()
        process: ScoringProcess = _local.process
        result = process.score(smiles, objective)
    else:
        try:
            result = objective.scorer()(smiles)
        except Refused as refusal:
            result = refusal.result
    seconds = time.monotonic() - clock
    slowdown = float(os.environ.get(SLOWDOWN_VARIABLE) or 1)
    if slowdown > 1:
        time.sleep((slowdown - 1) * seconds)
    return replace(result, seconds=seconds, started=began, ended=time.time(), where=here())
