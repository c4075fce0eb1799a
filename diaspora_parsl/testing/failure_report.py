"""Summarize the events of a pool and the faults applied to it, for the report of a failed test."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from diaspora_parsl import events as ev
from diaspora_parsl.core.failures import Blame, Failure, Kind
from diaspora_parsl.errors import PoolShutdownError
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults.injector import Injected

#: Lines shown from the start and the end of the history; the text counts the lines between.
_FIRST: Final = 60
_LAST: Final = 20
#: Largest number of task ids in one line.
_NAMED: Final = 8


class Moment(Struct, frozen=True):
    """One line of the history."""

    at: float
    """Seconds from the start of the fault script."""
    what: str


class Story(Struct, frozen=True, kw_only=True):
    """The events of a pool and the faults applied to it; ``str()`` formats them for people.

    An attempt made by Parsl's own ``retries`` counts as a task.
    """

    submitted: int
    """Number of submitted tasks."""
    finished: dict[str, int]
    """Number of tasks with a result, by endpoint."""
    rerouted: tuple[ev.TaskRerouted, ...]
    """Rerouted attempts, each with its reason."""
    failed: tuple[ev.TaskFailed, ...]
    """Tasks that failed with their own error."""
    lost: tuple[ev.TaskFailed, ...]
    """Tasks that failed with an error of the infrastructure."""
    faults: tuple[Injected, ...]
    """Faults that began and ended, in order."""
    moments: tuple[Moment, ...]
    """The whole history, in order."""
    run_dir: Path
    """Parsl's run directory, with its logs and the data of the fabric."""

    def __str__(self) -> str:
        """Format the history, the counts of tasks and the location of logs and events."""
        lines = [f"{moment.at:6.1f} s  {moment.what}" for moment in self.moments]
        hidden = len(lines) - _FIRST - _LAST
        if hidden > 0:
            lines[_FIRST:-_LAST] = [f"          ... {hidden} lines are left out"]
        places = ", ".join(f"{label} {count}" for label, count in self.finished.items())
        done = sum(self.finished.values())
        unfinished = self.submitted - done - len(self.failed) - len(self.lost)
        counts = [
            f"{done} finished" + (f" ({places})" if places else ""),
            f"{len({event.task for event in self.rerouted})} rerouted",
            f"{len(self.failed)} failed",
            f"{len(self.lost)} lost",
        ]
        counts += [f"{unfinished} without an end"] if unfinished else []
        return "\n".join(
            [
                *lines,
                f"{self.submitted} tasks: {', '.join(counts)}",
                f"logs: {self.run_dir}",
                f"every event: diaspora-parsl events --run-dir {self.run_dir}",
            ]
        )


def spelled(fault: f.Fault) -> str:
    """Format a fault as it is written in a script, without default values."""
    plain = dict(zip(reversed(fault.__struct_fields__), reversed(fault.__struct_defaults__), strict=False))
    values = {name: getattr(fault, name) for name in fault.__struct_fields__}
    short = {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
    words = [f"{name}={short[name]!r}" for name in short if name not in plain or values[name] != plain[name]]
    return f"{type(fault).__name__}({', '.join(words)})"


def build_story(events: Iterable[ev.Event], faults: Iterable[Injected], began: float, run_dir: Path) -> Story:
    """Join the events of a pool with the faults applied to it.

    Args:
        events: Events of one run, in any order.
        faults: Faults that an injector began and ended.
        began: Unix time of the start of the fault script; `Story.moments` omits earlier events.
        run_dir: Parsl's run directory.
    """
    faults = tuple(faults)
    timed = sorted(((_unix(event), event.sequence, event.payload()) for event in events), key=lambda one: one[:2])
    payloads = [(at, payload) for at, _, payload in timed if payload is not None]
    payloads = [(at, payload) for at, payload in payloads if not _ended_by_shutdown(payload)]
    ended = [payload for _, payload in payloads if isinstance(payload, ev.TaskFailed)]
    names = {payload.task: payload.function for _, payload in payloads if isinstance(payload, ev.TaskSubmitted)}
    moments = [*_of_faults(faults), *_of_reroutes(payloads, names), *_of_others(payloads, names)]
    moments.sort(key=lambda one: one[0])
    return Story(
        submitted=len(names),
        finished=dict(Counter(payload.endpoint for _, payload in payloads if isinstance(payload, ev.TaskFinished))),
        rerouted=tuple(payload for _, payload in payloads if isinstance(payload, ev.TaskRerouted)),
        failed=tuple(payload for payload in ended if not _is_lost(payload)),
        lost=tuple(payload for payload in ended if _is_lost(payload)),
        faults=faults,
        moments=tuple(Moment(round(at - began, 3), what) for at, what in moments if at >= began),
        run_dir=run_dir,
    )


def _unix(event: ev.Event) -> float:
    return datetime.fromisoformat(event.time).timestamp()


def _ended_by_shutdown(payload: ev.Payload) -> bool:
    """Return whether the task failed only because the pool was shut down."""
    return isinstance(payload, ev.TaskFailed) and payload.error == PoolShutdownError.__name__


def _is_lost(payload: ev.TaskFailed) -> bool:
    if payload.kind not in {kind.value for kind in Kind}:
        return False  # published by a later version
    return Failure(Kind(payload.kind), payload.error, payload.message).blame is Blame.INFRASTRUCTURE


def _of_faults(faults: Iterable[Injected]) -> Iterator[tuple[float, str]]:
    for one in faults:
        yield one.unix, f"FAULT {'ends' if one.ended else 'begins'}: {spelled(one.fault)}"


def _of_reroutes(payloads: Sequence[tuple[float, ev.Payload]], names: dict[int, str]) -> Iterator[tuple[float, str]]:
    """Yield one line per consecutive reroutes with the same source, target and reason."""
    sent: dict[int, list[ev.TaskDispatched]] = {}
    for _, payload in payloads:
        if isinstance(payload, ev.TaskDispatched):
            sent.setdefault(payload.task, []).append(payload)

    def route(one: tuple[float, ev.TaskRerouted]) -> tuple[str, str, str]:
        gone = one[1]
        later = [attempt for attempt in sent.get(gone.task, []) if attempt.attempt > gone.attempt]
        return gone.endpoint, min(later, key=lambda attempt: attempt.attempt).endpoint if later else "", gone.reason

    reroutes = [(at, payload) for at, payload in payloads if isinstance(payload, ev.TaskRerouted)]
    for (source, target, reason), group in itertools.groupby(reroutes, route):
        (at, first), *more = group
        tasks = _named([first.task, *(payload.task for _, payload in more)], names)
        yield at, f"{tasks} rerouted from {source} to {target or 'nowhere'}: {reason}"


def _of_others(payloads: Sequence[tuple[float, ev.Payload]], names: dict[int, str]) -> Iterator[tuple[float, str]]:
    for at, payload in payloads:
        match payload:
            case ev.TaskFailed():
                where = f" at {payload.endpoint}" if payload.endpoint else ""
                outcome = "was LOST" if _is_lost(payload) else "failed"
                error = f"{payload.error}: {payload.message}" if payload.message else payload.error
                reason = f" ({payload.reason})" if payload.reason else ""
                yield at, f"{_named([payload.task], names)} {outcome}{where}: {error}{reason}"
            case ev.TaskHedged():
                yield at, f"{_named([payload.task], names)} tried at {payload.endpoint} too: {payload.reason}"
            case ev.EndpointPayload():
                state = type(payload).__name__.removeprefix("Endpoint").lower()
                yield at, f"{payload.endpoint} is {state}: {payload.reason}"
            case ev.EndpointRefused():
                yield at, f"{payload.endpoint} got no block: {payload.reason}"
            case ev.NodeQuarantined() | ev.NodeRestored():
                state = type(payload).__name__.removeprefix("Node").lower()
                yield at, f"node {payload.node} of {payload.endpoint} is {state}: {payload.reason}"
            case _:
                pass


def _named(tasks: list[int], names: dict[int, str]) -> str:
    shown = ", ".join(map(str, tasks[:_NAMED])) + (f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else "")
    functions = ", ".join(dict.fromkeys(names.get(task, "?") for task in tasks))
    return f"task{'s' if len(tasks) > 1 else ''} {shown} ({functions})"
