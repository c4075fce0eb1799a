"""The pool's core against a small model, under every stimulus in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failures import ALL_RETRIES, Failure, FailureAction, Kind
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.errors import EndpointsUnavailableError, PoisonTaskError, PoolShutdownError

LABELS = ("alpha", "beta", "gamma")
MEMORY = {"alpha": 2.0, "beta": 8.0, "gamma": None}
SPECS = [
    EndpointSpec(
        label=label, site="here", max_concurrency=2 if label == "gamma" else None, mem_per_worker=MEMORY[label]
    )
    for label in LABELS
]
LIMITS = PoolSettings(
    unavailable_timeout=30.0,
    stall_limit=10.0,
    max_attempts=7,
    revive_longest=8.0,
    avoid_time=5.0,
    healthy_after=10.0,
    second_opinion_timeout=8.0,
    fade_time=20.0,
    retry_budget_ratio=0.5,
    retry_budget_per_second=0.2,
    retry_max_delay=2.0,
    hedge_min_results=2,
    hedge_max_ratio=0.5,
)
NODES = ("", "h0 0 m0", "h1 1 m1", "h1 2 m2", "h0 3 m3")
FUNCTIONS = ("f", "g", "bad")
#: What tasks raise: its name, its kind, and what is usually done about it.
RAISED = {
    "ZeroDivisionError": (Kind.USER, FailureAction.FAIL),
    "ModuleNotFoundError": (Kind.PLACE, FailureAction.ELSEWHERE),
    "RuntimeError": (Kind.USER, FailureAction.ELSEWHERE),
    "ConnectionResetError": (Kind.PLACE, FailureAction.ANYWHERE),
    "MemoryError": (Kind.RESOURCE, FailureAction.MORE),
}
#: More virtual seconds than any back-off of the breaker, twice over.
PATIENCE = 1500

labels = st.sampled_from(LABELS)
pick = st.integers(0, 1 << 16)


class PoolMachine(RuleBasedStateMachine):
    """Drives the core as a shell would, and compares it with a small model."""

    def __init__(self) -> None:
        super().__init__()
        self.core = PoolCore(SPECS, LIMITS)
        self.now = 0.0
        self.wake = float("inf")
        self.log: list[tuple[stimuli.Stimulus, str]] = []
        self.eligible: dict[int, frozenset[str]] = {}
        self.functions: dict[int, str] = {}
        self.submitted_at: dict[int, float] = {}
        self.walltimes: dict[int, float | None] = {}
        self.settled: dict[int, actions.Resolve | actions.Reject] = {}
        self.dispatches: dict[int, int] = {}
        self.kills: dict[int, int] = {}
        self.idempotent: dict[int, bool] = {}
        #: First errors that are kept while a second opinion is asked for: the task of each attempt.
        self.kept: dict[int, int] = {}
        #: What each task raised where, in attempts whose outcome was wanted.
        self.raised: dict[int, list[tuple[str, str]]] = {}
        #: Attempts that have not reported: task, endpoint, generation.
        self.open: dict[int, tuple[int, str, int]] = {}
        #: The attempts whose outcome each task waits for, oldest first; the second one is a hedge.
        self.wanted: dict[int, list[int]] = {}
        self.announced_hedge: int | None = None
        self.hedges = 0
        self.generation = dict.fromkeys(LABELS, 0)
        self.started = dict.fromkeys(LABELS, False)
        self.buried = dict.fromkeys(LABELS, False)
        #: What holds each endpoint: by hand until then, and windows; of the windows those that are not over.
        self.drained: dict[str, float] = {}
        self.windows: dict[str, list[tuple[float, float]]] = {label: [] for label in LABELS}
        self.streams: dict[str, set[str]] = {label: set() for label in LABELS}
        self.late = 0
        self.stopped = False
        self.ending = "up"
        #: What the shell does with `Revive`: leave it be, start it, or fail to.
        self.reviving = "leave"
        self.pending_revivals: list[str] = []

    # --- the shell ------------------------------------------------------------------------------------------------

    def send(self, stimulus: stimuli.Stimulus) -> list[actions.Action]:
        if isinstance(stimulus, stimuli.Tick):
            self.wake = float("inf")
        answer = self.core.handle(stimulus)
        self.log.append((stimulus, repr(answer)))
        for action in answer:
            self.check(stimulus, action)
        self.check_outcome(stimulus, answer)
        validate(self.core)
        while self.pending_revivals and self.reviving != "leave":
            label = self.pending_revivals.pop()
            if self.reviving == "start":
                self.bring_up(label)
            else:
                self.send(stimuli.Died(self.now, label, self.generation[label], "could not be started"))
        return answer

    def is_held(self, label: str) -> bool:
        """Whether it is drained, or in maintenance, now."""
        in_window = any(start <= self.now < end for start, end in self.windows[label])
        return in_window or self.now < self.drained.get(label, float("-inf"))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.wake <= until:
            self.now = max(self.now, self.wake)
            self.send(stimuli.Tick(self.now))
        self.now = until

    def bring_up(self, label: str) -> None:
        if not self.started[label]:
            self.started[label] = True
            self.send(stimuli.Started(self.now, label, self.generation[label]))
        self.send(stimuli.Observed(self.now, label, self.generation[label], 2, blocks_expected=True))

    # --- what must hold of each answer ----------------------------------------------------------------------------

    def check(self, stimulus: stimuli.Stimulus, action: actions.Action) -> None:
        match action:
            case actions.Dispatch():
                self.check_dispatch(action)
            case actions.Resolve(task, attempt):
                assert isinstance(stimulus, stimuli.Finished)
                assert stimulus.attempt == attempt
                assert self.open[attempt][0] == task
                self.settle(task, action)
            case actions.Reject():
                self.check_reject(stimulus, action)
            case actions.Discard(attempt):
                self.kept.pop(attempt, None)
            case actions.WakeAt(at):
                assert at > self.now
                self.wake = min(self.wake, at)
            case actions.Revive(label, generation):
                assert generation == self.generation[label] + 1
                assert not self.is_held(label)
                self.generation[label] = generation
                self.started[label] = self.buried[label] = False
                self.streams[label].clear()
                self.pending_revivals.append(label)
            case actions.Publish(payload):
                self.check_told(payload)

    def check_told(self, reported: events.Payload) -> None:
        match reported:
            case events.TaskRerouted() | events.TaskHedged():
                self.check_story(reported)
            case events.TaskLate():
                assert reported.task in self.settled
            case events.RequestAnswered():
                assert (reported.state, reported.reason) == self.core.state(reported.endpoint)
            case events.EndpointReviving():
                self.buried[reported.endpoint] = True

    def check_dispatch(self, action: actions.Dispatch) -> None:
        task, label = action.task, action.endpoint
        health = self.core.assessor.health[label]
        assert not self.stopped
        assert task not in self.settled
        assert self.announced_hedge is None
        if task in self.wanted:
            self.check_hedge(action)
        assert label in self.eligible[task]
        assert action.generation == self.generation[label]
        assert self.started[label]
        assert not self.buried[label]
        assert not self.is_held(label)
        self.check_horizon(task, label)
        assert health.slots > 0
        assert not health.breaker.is_tripped or health.breaker.probe == action.attempt
        assert action.attempt not in self.open
        self.open[action.attempt] = (task, label, action.generation)
        self.wanted.setdefault(task, []).append(action.attempt)
        self.dispatches[task] = self.dispatches.get(task, 0) + 1
        assert self.dispatches[task] <= LIMITS.max_attempts

    def check_horizon(self, task: int, label: str) -> None:
        """Check that no task that is known to take too long is dispatched into a window."""
        walltime = self.walltimes[task]
        for start, _ in self.windows[label]:
            assert walltime is None or start <= self.now or self.now + walltime <= start

    def check_story(self, reported: events.TaskRerouted | events.TaskHedged) -> None:
        assert reported.task not in self.settled
        wanted = self.wanted[reported.task]
        if isinstance(reported, events.TaskHedged):
            assert self.open[reported.attempt][:2] == (reported.task, reported.endpoint)
            assert wanted[1] == reported.attempt
            assert reported.reason.startswith("hedge: ")
            self.announced_hedge = None
            return
        wanted.remove(reported.attempt)
        if not wanted:
            del self.wanted[reported.task]

    def check_hedge(self, action: actions.Dispatch) -> None:
        """A second attempt beside the first: only where it does no harm, elsewhere, and within the budget."""
        (first,) = self.wanted[action.task]
        assert self.idempotent[action.task]
        assert self.open[first][1] != action.endpoint
        assert self.core.state(action.endpoint)[0] is State.UP
        self.announced_hedge = action.attempt
        self.hedges += 1
        earned = LIMITS.retry_budget_per_second * (10.0 + self.now) + LIMITS.retry_budget_ratio * len(self.dispatches)
        assert self.hedges <= earned

    def check_reject(self, stimulus: stimuli.Stimulus, action: actions.Reject) -> None:
        task, verdict = action.task, action.verdict
        assert action.attribution is not None
        if verdict is None and action.attempt in self.kept:
            assert self.kept.pop(action.attempt) == task
            assert action.attribution.cost < ALL_RETRIES, "no second opinion has confirmed it"
        elif verdict is None:
            assert isinstance(stimulus, stimuli.Failed)
            assert stimulus.attempt == action.attempt
            loss = {Kind.WORKER_LOST, Kind.MANAGER_LOST, Kind.ENDPOINT_LOST}
            assert stimulus.failure.kind not in loss
            if stimulus.failure.then is not FailureAction.FAIL:
                assert self.wanted.get(task, [stimulus.attempt]) == [stimulus.attempt]
            if stimulus.failure.then is FailureAction.ELSEWHERE and action.attribution.cost == ALL_RETRIES:
                places = {label for label, error in self.raised.get(task, []) if error == stimulus.failure.error}
                assert len(places) > 1, "only what failed the same way at two places is the task's own"
        elif isinstance(verdict, PoisonTaskError):
            assert len(self.wanted.get(task, ())) <= 1
            kills = self.kills.get(task, 0)
            assert kills >= LIMITS.max_kills or self.dispatches[task] >= LIMITS.max_attempts
        elif isinstance(verdict, EndpointsUnavailableError):
            assert self.now - self.submitted_at[task] >= LIMITS.unavailable_timeout - 1e-6
            assert all(label in str(verdict) for label in self.eligible[task])
        else:
            assert isinstance(verdict, PoolShutdownError)
            assert self.stopped
        self.settle(task, action)

    def settle(self, task: int, action: actions.Resolve | actions.Reject) -> None:
        assert task in self.eligible
        assert task not in self.settled
        self.settled[task] = action
        self.wanted.pop(task, None)

    def check_outcome(self, stimulus: stimuli.Stimulus, answer: list[actions.Action]) -> None:
        """Every outcome is accounted for by exactly one action."""
        if not isinstance(stimulus, stimuli.Finished | stimuli.Failed | stimuli.Bounced):
            return
        named = [
            a
            for a in answer
            if isinstance(a, actions.Resolve | actions.Reject | actions.Discard) and a.attempt is not None
        ]
        mine = [action for action in named if action.attempt == stimulus.attempt]
        task = self.open.pop(stimulus.attempt, (0, "", 0))[0]
        if not mine:
            assert isinstance(stimulus, stimuli.Failed)
            assert task not in self.settled
            assert task not in self.kept.values(), "one error is kept, the first"
            assert stimulus.failure.then is not FailureAction.FAIL
            self.kept[stimulus.attempt] = task
        else:
            assert len(mine) == 1

    # --- rules: tasks ---------------------------------------------------------------------------------------------

    @initialize(ending=st.sampled_from(["up", "dark", "silent", "stop"]), up=st.sets(labels))
    def begin(self, ending: str, up: set[str]) -> None:
        self.ending = ending
        for label in sorted(up):
            self.bring_up(label)

    @rule(
        function=st.sampled_from(FUNCTIONS),
        eligible=st.sets(labels, min_size=1) | st.just(set(LABELS)),
        priority=st.sampled_from([0.0, 1.0]),
        count=st.integers(1, 4),
        walltime=st.sampled_from([None, None, 0.5, 20.0]),
        imports=st.sampled_from([frozenset[str](), frozenset({"numpy"}), frozenset({"numpy", "ours"})]),
        idempotent=st.booleans(),
    )
    def submit(
        self,
        function: str,
        eligible: set[str],
        priority: float,
        count: int,
        walltime: float | None = None,
        imports: frozenset[str] = frozenset(),
        idempotent: bool = True,  # noqa: FBT001, FBT002 - drawn
    ) -> None:
        for _ in range(count):
            task = len(self.eligible) + 1
            self.eligible[task] = frozenset(eligible)
            self.functions[task] = function
            self.submitted_at[task] = self.now
            self.walltimes[task] = walltime
            self.idempotent[task] = idempotent
            wishes: dict[str, Any] = {"walltime": walltime, "imports": imports, "idempotent": idempotent}
            self.send(stimuli.Submitted(self.now, task, function, frozenset(eligible), priority, **wishes))

    @precondition(lambda self: self.open)
    @rule(which=pick, node=st.sampled_from(NODES))
    def finish(self, which: int, node: str) -> None:
        attempt = sorted(self.open)[which % len(self.open)]
        self.finish_one(attempt, node)

    def finish_one(self, attempt: int, node: str = "") -> None:
        task = self.open[attempt][0]
        was_settled = task in self.settled
        answer = self.send(stimuli.Finished(self.now, attempt, node))
        self.late += was_settled
        assert self.core.late == self.late
        assert (actions.Discard(attempt) if was_settled else actions.Resolve(task, attempt)) in answer

    @precondition(lambda self: self.open)
    @rule(which=pick, kind=st.sampled_from(Kind), node=st.sampled_from(NODES))
    def fail(self, which: int, kind: Kind, node: str) -> None:
        attempt = sorted(self.open)[which % len(self.open)]
        self.fail_one(attempt, kind, node)

    @precondition(lambda self: self.open)
    @rule(which=pick)
    def orphan(self, which: int) -> None:
        """A worker is gone before its executor reports it: the attempt stays open."""
        attempt = sorted(self.open)[which % len(self.open)]
        task = self.open[attempt][0]
        wanted = attempt in self.wanted.get(task, ())
        if wanted:
            self.kills[task] = self.kills.get(task, 0) + 1
        self.send(stimuli.Orphaned(self.now, attempt, Failure(Kind.WORKER_LOST, "WorkerLost", "")))
        assert attempt not in self.wanted.get(task, ())
        assert attempt in self.open

    @precondition(lambda self: self.open)
    @rule(which=pick, node=st.sampled_from(NODES[1:]))
    def bounce(self, which: int, node: str) -> None:
        """A node refuses: that is no attempt."""
        attempt = sorted(self.open)[which % len(self.open)]
        task = self.open[attempt][0]
        self.dispatches[task] -= attempt in self.wanted.get(task, ())
        assert actions.Discard(attempt) in self.send(stimuli.Bounced(self.now, attempt, node))

    @rule(label=labels, there=st.sets(st.sampled_from(NODES[1:])), more=st.booleans())
    def connect(self, label: str, there: set[str], more: bool) -> None:  # noqa: FBT001 - drawn
        managers = tuple((name.split()[2], name.split()[1]) for name in sorted(there))
        self.send(stimuli.Nodes(self.now, label, self.generation[label], managers, more=more))

    def fail_one(self, attempt: int, kind: Kind, node: str = "") -> None:
        task = self.open[attempt][0]
        wanted = attempt in self.wanted.get(task, ())
        failure = Failure(kind, "Error", "of a test")
        if wanted and kind is Kind.WORKER_LOST:
            self.kills[task] = self.kills.get(task, 0) + 1
        self.fail_with(attempt, failure, node)

    def fail_with(self, attempt: int, failure: Failure, node: str = "") -> None:
        task, label, _ = self.open[attempt]
        was_settled = task in self.settled
        self.raised.setdefault(task, []).append((f"{label} {node}", failure.error))
        wanted = attempt in self.wanted.get(task, ())
        others = [other for other in self.wanted.get(task, ()) if other != attempt]
        answer = self.send(stimuli.Failed(self.now, attempt, failure, node))
        if was_settled:
            assert actions.Discard(attempt) in answer
        elif failure.is_own and failure.then is FailureAction.FAIL:
            assert any(isinstance(a, actions.Reject) and a.attempt == attempt for a in answer)
        elif wanted and others:
            assert task not in self.settled
            assert self.wanted[task] == others

    @precondition(lambda self: self.open)
    @rule(which=pick, error=st.sampled_from(sorted(RAISED)), node=st.sampled_from(NODES))
    def raise_one(self, which: int, error: str, node: str) -> None:
        """The task's own code raises, because of itself or of the endpoint."""
        attempt = sorted(self.open)[which % len(self.open)]
        task = self.open[attempt][0]
        wanted = attempt in self.wanted.get(task, ())
        kind, action = RAISED[error]
        self.fail_with(attempt, Failure(kind, error, "of a test", action, raised=True), node)
        if wanted and not self.idempotent[task]:
            assert task in self.settled, "what must not run twice is delivered at once"

    @precondition(lambda self: self.open)
    @rule(label=labels, function=st.sampled_from(FUNCTIONS))
    def bad_place(self, label: str, function: str) -> None:
        """A function raises at an endpoint that lacks something, and succeeds elsewhere."""
        for attempt, (task, where, _) in sorted(self.open.items()):
            if self.functions[task] == function and attempt in self.open:
                if where == label:
                    self.fail_with(
                        attempt, Failure(Kind.PLACE, "ImportError", "", FailureAction.ELSEWHERE, raised=True)
                    )
                else:
                    self.finish_one(attempt)

    @rule(which=pick, rounds=st.integers(1, 3), seconds=st.sampled_from([0.4, 2.0]))
    def straggle(self, which: int, rounds: int, seconds: float) -> None:
        """All places work briskly for a while, then one attempt does not end."""
        for label in LABELS:
            if not self.buried[label]:
                self.bring_up(label)
        for _ in range(rounds):
            self.submit("f", set(LABELS), 0.0, 4, idempotent=True)
            self.pass_time(0.1)
            for attempt in sorted(self.open):
                if self.open[attempt][0] in self.wanted:
                    self.finish_one(attempt)
        self.submit("f", set(LABELS), 0.0, 1 + which % 3, idempotent=True)
        self.pass_time(seconds)

    @precondition(lambda self: self.open)
    @rule()
    def fail_all_bad(self) -> None:
        """One function kills its worker wherever it runs."""
        for attempt, (task, _, _) in sorted(self.open.items()):
            if self.functions[task] == "bad" and attempt in self.open:
                self.fail_one(attempt, Kind.WORKER_LOST)

    @rule(attempt=st.integers(1, 30), finished=st.booleans())
    def report_again(self, attempt: int, finished: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        if attempt in self.open or attempt in self.kept:
            return
        if finished:
            self.late += 1
            answer = self.send(stimuli.Finished(self.now, attempt))
        else:
            answer = self.send(stimuli.Failed(self.now, attempt, Failure(Kind.USER, "Error", "")))
        assert actions.Discard(attempt) in answer

    # --- rules: endpoints -----------------------------------------------------------------------------------------

    @rule(label=labels)
    def start(self, label: str) -> None:
        self.started[label] = True
        self.send(stimuli.Started(self.now, label, self.generation[label]))

    @rule(
        label=labels,
        slots=st.integers(0, 3),
        blocks=st.booleans(),
        stale=st.booleans(),
        left=st.sampled_from([None, 3.0, 30.0]),
    )
    def observe(self, label: str, slots: int, blocks: bool, stale: bool, left: float | None) -> None:  # noqa: FBT001
        if not slots:
            self.streams[label].clear()
        generation = self.generation[label] - (stale and slots == 1)
        until = None if left is None or not slots else self.now + left
        self.send(stimuli.Observed(self.now, label, generation, slots, blocks, until))

    @rule(label=labels, modules=st.sampled_from([frozenset[str](), frozenset({"numpy"}), frozenset({"numpy", "ours"})]))
    def install(self, label: str, modules: frozenset[str]) -> None:
        self.send(stimuli.Environment(self.now, label, self.generation[label], modules))

    @rule(label=labels, ago=st.sampled_from([0.5, 2.0, 4.0]))
    def unanswered(self, label: str, ago: float) -> None:
        self.send(stimuli.Unanswered(self.now, label, self.generation[label], max(0.0, self.now - ago)))

    @rule(label=labels, stale=st.booleans())
    def die(self, label: str, stale: bool) -> None:  # noqa: FBT001 - drawn
        self.bury(label, self.generation[label] - stale)

    def bury(self, label: str, generation: int) -> None:
        if generation == self.generation[label]:
            self.buried[label] = True
        self.send(stimuli.Died(self.now, label, generation, "killed"))

    @rule(label=labels, stream=st.sampled_from(["n1", "n2"]), via_site=st.sampled_from(["", "uc"]))
    def hear(self, label: str, stream: str, via_site: str) -> None:
        self.streams[label].add(stream)
        self.send(stimuli.HeartbeatReceived(self.now, label, stream, via_site=via_site))

    @rule(label=labels, stream=st.sampled_from(["n1", "n2"]))
    def hush(self, label: str, stream: str) -> None:
        self.streams[label].discard(stream)
        self.send(stimuli.StreamEnded(self.now, label, stream))

    @rule()
    def see_fabric(self) -> None:
        self.send(stimuli.FabricPolled(self.now))

    @rule(interval=st.sampled_from([1.0, 10.0]))
    def see_way(self, interval: float) -> None:
        self.send(stimuli.BridgePolled(self.now, "uc", interval))

    @rule(label=labels, lasts=st.sampled_from([None, 5.0, 120.0]))
    def rumour(self, label: str, lasts: float | None) -> None:
        self.send(stimuli.PeerReport(self.now, label, "a facility", "maintenance", lasts))

    @rule(label=labels, seconds=st.sampled_from([None, 0.5, 30.0]))
    def drain(self, label: str, seconds: float | None) -> None:
        until = None if seconds is None else self.now + seconds
        self.drained[label] = float("inf") if until is None else until
        self.answered(self.send(stimuli.Drain(self.now, label, "by hand", until, "drain")), label, "drain")

    @rule(label=labels)
    def resume(self, label: str) -> None:
        self.drained.pop(label, None)
        self.windows[label] = [window for window in self.windows[label] if window[0] > self.now]
        self.answered(self.send(stimuli.Resume(self.now, label, "resume")), label, "resume")
        assert self.core.assessor.health[label].breaker.quarantine_reason is None

    @rule(label=labels, seconds=st.sampled_from([0.0, 5.0, 60.0]))
    def quarantine(self, label: str, seconds: float) -> None:
        self.answered(self.send(stimuli.Quarantine(self.now, label, "odd", self.now + seconds, "q")), label, "q")
        assert not self.core.scheduler.verdicts[label].accepts

    @rule(label=labels, start=st.sampled_from([-5.0, 0.0, 2.0, 15.0]), length=st.sampled_from([1.0, 10.0, 40.0]))
    def announce(self, label: str, start: float, length: float) -> None:
        window = (self.now + start, self.now + start + length)
        self.windows[label].append(window)
        self.answered(self.send(stimuli.Maintenance(self.now, label, *window, "maintenance", "m")), label, "m")

    @rule(label=labels)
    def call_off(self, label: str) -> None:
        self.windows[label].clear()
        self.answered(self.send(stimuli.Maintenance(self.now, label, None, None, "called off", "c")), label, "c")

    def answered(self, answer: list[actions.Action], label: str, request: str) -> None:
        """Check that each request is answered with the state of the endpoint."""
        answers = [a.payload for a in answer if isinstance(a, actions.Publish) and a.key == label]
        (given,) = [reported for reported in answers if isinstance(reported, events.RequestAnswered)]
        assert (given.request, given.endpoint) == (request, label)

    # --- rules: time ----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 3.0, 11.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(beating=st.sets(labels), seconds=st.integers(3, 8))
    def live(self, beating: set[str], seconds: int) -> None:
        """The fabric is read every second; the streams of some endpoints go on, the others are silent."""
        for _ in range(seconds):
            self.beat(beating)

    def beat(self, beating: set[str]) -> None:
        self.pass_time(1.0)
        for label in sorted(beating):
            for stream in sorted(self.streams[label]):
                self.send(stimuli.HeartbeatReceived(self.now, label, stream))
        self.send(stimuli.FabricPolled(self.now))

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        assert set(self.core.tasks) == set(self.eligible) - set(self.settled)
        bound = {
            task.id: [attempt.id for attempt in (task.bound, task.hedge) if attempt is not None]
            for task in self.core.tasks.values()
            if task.bound is not None
        }
        assert bound == self.wanted

    @invariant()
    def kept_errors_are_of_open_tasks(self) -> None:
        doubted = {task for task, doubt in self.core.node_second_opinions.pending.items() if not doubt.is_handed_over}
        assert set(self.kept.values()) == set(self.core.second_opinions.open) | doubted
        assert not set(self.kept.values()) & set(self.settled)

    @invariant()
    def nothing_waits_without_a_deadline(self) -> None:
        due = self.core.next_deadline
        assert due is None or self.wake <= due
        for task in set(self.eligible) - set(self.settled) - set(self.wanted):
            if not any(self.core.scheduler.may_recover(label, self.now) for label in self.eligible[task]):
                assert due is not None

    @invariant()
    def the_calendar_is_followed(self) -> None:
        for label in LABELS:
            assert (self.core.assessor.health[label].draining is not None) == self.is_held(label)

    @invariant()
    def the_pool_is_never_quarantined_whole(self) -> None:
        states = [self.core.state(label)[0] for label in LABELS]
        living = [state for state in states if state not in {State.DOWN, State.STARTING}]
        ordered = [label for label in LABELS if self.core.assessor.health[label].breaker.quarantine_reason is not None]
        if len(living) == len(LABELS) and not ordered:
            assert states.count(State.QUARANTINED) < len(LABELS)

    # --- how it ends ----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        getattr(self, f"end_{self.ending}")()
        assert set(self.settled) == set(self.eligible)
        assert not self.core.tasks
        assert not self.kept, "the shell keeps exceptions for ever"
        assert not self.core.node_second_opinions.pending
        for attempt in sorted(self.open):
            self.send(stimuli.Finished(self.now, attempt))
        replayed = PoolCore(SPECS, LIMITS)
        for stimulus, answer in self.log:
            assert repr(replayed.handle(stimulus)) == answer

    def unsettled(self) -> set[int]:
        return set(self.eligible) - set(self.settled)

    def end_up(self) -> None:
        """Every endpoint works again and time passes: every task is settled."""
        self.reviving = "start"
        for label in LABELS:
            self.resume(label)
            if not self.buried[label]:
                self.bring_up(label)
        for _ in range(PATIENCE):
            if not self.unsettled():
                return
            self.beat(set(LABELS))
            for label in LABELS:
                if not self.buried[label] and self.started[label]:
                    self.bring_up(label)
            for attempt, (_, label, generation) in sorted(self.open.items()):
                if attempt in self.open and generation == self.generation[label] and not self.buried[label]:
                    self.finish_one(attempt)
        pytest.fail(f"{self.unsettled()} wait for ever")

    def end_dark(self) -> None:
        """Every endpoint is gone for good: every task fails in time."""
        self.reviving = "fail"
        for label in LABELS:
            self.bury(label, self.generation[label])
        planned = max((end - self.now for label in LABELS for _, end in self.windows[label]), default=0.0)
        by_hand = max((until - self.now for until in self.drained.values() if until < float("inf")), default=0.0)
        self.pass_time(max(0.0, planned, by_hand) + LIMITS.unavailable_timeout + LIMITS.revive_longest)

    def end_silent(self) -> None:
        """Nothing answers any more, and nothing can be started: no task waits for ever."""
        self.reviving = "fail"
        for label in LABELS:
            if not self.started[label]:
                self.bury(label, self.generation[label])
        for _ in range(PATIENCE // 5):
            if not self.unsettled():
                return
            for label in LABELS:
                if not self.buried[label]:
                    self.send(stimuli.Unanswered(self.now, label, self.generation[label], self.now - 5.0))
            self.pass_time(5.0)
        pytest.fail(f"{self.unsettled()} wait for ever")

    def end_stop(self) -> None:
        """The pool is shut down."""
        self.stopped = True
        self.send(stimuli.Stopped(self.now))
        self.submit("f", {"alpha"}, 0.0, 1, idempotent=True)
        self.pass_time(100.0)
        for label in LABELS:
            self.bring_up(label)
            self.send(stimuli.Died(self.now, label, self.generation[label], "shut down"))


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(
    max_examples=400,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPoolMachine.pytestmark = [pytest.mark.timeout(600)]  # type: ignore[attr-defined]
