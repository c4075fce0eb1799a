"""The scheduler: chooses an endpoint for each waiting task, and keeps the attempts that each endpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from msgspec.structs import replace

from diaspora_parsl.core.health.assessor import HealthAssessor, State, Verdict
from diaspora_parsl.core.placement.environments import Environments
from diaspora_parsl.core.placement.load import Load, RelativeSpeed
from diaspora_parsl.core.placement.queues import Backlog
from diaspora_parsl.core.placement.walltime_fit import WalltimeFit
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.core.tasks import Attempt, AttemptState, Task, TaskQueue, TaskState

#: Number of idle endpoints compared for one task (see "power of d choices").
_COMPARED = 32
#: Number of busy endpoints checked for room when no slot is idle.
_ASKED = 4
#: Number of waiting tasks checked behind one that prefers another endpoint.
MAX_PASSED = 16


class FunctionEvidence(Protocol):
    """Evidence about functions that fail at an endpoint, as the scheduler reads it."""

    @property
    def records(self) -> Mapping[tuple[str, str], object]:
        """Evidence by endpoint label and function; empty while nothing failed."""
        ...

    def avoids(self, task: Task, label: str, at: float) -> bool:
        """Whether the function of the task should run elsewhere, because it fails at this endpoint."""
        ...

    def bars(self, task: Task, label: str, at: float) -> bool:
        """Whether the task must not run at this endpoint while a second opinion is pending."""
        ...


class Scheduler:
    """Binds tasks late: an endpoint holds only what it can start soon, and all other tasks wait here.

    Args:
        specs: Endpoints by label.
        settings: Settings of the pool.
        assessor: Health assessor with the breakers and generations.
        dispatched: Called with each new attempt and the reason for its endpoint.
        second_opinions: Evidence about functions that fail at an endpoint.
    """

    def __init__(
        self,
        specs: dict[str, EndpointSpec],
        settings: PoolSettings,
        assessor: HealthAssessor,
        dispatched: Callable[[Attempt, str], None],
        second_opinions: FunctionEvidence,
    ) -> None:
        self.loads = {label: Load(spec.prefetch_seconds or settings.prefetch_seconds) for label, spec in specs.items()}
        self.backlog = Backlog(list(specs))
        self.held: dict[str, dict[int, Attempt]] = {label: {} for label in specs}
        #: Superseded attempts without a slot that may still report.
        self._unreported: dict[str, dict[int, Attempt]] = {label: {} for label in specs}
        self.live = dict.fromkeys(specs, 0)
        #: Endpoints that accept attempts.
        self.open: set[str] = set()
        self.verdicts = dict.fromkeys(specs, Verdict(State.STARTING, "being started"))
        self.relative_speed = RelativeSpeed()
        self.environments = Environments(self.loads)
        self.walltime_fit = WalltimeFit(self.loads, self.relative_speed, settings.prefetch_seconds)
        self.second_opinions = second_opinions
        self._assessor = assessor
        self._dispatched = dispatched
        #: An ordered set, so that a log of stimuli replays to the same actions.
        self._idle: dict[str, None] = {}
        self._asked = list(specs)
        self._next_attempt = 1

    # --- attempts of endpoints ------------------------------------------------------------------------------------

    def apply_verdict(self, label: str, verdict: Verdict, slots: int) -> None:
        """Apply a verdict and a number of slots to an endpoint."""
        self.verdicts[label] = verdict
        self.loads[label].slots = slots
        if verdict.accepts:
            self.open.add(label)
        else:
            self.open.discard(label)
        self._note_idle(label)

    def attempt_ended(self, attempt: Attempt, *, succeeded_at: float | None = None, refused: bool = False) -> None:
        """Learn from an attempt that ended or was refused, and free its slot."""
        label, load, function = attempt.endpoint, self.loads[attempt.endpoint], attempt.task.function
        if attempt.state is AttemptState.BOUND:
            self.live[label] -= 1
            if succeeded_at is None:
                if not refused:
                    load.record_failure(function)
            else:
                service = load.record_success(function, succeeded_at, attempt.dispatched_at, queued=attempt.queued)
                self.relative_speed.learn(load, function, service)
        attempt.move(AttemptState.ENDED)
        if self._unreported[label]:
            self._unreported[label].pop(attempt.id, None)
        self.vacate(label, (attempt.id,))

    def superseded(self, attempt: Attempt) -> None:
        """Mark an attempt whose outcome is no longer needed; it occupies its slot until it ends."""
        attempt.move(AttemptState.SUPERSEDED)
        self.live[attempt.endpoint] -= 1
        self._assessor.health[attempt.endpoint].breaker.probe_ended(attempt.id)
        if attempt.task.given_up is None:
            attempt.task.given_up = []
        attempt.task.given_up.append(attempt)

    def vacate(self, label: str, attempts: Iterable[int]) -> None:
        """Free the slots of these attempts."""
        held, load = self.held[label], self.loads[label]
        for number in attempts:
            attempt = held.pop(number, None)
            if attempt is not None:
                load.release(attempt.work)
                if attempt.state is not AttemptState.ENDED:
                    self._unreported[label][number] = attempt
        self._note_idle(label)

    def emptied(self, label: str) -> None:
        """Free all slots of a dead endpoint, whose attempts are superseded."""
        self._unreported[label].update(self.held[label])
        self.held[label].clear()
        self.loads[label].reset()
        self._note_idle(label)

    def fenced(self, label: str) -> list[Attempt]:
        """Return, once, the attempts of the old generation that never reported."""
        found = list(self._unreported[label].values())
        self._unreported[label].clear()
        return found

    def bound(self, label: str) -> list[Attempt]:
        """Return the wanted attempts of an endpoint."""
        return [a for a in self.held[label].values() if a.state is AttemptState.BOUND]

    # --- placement ------------------------------------------------------------------------------------------------

    def place(self, queue: TaskQueue, task: Task, at: float) -> None:
        """Offer a task that was added to this queue to the best endpoint."""
        best: str | None = None
        best_score = float("inf")
        for count, label in enumerate(self._idle):
            if label in queue.eligible and self.may_serve(label, queue) and not self.declines(label, task, at):
                score = self.loads[label].score() + (0.0 if label in self.open else 100.0)
                if score < best_score:
                    best, best_score = label, score
            if count >= _COMPARED and best is not None:
                break
        if best is not None:
            self.fill(best, at)
        elif queue.length == 1:
            for _ in range(min(_ASKED, len(self._asked))):
                label = self._asked.pop(0)
                self._asked.append(label)
                if label in queue.eligible and label in self.open and self.loads[label].has_room(task.function):
                    self.fill(label, at)
                    return

    def fill_idle(self, at: float) -> None:
        """Fill every idle endpoint after a change of the filters."""
        for label in list(self._idle):
            self.fill(label, at)

    def fill(self, label: str, at: float) -> None:
        """Dispatch waiting tasks to an endpoint while it has room."""
        load = self.loads[label]
        passed: list[tuple[TaskQueue, Task]] = []
        while len(passed) < MAX_PASSED:
            queue = self._next_queue(label, at)
            head = queue.head() if queue is not None else None
            if queue is None or head is None:
                break
            # Prefetch only where the endpoint is up.
            if not (load.has_room(head[2].function) if label in self.open else load.has_idle_slot()):
                break
            task = queue.pop()
            if self.second_opinions.records and queue.function is None and self.second_opinions.avoids(task, label, at):
                self.backlog.queue(queue.eligible, task.function).push(task)
            elif self.declines(label, task, at):
                passed.append((queue, task))
            else:
                self._dispatch(task, label, at)
        for queue, task in passed:
            queue.push(task)
        self._note_idle(label)

    def may_serve(self, label: str, queue: TaskQueue) -> bool:
        """Whether the endpoint's verdict lets it serve this queue; a last resort only if no other is open."""
        verdict = self.verdicts[label]
        return verdict.accepts or verdict.probe or (verdict.last_resort and queue.eligible.isdisjoint(self.open))

    def declines(self, label: str, task: Task, at: float) -> bool:
        """Whether this task prefers to wait for another endpoint."""
        second_opinions = self.second_opinions
        if (
            (self.walltime_fit.limits and self.walltime_fit.ends_too_late(label, task, at, self.open) is not None)
            or (
                task.imports
                and self.environments.known
                and self.environments.prefers_elsewhere(label, task, at, self.open)
            )
            or (task.opinion is not None and second_opinions.bars(task, label, at))
            or (second_opinions.records and second_opinions.avoids(task, label, at))
        ):
            return True
        if task.avoided is None or label not in task.avoided:
            return False
        refused = task.refused_by
        if refused is not None and label in refused:
            return any(other not in refused and self.may_recover(other, at) for other in task.eligible)
        return at < task.avoid_until and any(o in self.open and o not in task.avoided for o in task.eligible)

    def may_recover(self, label: str, at: float) -> bool:
        """Whether tasks may wait for this endpoint."""
        return self._assessor.may_recover(label, self.verdicts[label].state, at)

    def _next_queue(self, label: str, at: float) -> TaskQueue | None:
        """Return the queue with the most urgent head that this endpoint may serve now."""
        best: TaskQueue | None = None
        best_key: tuple[float, int] | None = None
        for queue in self.backlog.of(label):
            if queue.length and self.may_serve(label, queue):
                head = queue.head()
                if head is not None and (best_key is None or head[:2] < best_key):
                    if queue.function is not None and self.second_opinions.avoids(head[2], label, at):
                        continue
                    best, best_key = queue, head[:2]
        return best

    def _dispatch(self, task: Task, label: str, at: float) -> None:
        attempt = self._bind(task, label, at)
        task.bound = attempt
        task.move(TaskState.RUNNING)
        self._dispatched(attempt, self._reason(attempt))
        verdict = self.verdicts[label]
        if verdict.probe:
            self.verdicts[label] = replace(verdict, probe=False)

    def hedge(self, task: Task, label: str, at: float, reason: str) -> None:
        """Dispatch a second attempt beside the running one."""
        attempt = task.hedge = self._bind(task, label, at)
        self._note_idle(label)
        self._dispatched(attempt, reason)

    def _bind(self, task: Task, label: str, at: float) -> Attempt:
        health, load = self._assessor.health[label], self.loads[label]
        number = self._next_attempt
        self._next_attempt += 1
        queued = not load.has_idle_slot()
        attempt = Attempt(number, task, label, health.generation, at, load.bind(task.function), queued=queued)
        task.attempts += 1
        self.held[label][number] = attempt
        self.live[label] += 1
        health.breaker.dispatched(at, number)
        return attempt

    def _reason(self, attempt: Attempt) -> str:
        label, avoid = attempt.endpoint, attempt.task.avoided
        verdict, load = self.verdicts[label], self.loads[label]
        if verdict.probe:
            return f"probe: {verdict.reason}"
        if not verdict.accepts:
            return f"last resort, nothing better is up: {verdict.reason}"
        if attempt.queued:
            return f"prefetch: {load.in_flight - load.slots} beyond {load.slots} slots"
        if self.environments.lacks(label, attempt.task):
            return f"trial, though {self.environments.missing(label, attempt.task)} seems to be missing there"
        again = f", after {', '.join(sorted(avoid))}" if avoid else ""
        return f"idle slot, relative service time {load.relative_speed:.2f}{again}"

    @property
    def idle(self) -> list[str]:
        """Endpoints that may get attempts and have an idle slot."""
        return list(self._idle)

    def _note_idle(self, label: str) -> None:
        verdict = self.verdicts[label]
        if (verdict.accepts or verdict.probe or verdict.last_resort) and self.loads[label].has_idle_slot():
            self._idle[label] = None
        else:
            self._idle.pop(label, None)
