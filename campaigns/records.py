"""What is known of one molecule: from the library, from a worker, and for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "parse", "duplicate", "embed", "prepare", "timeout", "memory", "crash", "dock", "lost"]

#: What each status means to a reader of the results.
MEANING: dict[Status, str] = {
    "ok": "scored",
    "parse": "the SMILES could not be read",
    "duplicate": "the same molecule stands earlier in the library",
    "embed": "no three-dimensional shape was found",
    "prepare": "the code has no parameters for it, or it is too large",
    "timeout": "took longer than the limit per molecule",
    "memory": "took more memory than the limit per molecule",
    "crash": "the process that scores died",
    "dock": "the docking program, or the code of another objective, refused it",
    "lost": "Parsl returned an error instead of a result",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where a task ran, as the worker saw it."""

    site: str
    """``DIASPORA_PARSL_SITE`` of the worker's environment, its host name if that is not set."""
    host: str
    pid: int
    manager: str = ""
    """``PARSL_WORKER_POOL_ID``."""
    block: str = ""
    """``PARSL_WORKER_BLOCK_ID``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a worker says of one molecule; failures are results too."""

    status: Status
    detail: str = ""
    """One sentence for a failure."""
    score: float | None = None
    """What the objective says of it; lower is better. For docking the best Vina score in kcal/mol."""
    pose: str = ""
    """Docking: the best pose as PDBQT, with the SMILES remarks from which meeko rebuilds the molecule."""
    seed: int = 0
    """Made from the molecule: of the first shape that it was given."""
    seconds: float = 0.0
    """Preparing and scoring, without waiting; for the first task of a worker with the start of its process."""
    started: float = 0.0
    """Unix time at which the worker began."""
    ended: float = 0.0
    where: Where | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One molecule in the ledger; written once, when it is settled."""

    molecule: int
    """Place in the library, from 0."""
    name: str
    smiles: str
    """As given; canonical if it could be read."""
    status: Status
    detail: str = ""
    score: float | None = None
    predicted: float | None = None
    """What the surrogate expected when it chose the molecule; none in the random first batch."""
    model: int = 0
    """Number of the surrogate that chose it; 0 for random choice."""
    pool_task: int | None = None
    """Number under which the events on the fabric speak of it, if the executor tells one."""
    submitted: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    site: str = ""
    host: str = ""
    pid: int = 0
    manager: str = ""
    block: str = ""
    pose: str = ""

    @property
    def docked(self) -> bool:
        """Whether there is a score."""
        return self.score is not None
