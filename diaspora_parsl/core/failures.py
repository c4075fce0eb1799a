"""What one attempt came to: what kind of failure, whose, and what is to be done about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct


class Kind(StrEnum):
    """What went wrong with one attempt."""

    USER = "user"
    """The task's own code raised."""
    INVALID = "invalid"
    """The task cannot be sent to any place: it cannot be serialised, or asks for what does not exist."""
    PLACE = "place"
    """Something the task needs is missing or broken there: a package, a file system, a GPU, other versions."""
    RESOURCE = "resource"
    """It ran out of something: memory, walltime, open files."""
    WORKER_LOST = "worker-lost"
    """The process that ran it died; the task itself may be the cause."""
    MANAGER_LOST = "manager-lost"
    """The node or pilot job that held it is gone."""
    ENDPOINT_LOST = "endpoint-lost"
    """The endpoint as a whole is gone, or declared itself unusable."""
    SUBMIT = "submit"
    """The endpoint refused to take it."""
    POISON = "poison"
    """It takes down the workers that run it."""


class FailureAction(StrEnum):
    """What is done about a failed attempt."""

    FAIL = "fail"
    """Nothing: the task fails with this error, after this one execution."""
    ANYWHERE = "anywhere"
    """It runs again, at any place, this one included."""
    ELSEWHERE = "elsewhere"
    """It runs again at another place, and fails if the same error comes from there too."""
    MORE = "more"
    """It runs again where there is more memory, and fails if there is no such place."""


class Blame(StrEnum):
    """Whose fault a failure is."""

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

#: What cannot be another place's fault.
_OWN: Final = frozenset({Kind.USER, Kind.INVALID, Kind.POISON})
#: Parsl's own retries that are no longer worth it: more than anybody allows, and still a number for its database.
ALL_RETRIES: Final = 1_000_000.0


class Failure(Struct, frozen=True):
    """One failure of one attempt, as the rules see it."""

    kind: Kind
    error: str
    """Type name of the exception."""
    message: str
    action: FailureAction | None = None
    """What is to be done; None: what is usual for its kind."""
    charge: bool = True
    """Whether it counts against the user's retries, should the user see it."""
    raised: bool = False
    """The task's own code raised it, so that running it again means running that code again."""
    killed: bool = False
    """The worker died of it, whatever its kind."""

    @property
    def blame(self) -> Blame:
        """Whose fault it seems to be."""
        return _BLAME[self.kind]

    @property
    def is_own(self) -> bool:
        """It came from the task's own code, or can only be the task's fault."""
        return self.raised or self.kind in _OWN

    @property
    def then(self) -> FailureAction:
        """What is to be done."""
        if self.action is not None:
            return self.action
        return FailureAction.FAIL if self.kind in _OWN else FailureAction.ELSEWHERE

    @property
    def costs_worker(self) -> bool:
        """A worker died with it."""
        return self.killed or self.kind is Kind.WORKER_LOST

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error


class Attribution(Struct, frozen=True):
    """Why a task was failed, and what that says about trying it again. It rides on the pool's future."""

    kind: Kind
    cost: float
    """Of Parsl's retries: 0 none, 1 one, `ALL_RETRIES` all."""
    reason: str = ""
