"""PoolCore: a pure state machine. Stimuli in, actions out; no clock, no thread, no wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple

from diaspora_parsl import events
from diaspora_parsl.errors import EndpointsUnavailableError, PoisonTaskError, PoolError, PoolShutdownError
from diaspora_parsl.failures import Failure, Kind
from diaspora_parsl.health.board import Board, State
from diaspora_parsl.pool import words
from diaspora_parsl.pool.backlog import Line
from diaspora_parsl.pool.checks import validate
from diaspora_parsl.pool.scheduler import Scheduler
from diaspora_parsl.pool.tasks import Attempt, AttemptState, Task, TaskState
from diaspora_parsl.pool.words import Action, EndpointSpec, PoolSettings, Stimulus

#: Seconds after which a given-up attempt at a living endpoint no longer counts as occupying a slot there.
_OCCUPIES = 60.0
#: States in which an endpoint says nothing new to the fabric.
_UNTOLD = {State.STARTING, State.WAITING, State.REVIVING}
_TOLD: dict[State, tuple[type[events.EndpointPayload], dict[str, Any]]] = {
    State.UP: (events.EndpointUp, {}),
    State.SUSPECT: (events.EndpointSuspect, {}),
    State.QUARANTINED: (events.EndpointSuspect, {}),
    State.DRAINING: (events.EndpointDraining, {}),
    State.DRAINED: (events.EndpointDrained, {}),
}


class Chapter(NamedTuple):
    """One transition of a task, for `PoolCore.story`."""

    at: float
    task: int
    what: str
    attempt: int
    endpoint: str
    reason: str


class PoolCore:
    """Decides everything, does nothing itself.

    For every `Finished` and `Failed` exactly one of `Resolve`, `Reject` (with the attempt) and `Discard` names the
    attempt, so that the shell can let go of its outcome.

    Args:
        endpoints: what is known of each endpoint; labels are unique.
        settings: limits and time constants.
    """

    def __init__(self, endpoints: Sequence[EndpointSpec], settings: PoolSettings | None = None) -> None:
        self.settings = s = settings or PoolSettings()
        self.specs = {spec.label: spec for spec in endpoints}
        self.board = Board(
            self.specs,
            empty_grace=s.empty_grace,
            silence_limit=s.silence_limit,
            rumour_time=s.rumour_time,
            phi_threshold=s.phi_threshold,
            acceptable_pause=s.acceptable_pause,
        )
        self.scheduler = Scheduler(self.specs, s, self.board, self._dispatched)
        self.tasks: dict[int, Task] = {}
        self.attempts: dict[int, Attempt] = {}
        self.finished = dict.fromkeys(self.specs, 0)
        self.failed = self.rerouted = self.late = 0
        self._shown = dict.fromkeys(self.specs, State.STARTING)
        self._stopped = False
        self._now = 0.0
        self._deadlines: list[tuple[float, int, Callable[[], None]]] = []
        self._deadline_count = 0
        self._announced = float("inf")
        self._checks: dict[str, float] = {}
        self._story: deque[Chapter] = deque(maxlen=s.story_length)
        self._out: list[Action] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            words.Submitted: self._on_submitted,
            words.Finished: self._on_finished,
            words.Failed: self._on_failed,
            words.Started: self._on_started,
            words.Observed: self._on_observed,
            words.Unanswered: self._on_unanswered,
            words.Died: self._on_died,
            words.Heard: self._on_heard,
            words.Hushed: self._on_hushed,
            words.FabricSeen: self._on_fabric_seen,
            words.Rumour: self._on_rumour,
            words.Drain: self._on_drain,
            words.Resume: self._on_resume,
            words.Tick: self._on_tick,
            words.Stopped: self._on_stopped,
        }

    # --- the public face ------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus) -> list[Action]:
        """Take one stimulus; return what is to be done, in order."""
        out: list[Action] = []
        self._out = out
        self._now = max(self._now, stimulus.at)
        self._handlers[type(stimulus)](stimulus)
        if self._deadlines and self._deadlines[0][0] < self._announced:
            self._announced = self._deadlines[0][0]
            out.append(words.WakeAt(self._announced))
        return out

    def story(self, task: int) -> list[Chapter]:
        """What happened to a task, oldest first, as far back as kept."""
        return [chapter for chapter in self._story if chapter.task == task]

    def state(self, label: str) -> tuple[State, str]:
        """The state of an endpoint and its reason."""
        return self._shown[label], self.scheduler.verdicts[label].reason

    @property
    def next_deadline(self) -> float | None:
        """When time alone will change something."""
        return self._deadlines[0][0] if self._deadlines else None

    def demand(self, label: str) -> int:
        """What the scaling of this endpoint should see: what is bound there, plus its share of the backlog."""
        share = 0.0
        if self.board.health[label].dead_reason is None:
            for line in self.scheduler.backlog.of(label):
                if line.length:
                    alive = (o for o in line.eligible if self.board.health[o].dead_reason is None)
                    whole = sum(self.specs[other].capacity for other in alive)
                    share += line.length * self.specs[label].capacity / whole
        return len(self.scheduler.held[label]) + (max(1, int(share)) if share else 0)

    def validate(self) -> None:
        """Check every invariant; `AssertionError` if one is broken."""
        validate(self)

    # --- tasks ----------------------------------------------------------------------------------------------------

    def _on_submitted(self, s: words.Submitted) -> None:
        task = Task(s.task, s.function, s.eligible, s.priority)
        self.tasks[s.task] = task
        self._publish(events.TaskSubmitted(task=s.task, function=s.function, tags=s.tags), s.task, "")
        if self._stopped:
            self._give_up(task, Kind.ENDPOINT_LOST, PoolShutdownError("the pool is shut down"))
            return
        self._queue(task)

    def _queue(self, task: Task) -> None:
        """Put a waiting task into its line, and let an endpoint take it."""
        line = self.scheduler.backlog.line(task.eligible)
        line.push(task)
        self.scheduler.place(line, task.function, self._now)
        if line.length:
            self._watch_darkness(line)

    def _dispatched(self, attempt: Attempt, reason: str) -> None:
        self.attempts[attempt.id] = attempt
        label, task = attempt.endpoint, attempt.task
        self._out.append(words.Dispatch(task.id, attempt.id, label, attempt.generation))
        self._publish(
            events.TaskDispatched(
                task=task.id, attempt=attempt.id, endpoint=label, site=self.specs[label].site, reason=reason
            ),
            task.id,
            label,
        )
        self._log(task, "dispatched", attempt.id, label, reason)

    def _on_finished(self, s: words.Finished) -> None:
        attempt = self.attempts.pop(s.attempt, None)
        if attempt is None:
            self.late += 1
            self._out.append(words.Discard(s.attempt))
            return
        label, task = attempt.endpoint, attempt.task
        self.scheduler.ended(attempt, succeeded_at=s.at)
        if attempt.generation == self.board.health[label].generation:
            self.board.result(label, s.at)
        site = self.specs[label].site
        if task.state is TaskState.SETTLED:
            self.late += 1
            self._out.append(words.Discard(s.attempt))
            self._publish(events.TaskLate(task=task.id, attempt=attempt.id, endpoint=label, site=site), task.id, label)
            self._log(task, "late", attempt.id, label, "the task was settled already")
        else:
            self._forget_bound(task)
            self.finished[label] += 1
            self._out.append(words.Resolve(task.id, attempt.id))
            seconds = round(s.at - attempt.dispatched_at, 6)
            self._publish(
                events.TaskFinished(
                    task=task.id,
                    attempt=attempt.id,
                    endpoint=label,
                    site=site,
                    seconds=seconds,
                    attempts=task.attempts,
                ),
                task.id,
                label,
            )
            self._settle(task, "finished", attempt.id, label, "")
        if self._shown[label] is State.UP:
            self.scheduler.fill(label, s.at)
        else:
            self._judge(label)

    def _on_failed(self, s: words.Failed) -> None:
        attempt = self.attempts.pop(s.attempt, None)
        if attempt is None:
            self._out.append(words.Discard(s.attempt))
            return
        label, task, failure = attempt.endpoint, attempt.task, s.failure
        was_bound = attempt.state is AttemptState.BOUND
        self.scheduler.ended(attempt)
        own = failure.kind in {Kind.USER, Kind.INVALID}
        if own and attempt.generation == self.board.health[label].generation:
            self.board.result(label, s.at)  # the user's exception proves that the place works
        if task.state is TaskState.SETTLED or not (was_bound or own):
            self._out.append(words.Discard(s.attempt))
        elif own:
            self._forget_bound(task)
            self._deliver(attempt, failure)
        else:
            task.bound = None
            self._lost(attempt, failure)
        self._judge(label)

    def _lost(self, attempt: Attempt, failure: Failure) -> None:
        """A wanted attempt was lost to its place: reroute it, unless that is hopeless."""
        label, task = attempt.endpoint, attempt.task
        task.shun(label)
        if failure.kind in {Kind.PLACE, Kind.SUBMIT}:
            task.refused_by = {**(task.refused_by or {}), label: str(failure)}
            others = [o for o in task.eligible if o not in task.refused_by and self._is_hope(o)]
            if len(task.refused_by) > 1 or not others:
                self._deliver(attempt, failure)
                return
        self._out.append(words.Discard(attempt.id))
        task.kills += failure.kind is Kind.WORKER_LOST
        if not self._is_poison(task, str(failure)):
            self._reroute(attempt, f"{failure.kind}: {failure}")
        if failure.kind is Kind.ENDPOINT_LOST:
            if attempt.generation == self.board.health[label].generation:
                self._die(label, str(failure))
            return
        others_open = any(other != label for other in self.scheduler.open)
        self.board.health[label].breaker.failed(
            self._now, task.id, may_open=others_open and self.scheduler.pace.knows(task.function)
        )

    def _is_poison(self, task: Task, last: str) -> bool:
        """Give the task up if it cost too many workers or attempts."""
        s = self.settings
        if task.kills < s.max_kills and task.attempts < s.max_attempts:
            return False
        what = f"{task.kills} workers died while they ran it" if task.kills >= s.max_kills else (
            f"{task.attempts} attempts of it were lost")  # fmt: skip
        text = f"task {task.id} ({task.function}) is given up: {what}, at {', '.join(sorted(task.avoid or ()))}"
        self._give_up(task, Kind.WORKER_LOST, PoisonTaskError(f"{text}. The last: {last}"))
        return True

    def _reroute(self, attempt: Attempt, reason: str) -> None:
        """Put the task of a lost attempt back into the line."""
        task, label = attempt.task, attempt.endpoint
        task.bound = None
        task.move(TaskState.WAITING)
        self.rerouted += 1
        self._publish(
            events.TaskRerouted(
                task=task.id, attempt=attempt.id, endpoint=label, site=self.specs[label].site, reason=reason
            ),
            task.id,
            label,
        )
        self._log(task, "rerouted", attempt.id, label, reason)
        self._queue(task)

    def _take_away(self, label: str, reason: str) -> None:
        """Give up every wanted attempt at an endpoint."""
        bound = self.scheduler.bound(label)
        for attempt in bound:
            self.scheduler.superseded(attempt)
        if self.board.health[label].dead_reason is not None:
            self.scheduler.emptied(label)
        elif bound:
            ids = [attempt.id for attempt in bound]
            self._at(self._now + _OCCUPIES, lambda: self._vacate(label, ids))
        for attempt in bound:
            attempt.task.bound = None
            attempt.task.shun(label)
            if not self._is_poison(attempt.task, reason):
                self._reroute(attempt, reason)

    def _vacate(self, label: str, attempts: list[int]) -> None:
        self.scheduler.vacate(label, attempts)
        self._judge(label)

    def _forget_bound(self, task: Task) -> None:
        """The task is decided: the attempt that is bound, if another than the one that decided it, is not wanted."""
        if task.bound is not None and task.bound.state is AttemptState.BOUND:
            self.scheduler.superseded(task.bound)
        task.bound = None

    def _deliver(self, attempt: Attempt, failure: Failure) -> None:
        """Settle the task with the attempt's own exception."""
        label, task = attempt.endpoint, attempt.task
        self._out.append(words.Reject(task.id, attempt.id))
        self._fail(task, failure.kind, failure.error, failure.message, label, attempt.id)

    def _give_up(self, task: Task, kind: Kind, verdict: PoolError) -> None:
        """Settle the task with a verdict of the pool."""
        self._out.append(words.Reject(task.id, None, verdict))
        self._fail(task, kind, type(verdict).__name__, str(verdict))

    def _fail(self, task: Task, kind: Kind, error: str, message: str, label: str = "", attempt: int = 0) -> None:
        self.failed += 1
        site = self.specs[label].site if label else ""
        payload = events.TaskFailed(
            task=task.id, kind=kind, error=error, message=message, endpoint=label, site=site, attempt=attempt,
            attempts=task.attempts,
        )  # fmt: skip
        self._publish(payload, task.id, label)
        self._settle(task, "failed", attempt, label, message)

    def _settle(self, task: Task, what: str, attempt: int, label: str, reason: str) -> None:
        if task.state is TaskState.WAITING and not self._stopped:
            self.scheduler.backlog.line(task.eligible).left()
        task.move(TaskState.SETTLED)
        del self.tasks[task.id]
        self._log(task, what, attempt, label, reason)

    def _on_stopped(self, _: words.Stopped) -> None:
        self._stopped = True
        for task in list(self.tasks.values()):
            self._forget_bound(task)
            self._give_up(task, Kind.ENDPOINT_LOST, PoolShutdownError(f"the pool was shut down before task {task.id}"
                                                                      f" ({task.function}) was done"))  # fmt: skip

    # --- endpoints ------------------------------------------------------------------------------------------------

    def _on_started(self, s: words.Started) -> None:
        health = self.board.health[s.endpoint]
        if s.generation != health.generation or health.dead_reason is not None:
            return
        health.started_at = s.at
        self._judge(s.endpoint)

    def _on_observed(self, s: words.Observed) -> None:
        label, health = s.endpoint, self.board.health[s.endpoint]
        if s.generation != health.generation or health.started_at is None:
            return
        cap = self.specs[label].slots_cap
        slots = s.slots if cap is None else min(s.slots, cap)
        self.board.observed(label, s.at, slots, blocks_expected=s.blocks_expected)
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
            self._at(s.at + self.settings.stall_limit, lambda: self._check_stall(label))
        self._judge(label)

    def _check_stall(self, label: str) -> None:
        since = self.board.health[label].stalled_since
        if since is not None and self._now - since >= self.settings.stall_limit:
            self._die(label, f"for {self._now - since:.0f} s there was work, but no worker and no block requested")

    def _on_unanswered(self, s: words.Unanswered) -> None:
        health = self.board.health[s.endpoint]
        if s.generation == health.generation and health.dead_reason is None:
            health.unanswered_since = s.since
            self._judge(s.endpoint)

    def _on_died(self, s: words.Died) -> None:
        if s.generation == self.board.health[s.endpoint].generation:
            self._die(s.endpoint, s.reason)

    def _die(self, label: str, reason: str) -> None:
        """This generation is over: take everything away, and plan the next one."""
        health = self.board.health[label]
        if health.dead_reason is not None or self._stopped:
            return
        health.dead_reason = reason
        delay = min(self.settings.revive_longest, self.settings.revive_first * 2**health.deaths)
        health.deaths += 1
        self._judge(label)
        if not self.specs[label].revivable:
            return
        payload = events.EndpointReviving(
            endpoint=label, site=self.specs[label].site, reason=reason, generation=health.generation + 1, delay=delay
        )
        self._publish(payload, label, label)
        generation = health.generation + 1
        self._at(self._now + delay, lambda: self._revive(label, generation))

    def _revive(self, label: str, generation: int) -> None:
        health = self.board.health[label]
        if self._stopped or health.dead_reason is None or health.generation + 1 != generation:
            return
        reason = health.dead_reason
        health.new_generation(generation)
        for number, attempt in list(self.attempts.items()):
            # What a fenced generation could still bring counts by attempt id, as long as anybody may want it.
            if attempt.endpoint == label and attempt.task.state is TaskState.SETTLED:
                del self.attempts[number]
        self._out.append(words.Revive(label, generation, reason))
        self._judge(label)

    def _on_heard(self, s: words.Heard) -> None:
        if s.endpoint in self.specs:
            self.board.heard(s.endpoint, s.stream, s.at, s.interval)
            if self._shown[s.endpoint] is not State.UP:
                self._judge(s.endpoint)

    def _on_hushed(self, s: words.Hushed) -> None:
        if s.endpoint in self.specs:
            self.board.health[s.endpoint].streams.pop(s.stream, None)

    def _on_fabric_seen(self, s: words.FabricSeen) -> None:
        if self.board.fabric_seen(s.at):
            for label, health in self.board.health.items():
                if health.streams:
                    self._judge(label)

    def _on_rumour(self, s: words.Rumour) -> None:
        if s.endpoint in self.specs:
            self.board.rumour(s.endpoint, s.at, f"{s.source} says: {s.reason}")
            self._judge(s.endpoint)

    def _on_drain(self, s: words.Drain) -> None:
        self.board.health[s.endpoint].draining = s.reason
        self._judge(s.endpoint)

    def _on_resume(self, s: words.Resume) -> None:
        self.board.health[s.endpoint].draining = None
        self._judge(s.endpoint)

    def _judge(self, label: str) -> None:
        """Ask for the verdict, and act on what changed."""
        health, scheduler = self.board.health[label], self.scheduler
        verdict = self.board.verdict(label, self._now, scheduler.live[label], lambda: self._overdue(label))
        if verdict.state is State.WAITING and not verdict.keeps and not health.blocks_expected:
            self._die(label, verdict.reason)
            return
        before, self._shown[label] = self._shown[label], verdict.state
        scheduler.judged(label, verdict, health.slots)
        taken = 0 if verdict.keeps else scheduler.live[label]
        if taken or (verdict.state is not before and verdict.state not in _UNTOLD):
            self._tell(label, State.DOWN if taken else verdict.state, taken)
        if not verdict.keeps and scheduler.held[label]:
            self._take_away(label, verdict.reason)
        if verdict.state is not before:
            for line in scheduler.backlog.of(label):
                self._watch_darkness(line)
            self._wake_last_resorts()
        if verdict.recheck is not None:
            self._check_at(label, verdict.recheck)
        scheduler.fill(label, self._now)

    def _check_at(self, label: str, at: float) -> None:
        """Judge again at this time, unless that is planned for earlier."""
        if at < self._checks.get(label, float("inf")):
            self._checks[label] = at
            self._at(at, lambda: self._check(label, at))

    def _check(self, label: str, at: float) -> None:
        if self._checks.get(label) == at:
            del self._checks[label]
            self._judge(label)

    def _wake_last_resorts(self) -> None:
        """The set of open endpoints changed: suspects may be the only place left for some tasks."""
        for label, verdict in self.scheduler.verdicts.items():
            if verdict.last_resort:
                self.scheduler.fill(label, self._now)

    def _overdue(self, label: str) -> bool:
        """Whether an attempt there should have ended by now: twice what its function is known to take, plus a second.

        Of a function never seen to succeed nothing is known, so its silence counts after a second.
        """
        load = self.scheduler.loads[label]
        for attempt in self.scheduler.bound(label):
            expected = load.service(attempt.task.function)
            allowed = 1.0 if expected is None else 1.0 + 2.0 * (expected + attempt.work)
            if self._now - attempt.dispatched_at >= allowed:
                return True
        return False

    def _tell(self, label: str, state: State, taken: int) -> None:
        verdict, health = self.scheduler.verdicts[label], self.board.health[label]
        kind, extra = _TOLD.get(state, (events.EndpointDown, {"in_flight": taken}))
        if kind is events.EndpointUp:
            extra = {"slots": health.slots}
        elif kind is events.EndpointSuspect:
            extra = {"phi": round(verdict.phi, 1)}
        site, generation = self.specs[label].site, health.generation
        self._publish(
            kind(endpoint=label, site=site, reason=verdict.reason, generation=generation, **extra), label, label
        )

    # --- darkness: every endpoint is down -------------------------------------------------------------------------

    def _is_hope(self, label: str) -> bool:
        return self.board.hopeful(label, self._shown[label], self._now)

    def has_hope(self, line: Line) -> bool:
        """Whether any endpoint may yet take the tasks of this line."""
        return any(self._is_hope(label) for label in line.eligible)

    def _watch_darkness(self, line: Line) -> None:
        if self.has_hope(line):
            line.dark_since = None
        elif line.dark_since is None:
            line.dark_since = self._now
            self._at(self._now + self.settings.down_limit, lambda: self._check_darkness(line))

    def _check_darkness(self, line: Line) -> None:
        """Tasks of this line have waited too long with no endpoint in sight."""
        since = line.dark_since
        if since is None or self._now - since < self.settings.down_limit:
            return
        if self.has_hope(line):
            line.dark_since = None
            return
        seen = "; ".join("{} is {}: {}".format(label, *self.state(label)) for label in sorted(line.eligible))
        for task in line.tasks():
            text = f"task {task.id} ({task.function}): no endpoint was up for {self._now - since:.0f} s"
            self._give_up(task, Kind.ENDPOINT_LOST, EndpointsUnavailableError(f"{text}. {seen}"))
        line.dark_since = None

    # --- time and words -------------------------------------------------------------------------------------------

    def _at(self, at: float, call: Callable[[], None]) -> None:
        self._deadline_count += 1
        heappush(self._deadlines, (at, self._deadline_count, call))

    def _on_tick(self, s: words.Tick) -> None:
        self._announced = float("inf")
        while self._deadlines and self._deadlines[0][0] <= s.at:
            heappop(self._deadlines)[2]()

    def _publish(self, payload: events.Payload, subject: int | str, key: str) -> None:
        self._out.append(words.Publish(payload, subject, key))

    def _log(self, task: Task, what: str, attempt: int, label: str, reason: str) -> None:
        self._story.append(Chapter(self._now, task.id, what, attempt, label, reason))
