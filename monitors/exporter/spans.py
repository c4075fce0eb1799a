"""From events to spans: one for each task, and below it one for each of its attempts."""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from diaspora_parsl import events as ev
from diaspora_parsl.events.trace import Traces
from diaspora_parsl.fabric.dedup import Deduplicator

#: Upper bound of the tasks that are followed; beyond, the oldest are dropped.
MOST_OPEN: Final = 100_000
_MOST_ATTEMPTS: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One span, ended. Times are nanoseconds since 1970."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start: int
    end: int
    error: str = ""
    """Why it did not end well; empty if it did."""
    attributes: dict[str, str | int] = field(default_factory=dict)


@dataclass(slots=True)
class _Attempt:
    start: int
    endpoint: str
    site: str


@dataclass(slots=True)
class _Task:
    start: int
    function: str = "task"
    attempts: dict[int, _Attempt] = field(default_factory=dict)


class Tracks:
    """Follows the tasks of all pools on a fabric; never raises, whatever the events hold.

    Args:
        most: Upper bound of the tasks that are followed.
    """

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._seen = Deduplicator()
        self._open: OrderedDict[tuple[str, int], _Task] = OrderedDict()

    def apply(self, event: ev.Event) -> list[Track]:
        """Take one event in; returns the spans that ended with it, the task's own last."""
        if not self._seen.drop_duplicates([event]):
            return []
        try:
            payload = event.payload()
            at = _nanoseconds(event.time)
        except (ValueError, OverflowError):
            return []
        match payload:
            case ev.TaskSubmitted():
                task = self._task(event.source, payload.task, at)
                task.start, task.function = min(at, task.start), payload.function
            case ev.TaskDispatched() | ev.TaskHedged():
                attempts = self._task(event.source, payload.task, at).attempts
                if len(attempts) < _MOST_ATTEMPTS:
                    attempts.setdefault(payload.attempt, _Attempt(at, payload.endpoint, payload.site))
            case ev.TaskRerouted():
                known = self._open.get((event.source, payload.task))
                if known is not None and payload.attempt in known.attempts:
                    return [self._ended(event.source, payload.task, known, payload.attempt, at, payload.reason)]
            case ev.TaskFinished():
                return self._settled(event.source, payload, at, "")
            case ev.TaskFailed():
                return self._settled(event.source, payload, at, f"{payload.error}: {payload.message}")
        return []

    def _task(self, source: str, number: int, at: int) -> _Task:
        task = self._open.get((source, number))
        if task is None:
            task = self._open[source, number] = _Task(at)
            if len(self._open) > self._most:
                self._open.popitem(last=False)
        return task

    def _settled(self, source: str, payload: ev.TaskFinished | ev.TaskFailed, at: int, error: str) -> list[Track]:
        task = self._open.pop((source, payload.task), None)
        if task is None:  # settled before, or from before what is read
            return []
        tracks = []
        for attempt in sorted(task.attempts):
            why = error if attempt == payload.attempt else "another attempt was first"
            tracks.append(self._ended(source, payload.task, task, attempt, at, why))
        traces = _traces(source)
        root = Track(
            name=task.function, trace_id=traces.trace_id(payload.task), span_id=traces.span_id(), parent_id=None,
            start=task.start, end=max(at, task.start), error=error,
            attributes={"parsl.pool": source, "parsl.task": payload.task, "parsl.attempts": payload.attempts},
        )  # fmt: skip
        return [*tracks, root]

    def _ended(self, source: str, number: int, task: _Task, attempt: int, at: int, error: str) -> Track:
        begun, traces = task.attempts.pop(attempt), _traces(source)
        return Track(
            name=f"{task.function} at {begun.endpoint}", trace_id=traces.trace_id(number),
            span_id=traces.span_id(attempt), parent_id=traces.span_id(), start=begun.start, end=max(at, begun.start),
            error=error,
            attributes={"parsl.endpoint": begun.endpoint, "parsl.site": begun.site, "parsl.attempt": attempt},
        )  # fmt: skip


@functools.lru_cache(64)
def _traces(source: str) -> Traces:
    return Traces(source)


def _nanoseconds(text: str) -> int:
    """Since 1970.

    Raises:
        ValueError: it is no time, or one before 1970.
    """
    when = datetime.fromisoformat(text)
    past = (when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH
    nanoseconds = (past.days * 86_400 + past.seconds) * 1_000_000_000 + past.microseconds * 1000
    if nanoseconds < 0:
        raise ValueError(f"{text!r} is before 1970")
    return nanoseconds
