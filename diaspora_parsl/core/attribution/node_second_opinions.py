"""What the core does about nodes: second opinions inside an endpoint, what attempts must avoid, who is sent away."""

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

#: So often a task is refused while its second opinion is awaited, then its first exception is believed.
_MOST_REFUSALS: Final = 40
#: A task that was refused as often, whatever for, is sent so that every node takes it.
_ALL_KNOWN: Final = 2**62


class PendingVerification:
    """A task whose exception is not believed yet."""

    __slots__ = ("failure", "first", "is_delivered", "is_handed_over", "refusals", "seen", "since")

    def __init__(self, first: Attempt, failure: Failure, since: float) -> None:
        #: The attempt that raised first: the shell keeps its outcome until the task is settled.
        self.first = first
        self.failure = failure
        self.since = since
        self.seen: tuple[Sighting, ...] = ()
        self.refusals = 0
        self.is_delivered = False
        #: The judge keeps the first exception now, and asks other endpoints.
        self.is_handed_over = False


class CoreState(Protocol):
    """What the handling of nodes reads of the core."""

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
    """Looks after the nodes of all endpoints, for a core.

    Args:
        core: whose; its tasks, its clock and its scheduler are used.
        act: takes actions.
        reroute: puts the task of an attempt back into the line, with a reason.
        deliver: settles a task with the exception of an attempt.
        plan: plans a call for a time, under a key.
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
        #: By task.
        self.pending: dict[int, PendingVerification] = {}
        #: How often nodes refused a task that is open.
        self.refusals: dict[int, int] = {}
        self._core = core
        self._act = act
        self._reroute = reroute
        self._deliver = deliver
        self._plan = plan

    # --- attempts that go -----------------------------------------------------------------------------------------

    def dispatch(self, attempt: Attempt) -> actions.Dispatch:
        """The order to send an attempt, with what it must avoid."""
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

    # --- attempts that come back ----------------------------------------------------------------------------------

    def finished(self, attempt: Attempt, node: str) -> None:
        """A wanted attempt succeeded on a node, or at an endpoint of which no nodes are known (empty)."""
        task, label = attempt.task, attempt.endpoint
        if node:
            for change in self.outliers.node_succeeded(label, node, task.function):
                self._publish_change(change)
        pending = self.pending.get(task.id)
        for seen in pending.seen if pending is not None else ():
            if (seen.endpoint, seen.node) == (label, node):
                continue  # it is the same place: whatever that means, it is nothing against it
            for change in self.outliers.proven(seen.endpoint, seen.node, task.function, task.id, self._core.now):
                self._publish_change(change)

    def handle_failure(self, attempt: Attempt, failure: Failure, node: str) -> str | Attribution | None:
        """A wanted attempt raised on a node.

        Returns:
            Why its task went back into the line, the exception being kept; or that it is the task's own; or None if
            the nodes of this endpoint cannot tell.
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
        """The first exception of a task, if one is kept here: from now on somebody else keeps it."""
        pending = self.pending.get(task.id)
        if pending is None or pending.is_handed_over:
            return None
        pending.is_handed_over = True
        return pending.first, pending.failure

    def bounced(self, s: stimuli.Bounced) -> None:
        """A node refused an attempt: its task goes back into the line, as if it had not been sent."""
        core = self._core
        attempt = core.attempts.pop(s.attempt, None)
        self._act(actions.Discard(s.attempt))  # there is no outcome; every report is answered once
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
                self._reroute(attempt, f"{s.node.partition(' ')[0]} refused it, as it was told")
        core.scheduler.fill(label, core.now)

    # --- doubts ---------------------------------------------------------------------------------------------------

    def deliver_pending(self, task: Task) -> bool:
        """A task is to be given up: whether its first exception, which nobody refuted, was delivered instead."""
        pending = self.pending.get(task.id)
        if pending is None or task.kills >= self._core.settings.max_kills:
            return False
        self._deliver_first(pending)
        return True

    def _deliver_first(self, pending: PendingVerification) -> None:
        pending.is_delivered = True
        charge = float(pending.failure.charge)
        self._deliver(
            pending.first, pending.failure, Attribution(pending.failure.kind, charge, "no other node could be asked")
        )

    def settled(self, task: Task) -> None:
        """A task is decided: nothing is held against nodes for it any more, unless it was proven."""
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
        """Believe what has waited too long for a second opinion."""
        core = self._core
        for number, pending in list(self.pending.items()):
            task = core.tasks.get(number)
            if task is not None and task.state is TaskState.WAITING and not pending.is_handed_over:
                if self._is_over(task, pending):
                    self._deliver_first(pending)
                else:
                    self._watch(max(core.now + 1.0, pending.since + core.settings.second_opinion_wait))

    def _is_over(self, task: Task, pending: PendingVerification) -> bool:
        """Nothing but places where it failed is there, and others have not come in time."""
        late = self._core.now >= pending.since + self._core.settings.second_opinion_wait
        return not self._has_other(task, pending.seen, expected=not late)

    def _has_other(self, task: Task, seen: tuple[Sighting, ...], *, expected: bool = True) -> bool:
        """A place is left where the task has not failed; ``expected``: one that has not come yet counts."""
        tried = {one.endpoint for one in seen}
        if any(other not in tried and other in self._core.scheduler.open for other in task.eligible):
            return True
        return any(self.outliers.has_other(label, self._failed_at(label, seen), expected=expected) for label in tried)

    def _failed_at(self, label: str, seen: Iterable[Sighting]) -> list[str]:
        nodes = (self.outliers.find(label, one.node) for one in seen if one.endpoint == label)
        return [name for node in nodes if node is not None for name in self.outliers.names_of(node)]

    def _avoid(self, task: Task, label: str) -> None:
        """Let it wait for another endpoint, for a while."""
        core = self._core
        until = math.ceil(core.now + core.settings.avoid_time)
        task.avoid(label, until)
        self._plan(until, ("avoid", until), lambda: core.scheduler.fill_idle(core.now))

    # --- nodes ----------------------------------------------------------------------------------------------------

    def connected(self, s: stimuli.Nodes) -> None:
        """Managers came or went."""
        if s.generation == self._core.assessor.health[s.endpoint].generation:
            self.outliers.connected(s.endpoint, s.managers, self._core.now, more=s.more)

    def _publish_change(self, change: Change) -> None:
        node, core = change.node, self._core
        label = node.endpoint
        kind = events.NodeQuarantined if change.out else events.NodeRestored
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
        if change.out and not change.function and not node.inherited:
            # Sent away once: a node that comes back with the same name is held off by the gate alone.
            generation = core.assessor.health[label].generation
            self._act(actions.Evict(label, generation, node.manager, node.block))


#: Places asked about one task at most.
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
    """Why the task should run once more, at a place where it has not failed; empty if its exception is believed.

    Args:
        failure: of the attempt that just ended, the last of the sightings.
        sightings: where it raised so far, oldest first.
        idempotent: running it twice does no harm.
        has_other: there is, or will soon be, a place where it has not failed.
        elsewhere: the function has never worked at this endpoint, and another one is open: what its nodes agree on may
            be the fault of all of them.
        may_repeat: the budget for extra attempts is not empty.
    """
    if not idempotent or not has_other or not may_repeat or len(sightings) >= MOST_PLACES:
        return ""
    last = sightings[-1]
    same = [one for one in sightings[:-1] if one.error == last.error and one.node != last.node]
    if any(one.endpoint != last.endpoint for one in same) or (same and not elsewhere):
        return ""  # the same from two places: it is the task's own
    return f"second opinion: {failure.error} on {last.node.partition(' ')[0]}, which may be the node's fault"
