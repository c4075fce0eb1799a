"""Globus Compute under Parsl, plain or with a pool, on an emulated service: everything else is the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from globus_compute_sdk import Executor
from parsl.executors import GlobusComputeExecutor

from benchmarks.tasks import Line
from diaspora_parsl import GlobusEndpoint
from diaspora_parsl.executors.globus.executor import GlobusExecutor
from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute

#: Settings of the pool's endpoints, in seconds; the rest is as it comes.
SETTINGS: dict[str, Any] = {"status_period": 1.0, "patience": 5.0}


class Given(NamedTuple):
    """A task was given to an endpoint."""

    task: int
    site: str
    time: float


def members(
    peer: str, service: LocalGlobusCompute, places: Iterable[EmulatedEndpoint], *, brake: bool
) -> Sequence[Any]:
    """The executors of these endpoints, or the endpoints of a pool.

    Plain ones share nothing: each has a client of its own, as a client is one lock, and a group of tasks of its own, as
    who ends would else end the results of the others.

    Args:
        peer: "pool" or "plain".
        service: that the endpoints belong to.
        places: the endpoints.
        brake: plain executors send no more than the SDK is used to; else as much as those of the pool, which counts
            requests itself.
    """
    if peer == "pool":
        return [
            GlobusEndpoint(endpoint_id=place.id, label=place.label, client_factory=service.client, **SETTINGS)
            for place in places
        ]
    found = []
    for place in places:
        haste: dict[str, Any] = {} if brake else {"api_burst_limit": 8, "api_burst_window_s": 1}
        inner = Executor(place.id, service.client(), **haste)
        inner.task_group_id = None
        found.append(GlobusComputeExecutor(inner, label=place.label))
    return found


def note_given(tasks: int) -> list[Given]:
    """From now on, note which of the tasks, by number, is given to which endpoint, with or without a pool."""
    given: list[Given] = []

    def noting(untouched: Callable[..., Any]) -> Callable[..., Any]:
        def submit(self: Any, function: Any, resources: Any, *arguments: Any, **named: Any) -> Any:
            if len(arguments) == 3 and arguments[0] in range(tasks):
                given.append(Given(arguments[0], self.label, time.time()))
            return untouched(self, function, resources, *arguments, **named)

        return submit

    for kind in (GlobusComputeExecutor, GlobusExecutor):
        kind.submit = noting(kind.submit)  # type: ignore[method-assign] # to note it from outside
    return given


def first_rerouted_start(given: Iterable[Given], starts: Iterable[Line], lost: str, struck: float) -> float | None:
    """Seconds from the fault to the first start of a task that had been given to the lost endpoint and was given again.

    Args:
        given: in order.
        starts: of the tasks.
        lost: the endpoint.
        struck: Unix time of the fault.
    """
    had: set[int] = set()
    again: list[Given] = []
    for gift in given:
        if gift.task in had and gift.time >= struck:
            again.append(gift)
        if gift.site == lost:
            had.add(gift.task)
    found = [
        line.time - struck
        for line in starts
        for gift in again
        if (line.task, line.site) == (gift.task, gift.site) and line.time >= gift.time
    ]
    return min(found, default=None)
