"""The failure handler: delivers an error to the user, or reroutes the task for another attempt."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import partial

from diaspora_parsl.core.actions import Action, Discard, Reject
from diaspora_parsl.core.attribution.node_second_opinions import NodeSecondOpinions
from diaspora_parsl.core.attribution.second_opinions import SecondOpinions
from diaspora_parsl.core.failures import ALL_RETRIES, Attribution, Failure, FailureAction, Kind
from diaspora_parsl.core.health.assessor import HealthAssessor
from diaspora_parsl.core.history import History
from diaspora_parsl.core.placement.hedging import SLOT_HOLD_SECONDS
from diaspora_parsl.core.placement.retry_budget import PacedRequeue, RetryBudget
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.core.stimuli import Orphaned
from diaspora_parsl.core.tasks import Attempt, AttemptState, Task, TaskState
from diaspora_parsl.core.timers import Deadlines
from diaspora_parsl.errors import PoisonTaskError, PoolError


class FailureHandler(ABC):
    """The part of `PoolCore` that handles failed attempts."""

    settings: PoolSettings
    assessor: HealthAssessor
    scheduler: Scheduler
    second_opinions: SecondOpinions
    node_second_opinions: NodeSecondOpinions
    budget: RetryBudget
    paced_requeue: PacedRequeue
    now: float
    failed: int
    rerouted: int
    attempts: dict[int, Attempt]
    _history: History
    _deadlines: Deadlines
    _stopped: bool
    _out: list[Action]

    @abstractmethod
    def _settle(self, task: Task) -> None: ...

    @abstractmethod
    def _queue(self, task: Task) -> None: ...

    @abstractmethod
    def _may_quarantine(self, label: str, function: str) -> bool: ...

    @abstractmethod
    def _vacate(self, label: str, attempts: list[int]) -> None: ...

    @abstractmethod
    def _update_health(self, label: str) -> None: ...

    def _handle_failure(self, attempt: Attempt, failure: Failure, node: str, *, worked: bool) -> None:
        """Deliver an error that may be the task's own, or request a second opinion."""
        task, label = attempt.task, attempt.endpoint
        was_wanted = attempt is task.bound or attempt is task.hedge
        if was_wanted:
            task.drop_attempt(attempt)
        if failure.costs_worker:
            self._count_kill(task, label)
            if task.kills >= self.settings.max_kills and task.bound is None:
                self._out.append(Discard(attempt.id))
                self._give_up_if_poison(task, str(failure))
                return
        if task.bound is not None and failure.then is not FailureAction.FAIL:
            # The other attempt is the second opinion.
            self.second_opinions.note(attempt, failure, self.now, worked=worked)
            self._out.append(Discard(attempt.id))
            self._reroute(attempt, str(failure))
            return
        if not (was_wanted and self._ask_nodes(attempt, failure, node, worked=worked)):
            self._ask_second_opinions(attempt, failure, worked=worked)

    def _ask_nodes(self, attempt: Attempt, failure: Failure, node: str, *, worked: bool) -> bool:
        """Return whether nodes of the endpoint agree on the error, or another node runs the task."""
        if self.second_opinions.first(attempt.task) is not None:
            return False  # another endpoint runs the task already
        opinion = self.node_second_opinions.handle_failure(attempt, failure, node)
        if opinion is None:
            return False
        self.second_opinions.note(attempt, failure, self.now, worked=worked)
        if isinstance(opinion, Attribution):
            self._deliver(attempt, failure, opinion)
        return True

    def _ask_second_opinions(self, attempt: Attempt, failure: Failure, *, worked: bool) -> None:
        """Deliver the error, or run the task at another endpoint."""
        task, label = attempt.task, attempt.endpoint
        kept = self.second_opinions.first(task)
        answer = self.second_opinions.ask(attempt, failure, self.now, worked=worked)
        if isinstance(answer, Attribution):
            health = self.assessor.health[label]
            if answer.cost == ALL_RETRIES and failure.raised and attempt.generation == health.generation:
                self.assessor.record_result(label, self.now)
            self._deliver(attempt, failure, answer)
            return
        if kept is not None or self._is_handed_over(task):
            self._out.append(Discard(attempt.id))
        breaker = self.assessor.health[label].breaker
        if breaker.probe == attempt.id:
            may_open = partial(self._may_quarantine, label, task.function)
            breaker.failed(self.now, task.function, attempt.id, may_open=may_open)
        for until in {
            math.ceil(self.now + s) for s in (self.settings.avoid_time, self.settings.second_opinion_timeout)
        }:
            self._deadlines.at(until, ("opinions", until), self._review_opinions)
        self._reroute(attempt, answer)
        self.scheduler.fill_idle(self.now)

    def _is_handed_over(self, task: Task) -> bool:
        """Move the first error of a task from `NodeSecondOpinions` to its opinion; False without one."""
        opinion, first = task.opinion, self.node_second_opinions.hand_over(task)
        if first is None or opinion is None:
            return False
        opinion.kept, opinion.failure = first
        return True

    def _close_opinion(self, task: Task) -> None:
        """Drop what is kept for the second opinion on a settled task."""
        if (opinion := task.opinion) is not None:
            if opinion.kept is not None:
                self._out.append(Discard(opinion.kept.id))
            for label in self.second_opinions.close(task):
                if not self._stopped:
                    self.scheduler.fill(label, self.now)
        if self.node_second_opinions.pending or self.node_second_opinions.refusals:
            self.node_second_opinions.settled(task)

    def _refute(self, attempt: Attempt) -> None:
        """Blame the endpoints that failed a task for its failure, as it succeeded here."""
        task, seen = attempt.task, attempt.task.opinion
        lacks_memory = seen is not None and seen.need is not None
        for label, until in self.second_opinions.refuted(task, attempt.endpoint, self.now):
            if until > self.now:  # otherwise the evidence does not suffice yet
                self._deadlines.at(until, ("opinions", until), self._review_opinions)
            if not lacks_memory:
                may_open = partial(self._may_quarantine, label, task.function)
                self.assessor.health[label].breaker.failed(self.now, task.function, 0, may_open=may_open)
                self._update_health(label)
        self.scheduler.fill_idle(self.now)

    def _review_opinions(self) -> None:
        """Deliver the first errors of tasks that no other endpoint can verify, and drop expired evidence."""
        for task in list(self.second_opinions.open.values()):
            if task.state is TaskState.WAITING:
                self._deliver_if_unverifiable(task)
        self.second_opinions.expire(self.now)
        self.scheduler.fill_idle(self.now)

    def _deliver_if_unverifiable(self, task: Task) -> bool:
        """Deliver the first error of a task if no other endpoint can verify it."""
        first = self.second_opinions.first(task)
        if first is None or not self.second_opinions.is_unverifiable(task, self.now):
            return False
        self._deliver(*first, Attribution(first[1].kind, float(first[1].charge), "no other endpoint can verify it now"))
        return True

    def _reroute(self, attempt: Attempt, reason: str) -> None:
        """Queue the task of a lost attempt again, unless another attempt runs."""
        task, other = attempt.task, attempt.task.bound
        self.rerouted += 1
        if other is not None:
            self._history.rerouted(attempt, f"{reason}; attempt {other.id} at {other.endpoint} goes on")
            return
        delay = self.budget.delay(self.now)
        paced = f"; the retry budget is empty: paced for {delay:.1f} s" if delay else ""
        self._history.rerouted(attempt, f"{reason}{paced}")
        if task.opinion is not None and self._deliver_if_unverifiable(task):
            return
        if not delay:
            self._queue(task)
            return
        task.move(TaskState.WAITING)
        task.waiting_since = self.now
        self.paced_requeue.keep(task, delay)

    def _on_orphaned(self, s: Orphaned) -> None:
        """Reroute the task now; its slot stays occupied until the executor replaces the worker."""
        attempt = self.attempts.get(s.attempt)
        if attempt is None or attempt.state is not AttemptState.BOUND or s.failure.then is FailureAction.FAIL:
            return
        label, task = attempt.endpoint, attempt.task
        self.scheduler.superseded(attempt)
        self.scheduler.loads[label].record_failure(task.function)
        self._deadlines.at(
            self.now + SLOT_HOLD_SECONDS, ("vacate", attempt.id), lambda: self._vacate(label, [attempt.id])
        )
        task.drop_attempt(attempt)
        task.avoid(label)
        self._count_kill(task, label)
        if not self._give_up_if_poison(task, str(s.failure)):
            self._reroute(attempt, f"{s.failure.kind}: {s.failure}")
        self._update_health(label)

    def _give_up_if_poison(self, task: Task, last: str) -> bool:
        """Fail a task that killed too many workers or used all attempts; return whether it was failed."""
        s = self.settings
        if task.bound is not None:
            return False  # its other attempt may succeed
        if task.kills < s.max_kills and task.attempts < s.max_attempts:
            return False
        killed_at, lost_at = task.killed_at or [], sorted(task.avoided or ())
        what = f"{task.kills} workers died while they ran it" if task.kills >= s.max_kills else (
            f"{task.attempts} attempts of it were lost")  # fmt: skip
        places = tuple(dict.fromkeys(killed_at if task.kills >= s.max_kills else lost_at))
        text = f"task {task.id} ({task.function}) is given up: {what}, at {', '.join(places)}. The last: {last}"
        error = PoisonTaskError(text, function=task.function, places=places, kills=task.kills)
        self._give_up(task, Kind.POISON, error)
        return True

    @staticmethod
    def _count_kill(task: Task, label: str) -> None:
        task.kills += 1
        task.killed_at = [*(task.killed_at or ()), label]

    # --- how a task fails -----------------------------------------------------------------------------------------

    def _deliver(self, attempt: Attempt, failure: Failure, attribution: Attribution) -> None:
        """Fail the task with the attempt's own exception."""
        task = attempt.task
        self.failed += 1
        self._out.append(Reject(task.id, attempt.id, None, attribution))
        self._history.failed(task, attribution.kind, failure.error, failure.message, attempt, attribution.reason)
        if task.opinion is not None and task.opinion.kept is attempt:
            task.opinion.kept = None
        self._settle(task)

    def _give_up(self, task: Task, kind: Kind, verdict: PoolError) -> None:
        """Fail the task with an error of the pool, or with its own first error if that was not refuted."""
        first = self.second_opinions.first(task)
        if first is not None and task.kills < self.settings.max_kills:
            self._deliver(*first, Attribution(first[1].kind, float(first[1].charge), f"no second opinion: {verdict}"))
            return
        if self.node_second_opinions.pending and self.node_second_opinions.deliver_pending(task):
            return
        self.failed += 1
        self._out.append(Reject(task.id, None, verdict, Attribution(kind, ALL_RETRIES)))
        self._history.failed(task, kind, type(verdict).__name__, str(verdict), None)
        self._settle(task)
