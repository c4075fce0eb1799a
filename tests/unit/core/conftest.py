"""A core on a virtual clock, which validates itself after every stimulus."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from diaspora_parsl.core import actions, settings, stimuli
from diaspora_parsl.core.failures import Failure, Kind
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore

A = TypeVar("A")


class Bench:
    """Drives a core as the shell does, and keeps its actions."""

    def __init__(
        self,
        *labels: str,
        slots: int = 1,
        sites: dict[str, str] | None = None,
        memory: dict[str, float] | None = None,
        **limits: Any,
    ) -> None:
        self.specs = [
            settings.EndpointSpec(
                label=label, site=(sites or {}).get(label, f"site-{label}"), mem_per_worker=(memory or {}).get(label)
            )
            for label in labels
        ]
        self.core = PoolCore(self.specs, settings.PoolSettings(**limits))
        self.labels = labels
        self.slots = slots
        self.now = 0.0
        self.wake = float("inf")
        self.actions: list[tuple[float, actions.Action]] = []
        self._tasks = 0

    def send(self, kind: type, *args: Any, **kwargs: Any) -> list[actions.Action]:
        if kind is stimuli.Tick:
            self.wake = float("inf")
        answer = self.core.handle(kind(self.now, *args, **kwargs))
        self.actions += [(self.now, action) for action in answer]
        self.wake = min([self.wake, *(action.at for action in answer if isinstance(action, actions.WakeAt))])
        validate(self.core)
        return answer

    def up(self, *labels: str, slots: int | None = None) -> Bench:
        for label in labels or self.labels:
            generation = self.core.assessor.health[label].generation
            self.send(stimuli.Started, label, generation)
            self.send(stimuli.Observed, label, generation, self.slots if slots is None else slots)
        return self

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.wake <= until:
            self.now = max(self.now, self.wake)
            self.send(stimuli.Tick)
        self.now = until

    def live(self, seconds: float, *beating: str, step: float = 0.25) -> None:
        """Poll the fabric every ``step`` seconds; these endpoints send a heartbeat per second."""
        start, steps = self.now, 0
        while self.now < start + seconds - 1e-9:
            self.wait(step)
            steps += 1
            if steps % round(1 / step) == 0:
                for label in beating:
                    self.send(stimuli.HeartbeatReceived, label, "block/node")
            self.send(stimuli.FabricPolled)

    def submit(
        self, function: str = "f", eligible: tuple[str, ...] = (), priority: float = 0.0, *, idempotent: bool = False
    ) -> int:
        self._tasks += 1
        everywhere = frozenset(eligible or self.labels)
        self.send(stimuli.Submitted, self._tasks, function, everywhere, priority, idempotent=idempotent)
        return self._tasks

    def where(self, task: int) -> str | None:
        """Return the endpoint that holds the task."""
        found = self.core.tasks.get(task)
        return found.bound.endpoint if found is not None and found.bound is not None else None

    def attempt(self, task: int) -> int:
        """Return the attempt that the task waits for."""
        bound = self.core.tasks[task].bound
        assert bound is not None, "the task is not bound"
        return bound.id

    def finish(self, task: int) -> list[actions.Action]:
        return self.send(stimuli.Finished, self.attempt(task))

    def fail(self, task: int, kind: Kind, message: str = "of a test") -> list[actions.Action]:
        return self.send(stimuli.Failed, self.attempt(task), Failure(kind, "SomeError", message))

    def rejected(self, task: int, attempt: int | None) -> bool:
        """Whether the task was settled with the error of this attempt."""
        return any(reject.task == task and reject.attempt == attempt for reject in self.of(actions.Reject))

    def die(self, label: str, reason: str = "its interchange was killed") -> list[actions.Action]:
        return self.send(stimuli.Died, label, self.core.assessor.health[label].generation, reason)

    def state(self, label: str) -> State:
        return self.core.state(label)[0]

    def of(self, kind: type[A]) -> list[A]:
        """Return all actions of a kind, or all published payloads of a kind."""
        answer = [action for _, action in self.actions]
        payloads = [action.payload for action in answer if isinstance(action, actions.Publish)]
        return [found for found in [*answer, *payloads] if isinstance(found, kind)]


@pytest.fixture
def bench() -> type[Bench]:
    return Bench
