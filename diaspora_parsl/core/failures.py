"""The failure of an attempt: its kind, its cause and the action that follows."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct


class Kind(StrEnum):
    """Kind of failure of an attempt."""

    USER = "user"
    """The task's own code raised."""
    INVALID = "invalid"
    """No endpoint can run the task: it cannot be serialised, or asks for unknown resources."""
    PLACE = "place"
    """The endpoint lacks something that the task needs: a package, a file system, a GPU, matching versions."""
    RESOURCE = "resource"
    """The task ran out of memory, walltime or open files."""
    WORKER_LOST = "worker-lost"
    """The worker process died; the task itself may be the cause."""
    MANAGER_LOST = "manager-lost"
    """The node or pilot job that held the attempt is gone."""
    ENDPOINT_LOST = "endpoint-lost"
    """The whole endpoint is gone, or declared itself unusable."""
    SUBMIT = "submit"
    """The endpoint refused the attempt."""
    POISON = "poison"
    """The task kills the workers that run it."""


class FailureAction(StrEnum):
    """Action that follows a failed attempt."""

    FAIL = "fail"
    """Fail the task with this error after one run."""
    ANYWHERE = "anywhere"
    """Run the task again at any endpoint, this one included."""
    ELSEWHERE = "elsewhere"
    """Run the task again at another endpoint or node; fail if it raises the same error."""
    MORE = "more"
    """Run the task again at an endpoint with more memory; fail if there is none."""


class Blame(StrEnum):
    """Presumed cause of a failure."""

    TASK = "task"
    PLACE = "place"
    INFRASTRUCTURE = "infrastructure"


_BLAME: Final = {
    Kind.USER: Blame.TASK,
    Kind.INVALID: Blame.TASK,
    Kind.PLACE: Blame.PLACE,
    Kind.RESOURCE: Blame.PLACE,
    Kind.WORKER_LOST: Blame.INFRASTRUCTURE,
    Kind.MANAGER_LOST: Blame.INFRASTRUCTURE,
    Kind.ENDPOINT_LOST: Blame.INFRASTRUCTURE,
    Kind.SUBMIT: Blame.INFRASTRUCTURE,
    Kind.POISON: Blame.TASK,
}

#: Kinds that do not depend on the endpoint.
_OWN: Final = frozenset({Kind.USER, Kind.INVALID, Kind.POISON})
#: Cost that exhausts any limit of Parsl's retries; finite, because Parsl stores it in its database.
ALL_RETRIES: Final = 1_000_000.0


class Failure(Struct, frozen=True):
    """One failure of one attempt, as the rules classify it."""

    kind: Kind
    error: str
    """Type name of the exception."""
    message: str
    action: FailureAction | None = None
    """Action; None: the default of the kind."""
    charge: bool = True
    """Whether it counts against Parsl's retries if it is delivered."""
    raised: bool = False
    """Whether the task's own code raised it, so that a second attempt repeats side effects."""
    killed: bool = False
    """Whether the worker died with it, whatever its kind."""

    @property
    def blame(self) -> Blame:
        """Presumed cause."""
        return _BLAME[self.kind]

    @property
    def is_own(self) -> bool:
        """Whether the task's own code raised it, or no endpoint can cause it."""
        return self.raised or self.kind in _OWN

    @property
    def then(self) -> FailureAction:
        """Action that follows."""
        if self.action is not None:
            return self.action
        return FailureAction.FAIL if self.kind in _OWN else FailureAction.ELSEWHERE

    @property
    def costs_worker(self) -> bool:
        """Whether a worker died with it."""
        return self.killed or self.kind is Kind.WORKER_LOST

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error


class Attribution(Struct, frozen=True):
    """Cause of a task's failure and its cost in retries; the pool's future carries it."""

    kind: Kind
    cost: float
    """Number of Parsl's retries charged: 0, 1, or `ALL_RETRIES`."""
    reason: str = ""
