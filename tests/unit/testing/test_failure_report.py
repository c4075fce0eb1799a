from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from diaspora_parsl import events as ev
from diaspora_parsl.testing.failure_report import build_story
from diaspora_parsl.testing.faults import Kill
from diaspora_parsl.testing.faults.injector import Injected

BEGAN = 1_700_000_000.0
GONE = "its interchange ended"


def reported(at: float, payload: ev.Payload, number: int = 0) -> ev.Event:
    return ev.Event(
        id=str(number),
        source="/host/pool/run",
        type=payload.event_type(),
        subject="",
        time=datetime.fromtimestamp(BEGAN + at, UTC).isoformat(),
        partitionkey="",
        sequence=number,
        data=ev.encode_payload(payload),
    )


def sent(task: int, attempt: int, endpoint: str) -> ev.TaskDispatched:
    return ev.TaskDispatched(task=task, attempt=attempt, endpoint=endpoint, site=endpoint, reason="")


def test_a_story_says_what_happened_and_why() -> None:
    payloads: list[tuple[float, ev.Payload]] = [
        (-2.0, ev.EndpointUp(endpoint="alpha", site="alpha", reason="2 slots", slots=2)),
        *((0.1, ev.TaskSubmitted(task=task, function="work")) for task in (1, 2, 3, 4, 5)),
        *((0.2, sent(task, task, "alpha")) for task in (1, 2, 3)),
        (2.1, ev.EndpointDown(endpoint="alpha", site="alpha", reason=GONE)),
        *((2.1, ev.TaskRerouted(task=n, attempt=n, endpoint="alpha", site="alpha", reason=GONE)) for n in (1, 2, 3)),
        *((2.2, sent(task, task + 5, "beta")) for task in (1, 2)),
        (3.0, ev.TaskFinished(task=1, attempt=6, endpoint="beta", site="beta", seconds=0.8, attempts=2)),
        (3.5, ev.TaskFailed(task=2, kind="user", error="KeyError", message="'x'", endpoint="beta", reason="its own")),
        (9.0, ev.TaskFailed(task=3, kind="endpoint-lost", error="EndpointsUnavailableError", message="all are down")),
        (9.1, ev.TaskFailed(task=4, kind="of a later version", error="Odd", message="")),
        (9.2, ev.TaskFailed(task=5, kind="endpoint-lost", error="PoolShutdownError", message="too early")),
    ]  # fmt: skip
    kill = Injected(2.0, Kill(at=2.0, endpoint="alpha"), ended=False, unix=BEGAN + 2.0)
    events = [reported(at, payload, number) for number, (at, payload) in enumerate(payloads)]
    story = build_story(reversed(events), [kill], BEGAN, Path("runinfo/000"))
    assert (story.submitted, story.finished, len(story.rerouted)) == (5, {"beta": 1}, 3)
    assert ([event.task for event in story.lost], [event.task for event in story.failed]) == ([3], [2, 4])
    assert str(story).splitlines() == [
        "   2.0 s  FAULT begins: Kill(at=2.0, endpoint='alpha')",
        f"   2.1 s  tasks 1, 2 (work) rerouted from alpha to beta: {GONE}",
        f"   2.1 s  task 3 (work) rerouted from alpha to nowhere: {GONE}",
        f"   2.1 s  alpha is down: {GONE}",
        "   3.5 s  task 2 (work) failed at beta: KeyError: 'x' (its own)",
        "   9.0 s  task 3 (work) was LOST: EndpointsUnavailableError: all are down",
        "   9.1 s  task 4 (work) failed: Odd",
        "5 tasks: 1 finished (beta 1), 3 rerouted, 2 failed, 1 lost, 1 without an end",
        "logs: runinfo/000",
        "every event: diaspora-parsl events --run-dir runinfo/000",
    ]


def test_a_long_story_is_cut_in_the_middle() -> None:
    events = [
        reported(float(at), ev.EndpointSuspect(endpoint="alpha", site="alpha", reason=f"{at}"), at) for at in range(200)
    ]
    lines = str(build_story(events, [], BEGAN, Path("runinfo/000"))).splitlines()
    assert len(lines) == 60 + 1 + 20 + 3
    assert "... 120 lines are left out" in lines[60]
