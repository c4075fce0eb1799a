"""History: builds the events of the core and keeps the transitions of each task."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diaspora_parsl import events
from diaspora_parsl.core.actions import Action, Publish
from diaspora_parsl.core.health.assessor import State, Verdict
from diaspora_parsl.core.health.evidence import Health
from diaspora_parsl.core.settings import EndpointSpec
from diaspora_parsl.core.tasks import Attempt, Task

#: States of which the core publishes no event.
UNPUBLISHED_STATES = {State.STARTING, State.WAITING}


class Transition(NamedTuple):
    """One transition of a task, for `PoolCore.history`."""

    at: float
    task: int
    what: str
    attempt: int
    endpoint: str
    reason: str


class History:
    """Publishes events and keeps the latest transitions.

    Args:
        specs: Endpoints by label.
        length: Number of transitions kept.
    """

    def __init__(self, specs: Mapping[str, EndpointSpec], length: int) -> None:
        self._specs = specs
        self._transitions: deque[Transition] = deque(maxlen=length)
        #: Actions that answer the current stimulus.
        self.out: list[Action] = []
        self.now = 0.0

    def history(self, task: int) -> list[Transition]:
        """Return the kept transitions of a task, oldest first."""
        return [transition for transition in self._transitions if transition.task == task]

    # --- tasks ----------------------------------------------------------------------------------------------------

    def submitted(self, task: Task, tags: tuple[str, ...]) -> None:
        """Publish a submitted task."""
        payload = events.TaskSubmitted(task=task.id, function=task.function, tags=tags)
        self.out.append(Publish(payload, task.id, ""))

    def dispatched(self, attempt: Attempt, reason: str) -> None:
        """Publish a dispatched attempt."""
        self._publish(events.TaskDispatched, "dispatched", attempt, reason, reason=reason)

    def hedged(self, attempt: Attempt, reason: str) -> None:
        """Publish a second attempt beside a slow one."""
        self._publish(events.TaskHedged, "hedged", attempt, reason, reason=reason)

    def rerouted(self, attempt: Attempt, reason: str) -> None:
        """Publish a lost attempt whose task waits again."""
        self._publish(events.TaskRerouted, "rerouted", attempt, reason, reason=reason)

    def finished(self, attempt: Attempt, seconds: float) -> None:
        """Publish the result of a task."""
        attempts = attempt.task.attempts
        self._publish(events.TaskFinished, "finished", attempt, seconds=round(seconds, 6), attempts=attempts)

    def late(self, attempt: Attempt) -> None:
        """Publish a result that came after its task was settled."""
        self._publish(events.TaskLate, "late", attempt, "the task was settled already")

    def failed(
        self, task: Task, kind: str, error: str, message: str, attempt: Attempt | None, reason: str = ""
    ) -> None:
        """Publish the failure of a task."""
        label, number = (attempt.endpoint, attempt.id) if attempt else ("", 0)
        payload = events.TaskFailed(
            task=task.id,
            kind=kind,
            error=error,
            message=message,
            endpoint=label,
            site=self._specs[label].site if label else "",
            attempt=number,
            attempts=task.attempts,
            reason=reason,
        )
        self._record(payload, task, "failed", number, label, f"{error}: {message}" + (f" ({reason})" if reason else ""))

    def _publish(
        self, kind: Callable[..., events.Payload], what: str, attempt: Attempt, recorded: str = "", **fields: Any
    ) -> None:
        task, label = attempt.task, attempt.endpoint
        payload = kind(task=task.id, attempt=attempt.id, endpoint=label, site=self._specs[label].site, **fields)
        self._record(payload, task, what, attempt.id, label, recorded)

    def _record(self, payload: events.Payload, task: Task, what: str, attempt: int, label: str, reason: str) -> None:
        self.out.append(Publish(payload, task.id, label))
        self._transitions.append(Transition(self.now, task.id, what, attempt, label, reason))

    # --- endpoints ------------------------------------------------------------------------------------------------

    def record_verdict(self, label: str, health: Health, verdict: Verdict, taken: int) -> None:
        """Publish a changed state of an endpoint, or the number of attempts taken away from it."""
        kind: type[events.EndpointPayload] = events.EndpointDown
        extra: dict[str, Any] = {"in_flight": taken}
        if not taken:
            match verdict.state:
                case State.UP:
                    kind, extra = events.EndpointUp, {"slots": health.slots}
                case State.SUSPECT | State.QUARANTINED:
                    kind, extra = events.EndpointSuspect, {"phi": round(verdict.phi, 1)}
                case State.DRAINING:
                    kind, extra = events.EndpointDraining, {}
                case State.DRAINED:
                    kind, extra = events.EndpointDrained, {}
        site, generation = self._specs[label].site, health.generation
        payload = kind(endpoint=label, site=site, reason=verdict.reason, generation=generation, **extra)
        self.out.append(Publish(payload, label, label))

    def answered(self, request: str, label: str, verdict: Verdict, live: int) -> None:
        """Publish the answer to an operator's request with the resulting state."""
        payload = events.RequestAnswered(
            request=request, endpoint=label, site=self._specs[label].site, state=verdict.state, reason=verdict.reason,
            in_flight=live,
        )  # fmt: skip
        self.out.append(Publish(payload, label, label))

    def reviving(self, label: str, generation: int, reason: str, delay: float) -> None:
        """Publish the planned revival of an endpoint."""
        payload = events.EndpointReviving(
            endpoint=label, site=self._specs[label].site, reason=reason, generation=generation, delay=delay
        )
        self.out.append(Publish(payload, label, label))
