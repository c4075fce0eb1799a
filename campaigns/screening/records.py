"""What is known of one molecule: from the library, from a worker, and for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    attempts: int = 0
    """How often it was given to an executor: more than once after Parsl's own retries, and if a controller was killed
    while it was in flight. What the pool reroutes inside one such task stands in the table ``reroutes``."""
    seed: int | None = None
    """The molecule's own seed, the same at every site."""
    session: int = 1
    """Number of the session that settled it."""
    pool_task: int | None = None
    """Task number in the events on the fabric, if the executor has one."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """One molecule given to Parsl."""

    number: int
    """In the order of choice, from 1."""
    molecule: int
    candidate: int
    """Place among the candidates, from 0: what the chooser counts in."""
    predicted: float | None
    model: int
    session: int
    at: float
    """Unix time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """One fit of the surrogate, written when its ranking is adopted."""

    number: int
    session: int
    trained_on: int
    """Scores that it was made from."""
    began: float
    ended: float
    checked: int = 0
    """Molecules in ``spearman`` and ``error``: the last whose score had been predicted when this fit was adopted."""
    spearman: float | None = None
    """Rank correlation of predicted and found scores of those."""
    error: float | None = None
    """Median absolute difference between them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One run of a controller on the campaign's folder."""

    number: int
    started: float
    ended: float | None = None
    ending: str = ""
    """``finished`` (a budget is spent), ``interrupted``, ``killed``, ``failed: reason``; empty while it runs."""
    host: str = ""
    pid: int = 0
    run_dir: str = ""
    """Parsl's own directory; relative to the campaign's folder if it is in there."""
    command: str = ""
    versions: str = "{}"
    """Versions of the packages, as JSON."""
    workers: int | None = None
    """Worker processes that returned results."""
    longest_wait: float | None = None
    """Seconds that a worker waited at most for its next molecule while there was budget."""
    waits_over_1s: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reroute:
    """One attempt that the pool gave up; the task went elsewhere."""

    session: int
    pool_task: int
    molecule: int | None
    dispatched: float
    given_up: float
    site: str
    endpoint: str
    reason: str
    next_site: str


class Entry(NamedTuple):
    """One line of a library, not yet looked at."""

    molecule: int
    """Place in the library, from 0; a header does not count, an empty line does."""
    name: str
    smiles: str
