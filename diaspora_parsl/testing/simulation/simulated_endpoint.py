"""The state of one simulated endpoint."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.failures import Failure
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults.worker_faults import BlackHoleError, FlakyError
from diaspora_parsl.testing.simulation.scenario import SimEndpoint, SimTask

#: Seconds until an immediate failure.
_IMMEDIATELY: Final = 0.01
#: Share of its run time after which an attempt runs out of memory.
_OOM_SHARE: Final = 0.5
_RULES: Final = Rulebook()


class Running(NamedTuple):
    """A running attempt."""

    since: float
    until: float
    task: SimTask
    node: int
    raises: Failure | None
    """Failure that it ends with; None: it ends with a result."""


class Site:
    """State of one simulated endpoint: its nodes, running attempts and active faults."""

    def __init__(self, spec: SimEndpoint) -> None:
        self.spec = spec
        self.generation = 0
        self.alive = False
        self.waiting: dict[int, SimTask] = {}
        self.running: dict[int, Running] = {}
        self.per_node = spec.slots // spec.nodes
        self.busy = [0] * spec.nodes
        self.lost_nodes: dict[int, float] = {}
        self.frozen_at: float | None = None
        self.frozen_until = 0.0
        self.mute_until = 0.0
        self.closed_until = 0.0
        self.answered_at = 0.0
        #: Arrival time of its last heartbeat; heartbeats arrive in order.
        self.heartbeat_at = 0.0
        #: Time from which the pool can see no effect of past faults.
        self.well_from = 0.0
        self.worker_faults: list[f.Slow | f.Flaky | f.BlackHole | f.WrongEnvironment | f.OutOfMemory] = []
        self.draws: dict[f.Flaky, random.Random] = {}

    def slots(self) -> int:
        """Return the number of connected workers."""
        return self.per_node * (self.spec.nodes - len(self.lost_nodes))

    def free_node(self, rng: random.Random) -> int | None:
        """Return a random node with an idle worker, or None."""
        if self.spec.nodes == 1:
            return 0 if self.busy[0] < self.per_node and not self.lost_nodes else None
        free = [node for node, busy in enumerate(self.busy) if busy < self.per_node and node not in self.lost_nodes]
        return rng.choice(free) if free else None

    def is_well(self, at: float) -> bool:
        """Return whether no fault is visible to the pool."""
        return self.alive and self.frozen_at is None and at >= self.mute_until and at >= self.well_from

    def begin(self, at: float, task: SimTask, node: int, seconds: float) -> Running:
        """Start an attempt that takes ``seconds`` without faults."""
        failure = None
        if self.worker_faults:
            self.worker_faults = [fault for fault in self.worker_faults if fault.until > at]
            for fault in self.worker_faults:
                if isinstance(fault, f.Slow):
                    seconds *= fault.factor
                elif failure is None:
                    failure = self._fails(fault, task, node)
        if failure is not None:
            seconds = min(seconds, _duration(failure, seconds))
        elif task.raises:
            failure = _TASK_ERROR
        self.busy[node] += 1
        return Running(at, at + seconds, task, node, failure)

    def end(self, attempt: int) -> Running:
        """End an attempt and free its worker."""
        running = self.running.pop(attempt)
        self.busy[running.node] -= 1
        return running

    def spent(self, at: float) -> float:
        """Return the worker seconds of the running attempts until now."""
        return sum((self.frozen_at or at) - running.since for running in self.running.values())

    def lose(self, node: int) -> list[int]:
        """Remove a node; return the attempts that ran on it."""
        lost = [attempt for attempt, running in self.running.items() if running.node == node]
        for attempt in lost:
            self.end(attempt)
        return lost

    def stop(self) -> None:
        """Drop the endpoint with all its attempts."""
        self.alive = False
        self.waiting.clear()
        self.running.clear()
        self.busy = [0] * self.spec.nodes
        self.lost_nodes.clear()
        self.frozen_at = None

    def _fails(
        self, fault: f.Flaky | f.BlackHole | f.WrongEnvironment | f.OutOfMemory, task: SimTask, node: int
    ) -> Failure | None:
        match fault:
            case f.Flaky():
                draw = self.draws.setdefault(fault, random.Random(fault.seed))  # noqa: S311 - reproducible on purpose
                return _FLAKY if draw.random() < fault.rate else None
            case f.BlackHole():
                return _BLACK_HOLE if node == fault.node else None
            case f.WrongEnvironment():
                hit = fault.function in {None, task.function}
                return raised(ModuleNotFoundError(f"No module named {task.function!r}")) if hit else None
            case f.OutOfMemory():
                return _MEMORY if fault.function in {None, task.function} else None


def raised(error: BaseException) -> Failure:
    """Classify an exception of user code by the built-in rules."""
    return _RULES.classify(error, raised=True)


def _duration(failure: Failure, seconds: float) -> float:
    if failure.error == "FlakyError":
        return seconds
    return seconds * _OOM_SHARE if failure.error == "MemoryError" else _IMMEDIATELY


_TASK_ERROR: Final = raised(ValueError("raised by the task"))
_FLAKY: Final = raised(FlakyError("Flaky failed this attempt"))
_BLACK_HOLE: Final = raised(BlackHoleError("this node fails everything"))
_MEMORY: Final = raised(MemoryError())
