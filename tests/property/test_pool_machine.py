"""The pool's core against a small model, under every stimulus in any order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from diaspora_parsl import events
from diaspora_parsl.errors import EndpointsUnavailableError, PoisonTaskError, PoolShutdownError
from diaspora_parsl.failures import Blame, Failure, Kind
from diaspora_parsl.health.board import State
from diaspora_parsl.pool import words as w
from diaspora_parsl.pool.core import PoolCore

LABELS = ("alpha", "beta", "gamma")
SPECS = [w.EndpointSpec(label=label, site=label, slots_cap=2 if label == "gamma" else None) for label in LABELS]
LIMITS = w.PoolSettings(
    down_limit=30.0, stall_limit=10.0, max_attempts=7, revive_longest=8.0, shun_time=5.0, healthy_after=10.0
)
NODES = ("", "h0 0 m0", "h1 1 m1", "h1 2 m2", "h0 3 m3")
FUNCTIONS = ("f", "g", "bad")
#: More virtual seconds than any back-off of the breaker, twice over.
PATIENCE = 1500

labels = st.sampled_from(LABELS)
pick = st.integers(0, 1 << 16)


class PoolMachine(RuleBasedStateMachine):
    """Drives the core as a shell would, and keeps its own small account of what must be true."""

    def __init__(self) -> None:
        super().__init__()
        self.core = PoolCore(SPECS, LIMITS)
        self.now = 0.0
        self.wake = float("inf")
        self.log: list[tuple[w.Stimulus, str]] = []
        self.eligible: dict[int, frozenset[str]] = {}
        self.functions: dict[int, str] = {}
        self.submitted_at: dict[int, float] = {}
        self.settled: dict[int, w.Resolve | w.Reject] = {}
        self.dispatches: dict[int, int] = {}
        self.kills: dict[int, int] = {}
        #: Attempts that have not reported: task, endpoint, generation.
        self.open: dict[int, tuple[int, str, int]] = {}
        #: The attempt whose outcome each task waits for.
        self.wanted: dict[int, int] = {}
        self.generation = dict.fromkeys(LABELS, 0)
        self.started = dict.fromkeys(LABELS, False)
        self.buried = dict.fromkeys(LABELS, False)
        self.draining = dict.fromkeys(LABELS, False)
        self.streams: dict[str, set[str]] = {label: set() for label in LABELS}
        self.late = 0
        self.stopped = False
        self.repeatable: set[int] = set()
        #: Attempts whose exceptions are kept by the shell.
        self.kept: set[int] = set()
        self.ending = "up"
        #: What the shell does with `Revive`: leave it be, start it, or fail to.
        self.reviving = "leave"
        self.pending_revivals: list[str] = []

    # --- the shell ------------------------------------------------------------------------------------------------

    def tell(self, stimulus: w.Stimulus) -> list[w.Action]:
        if isinstance(stimulus, w.Tick):
            self.wake = float("inf")
        actions = self.core.handle(stimulus)
        self.log.append((stimulus, repr(actions)))
        for action in actions:
            self.check(stimulus, action)
        self.check_outcome(stimulus, actions)
        self.core.validate()
        while self.pending_revivals and self.reviving != "leave":
            label = self.pending_revivals.pop()
            if self.reviving == "start":
                self.bring_up(label)
            else:
                self.tell(w.Died(self.now, label, self.generation[label], "could not be started"))
        return actions

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.wake <= until:
            self.now = max(self.now, self.wake)
            self.tell(w.Tick(self.now))
        self.now = until

    def bring_up(self, label: str) -> None:
        if not self.started[label]:
            self.started[label] = True
            self.tell(w.Started(self.now, label, self.generation[label]))
        self.tell(w.Observed(self.now, label, self.generation[label], 2, blocks_expected=True))

    # --- what must hold of each answer ----------------------------------------------------------------------------

    def check(self, stimulus: w.Stimulus, action: w.Action) -> None:
        match action:
            case w.Dispatch():
                self.check_dispatch(action)
            case w.Resolve(task, attempt):
                assert isinstance(stimulus, w.Finished)
                assert stimulus.attempt == attempt
                assert self.open[attempt][0] == task
                self.settle(task, action)
            case w.Reject():
                self.check_reject(stimulus, action)
            case w.WakeAt(at):
                assert at > self.now
                self.wake = min(self.wake, at)
            case w.Revive(label, generation):
                assert generation == self.generation[label] + 1
                assert not self.draining[label]
                self.generation[label] = generation
                self.started[label] = self.buried[label] = False
                self.streams[label].clear()
                self.pending_revivals.append(label)
            case w.Publish(events.TaskRerouted() as told):
                assert told.task not in self.settled
                assert self.wanted.pop(told.task) == told.attempt
            case w.Publish(events.TaskLate() as told):
                assert told.task in self.settled
            case w.Publish(events.EndpointReviving() as told):
                self.buried[told.endpoint] = True

    def check_dispatch(self, action: w.Dispatch) -> None:
        task, label = action.task, action.endpoint
        health = self.core.board.health[label]
        assert not self.stopped
        assert task not in self.settled
        assert task not in self.wanted
        assert label in self.eligible[task]
        assert action.generation == self.generation[label]
        assert self.started[label]
        assert not self.buried[label]
        assert not self.draining[label]
        assert health.slots > 0
        assert not health.breaker.is_tripped or health.breaker.probe == action.attempt
        assert action.attempt not in self.open
        self.open[action.attempt] = (task, label, action.generation)
        self.wanted[task] = action.attempt
        self.dispatches[task] = self.dispatches.get(task, 0) + 1
        assert self.dispatches[task] <= LIMITS.max_attempts

    def check_reject(self, stimulus: w.Stimulus, action: w.Reject) -> None:
        task, verdict = action.task, action.verdict
        if verdict is None and action.attempt in self.kept:
            assert task in self.repeatable
        elif verdict is None:
            assert isinstance(stimulus, w.Failed)
            assert stimulus.attempt == action.attempt
            loss = {Kind.WORKER_LOST, Kind.MANAGER_LOST, Kind.ENDPOINT_LOST}
            assert stimulus.failure.kind not in loss
        elif isinstance(verdict, PoisonTaskError):
            kills = self.kills.get(task, 0)
            assert kills >= LIMITS.max_kills or self.dispatches[task] >= LIMITS.max_attempts
        elif isinstance(verdict, EndpointsUnavailableError):
            assert self.now - self.submitted_at[task] >= LIMITS.down_limit - 1e-6
            assert all(label in str(verdict) for label in self.eligible[task])
        else:
            assert isinstance(verdict, PoolShutdownError)
            assert self.stopped
        self.settle(task, action)

    def settle(self, task: int, action: w.Resolve | w.Reject) -> None:
        assert task in self.eligible
        assert task not in self.settled
        self.settled[task] = action
        self.wanted.pop(task, None)

    def check_outcome(self, stimulus: w.Stimulus, actions: list[w.Action]) -> None:
        """Every outcome is accounted for by exactly one action."""
        if not isinstance(stimulus, w.Finished | w.Failed | w.Bounced):
            self.kept -= {a.attempt for a in actions if isinstance(a, w.Reject | w.Discard)}
            return
        named = [a for a in actions if isinstance(a, w.Resolve | w.Reject | w.Discard) and a.attempt is not None]
        mine = [action for action in named if action.attempt == stimulus.attempt]
        released = [action for action in named if action.attempt in self.kept]
        assert named == mine + released or named == released + mine
        self.kept -= {action.attempt for action in released}
        task = self.open.get(stimulus.attempt, (0, "", 0))[0]
        if not mine:  # an exception that is not believed yet
            assert isinstance(stimulus, w.Failed)
            assert task in self.repeatable
            assert task not in self.settled
            self.kept.add(stimulus.attempt)
        else:
            assert len(mine) == 1
        self.open.pop(stimulus.attempt, None)

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
        repeatable=st.booleans(),
    )
    def submit(
        self,
        function: str,
        eligible: set[str],
        priority: float,
        count: int,
        repeatable: bool = False,  # noqa: FBT001, FBT002 - drawn
    ) -> None:
        for _ in range(count):
            task = len(self.eligible) + 1
            self.eligible[task] = frozenset(eligible)
            self.functions[task] = function
            self.submitted_at[task] = self.now
            if repeatable:
                self.repeatable.add(task)
            self.tell(w.Submitted(self.now, task, function, frozenset(eligible), priority, repeatable=repeatable))

    @precondition(lambda self: self.open)
    @rule(which=pick, node=st.sampled_from(NODES))
    def finish(self, which: int, node: str) -> None:
        attempt = sorted(self.open)[which % len(self.open)]
        self.finish_one(attempt, node)

    def finish_one(self, attempt: int, node: str = "") -> None:
        task = self.open[attempt][0]
        was_settled = task in self.settled
        actions = self.tell(w.Finished(self.now, attempt, node))
        self.late += was_settled
        assert self.core.late == self.late
        assert (w.Discard(attempt) if was_settled else w.Resolve(task, attempt)) in actions

    @precondition(lambda self: self.open)
    @rule(which=pick, kind=st.sampled_from(Kind), node=st.sampled_from(NODES))
    def fail(self, which: int, kind: Kind, node: str) -> None:
        attempt = sorted(self.open)[which % len(self.open)]
        self.fail_one(attempt, kind, node)

    @precondition(lambda self: self.open)
    @rule(which=pick, node=st.sampled_from(NODES[1:]))
    def bounce(self, which: int, node: str) -> None:
        """A node refuses: that is no attempt."""
        attempt = sorted(self.open)[which % len(self.open)]
        task = self.open[attempt][0]
        self.dispatches[task] -= self.wanted.get(task) == attempt
        assert w.Discard(attempt) in self.tell(w.Bounced(self.now, attempt, node))

    @rule(label=labels, there=st.sets(st.sampled_from(NODES[1:])), more=st.booleans())
    def connect(self, label: str, there: set[str], more: bool) -> None:  # noqa: FBT001 - drawn
        managers = tuple((name.split()[2], name.split()[1]) for name in sorted(there))
        self.tell(w.Nodes(self.now, label, self.generation[label], managers, more=more))

    def fail_one(self, attempt: int, kind: Kind, node: str = "") -> None:
        task = self.open[attempt][0]
        wanted = self.wanted.get(task) == attempt
        failure = Failure(kind, "Error", "of a test")
        if wanted and kind is Kind.WORKER_LOST:
            self.kills[task] = self.kills.get(task, 0) + 1
        was_settled = task in self.settled
        may_wait = wanted and node and kind is Kind.USER and task in self.repeatable
        actions = self.tell(w.Failed(self.now, attempt, failure, node))
        if failure.blame is Blame.TASK and not was_settled:
            assert w.Reject(task, attempt) in actions or may_wait
        if was_settled:
            assert w.Discard(attempt) in actions

    @precondition(lambda self: self.open)
    @rule()
    def fail_all_bad(self) -> None:
        """One function kills its worker wherever it runs."""
        for attempt, (task, _, _) in sorted(self.open.items()):
            if self.functions[task] == "bad" and attempt in self.open:
                self.fail_one(attempt, Kind.WORKER_LOST)

    @rule(attempt=st.integers(1, 30), finished=st.booleans())
    def report_again(self, attempt: int, finished: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        if attempt in self.open:
            return
        if finished:
            self.late += 1
            actions = self.tell(w.Finished(self.now, attempt))
        else:
            actions = self.tell(w.Failed(self.now, attempt, Failure(Kind.USER, "Error", "")))
        assert w.Discard(attempt) in actions

    # --- rules: endpoints -----------------------------------------------------------------------------------------

    @rule(label=labels)
    def start(self, label: str) -> None:
        self.started[label] = True
        self.tell(w.Started(self.now, label, self.generation[label]))

    @rule(label=labels, slots=st.integers(0, 3), blocks=st.booleans(), stale=st.booleans())
    def observe(self, label: str, slots: int, blocks: bool, stale: bool) -> None:  # noqa: FBT001 - drawn
        if not slots:
            self.streams[label].clear()
        generation = self.generation[label] - (stale and slots == 1)
        self.tell(w.Observed(self.now, label, generation, slots, blocks))

    @rule(label=labels, ago=st.sampled_from([0.5, 2.0, 4.0]))
    def unanswered(self, label: str, ago: float) -> None:
        self.tell(w.Unanswered(self.now, label, self.generation[label], max(0.0, self.now - ago)))

    @rule(label=labels, stale=st.booleans())
    def die(self, label: str, stale: bool) -> None:  # noqa: FBT001 - drawn
        self.bury(label, self.generation[label] - stale)

    def bury(self, label: str, generation: int) -> None:
        if generation == self.generation[label]:
            self.buried[label] = True
        self.tell(w.Died(self.now, label, generation, "killed"))

    @rule(label=labels, stream=st.sampled_from(["n1", "n2"]))
    def hear(self, label: str, stream: str) -> None:
        self.streams[label].add(stream)
        self.tell(w.Heard(self.now, label, stream))

    @rule(label=labels, stream=st.sampled_from(["n1", "n2"]))
    def hush(self, label: str, stream: str) -> None:
        self.streams[label].discard(stream)
        self.tell(w.Hushed(self.now, label, stream))

    @rule()
    def see_fabric(self) -> None:
        self.tell(w.FabricSeen(self.now))

    @rule(label=labels)
    def rumour(self, label: str) -> None:
        self.tell(w.Rumour(self.now, label, "a facility", "maintenance"))

    @rule(label=labels)
    def drain(self, label: str) -> None:
        self.draining[label] = True
        self.tell(w.Drain(self.now, label, "maintenance"))

    @rule(label=labels)
    def resume(self, label: str) -> None:
        self.draining[label] = False
        self.tell(w.Resume(self.now, label))

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
                self.tell(w.Heard(self.now, label, stream))
        self.tell(w.FabricSeen(self.now))

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        assert set(self.core.tasks) == set(self.eligible) - set(self.settled)
        bound = {task.id: task.bound.id for task in self.core.tasks.values() if task.bound is not None}
        assert bound == self.wanted

    @invariant()
    def nothing_waits_without_a_deadline(self) -> None:
        due = self.core.next_deadline
        assert due is None or self.wake <= due
        for task in set(self.eligible) - set(self.settled) - set(self.wanted):
            if not any(self.core.scheduler.is_hope(label, self.now) for label in self.eligible[task]):
                assert due is not None

    @invariant()
    def the_pool_is_never_quarantined_whole(self) -> None:
        states = [self.core.state(label)[0] for label in LABELS]
        living = [state for state in states if state not in {State.DOWN, State.STARTING}]
        if len(living) == len(LABELS):
            assert states.count(State.QUARANTINED) < len(LABELS)

    # --- how it ends ----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        getattr(self, f"end_{self.ending}")()
        assert set(self.settled) == set(self.eligible)
        assert not self.core.tasks
        assert not self.kept, "the shell keeps exceptions for ever"
        assert not self.core.wards.doubts
        for attempt in sorted(self.open):
            self.tell(w.Finished(self.now, attempt))
        replayed = PoolCore(SPECS, LIMITS)
        for stimulus, answer in self.log:
            assert repr(replayed.handle(stimulus)) == answer

    def unsettled(self) -> set[int]:
        return set(self.eligible) - set(self.settled)

    def end_up(self) -> None:
        """Every place works again, and time runs: every task is settled."""
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
        """Every place is gone and stays away: every task is told so in time."""
        self.reviving = "fail"
        for label in LABELS:
            self.bury(label, self.generation[label])
        self.pass_time(LIMITS.down_limit + LIMITS.revive_longest)

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
                    self.tell(w.Unanswered(self.now, label, self.generation[label], self.now - 5.0))
            self.pass_time(5.0)
        pytest.fail(f"{self.unsettled()} wait for ever")

    def end_stop(self) -> None:
        """The pool is shut down."""
        self.stopped = True
        self.tell(w.Stopped(self.now))
        self.submit("f", {"alpha"}, 0.0, 1)
        self.pass_time(100.0)
        for label in LABELS:
            self.bring_up(label)
            self.tell(w.Died(self.now, label, self.generation[label], "shut down"))


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(
    max_examples=1000,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPoolMachine.pytestmark = [pytest.mark.timeout(600)]  # type: ignore[attr-defined]
