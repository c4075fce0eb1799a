"""From an exception to a judgement: what kind of failure, and whose."""

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
    """The endpoint could not load the task or return its result: other versions, a missing package."""
    WORKER_LOST = "worker-lost"
    """The process that ran it died; the task itself may be the cause."""
    MANAGER_LOST = "manager-lost"
    """The node or pilot job that held it is gone."""
    ENDPOINT_LOST = "endpoint-lost"
    """The endpoint as a whole is gone, or declared itself unusable."""
    SUBMIT = "submit"
    """The endpoint refused to take it."""


class Blame(StrEnum):
    """Whose fault a failure is."""

    TASK = "task"
    PLACE = "place"
    INFRASTRUCTURE = "infrastructure"


_BLAME: Final = {
    Kind.USER: Blame.TASK,
    Kind.INVALID: Blame.TASK,
    Kind.PLACE: Blame.PLACE,
    Kind.WORKER_LOST: Blame.INFRASTRUCTURE,
    Kind.MANAGER_LOST: Blame.INFRASTRUCTURE,
    Kind.ENDPOINT_LOST: Blame.INFRASTRUCTURE,
    Kind.SUBMIT: Blame.INFRASTRUCTURE,
}

#: Parsl's and Python's own exceptions, matched by name: the core imports no executor.
_BY_NAME: Final = {
    "parsl.executors.high_throughput.errors.WorkerLost": Kind.WORKER_LOST,
    "parsl.executors.high_throughput.errors.ManagerLost": Kind.MANAGER_LOST,
    "parsl.executors.high_throughput.errors.VersionMismatch": Kind.PLACE,
    "parsl.executors.high_throughput.errors.CommandClientTimeoutError": Kind.ENDPOINT_LOST,
    "parsl.executors.high_throughput.errors.CommandClientBadError": Kind.ENDPOINT_LOST,
    "parsl.executors.errors.BadStateException": Kind.ENDPOINT_LOST,
    "parsl.executors.errors.ScalingFailed": Kind.ENDPOINT_LOST,
    "parsl.jobs.errors.TooManyJobFailuresError": Kind.ENDPOINT_LOST,
    "parsl.executors.errors.InvalidResourceSpecification": Kind.INVALID,
    "parsl.serialize.errors.SerializationError": Kind.INVALID,
    "parsl.serialize.errors.DeserializationError": Kind.PLACE,
    "parsl.serialize.errors.DeserializerPluginError": Kind.PLACE,
    "zmq.error.Again": Kind.ENDPOINT_LOST,  # a bounded send to an interchange that takes nothing
    "concurrent.futures._base.CancelledError": Kind.MANAGER_LOST,
    "concurrent.futures.process.BrokenProcessPool": Kind.WORKER_LOST,
    "concurrent.futures.thread.BrokenThreadPool": Kind.ENDPOINT_LOST,
}


class Failure(Struct, frozen=True):
    """One judged failure of one attempt."""

    kind: Kind
    error: str
    """Type name of the exception."""
    message: str

    @property
    def blame(self) -> Blame:
        """Whose fault it is."""
        return _BLAME[self.kind]

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error


def classify(error: BaseException, *, from_submit: bool = False, app: bool = False) -> Failure:
    """Judge one exception.

    Args:
        error: what an endpoint raised, or put into its future.
        from_submit: the endpoint's ``submit`` itself raised it.
        app: the callable was a Parsl app. An app wraps its own exceptions into its *result*, so what still arrives as
            an exception was raised around the user's code, not by it: the worker could not load the task.

    Returns:
        The failure; an exception that is not known is the task's own if an endpoint ran it, and the endpoint's if
        the endpoint refused to take it.
    """
    kind = next((_BY_NAME[name] for name in _names(error) if name in _BY_NAME), None)
    if kind is None:
        kind = Kind.SUBMIT if from_submit else Kind.PLACE if app else Kind.USER
    return Failure(kind, type(error).__name__, _one_line(error))


def _names(error: BaseException) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]


def _one_line(error: BaseException, limit: int = 300) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything, and must not hide the failure
        text = f"(its text cannot be shown: {type(broken).__name__})"
    return text if len(text) <= limit else text[: limit - 1] + "…"
