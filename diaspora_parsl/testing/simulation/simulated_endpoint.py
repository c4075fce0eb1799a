"""The state of one simulated endpoint."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.failures import Failure
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults.worker_faults import BlackHoleError, FlakyError
from diaspora_parsl.testing.simulation.scenario import SimEndpoint, SimTask

#: Seconds that an attempt takes which fails at once.
AT_ONCE: Final = 0.01
#: The share of its time after which an attempt finds that there is too little memory.
_FULL_AFTER: Final = 0.5


_RULES: Final = Rulebook()


class Running(NamedTuple):
    """An attempt that runs."""

    since: float
    until: float
    task: SimTask
    node: int
    raises: Failure | None
    """What it will end with, if that is not a result."""


class Site:
    """One simulated endpoint: which of its nodes are there, what runs on them, and what is wrong."""

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
        #: When its last heartbeat arrived, or will: none overtakes another.
        self.heard_at = 0.0
        #: The last death or fault that touches what the pool can see; nothing is wrong from then on.
        self.well_from = 0.0
        self.afflictions: list[f.Slow | f.Flaky | f.BlackHole | f.WrongEnvironment | f.OutOfMemory] = []
        self.draws: dict[f.Flaky, random.Random] = {}

    def slots(self) -> int:
        """Workers that are there now."""
        return self.per_node * (self.spec.nodes - len(self.lost_nodes))

    def free_node(self, rng: random.Random) -> int | None:
        """A node with an idle worker."""
        if self.spec.nodes == 1:
            return 0 if self.busy[0] < self.per_node and not self.lost_nodes else None
        free = [node for node, busy in enumerate(self.busy) if busy < self.per_node and node not in self.lost_nodes]
        return rng.choice(free) if free else None

    def is_well(self, at: float) -> bool:
        """Whether nothing is wrong with it that anybody could see."""
        return self.alive and self.frozen_at is None and at >= self.mute_until and at >= self.well_from

    def begin(self, at: float, task: SimTask, node: int, seconds: float) -> Running:
        """An attempt starts on a node, and would take so long if nothing were wrong."""
        failure = None
        if self.afflictions:
            self.afflictions = [fault for fault in self.afflictions if fault.until > at]
            for fault in self.afflictions:
                if isinstance(fault, f.Slow):
                    seconds *= fault.factor
                elif failure is None:
                    failure = self._fails(fault, task, node)
        if failure is not None:
            seconds = min(seconds, _duration(failure, seconds))
        elif task.raises:
            failure = _TASKS_OWN
        self.busy[node] += 1
        return Running(at, at + seconds, task, node, failure)

    def end(self, attempt: int) -> Running:
        """An attempt is over; its worker is free."""
        running = self.running.pop(attempt)
        self.busy[running.node] -= 1
        return running

    def spent(self, at: float) -> float:
        """Seconds that what runs here has run until now, over all workers."""
        return sum((self.frozen_at or at) - running.since for running in self.running.values())

    def lose(self, node: int) -> list[int]:
        """A node is gone; returns the attempts that ran there."""
        lost = [attempt for attempt, running in self.running.items() if running.node == node]
        for attempt in lost:
            self.end(attempt)
        return lost

    def stop(self) -> None:
        """It is gone, with all that it held."""
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
    """What the pool is told of an exception of user code, by the built-in rules."""
    return _RULES.classify(error, raised=True)


def _duration(failure: Failure, seconds: float) -> float:
    if failure.error == "FlakyError":
        return seconds
    return seconds * _FULL_AFTER if failure.error == "MemoryError" else AT_ONCE


_TASKS_OWN: Final = raised(ValueError("raised by the task"))
_FLAKY: Final = raised(FlakyError("this attempt drew a blank"))
_BLACK_HOLE: Final = raised(BlackHoleError("this node fails everything"))
_MEMORY: Final = raised(MemoryError())
