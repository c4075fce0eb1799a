"""Recorded events for those who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Maker = "Callable[..., ev.Event]"


def make_event(
    payload: ev.Payload, sequence: int = 0, *, source: str = "/here/pool/run1", time: str = "2026-01-31T12:00:00Z"
) -> ev.Event:
    return ev.Event(
        id=f"{sequence}",
        source=source,
        type=payload.event_type(),
        subject=str(getattr(payload, "endpoint", "") or getattr(payload, "task", "")),
        time=time,
        partitionkey="",
        sequence=sequence,
        data=ev.encode_payload(payload),
    )


def build_story() -> Iterator[ev.Payload]:
    """Ten tasks on two endpoints; alpha dies with two of them, one of which comes late."""
    yield ev.PoolStarted(pool="pool", endpoints=("alpha", "beta"), run_dir="/runs/000")
    yield ev.EndpointUp(endpoint="alpha", site="anl", reason="4 workers connected", slots=4, generation=1)
    yield ev.EndpointUp(endpoint="beta", site="uc", reason="4 workers connected", slots=4, generation=1)
    for task in range(10):
        yield ev.TaskSubmitted(task=task, function="dock")
    for task in range(8):
        name, site = ("alpha", "anl") if task < 4 else ("beta", "uc")
        yield ev.TaskDispatched(task=task, attempt=1, endpoint=name, site=site, reason="least loaded")
    for task in (2, 3):
        yield ev.TaskFinished(task=task, attempt=1, endpoint="alpha", site="anl", seconds=1.5)
    for task in (4, 5, 6):
        yield ev.TaskFinished(task=task, attempt=1, endpoint="beta", site="uc", seconds=1.0)
    yield ev.TaskFailed(task=7, kind="task", error="ValueError", message="no such atom", endpoint="beta", attempt=1)
    yield ev.EndpointDown(endpoint="alpha", site="anl", reason="interchange exited with -9", in_flight=2, generation=1)
    for task in (0, 1):
        yield ev.TaskRerouted(
            task=task, attempt=1, endpoint="alpha", site="anl", reason="alpha is down: interchange exited with -9"
        )
    yield ev.TaskDispatched(task=0, attempt=2, endpoint="beta", site="uc", reason="alpha is down")
    yield ev.TaskFinished(task=0, attempt=2, endpoint="beta", site="uc", seconds=1.0, attempts=2)
    yield ev.TaskLate(task=0, attempt=1, endpoint="alpha", site="anl")


@pytest.fixture(scope="session")
def made() -> Callable[..., ev.Event]:
    return make_event


@pytest.fixture(scope="session")
def story() -> list[ev.Event]:
    return [
        make_event(payload, sequence, time=f"2026-01-31T12:00:{sequence:02}Z")
        for sequence, payload in enumerate(build_story())
    ]
