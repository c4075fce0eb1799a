from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Self

from diaspora_parsl.core import settings, stimuli
from diaspora_parsl.core.failures import Failure, Kind
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore


class Lines:
    """Counts the lines of Python that run inside: the cost of a fault, on any machine."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, _: FrameType, event: str, __: object) -> Any:
        self.count += event == "line"
        return self._trace


def lines_per_fault(endpoints: int) -> tuple[int, int]:
    """Lines for the loss and return of a busy endpoint, and for a lost worker, among this number of busy endpoints."""
    labels = [f"e{i:03}" for i in range(endpoints)]
    core = PoolCore([settings.EndpointSpec(label=label, capacity=4) for label in labels])
    for label in labels:
        core.handle(stimuli.Started(0.0, label, 0))
        core.handle(stimuli.Observed(0.0, label, 0, 4, blocks_expected=True))
    for number in range(1, 6 * endpoints + 1):
        core.handle(stimuli.Submitted(0.0, number, "f", frozenset(labels)))
    with Lines() as endpoint:
        core.handle(stimuli.Died(1.0, labels[3], 0, "killed"))
        core.handle(stimuli.Tick(400.0))
        core.handle(stimuli.Started(400.0, labels[3], 1))
        core.handle(stimuli.Observed(400.0, labels[3], 1, 4, blocks_expected=True))
    attempt = next(iter(core.scheduler.held[labels[3]]))
    with Lines() as worker:
        core.handle(stimuli.Failed(401.0, attempt, Failure(Kind.WORKER_LOST, "WorkerLost", "killed")))
    validate(core)
    return endpoint.count, worker.count


def test_a_fault_costs_the_same_among_ten_and_among_four_hundred_endpoints() -> None:
    few, many = lines_per_fault(10), lines_per_fault(400)
    assert few[0] > 100
    assert many[0] <= 1.1 * few[0]
    assert many[1] <= 1.1 * few[1]


def lines_per_heartbeat(streams: int) -> int:
    """Lines for a heartbeat of an endpoint that peers report as suspect, by its number of nodes with heartbeats."""
    core = PoolCore([settings.EndpointSpec(label="alpha", capacity=4)])
    core.handle(stimuli.Started(0.0, "alpha", 0))
    core.handle(stimuli.Observed(0.0, "alpha", 0, 4, blocks_expected=True))
    core.handle(stimuli.FabricPolled(0.0))
    for number in range(streams):
        core.handle(stimuli.HeartbeatReceived(1.0, "alpha", f"{number}/node", 1.0))
    core.handle(stimuli.FabricPolled(1.0))
    core.handle(stimuli.PeerReport(1.5, "alpha", "another pool", "it is silent", 30.0))
    assert core.scheduler.verdicts["alpha"].state is State.SUSPECT
    with Lines() as lines:
        core.handle(stimuli.HeartbeatReceived(1.5, "alpha", "0/node", 1.0))
    validate(core)
    return lines.count


def test_a_heartbeat_costs_the_same_among_ten_and_among_four_thousand_nodes() -> None:
    few = lines_per_heartbeat(10)
    assert few > 10
    assert lines_per_heartbeat(4000) <= 1.1 * few
