"""Second opinions of other nodes inside an endpoint; which nodes attempts must avoid, and which are evicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from msgspec import Struct

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failures import ALL_RETRIES, Attribution, Failure, FailureAction, Kind
from diaspora_parsl.core.health.assessor import HealthAssessor
from diaspora_parsl.core.health.node_outliers import Change, NodeOutlierDetector
from diaspora_parsl.core.placement.hedging import Hedger
from diaspora_parsl.core.placement.retry_budget import RetryBudget
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.core.tasks import Attempt, Task, TaskState

#: Number of refusals of a task after which its first exception is delivered without a second opinion.
_MOST_REFUSALS: Final = 40
#: `Dispatch.known` with which every node runs a task that was refused more often.
_ALL_KNOWN: Final = 2**62


class PendingVerification:
    """A task whose first exception is not verified yet."""

    __slots__ = ("failure", "first", "is_delivered", "is_handed_over", "refusals", "seen", "since")

    def __init__(self, first: Attempt, failure: Failure, since: float) -> None:
        #: The attempt that raised first; the shell keeps its outcome until the task is settled.
        self.first = first
        self.failure = failure
        self.since = since
        self.seen: tuple[Sighting, ...] = ()
        self.refusals = 0
        self.is_delivered = False
        #: Whether the task's `Opinion` keeps the first exception, for other endpoints to verify.
        self.is_handed_over = False


class CoreState(Protocol):
    """The parts of the core that `NodeSecondOpinions` reads."""

    now: float
    settings: PoolSettings
    specs: dict[str, EndpointSpec]
    tasks: dict[int, Task]
    attempts: dict[int, Attempt]
    assessor: HealthAssessor
    scheduler: Scheduler
    hedger: Hedger
    budget: RetryBudget


class NodeSecondOpinions:
    """Handles the failures and refusals of nodes.

    Args:
        core: The core, whose tasks, clock and scheduler are used.
        act: Emits an action.
        reroute: Queues the task of an attempt again, with a reason.
        deliver: Fails a task with the exception of an attempt.
        plan: Plans a call at a time, under a key.
    """

    def __init__(
        self,
        core: CoreState,
        act: Callable[[actions.Action], None],
        *,
        reroute: Callable[[Attempt, str], None],
        deliver: Callable[[Attempt, Failure, Attribution], None],
        plan: Callable[[float, Any, Callable[[], None]], None],
    ) -> None:
        self.outliers = NodeOutlierDetector(core.specs)
        #: Unverified first exceptions by task.
        self.pending: dict[int, PendingVerification] = {}
        #: Number of refusals per open task.
        self.refusals: dict[int, int] = {}
        self._core = core
        self._act = act
        self._reroute = reroute
        self._deliver = deliver
        self._plan = plan

    # --- dispatch -------------------------------------------------------------------------------------------------

    def dispatch(self, attempt: Attempt) -> actions.Dispatch:
        """Return the action that sends an attempt, with the nodes that it must avoid."""
        task, label = attempt.task, attempt.endpoint
        known = self.outliers.known(label)
        if self.refusals and self.refusals.get(task.id, 0) > _MOST_REFUSALS:
            return actions.Dispatch(task.id, attempt.id, label, attempt.generation, (), _ALL_KNOWN)
        if not known:
            return actions.Dispatch(task.id, attempt.id, label, attempt.generation)
        avoid = self.outliers.avoid(label, task.function, self._core.now)
        pending = self.pending.get(task.id)
        if pending is not None:
            avoid = tuple(dict.fromkeys((*avoid, *self._failed_at(label, pending.seen))))
        return actions.Dispatch(task.id, attempt.id, label, attempt.generation, avoid, known)

    # --- outcomes -------------------------------------------------------------------------------------------------

    def finished(self, attempt: Attempt, node: str) -> None:
        """Record the success of a wanted attempt; ``node`` is empty if the endpoint reports none."""
        task, label = attempt.task, attempt.endpoint
        if node:
            for change in self.outliers.node_succeeded(label, node, task.function):
                self._publish_change(change)
        pending = self.pending.get(task.id)
        for seen in pending.seen if pending is not None else ():
            if (seen.endpoint, seen.node) == (label, node):
                continue  # the same node is no second opinion
            for change in self.outliers.proven(seen.endpoint, seen.node, task.function, task.id, self._core.now):
                self._publish_change(change)

    def handle_failure(self, attempt: Attempt, failure: Failure, node: str) -> str | Attribution | None:
        """Request a second opinion on the exception of a wanted attempt.

        Returns:
            The reason of the rerouting, while the exception is kept; or the attribution to the task; or None if the
            nodes of this endpoint cannot decide.
        """
        if not node or failure.then is not FailureAction.ELSEWHERE or not failure.raised:
            return None
        core, task, label = self._core, attempt.task, attempt.endpoint
        self.outliers.node(label, node)
        pending = self.pending.get(task.id)
        seen = (*(pending.seen if pending is not None else ()), Sighting(label, node, failure.error))
        tried = {one.endpoint for one in seen}
        elsewhere = not self.outliers.works(label, task.function) and any(
            other not in tried and other in core.scheduler.open for other in task.eligible
        )
        reason = second_run(
            failure,
            seen,
            idempotent=task.idempotent,
            elsewhere=elsewhere,
            has_other=task.attempts < core.settings.max_attempts and self._has_other(task, seen),
            may_repeat=core.settings.second_opinion and core.budget.may_repeat(core.now),
        )
        for change in self.outliers.failed(
            label, node, task.function, task.id, attempt.id, core.now, awaited=bool(reason)
        ):  # fmt: skip
            self._publish_change(change)
        if not reason:
            same = [one.node for one in seen[:-1] if one.error == failure.error and one.node != node]
            if not same:
                return None
            first, last = (name.partition(" ")[0] for name in (same[0], node))
            return Attribution(Kind.USER, ALL_RETRIES, f"{failure.error} came from {first} and from {last}")
        if pending is None:
            pending = self.pending[task.id] = PendingVerification(attempt, failure, core.now)
            self._watch(core.now + core.settings.second_opinion_wait)
        else:
            self._act(actions.Discard(attempt.id))
        pending.seen = seen
        if elsewhere or not self.outliers.has_other(label, self._failed_at(label, seen), expected=False):
            self._avoid(task, label)
        self._reroute(attempt, reason)
        return reason

    def hand_over(self, task: Task) -> tuple[Attempt, Failure] | None:
        """Return the kept first exception of a task, if any; the caller keeps it from now on."""
        pending = self.pending.get(task.id)
        if pending is None or pending.is_handed_over:
            return None
        pending.is_handed_over = True
        return pending.first, pending.failure

    def bounced(self, s: stimuli.Bounced) -> None:
        """Queue the task of a refused attempt again, as if it had not been sent."""
        core = self._core
        attempt = core.attempts.pop(s.attempt, None)
        self._act(actions.Discard(s.attempt))
        if attempt is None:
            return
        label, task = attempt.endpoint, attempt.task
        self.outliers.node(label, s.node)
        if task.state is not TaskState.SETTLED:
            self.refusals[task.id] = self.refusals.get(task.id, 0) + 1
        was_wanted = attempt is task.bound or attempt is task.hedge
        core.scheduler.attempt_ended(attempt, refused=True)
        core.hedger.observe_end(attempt, s.at, succeeded=False)
        core.assessor.health[label].breaker.probe_ended(attempt.id)
        if was_wanted and task.state is not TaskState.SETTLED:
            task.attempts -= 1
            task.drop_attempt(attempt)
            pending = self.pending.get(task.id)
            if pending is not None:
                pending.refusals += 1
            if (
                pending is not None
                and task.bound is None
                and (pending.refusals > _MOST_REFUSALS or (not pending.is_handed_over and self._is_over(task, pending)))
            ):
                self._deliver_first(pending)
            else:
                self._reroute(attempt, f"{s.node.partition(' ')[0]} refused an attempt that must avoid it")
        core.scheduler.fill(label, core.now)

    # --- pending verifications ------------------------------------------------------------------------------------

    def deliver_pending(self, task: Task) -> bool:
        """Deliver the first exception of a task that is given up; return False without one."""
        pending = self.pending.get(task.id)
        if pending is None or task.kills >= self._core.settings.max_kills:
            return False
        self._deliver_first(pending)
        return True

    def _deliver_first(self, pending: PendingVerification) -> None:
        pending.is_delivered = True
        charge = float(pending.failure.charge)
        self._deliver(
            pending.first, pending.failure, Attribution(pending.failure.kind, charge, "no other node could verify it")
        )

    def settled(self, task: Task) -> None:
        """Drop the evidence of a settled task, except failures that another place refuted."""
        self.refusals.pop(task.id, None)
        pending = self.pending.pop(task.id, None)
        if pending is None:
            return
        if not pending.is_delivered and not pending.is_handed_over:
            self._act(actions.Discard(pending.first.id))
        for seen in pending.seen:
            self.outliers.closed(seen.endpoint, seen.node, task.function, task.id)

    def _watch(self, at: float) -> None:
        at = math.ceil(at)  # whole seconds, so that many share one deadline
        self._plan(at, ("opinion", at), self._check_pending)

    def _check_pending(self) -> None:
        """Deliver the exceptions that have waited too long for a second opinion."""
        core = self._core
        for number, pending in list(self.pending.items()):
            task = core.tasks.get(number)
            if task is not None and task.state is TaskState.WAITING and not pending.is_handed_over:
                if self._is_over(task, pending):
                    self._deliver_first(pending)
                else:
                    self._watch(max(core.now + 1.0, pending.since + core.settings.second_opinion_wait))

    def _is_over(self, task: Task, pending: PendingVerification) -> bool:
        """Whether no other place is left, and none has come in time."""
        late = self._core.now >= pending.since + self._core.settings.second_opinion_wait
        return not self._has_other(task, pending.seen, expected=not late)

    def _has_other(self, task: Task, seen: tuple[Sighting, ...], *, expected: bool = True) -> bool:
        """Whether a place is left where the task has not failed; ``expected``: count expected managers."""
        tried = {one.endpoint for one in seen}
        if any(other not in tried and other in self._core.scheduler.open for other in task.eligible):
            return True
        return any(self.outliers.has_other(label, self._failed_at(label, seen), expected=expected) for label in tried)

    def _failed_at(self, label: str, seen: Iterable[Sighting]) -> list[str]:
        nodes = (self.outliers.find(label, one.node) for one in seen if one.endpoint == label)
        return [name for node in nodes if node is not None for name in self.outliers.names_of(node)]

    def _avoid(self, task: Task, label: str) -> None:
        """Prefer another endpoint for ``avoid_time`` seconds."""
        core = self._core
        until = math.ceil(core.now + core.settings.avoid_time)
        task.avoid(label, until)
        self._plan(until, ("avoid", until), lambda: core.scheduler.fill_idle(core.now))

    # --- nodes ----------------------------------------------------------------------------------------------------

    def connected(self, s: stimuli.Nodes) -> None:
        """Record the connected managers of an endpoint."""
        if s.generation == self._core.assessor.health[s.endpoint].generation:
            self.outliers.connected(s.endpoint, s.managers, self._core.now, more=s.more)

    def _publish_change(self, change: Change) -> None:
        node, core = change.node, self._core
        label = node.endpoint
        kind = events.NodeQuarantined if change.ejected else events.NodeRestored
        payload = kind(
            endpoint=label,
            site=core.specs[label].site,
            node=node.host,
            block=node.block,
            manager=node.manager,
            reason=change.reason,
            function=change.function,
        )
        self._act(actions.Publish(payload, label, label))
        if change.ejected and not change.function and not node.inherited:
            # Evict once: the node gate alone holds off a node that returns under the same name.
            generation = core.assessor.health[label].generation
            self._act(actions.Evict(label, generation, node.manager, node.block))


#: Upper bound of the places where one task may raise before its exception is delivered.
MOST_PLACES: Final = 3


class Sighting(Struct, frozen=True):
    """One place where a task raised."""

    endpoint: str
    node: str
    error: str


def second_run(
    failure: Failure,
    sightings: tuple[Sighting, ...],
    *,
    idempotent: bool,
    has_other: bool,
    elsewhere: bool = False,
    may_repeat: bool = True,
) -> str:
    """Return the reason to run the task at a place where it has not failed; empty to deliver its exception.

    Args:
        failure: Failure of the attempt that just ended, the last of the sightings.
        sightings: Places where the task raised, oldest first.
        idempotent: Whether the task may run twice.
        has_other: Whether a place where it has not failed is connected or expected.
        elsewhere: Whether the function never succeeded at this endpoint and another one is open, so that all nodes of
            the endpoint may be at fault.
        may_repeat: Whether the retry budget is not empty.
    """
    if not idempotent or not has_other or not may_repeat or len(sightings) >= MOST_PLACES:
        return ""
    last = sightings[-1]
    same = [one for one in sightings[:-1] if one.error == last.error and one.node != last.node]
    if any(one.endpoint != last.endpoint for one in same) or (same and not elsewhere):
        return ""  # two places agree
    return f"second opinion: {failure.error} on {last.node.partition(' ')[0]}, which may be the node's fault"
