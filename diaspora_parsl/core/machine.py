"""PoolCore: the pool as a pure state machine.

Theory of operation
-------------------
The shell (`executors/runtime/driver.py`) hands the core one *stimulus* at a time: a task was submitted, an attempt
ended, a heartbeat came, a timer is due. `PoolCore.handle` returns the *actions* that follow, in order: dispatch an
attempt, settle a task, publish an event, revive an endpoint, wake up later. The core has no clock, thread or wire: time
is an argument, tests run in virtual time, and a log of stimuli replays to the same actions.

1. ``Submitted`` puts a task into the queue of its eligible endpoints (`placement/queues.py`). Tasks are bound late: the
   scheduler fills an endpoint only with what its connected workers start soon.
2. Evidence (``Observed``, ``HeartbeatReceived``, ``Unanswered``, ``Died``, results) goes to `health/`. The assessor
   answers one verdict per endpoint; `_update_health` applies it: it takes attempts away, plans a revival, fills slots.
3. ``Finished`` resolves the task with the first result. A later result is counted and discarded.
4. ``Failed`` goes to `attribution/`. The core delivers an exception of the user's code unchanged, if necessary after a
   second opinion. It reroutes the task after a loss of infrastructure, within the retry budget, and charges no retry.
5. Every wait has a timer (`timers.py`). ``WakeAt`` asks the shell for a ``Tick`` when the next one is due.

=========  ============================================  ==========================================
task       moves to                                      when
=========  ============================================  ==========================================
NEW        WAITING                                       it is submitted
WAITING    RUNNING                                       an attempt is dispatched
RUNNING    WAITING                                       its last wanted attempt is lost or needs a second opinion
any        SETTLED                                       it is resolved or rejected, once
=========  ============================================  ==========================================

An attempt is BOUND until it ends, or until its endpoint is given up: then it is SUPERSEDED, and its result still counts
if it is the first. `invariants.validate` checks what must hold after each stimulus.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from diaspora_parsl.backoff import backoff_delay
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.actions import Action
from diaspora_parsl.core.attribution.failure_handler import FailureHandler
from diaspora_parsl.core.attribution.node_second_opinions import NodeSecondOpinions
from diaspora_parsl.core.attribution.second_opinions import SecondOpinions
from diaspora_parsl.core.failures import ALL_RETRIES, Attribution, Failure, FailureAction, Kind
from diaspora_parsl.core.health.assessor import HealthAssessor, State
from diaspora_parsl.core.history import UNPUBLISHED_STATES, History, Transition
from diaspora_parsl.core.placement.hedging import SLOT_HOLD_SECONDS, Hedger
from diaspora_parsl.core.placement.maintenance import MaintenancePlanner
from diaspora_parsl.core.placement.retry_budget import PacedRequeue, RetryBudget
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.placement.site_outages import SiteOutages
from diaspora_parsl.core.placement.starvation import Starvation
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.core.stimuli import Stimulus
from diaspora_parsl.core.tasks import Attempt, AttemptState, Task, TaskState
from diaspora_parsl.core.timers import Deadlines
from diaspora_parsl.errors import PoolError, PoolShutdownError

#: Number of settled attempts of fenced generations that are kept, so that late results are published.
_REMEMBERED = 10_000


class PoolCore(FailureHandler):
    """Decides; the shell acts.

    For every `Finished`, `Failed` and `Bounced` exactly one `Resolve`, `Reject` or `Discard` names the attempt, so that
    the shell can drop its outcome. It follows at once, or when the task is settled if the core keeps the first error
    while a second opinion is pending.

    Args:
        endpoints: Specifications of the endpoints, with unique labels.
        settings: Limits and time constants.
    """

    def __init__(self, endpoints: Sequence[EndpointSpec], settings: PoolSettings | None = None) -> None:
        self.settings = s = settings or PoolSettings()
        self.specs = {spec.label: spec for spec in endpoints}
        sites = {spec.label: spec.site for spec in endpoints}
        self.assessor = HealthAssessor(sites, s)
        self.second_opinions = SecondOpinions(
            self.specs,
            s,
            may_recover=lambda label, at: self.scheduler.may_recover(label, at),  # noqa: PLW0108 - built below
            is_up=lambda label: label in self.scheduler.open,
        )
        self.scheduler = Scheduler(self.specs, s, self.assessor, self._dispatched, self.second_opinions)
        self.tasks: dict[int, Task] = {}
        self.attempts: dict[int, Attempt] = {}
        self.finished = dict.fromkeys(self.specs, 0)
        self.failed = self.rerouted = self.late = 0
        self.now = 0.0
        self._recoverable = dict.fromkeys(self.specs, True)
        self._stopped = False
        self._deadlines = Deadlines()
        self._announced = float("inf")
        self._history = History(self.specs, s.history_length)
        self.budget = RetryBudget(s)
        self.second_opinions.may_repeat = self.budget.may_repeat
        self.paced_requeue = PacedRequeue(self._deadlines, lambda: self.now, self._enqueue)
        self.starvation = Starvation(
            s.unavailable_timeout, self.assessor, self.scheduler, self._deadlines, lambda: self.now, self._give_up
        )
        self.hedger = Hedger(s, self.scheduler, self.budget, self._deadlines, lambda: self.now, self._update_health)
        self._fenced: deque[int] = deque()
        parts = (self.assessor, self.scheduler, self._deadlines, self._history)
        self.outages = SiteOutages(*parts, sites=sites, window=s.outage_window, update_health=self._update_health)
        self.planned = MaintenancePlanner(*parts, update_health=self._update_health, back=self._bring_back)
        self.node_second_opinions = NodeSecondOpinions(
            self, self._act, reroute=self._reroute, deliver=self._deliver, plan=self._deadlines.at
        )
        self._out: list[Action] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            stimuli.Submitted: self._on_submitted,
            stimuli.Finished: self._on_finished,
            stimuli.Failed: self._on_failed,
            stimuli.Orphaned: self._on_orphaned,
            stimuli.Bounced: self.node_second_opinions.bounced,
            stimuli.Nodes: self.node_second_opinions.connected,
            stimuli.Started: self._on_started,
            stimuli.Observed: self._on_observed,
            stimuli.Environment: self.planned.on_environment,
            stimuli.Unanswered: self._on_unanswered,
            stimuli.Died: self._on_died,
            stimuli.HeartbeatReceived: self._on_heartbeat,
            stimuli.StreamEnded: self._on_stream_ended,
            stimuli.FabricPolled: self._on_fabric_polled,
            stimuli.BridgePolled: lambda s: self.assessor.reachability.record_bridge_poll(s.site, s.at, s.interval),
            stimuli.PeerReport: self._on_peer_report,
            stimuli.Drain: self.planned.on_drain,
            stimuli.Resume: self.planned.on_resume,
            stimuli.Quarantine: self.planned.on_quarantine,
            stimuli.Maintenance: self.planned.on_maintenance,
            stimuli.Tick: self._on_tick,
            stimuli.Stopped: self._on_stopped,
        }

    # --- the public face ------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus) -> list[Action]:
        """Return the actions that answer one stimulus, in order."""
        out: list[Action] = []
        self._out = self._history.out = out
        self.now = self._history.now = max(self.now, stimulus.at)
        if type(stimulus) is not stimuli.Stopped:
            self._deadlines.run(self.now)  # first, so that no handler sees an expired state
        self._handlers[type(stimulus)](stimulus)
        if self.scheduler.walltime_fit.limits and len(self.scheduler.backlog):
            self.scheduler.fill_idle(self.now)  # a known duration or end may have changed
        due = self._deadlines.next
        if due is not None and due < self._announced:
            self._announced = due
            out.append(actions.WakeAt(due))
        return out

    def reject(self, task: int, error: PoolError) -> list[Action]:
        """Return the actions that give a task up, after `handle` raised on a stimulus of this task."""
        out: list[Action] = []
        self._out = self._history.out = out
        if task in self.tasks:
            self._give_up(self.tasks[task], Kind.ENDPOINT_LOST, error)
        else:
            out.append(actions.Reject(task, None, error, None))
        return out

    def history(self, task: int) -> list[Transition]:
        """Return the kept transitions of a task, oldest first."""
        return self._history.history(task)

    def state(self, label: str) -> tuple[State, str]:
        """Return the state of an endpoint and its reason."""
        verdict = self.scheduler.verdicts[label]
        return verdict.state, verdict.reason

    def _act(self, action: Action) -> None:
        self._out.append(action)

    @property
    def next_deadline(self) -> float | None:
        """Time of the next timer; None without one."""
        return self._deadlines.next

    def demand(self, label: str) -> int:
        """Return the number of attempts for which the endpoint should scale: held ones plus a share of the backlog."""
        share = 0.0
        if self._scales(label):
            weight = max(1, self.specs[label].capacity)
            for queue in self.scheduler.backlog.of(label):
                if queue.length:
                    whole = sum(max(1, self.specs[o].capacity) for o in queue.eligible if self._scales(o))
                    share += queue.length * weight / whole
        return len(self.scheduler.held[label]) + math.ceil(share)

    def _scales(self, label: str) -> bool:
        health = self.assessor.health[label]
        return health.dead_reason is None and health.draining is None

    # --- tasks ----------------------------------------------------------------------------------------------------

    def _on_submitted(self, s: stimuli.Submitted) -> None:
        task = Task(
            s.task, s.function, s.eligible, s.priority, idempotent=s.idempotent, walltime=s.walltime, imports=s.imports
        )
        self.tasks[s.task] = task
        self._history.submitted(task, s.tags)
        if self._stopped:
            self._give_up(task, Kind.ENDPOINT_LOST, PoolShutdownError("the pool is shut down"))
            return
        self._queue(task)

    def _queue(self, task: Task) -> None:
        """Put a task into its queue, and offer it to an endpoint."""
        task.move(TaskState.WAITING)
        task.waiting_since = self.now
        self._enqueue(task)

    def _enqueue(self, task: Task) -> None:
        queue = self.scheduler.backlog.queue(
            task.eligible if task.opinion is None else self.second_opinions.opinion_endpoints(task)
        )
        queue.push(task)
        self.scheduler.place(queue, task, self.now)
        if queue.length and queue.eligible.isdisjoint(self.scheduler.open):
            self.starvation.watch(queue)

    def _dispatched(self, attempt: Attempt, reason: str) -> None:
        self.attempts[attempt.id] = attempt
        self._out.append(self.node_second_opinions.dispatch(attempt))
        if attempt.task.imports:
            self.planned.sent(attempt)
        if attempt.task.attempts == 1:
            self.budget.firsts += 1
        if attempt.task.hedge is attempt:
            self._history.hedged(attempt, reason)
        self._history.dispatched(attempt, reason)
        self.hedger.dispatched(attempt)

    def _on_finished(self, s: stimuli.Finished) -> None:
        attempt = self.attempts.pop(s.attempt, None)
        if attempt is None:
            self.late += 1
            self._out.append(actions.Discard(s.attempt))
            return
        label, task = attempt.endpoint, attempt.task
        self.scheduler.attempt_ended(attempt, succeeded_at=s.at)
        self.hedger.observe_end(attempt, s.at, succeeded=True)
        if attempt.generation == self.assessor.health[label].generation:
            self.assessor.record_result(label, s.at, attempt.id)
        if task.state is TaskState.SETTLED:
            self.late += 1
            self._out.append(actions.Discard(s.attempt))
            self._history.late(attempt)
        else:
            self.finished[label] += 1
            if s.node or self.node_second_opinions.pending:
                self.node_second_opinions.finished(attempt, s.node)
            if task.opinion is not None:
                self._refute(attempt)
            if self.second_opinions.records:
                self.second_opinions.function_succeeded(label, task.function)
            self._out.append(actions.Resolve(task.id, attempt.id))
            self._history.finished(attempt, s.at - attempt.dispatched_at)
            self._settle(task)
        if self.scheduler.verdicts[label].state is State.UP:
            self.scheduler.fill(label, self.now)
        else:
            self._update_health(label)

    def _on_failed(self, s: stimuli.Failed) -> None:
        attempt = self.attempts.pop(s.attempt, None)
        if attempt is None:
            self._out.append(actions.Discard(s.attempt))
            return
        label, task, failure = attempt.endpoint, attempt.task, s.failure
        if s.node:
            self.node_second_opinions.outliers.record_failed_attempt(label, attempt.id)
        was_bound = attempt.state is AttemptState.BOUND
        worked = self.scheduler.loads[label].service(task.function) is not None
        self.scheduler.attempt_ended(attempt)
        self.hedger.observe_end(attempt, s.at, succeeded=False)
        own, more = failure.is_own, failure.then is FailureAction.MORE
        if own and not failure.costs_worker and attempt.generation == self.assessor.health[label].generation:
            if failure.then is FailureAction.FAIL:
                self.assessor.record_result(label, s.at, attempt.id)  # the user's exception proves that it works
            else:
                self.assessor.record_response(label, s.at)
        if task.state is TaskState.SETTLED or not (was_bound or own):
            self._out.append(actions.Discard(s.attempt))
        elif not was_bound and failure.then is not FailureAction.FAIL:
            self._out.append(actions.Discard(s.attempt))  # the task was rerouted before
            self.second_opinions.note(attempt, failure, self.now, worked=worked)
            if task.state is TaskState.WAITING:
                self._deliver_if_unverifiable(task)
        elif own or more:
            self._handle_failure(attempt, failure, s.node, worked=worked)
        else:
            task.drop_attempt(attempt)
            self._lost(attempt, failure)
        self.assessor.health[label].breaker.probe_ended(attempt.id)
        self._update_health(label)

    def _lost(self, attempt: Attempt, failure: Failure) -> None:
        """Reroute the task of an attempt that its endpoint lost, unless no endpoint can run it."""
        label, task = attempt.endpoint, attempt.task
        health = self.assessor.health[label]
        if failure.then is not FailureAction.ANYWHERE:
            until = math.ceil(self.now + self.settings.avoid_time)  # whole seconds, so that many share one deadline
            task.avoid(label, until)
            self._deadlines.at(until, ("avoid", until), lambda: self.scheduler.fill_idle(self.now))
        if failure.then is FailureAction.FAIL:
            self._deliver(
                attempt, failure, Attribution(failure.kind, ALL_RETRIES, "a failure rule forbids another run")
            )
            return
        if failure.kind in {Kind.PLACE, Kind.SUBMIT}:
            task.refused_by = {**(task.refused_by or {}), label: str(failure)}
            others = any(o not in task.refused_by and self.scheduler.may_recover(o, self.now) for o in task.eligible)
            self.second_opinions.note(attempt, failure, self.now)
            undecided = task.bound is not None or self.second_opinions.first(task) is not None
            if not undecided and (len(task.refused_by) > 1 or not others):
                cost = 0.0 if failure.kind is Kind.SUBMIT else ALL_RETRIES if len(task.refused_by) > 1 else 1.0
                self._deliver(
                    attempt, failure, Attribution(failure.kind, cost, f"refused by {', '.join(task.refused_by)}")
                )
                return
        self._out.append(actions.Discard(attempt.id))
        if failure.costs_worker:
            self._count_kill(task, label)
        # Update the health first, or the task might be sent to the same endpoint again.
        if failure.kind is not Kind.ENDPOINT_LOST:
            # A function that lacks something counts once, not once per task.
            incident = task.function if failure.kind is Kind.PLACE else task.id
            health.breaker.failed(
                self.now, incident, attempt.id, may_open=lambda: self._may_quarantine(label, task.function)
            )
            self._update_health(label)
        elif attempt.generation == health.generation:
            self._die(label, str(failure))
        if not self._give_up_if_poison(task, str(failure)):
            self._reroute(attempt, f"{failure.kind}: {failure}")

    def _may_quarantine(self, label: str, function: str) -> bool:
        """Whether another open endpoint runs this function, and half of the living pool stays in (panic threshold)."""
        loads, breakers = (
            self.scheduler.loads,
            [h.breaker for h in self.assessor.health.values() if h.dead_reason is None],
        )
        mine = self.assessor.health[label].breaker
        out = 1 + sum(breaker.is_tripped for breaker in breakers if breaker is not mine)
        return out * 2 <= len(breakers) and any(
            other != label and loads[other].service(function) is not None for other in self.scheduler.open
        )

    def _supersede_all(self, label: str, reason: str) -> None:
        """Supersede and reroute every wanted attempt at an endpoint."""
        bound = self.scheduler.bound(label)
        for attempt in bound:
            self.scheduler.superseded(attempt)
            self.scheduler.loads[label].record_failure(attempt.task.function)
        if self.assessor.health[label].dead_reason is not None:
            self.scheduler.emptied(label)
        elif bound:
            ids = [attempt.id for attempt in bound]
            self._deadlines.at(self.now + SLOT_HOLD_SECONDS, ("vacate", ids[0]), lambda: self._vacate(label, ids))
        for attempt in bound:
            attempt.task.drop_attempt(attempt)
            attempt.task.avoid(label)
            if not self._give_up_if_poison(attempt.task, reason):
                self._reroute(attempt, reason)

    def _vacate(self, label: str, attempts: list[int]) -> None:
        self.scheduler.vacate(label, attempts)
        self._update_health(label)

    def _settle(self, task: Task) -> None:
        """Mark a task as settled, and supersede its remaining attempts."""
        if task.state is TaskState.WAITING and not self.paced_requeue.remove(task):
            (task.queue or self.scheduler.backlog.queue(task.eligible)).task_settled()
        task.move(TaskState.SETTLED)
        del self.tasks[task.id]
        self._close_opinion(task)
        rivals = (task.bound, task.hedge)
        task.bound = task.hedge = None
        for rival in rivals:
            if rival is not None and rival.state is AttemptState.BOUND:
                self.scheduler.superseded(rival)
                self.hedger.lost(rival)
                if self.scheduler.verdicts[rival.endpoint].state is not State.UP and not self._stopped:
                    self._update_health(rival.endpoint)
        for attempt in task.given_up or ():
            if attempt.generation != self.assessor.health[attempt.endpoint].generation:
                self._forget_later(attempt)

    def _forget_later(self, attempt: Attempt) -> None:
        """Keep a fenced attempt of a settled task for a late report, up to a limit."""
        self._fenced.append(attempt.id)
        while len(self._fenced) > _REMEMBERED:
            self.attempts.pop(self._fenced.popleft(), None)

    def _on_stopped(self, _: stimuli.Stopped) -> None:
        self._stopped = True
        self._deadlines.clear()
        for task in list(self.tasks.values()):
            self._give_up(task, Kind.ENDPOINT_LOST, PoolShutdownError(f"the pool was shut down before task {task.id}"
                                                                      f" ({task.function}) was done"))  # fmt: skip

    # --- endpoints ------------------------------------------------------------------------------------------------

    def _on_started(self, s: stimuli.Started) -> None:
        health = self.assessor.health[s.endpoint]
        if s.generation != health.generation or health.dead_reason is not None:
            return
        health.started_at = s.at
        self._update_health(s.endpoint)

    def _on_observed(self, s: stimuli.Observed) -> None:
        label, health = s.endpoint, self.assessor.health[s.endpoint]
        if s.generation != health.generation or health.started_at is None:
            return
        cap = self.specs[label].max_concurrency
        slots = s.slots if cap is None else min(s.slots, cap)
        self.assessor.observed(label, s.at, slots, blocks_expected=s.blocks_expected)
        self.planned.blocks_end(label, s.until, s.at)
        if slots and health.deaths and health.up_since is not None:
            if s.at - health.up_since >= self.settings.healthy_after:
                health.deaths = 0
        elif slots and health.up_since is None:
            health.up_since = s.at
        stalled = slots == 0 and not s.blocks_expected and self.demand(label) > 0
        if not stalled:
            health.stalled_since = None
        elif health.stalled_since is None:
            health.stalled_since = s.at
        self._update_health(label)

    def _on_unanswered(self, s: stimuli.Unanswered) -> None:
        health = self.assessor.health[s.endpoint]
        if s.generation == health.generation and health.dead_reason is None:
            health.unanswered_since = s.since
            self._update_health(s.endpoint)

    def _on_died(self, s: stimuli.Died) -> None:
        if s.generation == self.assessor.health[s.endpoint].generation:
            self._die(s.endpoint, s.reason)

    def _die(self, label: str, reason: str) -> None:
        """End this generation: reroute its attempts, and plan a revival."""
        health = self.assessor.health[label]
        if health.dead_reason is not None or self._stopped:
            return
        health.dead_reason = reason
        self._update_health(label)
        self._plan_revival(label)

    def _plan_revival(self, label: str) -> None:
        health = self.assessor.health[label]
        if health.draining is not None or not self.specs[label].revivable:
            return  # it cannot be rebuilt, or `Resume` revives it
        delay = backoff_delay(self.settings.revive_first, self.settings.revive_longest, health.deaths)
        delay += self.outages.delay(label, self.now)
        health.deaths += 1
        generation = health.generation + 1
        self._history.reviving(label, generation, health.dead_reason or "", delay)
        self._deadlines.at(self.now + delay, ("revive", label), lambda: self._revive(label, generation))

    def _revive(self, label: str, generation: int) -> None:
        health = self.assessor.health[label]
        if health.draining is not None:
            return
        reason = health.dead_reason or ""
        health.new_generation(generation)
        for attempt in self.scheduler.fenced(label):
            if attempt.task.state is TaskState.SETTLED:
                self._forget_later(attempt)
        self._out.append(actions.Revive(label, generation, reason))
        self._update_health(label)

    def _on_heartbeat(self, s: stimuli.HeartbeatReceived) -> None:
        if s.endpoint in self.specs:
            self.assessor.record_heartbeat(s.endpoint, s.stream, s.at, s.interval, s.via_site)
            if self.scheduler.verdicts[s.endpoint].state is not State.UP:
                self._update_health(s.endpoint)

    def _on_stream_ended(self, s: stimuli.StreamEnded) -> None:
        if s.endpoint in self.specs:
            self.assessor.health[s.endpoint].heartbeats.forget(s.stream)
            if self.scheduler.verdicts[s.endpoint].state is not State.UP:
                self._update_health(s.endpoint)

    def _on_fabric_polled(self, s: stimuli.FabricPolled) -> None:
        if self.assessor.fabric_polled(s.at):
            for label, health in self.assessor.health.items():
                if health.heartbeats:
                    self._update_health(label)

    def _on_peer_report(self, s: stimuli.PeerReport) -> None:
        if s.endpoint in self.specs:
            self.assessor.peer_report(s.endpoint, s.at, f"{s.source} says: {s.reason}", s.lasts)
            self._update_health(s.endpoint)

    def _bring_back(self, label: str) -> None:
        """Revive an endpoint that died while it was drained."""
        dead = self.assessor.health[label].dead_reason is not None
        if dead and not self._stopped and ("revive", label) not in self._deadlines:
            self._plan_revival(label)

    def _update_health(self, label: str) -> None:
        """Compute the verdict on an endpoint, and act on the changes."""
        health, scheduler = self.assessor.health[label], self.scheduler
        verdict = self.assessor.verdict(label, self.now, scheduler.live[label], lambda: self._overdue(label))
        if verdict.fatal and not self._stopped:
            self._die(label, verdict.reason)
            return
        before = scheduler.verdicts[label]
        scheduler.apply_verdict(label, verdict, health.slots)
        newly_down = verdict.state is State.DOWN and before.state is not State.DOWN
        if newly_down and health.draining is None and not self._stopped:
            self.outages.lost(label, self.now)  # before its attempts are rerouted to its neighbours
        taken = 0 if verdict.keeps else scheduler.live[label]
        if taken or (verdict.state is not before.state and verdict.state not in UNPUBLISHED_STATES):
            self._history.record_verdict(label, health, verdict, taken)
        if not verdict.keeps and scheduler.held[label]:
            self._supersede_all(label, verdict.reason)
        may_recover = scheduler.may_recover(label, self.now)
        if verdict.state is not before.state or may_recover is not self._recoverable[label]:
            self._recoverable[label] = may_recover
            if self.second_opinions.open:
                self._review_opinions()
            for queue in scheduler.backlog.of(label):
                self.starvation.watch(queue)
            scheduler.fill_idle(self.now)
        if taken:
            self._update_health(label)  # its attempts are gone: state and recheck time may change
            return
        if verdict.recheck is not None:
            self._deadlines.at(verdict.recheck, ("health", label), lambda: self._update_health(label))
        scheduler.fill(label, self.now)

    def _overdue(self, label: str) -> bool:
        """Whether an attempt has run longer than twice its expected service time plus one second.

        Time counts from the estimated start; without one, the known work before a prefetched attempt is added to the
        expected time. A function that never succeeded there is allowed one second.
        """
        load = self.scheduler.loads[label]
        for attempt in self.scheduler.bound(label):
            expected = load.service(attempt.task.function)
            since, queue = attempt.began, 0.0
            if since is None:
                since, queue = attempt.dispatched_at, load.backlog()
            allowed = 1.0 if expected is None else 1.0 + 2.0 * (expected + queue)
            if self.now - since >= allowed:
                return True
        return False

    def _on_tick(self, _: stimuli.Tick) -> None:
        self._announced = float("inf")  # `handle` ran the due timers, and requests the next wake-up
