"""The real `PoolCore` on a virtual clock, with simulated endpoints and scripted faults."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, Final

from msgspec import Struct

from diaspora_parsl import events
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.failures import Failure, Kind
from diaspora_parsl.pool import words
from diaspora_parsl.pool.core import PoolCore
from diaspora_parsl.testing import faults as f

#: Seconds between two reads of the fabric.
_READ: Final = 0.25
#: Seconds between two questions to a control channel.
_POLL: Final = 1.0


class SimEndpoint(Struct, frozen=True, kw_only=True):
    """One simulated endpoint; times in seconds of virtual time."""

    label: str
    slots: int = 4
    speed: float = 1.0
    """2.0 needs half the time."""
    site: str = ""
    start_delay: float = 1.0
    """From the start of a generation until its workers are connected."""
    notice: float = 1.0
    """From its death until the pool is told by its own evidence."""
    heartbeat: float | None = None
    """Interval of its heartbeats on the fabric; None: no agent runs there."""


class SimTask(Struct, frozen=True, kw_only=True):
    """One simulated task."""

    function: str = "work"
    seconds: float = 1.0
    """On an endpoint of speed 1."""
    at: float = 0.0
    """When it is submitted."""
    eligible: frozenset[str] | None = None
    """Labels of the endpoints that may run it; None: all."""
    priority: float = 0.0
    raises: bool = False
    """It ends with an exception of its own."""
    kills: bool = False
    """It takes its worker with it, wherever it runs."""


class Detection(Struct, frozen=True):
    """How long a fault went unnoticed."""

    fault: f.Fault
    seconds: float
    """From the fault until the pool took the work of the endpoint away, or declared it dead."""


class Report(Struct, frozen=True, kw_only=True):
    """What came of a run."""

    submitted: int
    resolved: int
    rejected: int
    lost: int
    """Tasks that were never settled."""
    twice: int
    """Tasks that were settled more than once."""
    makespan: float
    """Virtual seconds until the last task was settled."""
    ideal_makespan: float
    """All work over all slots and their speed: no order of execution can be faster."""
    attempts: int
    executions: int
    """Attempts that ran to their end, wanted or not."""
    rerouted: int
    late: int
    detections: tuple[Detection, ...]
    steps: int
    """Stimuli handled."""
    digest: str
    """Of every dispatch and settlement with its time: equal for equal runs."""

    @property
    def settled(self) -> int:
        """Tasks that were settled."""
        return self.submitted - self.lost


class Simulator:
    """Runs tasks on simulated endpoints, in virtual time. Equal arguments give equal runs, in every process.

    Example:
        >>> endpoints = [SimEndpoint(label="alpha"), SimEndpoint(label="beta", speed=2.0)]
        >>> script = f.FaultScript((f.Kill(at=5.0, endpoint="alpha"),))
        >>> Simulator(endpoints=endpoints, tasks=100, faults=script, seed=1).run().lost
        0

    Args:
        endpoints: where the tasks run.
        tasks: the tasks, or how many: then of three functions and 0.5 to 1.5 s each, submitted at the start.
        faults: what goes wrong.
        seed: of drawn tasks and of the jitter of run times.
        settings: of the pool.
        jitter: run times vary by this fraction.
        limit: virtual seconds after which what is not settled counts as lost.
        validate_every: check the invariants of the core after so many stimuli; 0: at the end only.

    Raises:
        ConfigurationError: two endpoints share a label, or a fault or a task names an endpoint that does not exist.
    """

    def __init__(
        self,
        *,
        endpoints: Sequence[SimEndpoint],
        tasks: int | Sequence[SimTask],
        faults: f.FaultScript | Sequence[f.Fault] = (),
        seed: int = 0,
        settings: words.PoolSettings | None = None,
        jitter: float = 0.1,
        limit: float = 86_400.0,
        validate_every: int = 0,
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._endpoints = list(endpoints)
        self._tasks = _drawn(tasks, self._rng) if isinstance(tasks, int) else list(tasks)
        self._faults = faults if isinstance(faults, f.FaultScript) else f.FaultScript(tuple(faults))
        self._settings = settings
        self._jitter = jitter
        self._limit = limit
        self._validate_every = validate_every
        labels = [spec.label for spec in self._endpoints]
        if len(set(labels)) < len(labels):
            raise ConfigurationError(f"two simulated endpoints share a label: {', '.join(labels)}")
        named = {fault.endpoint for fault in self._faults if not isinstance(fault, f.LoseFabric)}
        named.update(label for task in self._tasks for label in task.eligible or ())
        if named - set(labels):
            raise ConfigurationError(f"no such simulated endpoint: {', '.join(sorted(named - set(labels)))}")

    def run(self) -> Report:
        """Run until every task is settled, or the limit is reached. Each call is a run of its own."""
        state = self._rng.getstate()
        try:
            return _Run(self._endpoints, self._tasks, self._faults, self._rng, self._settings, self._jitter).to_end(
                self._limit, self._validate_every
            )
        finally:
            self._rng.setstate(state)


def _drawn(count: int, rng: random.Random) -> list[SimTask]:
    return [SimTask(function=f"function-{i % 3}", seconds=rng.uniform(0.5, 1.5)) for i in range(count)]


class _Site:
    """The state of one simulated endpoint."""

    def __init__(self, spec: SimEndpoint) -> None:
        self.spec = spec
        self.generation = 0
        self.alive = False
        self.waiting: dict[int, SimTask] = {}
        #: Attempts that run: when they end, and what they are.
        self.running: dict[int, tuple[float, SimTask]] = {}
        self.frozen_at: float | None = None
        self.frozen_until = 0.0
        self.mute_until = 0.0
        self.slow_until = 0.0
        self.slow_by = 1.0
        self.answered_at = 0.0


class _Run:
    def __init__(
        self,
        endpoints: Sequence[SimEndpoint],
        tasks: Sequence[SimTask],
        faults: f.FaultScript,
        rng: random.Random,
        settings: words.PoolSettings | None,
        jitter: float,
    ) -> None:
        specs = [words.EndpointSpec(label=e.label, site=e.site, capacity=e.slots) for e in endpoints]
        self.core = PoolCore(specs, settings)
        self.sites = {spec.label: _Site(spec) for spec in endpoints}
        self.everywhere = frozenset(self.sites)
        self.tasks = tasks
        self.rng = rng
        self.jitter = jitter
        self.now = 0.0
        self.fabric_lost_until = 0.0
        self.wake = float("inf")
        self.settled: dict[int, int] = {}
        self.resolved = self.attempts = self.executions = self.steps = 0
        self.makespan = 0.0
        self.pending: dict[str, f.Fault] = {}
        self.detections: list[Detection] = []
        self.digest = hashlib.sha256()
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.count = 0
        self._perform: dict[type, Callable[[Any], None]] = {
            words.Dispatch: self.take,
            words.Resolve: self.settle,
            words.Reject: self.settle,
            words.Revive: self.revive,
            words.WakeAt: self.wake_at,
            words.Publish: self.notice,
        }
        for label in self.sites:
            self.plan(0.0, self.start, label, 0)
        for number, task in enumerate(tasks, 1):
            self.plan(task.at, self.submit, number, task)
        for fault in faults:
            self.plan(fault.at, self.strike, fault)
        if any(spec.heartbeat is not None for spec in endpoints):
            self.plan(_READ, self.read_fabric)

    def plan(self, at: float, what: Callable[..., None], *args: Any) -> None:
        self.count += 1
        heappush(self.events, (at, self.count, what, args))

    def to_end(self, limit: float, validate_every: int) -> Report:
        checked = 0
        while self.events and len(self.settled) < len(self.tasks):
            at, _, what, args = heappop(self.events)
            if at > limit:
                break
            self.now = at
            what(*args)
            if validate_every and self.steps - checked >= validate_every:
                checked = self.steps
                self.core.validate()
        self.core.validate()
        power = sum(site.spec.slots * site.spec.speed for site in self.sites.values())
        return Report(
            submitted=len(self.tasks),
            resolved=self.resolved,
            rejected=len(self.settled) - self.resolved,
            lost=len(self.tasks) - len(self.settled),
            twice=sum(times > 1 for times in self.settled.values()),
            makespan=self.makespan,
            ideal_makespan=sum(task.seconds for task in self.tasks) / power if power else float("inf"),
            attempts=self.attempts,
            executions=self.executions,
            rerouted=self.core.rerouted,
            late=self.core.late,
            detections=tuple(self.detections),
            steps=self.steps,
            digest=self.digest.hexdigest(),
        )

    def tell(self, stimulus: words.Stimulus) -> None:
        self.steps += 1
        for action in self.core.handle(stimulus):
            perform = self._perform.get(type(action))
            if perform is not None:
                perform(action)

    def note(self, what: str, task: int, attempt: int | None) -> None:
        self.digest.update(f"{self.now:.6f} {what} {task} {attempt}\n".encode())

    # --- what the core asks for -----------------------------------------------------------------------------------

    def take(self, action: words.Dispatch) -> None:
        self.attempts += 1
        self.note(action.endpoint, action.task, action.attempt)
        site = self.sites[action.endpoint]
        if site.alive and site.generation == action.generation:  # else it is dead, and nobody knows yet
            site.waiting[action.attempt] = self.tasks[action.task - 1]
            self.work(site)

    def settle(self, action: words.Resolve | words.Reject) -> None:
        self.note(type(action).__name__, action.task, action.attempt)
        self.settled[action.task] = self.settled.get(action.task, 0) + 1
        self.resolved += isinstance(action, words.Resolve)
        self.makespan = self.now

    def revive(self, action: words.Revive) -> None:
        site = self.sites[action.endpoint]
        self.stop(site)
        site.generation = action.generation
        self.plan(self.now, self.start, action.endpoint, action.generation)

    def wake_at(self, action: words.WakeAt) -> None:
        if action.at < self.wake:
            self.wake = action.at
            self.plan(action.at, self.tick, action.at)

    def tick(self, at: float) -> None:
        if at == self.wake:
            self.wake = float("inf")
            self.tell(words.Tick(self.now))

    def notice(self, action: words.Publish) -> None:
        told = action.payload
        if isinstance(told, events.EndpointDown | events.EndpointReviving) and told.endpoint in self.pending:
            fault = self.pending.pop(told.endpoint)
            self.detections.append(Detection(fault, self.now - fault.at))

    # --- how endpoints behave -------------------------------------------------------------------------------------

    def submit(self, number: int, task: SimTask) -> None:
        eligible = self.everywhere if task.eligible is None else task.eligible
        self.tell(words.Submitted(self.now, number, task.function, eligible, task.priority))

    def start(self, label: str, generation: int) -> None:
        site = self.sites[label]
        if site.generation != generation:
            return
        site.alive = True
        site.frozen_at = None
        site.answered_at = self.now
        self.tell(words.Started(self.now, label, generation))
        self.tell(words.Observed(self.now, label, generation, 0, blocks_expected=True))
        self.plan(self.now + site.spec.start_delay, self.connect, label, generation)

    def connect(self, label: str, generation: int) -> None:
        """Its workers are there."""
        self.poll(label, generation)
        if self.sites[label].spec.heartbeat is not None:
            self.beat(label, generation)

    def poll(self, label: str, generation: int) -> None:
        site = self.sites[label]
        if not site.alive or site.generation != generation:
            return
        if self.now < site.mute_until:
            self.tell(words.Unanswered(self.now, label, generation, site.answered_at))
        else:
            site.answered_at = self.now
            self.tell(words.Observed(self.now, label, generation, site.spec.slots, blocks_expected=True))
        self.plan(self.now + _POLL, self.poll, label, generation)

    def beat(self, label: str, generation: int) -> None:
        site = self.sites[label]
        interval = site.spec.heartbeat
        if interval is None or not site.alive or site.generation != generation:
            return
        if site.frozen_at is None and self.now >= self.fabric_lost_until:
            self.tell(words.Heard(self.now, label, "block/node", interval))
        self.plan(self.now + interval, self.beat, label, generation)

    def read_fabric(self) -> None:
        if self.now >= self.fabric_lost_until:
            self.tell(words.FabricSeen(self.now))
        self.plan(self.now + _READ, self.read_fabric)

    def work(self, site: _Site) -> None:
        """Let idle workers begin."""
        while site.frozen_at is None and site.waiting and len(site.running) < site.spec.slots:
            attempt = next(iter(site.waiting))
            task = site.waiting.pop(attempt)
            seconds = task.seconds / site.spec.speed * (1.0 + self.rng.uniform(-self.jitter, self.jitter))
            if self.now < site.slow_until:
                seconds *= site.slow_by
            self.run_until(site, attempt, task, self.now + seconds)

    def run_until(self, site: _Site, attempt: int, task: SimTask, at: float) -> None:
        site.running[attempt] = (at, task)
        self.plan(at, self.end, site, attempt)

    def end(self, site: _Site, attempt: int) -> None:
        at, task = site.running.get(attempt, (None, None))
        if at != self.now or task is None or site.frozen_at is not None:
            return  # it was lost, or stands still until the thaw
        del site.running[attempt]
        if task.kills:
            self.tell(words.Failed(self.now, attempt, Failure(Kind.WORKER_LOST, "WorkerLost", "it died")))
        else:
            self.executions += 1
            failure = Failure(Kind.USER, "ValueError", "raised by the task")
            outcome = words.Failed(self.now, attempt, failure) if task.raises else words.Finished(self.now, attempt)
            self.tell(outcome)
        self.work(site)

    def stop(self, site: _Site) -> None:
        site.alive = False
        site.waiting.clear()
        site.running.clear()
        site.frozen_at = None

    # --- faults ---------------------------------------------------------------------------------------------------

    def strike(self, fault: f.Fault) -> None:
        if isinstance(fault, f.LoseFabric):
            self.fabric_lost_until = max(self.fabric_lost_until, fault.until)
            return
        site = self.sites[fault.endpoint]
        if not site.alive:
            return  # what is dead already cannot be hurt
        match fault:
            case f.Kill():
                self.stop(site)
                self.pending[fault.endpoint] = fault
                died = words.Died(self.now + site.spec.notice, fault.endpoint, site.generation, "killed by the script")
                self.plan(died.at, self.tell, died)
            case f.Freeze():
                if site.frozen_at is None:
                    site.frozen_at = self.now
                    self.pending[fault.endpoint] = fault
                site.frozen_until = max(site.frozen_until, fault.until)
                self.plan(site.frozen_until, self.thaw, site, site.generation)
            case f.Mute():
                site.mute_until = max(site.mute_until, fault.until)
                self.pending.setdefault(fault.endpoint, fault)
            case f.Slow():
                site.slow_until, site.slow_by = fault.until, fault.factor
            case f.LoseWorker():
                self.lose_worker(site)

    def thaw(self, site: _Site, generation: int) -> None:
        if site.frozen_at is None or site.generation != generation or self.now < site.frozen_until:
            return
        pause = self.now - site.frozen_at
        site.frozen_at = None
        self.pending.pop(site.spec.label, None)
        for attempt, (at, task) in list(site.running.items()):
            self.run_until(site, attempt, task, at + pause)
        self.work(site)

    def lose_worker(self, site: _Site) -> None:
        if site.running and site.frozen_at is None:
            attempt = next(iter(site.running))
            del site.running[attempt]
            self.tell(words.Failed(self.now, attempt, Failure(Kind.WORKER_LOST, "WorkerLost", "lost by the script")))
            self.work(site)
