"""What the events of one pool say: its endpoints, tasks and reroutes."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, Literal

from diaspora_parsl import events as ev

TaskState = Literal["waiting", "running", "finished", "failed"]
TASK_STATES: Final[tuple[TaskState, ...]] = ("waiting", "running", "finished", "failed")
#: Reroutes that are kept to be shown; all of them are counted.
REROUTES_KEPT: Final = 50

_ENDPOINT_WORDS: Final[dict[type[ev.Payload], str]] = {
    ev.EndpointUp: "up",
    ev.EndpointSuspect: "suspect",
    ev.EndpointDown: "down",
    ev.EndpointReviving: "reviving",
    ev.EndpointDraining: "draining",
    ev.EndpointDrained: "drained",
}


@dataclass(slots=True)
class EndpointView:
    """One endpoint, as one pool sees it."""

    name: str
    site: str = ""
    state: str = "unknown"
    evidence: str = ""
    evidence_time: str = ""
    slots: int = 0
    rate: float = 0.0
    generation: int = 0
    counted_finished: int = 0
    counted_in_flight: int = 0
    status: ev.EndpointStatus | None = None
    sequence: int = -1
    slots_sequence: int = -1

    @property
    def finished(self) -> int:
        """Results delivered: the larger of what was counted and what the pool says, as logs may be trimmed."""
        return max(self.counted_finished, self.status.finished if self.status else 0)

    @property
    def in_flight(self) -> int:
        """Attempts at this endpoint: the pool's own figure if it gave one."""
        return self.status.in_flight if self.status else self.counted_in_flight


@dataclass(slots=True)
class Reroute:
    """One attempt that was given up where it was."""

    task: int
    attempt: int
    left: str
    reason: str
    time: str
    went: str = ""
    """Where the next attempt was sent; empty as long as it waits."""


@dataclass(slots=True)
class _Task:
    settled: TaskState | None = None
    running: dict[int, str] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)


class PoolView:
    """One pool in one run: everything that one source said.

    The order of a task's events does not matter, nor do doubles: a transport keeps order per key only.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = ""
        self.run_dir = ""
        self.started = ""
        self.stopped = ""
        self.stop_reason = ""
        self.last_time = ""
        self.endpoints: dict[str, EndpointView] = {}
        self.reroutes: deque[Reroute] = deque(maxlen=REROUTES_KEPT)
        self.status: ev.PoolStatus | None = None
        self._status_sequence = -1
        self._tasks: dict[int, _Task] = {}
        self._counts: Counter[TaskState] = Counter()
        self._rerouted = 0
        self._late: set[tuple[int, int]] = set()

    @property
    def is_pool(self) -> bool:
        """False for a source that only says something about endpoints, such as a facility."""
        return bool(self.name or self._tasks)

    def tasks(self) -> dict[TaskState, int]:
        """Number of tasks in each state.

        What was counted wins, unless the pool itself knows of more tasks than the log still tells.
        """
        told = self.status
        if told is None or told.waiting + told.in_flight + told.finished + told.failed <= len(self._tasks):
            return {state: self._counts[state] for state in TASK_STATES}
        return {
            "waiting": told.waiting,
            "running": told.in_flight,
            "finished": max(told.finished, self._counts["finished"]),
            "failed": max(told.failed, self._counts["failed"]),
        }

    @property
    def rerouted(self) -> int:
        """Attempts given up so far."""
        return max(self._rerouted, self.status.rerouted if self.status else 0)

    @property
    def late(self) -> int:
        """Results of superseded attempts that were dropped so far."""
        return max(len(self._late), self.status.late if self.status else 0)

    def apply(self, event: ev.Event, payload: ev.Payload) -> None:
        """Take one event of this source in."""
        self.last_time = max(self.last_time, event.time)
        match payload:
            case ev.EndpointStatus() | ev.EndpointPayload():
                self._endpoint_event(event, payload)
            case ev.PoolStatus() | ev.PoolStarted() | ev.PoolStopped():
                self._pool_event(event, payload)
            case _:
                self._task_event(event, payload)

    def endpoint(self, name: str, site: str = "") -> EndpointView:
        """The endpoint of that name, made known if it was not."""
        view = self.endpoints.get(name)
        if view is None:
            view = self.endpoints[name] = EndpointView(name)
        view.site = site or view.site
        return view

    def _task_event(self, event: ev.Event, payload: ev.Payload) -> None:
        match payload:
            case ev.TaskSubmitted():
                self._task(payload.task)
            case ev.TaskDispatched() if payload.attempt not in self._task(payload.task).given_up:
                self._dispatched(payload)
            case ev.TaskRerouted() if payload.attempt not in self._task(payload.task).given_up:
                self._given_up(payload, event.time)
            case ev.TaskFinished():
                if self._settle(payload.task, "finished"):
                    self.endpoint(payload.endpoint, payload.site).counted_finished += 1
            case ev.TaskFailed():
                self._settle(payload.task, "failed")
            case ev.TaskLate():
                self._late.add((payload.task, payload.attempt))

    def _pool_event(self, event: ev.Event, payload: ev.PoolStatus | ev.PoolStarted | ev.PoolStopped) -> None:
        self.name = payload.pool
        match payload:
            case ev.PoolStatus():
                if event.sequence >= self._status_sequence:
                    self.status, self._status_sequence = payload, event.sequence
            case ev.PoolStarted():
                self.run_dir, self.started = payload.run_dir, event.time
                for name in payload.endpoints:
                    self.endpoint(name)
            case ev.PoolStopped():
                self.stopped, self.stop_reason = event.time, payload.reason

    def _task(self, task: int) -> _Task:
        known = self._tasks.get(task)
        if known is None:
            known = self._tasks[task] = _Task()
            self._counts["waiting"] += 1
        return known

    def _state(self, task: _Task) -> TaskState:
        return task.settled or ("running" if task.running else "waiting")

    def _dispatched(self, payload: ev.TaskDispatched) -> None:
        task = self._task(payload.task)
        if task.settled or payload.attempt in task.running:
            return
        self._counts[self._state(task)] -= 1
        task.running[payload.attempt] = payload.endpoint
        self._counts["running"] += 1
        self.endpoint(payload.endpoint, payload.site).counted_in_flight += 1
        for reroute in reversed(self.reroutes):
            if reroute.task == payload.task:
                if not reroute.went and payload.attempt > reroute.attempt:
                    reroute.went = payload.endpoint
                break

    def _given_up(self, payload: ev.TaskRerouted, time: str) -> None:
        task = self._task(payload.task)
        task.given_up.add(payload.attempt)
        self._rerouted += 1
        self.endpoint(payload.endpoint, payload.site)
        self.reroutes.append(Reroute(payload.task, payload.attempt, payload.endpoint, payload.reason, time))
        if task.settled is None:
            self._counts[self._state(task)] -= 1
            self._leave(task, payload.attempt)
            self._counts[self._state(task)] += 1

    def _settle(self, number: int, state: TaskState) -> bool:
        task = self._task(number)
        if task.settled:
            return False
        self._counts[self._state(task)] -= 1
        for attempt in list(task.running):
            self._leave(task, attempt)
        task.settled = state
        self._counts[state] += 1
        return True

    def _leave(self, task: _Task, attempt: int) -> None:
        endpoint = task.running.pop(attempt, None)
        if endpoint is not None:
            self.endpoints[endpoint].counted_in_flight -= 1

    def _endpoint_event(self, event: ev.Event, payload: ev.EndpointStatus | ev.EndpointPayload) -> None:
        view = self.endpoint(payload.endpoint, payload.site)
        if isinstance(payload, ev.EndpointStatus | ev.EndpointUp) and event.sequence >= view.slots_sequence:
            view.slots, view.slots_sequence = payload.slots, event.sequence
        # Samples and state changes travel in different topics: only the sequence says which is newer.
        if event.sequence < view.sequence:
            return
        view.sequence, view.generation = event.sequence, payload.generation
        state = payload.state if isinstance(payload, ev.EndpointStatus) else _ENDPOINT_WORDS.get(type(payload), "")
        view.state = state or view.state
        if payload.reason and payload.reason != view.evidence:
            view.evidence, view.evidence_time = payload.reason, event.time
        if isinstance(payload, ev.EndpointStatus):
            view.status, view.rate = payload, payload.rate
        elif isinstance(payload, ev.EndpointDown):
            view.rate = 0.0
