"""What the events of one pool say: its endpoints, tasks and reroutes."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final, Literal

from diaspora_parsl import events as ev

TaskState = Literal["waiting", "running", "finished", "failed"]
TASK_STATES: Final[tuple[TaskState, ...]] = ("waiting", "running", "finished", "failed")
SETTLED: Final[tuple[TaskState, ...]] = ("finished", "failed")
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
        self._tasks: dict[int, TaskState] = {}
        self._running: dict[int, dict[int, str]] = {}
        self._counts: Counter[TaskState] = Counter()
        self._given_up: set[tuple[int, int]] = set()
        self._late: set[tuple[int, int]] = set()

    @property
    def is_pool(self) -> bool:
        """False for a source that only says something about endpoints, such as a facility."""
        return bool(self.name or self._tasks)

    def tasks(self) -> dict[TaskState, int]:
        """Number of tasks in each state.

        The counted numbers are returned, unless the pool reports more tasks than the log still holds.
        """
        status = self.status
        if status is None or status.waiting + status.in_flight + status.finished + status.failed <= len(self._tasks):
            return {state: self._counts[state] for state in TASK_STATES}
        return {
            "waiting": status.waiting,
            "running": status.in_flight,
            "finished": max(status.finished, self._counts["finished"]),
            "failed": max(status.failed, self._counts["failed"]),
        }

    @property
    def rerouted(self) -> int:
        """Attempts given up so far."""
        return max(len(self._given_up), self.status.rerouted if self.status else 0)

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
            case ev.TaskDispatched():
                self._dispatched(payload)
            case ev.TaskRerouted():
                self._rerouted(payload, event.time)
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

    def _task(self, task: int) -> TaskState:
        state = self._tasks.get(task)
        return state or self._move(task, "waiting")

    def _move(self, task: int, state: TaskState) -> TaskState:
        if task in self._tasks:
            self._counts[self._tasks[task]] -= 1
        self._tasks[task] = state
        self._counts[state] += 1
        return state

    def _dispatched(self, payload: ev.TaskDispatched) -> None:
        task, attempt = payload.task, payload.attempt
        is_settled = self._task(task) in SETTLED
        if is_settled or (task, attempt) in self._given_up or attempt in self._running.get(task, ()):
            return
        self._running.setdefault(task, {})[attempt] = payload.endpoint
        self._move(task, "running")
        self.endpoint(payload.endpoint, payload.site).counted_in_flight += 1
        for reroute in reversed(self.reroutes):
            if reroute.task == task:
                if not reroute.went and attempt > reroute.attempt:
                    reroute.went = payload.endpoint
                break

    def _rerouted(self, payload: ev.TaskRerouted, time: str) -> None:
        task, attempt = payload.task, payload.attempt
        state = self._task(task)
        if (task, attempt) in self._given_up:
            return
        self._given_up.add((task, attempt))
        self.endpoint(payload.endpoint, payload.site)
        self.reroutes.append(Reroute(task, attempt, payload.endpoint, payload.reason, time))
        if state not in SETTLED:
            self._leave(task, attempt)
            self._move(task, "running" if self._running.get(task) else "waiting")

    def _settle(self, task: int, state: TaskState) -> bool:
        if self._task(task) in SETTLED:
            return False
        for attempt in list(self._running.get(task, ())):
            self._leave(task, attempt)
        self._running.pop(task, None)
        self._move(task, state)
        return True

    def _leave(self, task: int, attempt: int) -> None:
        endpoint = self._running.get(task, {}).pop(attempt, None)
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
