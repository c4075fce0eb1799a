"""What happened to a pool, told so that a test that failed can be understood."""

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

#: Lines of the text: the first and the last ones are shown, what is between them is counted.
_FIRST: Final = 60
_LAST: Final = 20
#: Tasks that one line names.
_NAMED: Final = 8


class Moment(Struct, frozen=True):
    """Something that happened."""

    at: float
    """Seconds from when the faults' time began to count."""
    what: str


class Story(Struct, frozen=True, kw_only=True):
    """What a pool told on its fabric, and what was done to it. ``str()`` of it is for people.

    A try that Parsl's own ``retries`` made is a task of its own here.
    """

    submitted: int
    """Tasks that came into the pool."""
    finished: dict[str, int]
    """Tasks that ended with a result, by the endpoint that it came from."""
    rerouted: tuple[ev.TaskRerouted, ...]
    """Attempts that were given up where they were; each says why."""
    failed: tuple[ev.TaskFailed, ...]
    """Tasks that ended with an error of their own."""
    lost: tuple[ev.TaskFailed, ...]
    """Tasks that ended with an error although nothing but their places was at fault."""
    faults: tuple[Injected, ...]
    """What was done to the places, in order."""
    moments: tuple[Moment, ...]
    """All of it, in order."""
    run_dir: Path
    """Parsl's directory of the run: logs, and the fabric's data."""

    def __str__(self) -> str:
        """The faults, endpoints and tasks by time, a count, and where to look further."""
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
    """A fault as it is written in a script, without what is the default."""
    plain = dict(zip(reversed(fault.__struct_fields__), reversed(fault.__struct_defaults__), strict=False))
    said = {name: getattr(fault, name) for name in fault.__struct_fields__}
    told = {name: round(value, 3) if isinstance(value, float) else value for name, value in said.items()}
    words = [f"{name}={told[name]!r}" for name in told if name not in plain or said[name] != plain[name]]
    return f"{type(fault).__name__}({', '.join(words)})"


def tell_story(events: Iterable[ev.Event], faults: Iterable[Injected], began: float, run_dir: Path) -> Story:
    """Join what a pool told with what was done to it.

    Args:
        events: of one run.
        faults: what an injector did.
        began: Unix time from which moments count; what was before is left out of them.
        run_dir: Parsl's directory of the run.
    """
    faults = tuple(faults)
    told = sorted(((_unix(event), event.sequence, event.payload()) for event in events), key=lambda one: one[:2])
    payloads = [(at, payload) for at, _, payload in told if payload is not None]
    payloads = [(at, payload) for at, payload in payloads if not _is_left(payload)]
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


def _is_left(payload: ev.Payload) -> bool:
    """Whether a task ended only because the pool did: nobody waited for it any more."""
    return isinstance(payload, ev.TaskFailed) and payload.error == PoolShutdownError.__name__


def _is_lost(payload: ev.TaskFailed) -> bool:
    if payload.kind not in {kind.value for kind in Kind}:
        return False  # told by a later version
    return Failure(Kind(payload.kind), payload.error, payload.message).blame is Blame.INFRASTRUCTURE


def _of_faults(faults: Iterable[Injected]) -> Iterator[tuple[float, str]]:
    for one in faults:
        yield one.unix, f"FAULT {'ends' if one.ended else 'begins'}: {spelled(one.fault)}"


def _of_reroutes(payloads: Sequence[tuple[float, ev.Payload]], names: dict[int, str]) -> Iterator[tuple[float, str]]:
    """One line for what went the same way for the same reason, one after the other."""
    sent: dict[int, list[ev.TaskDispatched]] = {}
    for _, payload in payloads:
        if isinstance(payload, ev.TaskDispatched):
            sent.setdefault(payload.task, []).append(payload)

    def way(one: tuple[float, ev.TaskRerouted]) -> tuple[str, str, str]:
        gone = one[1]
        later = [attempt for attempt in sent.get(gone.task, []) if attempt.attempt > gone.attempt]
        return gone.endpoint, min(later, key=lambda attempt: attempt.attempt).endpoint if later else "", gone.reason

    reroutes = [(at, payload) for at, payload in payloads if isinstance(payload, ev.TaskRerouted)]
    for (source, target, reason), group in itertools.groupby(reroutes, way):
        (at, first), *more = group
        tasks = _named([first.task, *(payload.task for _, payload in more)], names)
        yield at, f"{tasks} rerouted from {source} to {target or 'nowhere'}: {reason}"


def _of_others(payloads: Sequence[tuple[float, ev.Payload]], names: dict[int, str]) -> Iterator[tuple[float, str]]:
    for at, payload in payloads:
        match payload:
            case ev.TaskFailed():
                where = f" at {payload.endpoint}" if payload.endpoint else ""
                fate = "was LOST" if _is_lost(payload) else "failed"
                error = f"{payload.error}: {payload.message}" if payload.message else payload.error
                reason = f" ({payload.reason})" if payload.reason else ""
                yield at, f"{_named([payload.task], names)} {fate}{where}: {error}{reason}"
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
