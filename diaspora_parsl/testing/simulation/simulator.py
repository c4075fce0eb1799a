"""The real `PoolCore` on a virtual clock, with simulated endpoints and scripted faults."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, Final

from msgspec.structs import replace

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failures import Failure, Kind
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.core.health.correlated_failures import SITE_OUTAGE
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.simulation.capacity import surviving_makespan
from diaspora_parsl.testing.simulation.scenario import Detection, Report, SimEndpoint, SimTask, quantile
from diaspora_parsl.testing.simulation.simulated_endpoint import Running, Site

__all__ = ["Detection", "Report", "SimEndpoint", "SimTask", "Simulator"]

#: Seconds between two reads of the fabric.
_READ: Final = 0.25
#: Seconds between two polls of a control channel.
_POLL: Final = 1.0


class Simulator:
    """Run tasks on simulated endpoints in virtual time. Equal arguments give equal runs in every process.

    Example:
        >>> endpoints = [SimEndpoint(label="alpha"), SimEndpoint(label="beta", speed=2.0)]
        >>> script = f.FaultScript((f.Kill(at=5.0, endpoint="alpha"),))
        >>> Simulator(endpoints=endpoints, tasks=100, faults=script, seed=1).run().lost
        0

    Args:
        endpoints: Simulated endpoints.
        tasks: Tasks, or a number of tasks to draw: three functions, 0.5 to 1.5 s each, submitted at the start.
        faults: Fault script.
        seed: Seed of drawn tasks and of run-time jitter.
        settings: Settings of the pool.
        jitter: Fraction by which run times vary.
        limit: Virtual seconds after which unsettled tasks count as lost.
        validate_every: Number of stimuli between two checks of the core's invariants; 0: check at the end only.

    Raises:
        ConfigurationError: Two endpoints share a label, a fault or a task names an unknown endpoint, or a fault cannot
            be simulated.
    """

    def __init__(
        self,
        *,
        endpoints: Sequence[SimEndpoint],
        tasks: int | Sequence[SimTask],
        faults: f.FaultScript | Sequence[f.Fault] = (),
        seed: int = 0,
        settings: PoolSettings | None = None,
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
        named = self._faults.endpoints()
        named.update(label for task in self._tasks for label in task.eligible or ())
        nodes = {spec.label: spec.nodes for spec in self._endpoints}
        for fault in self._faults:
            if isinstance(fault, f.GlobusFault):
                raise ConfigurationError(f"{fault} cannot be simulated: {f.GLOBUS_ONLY}")
            if isinstance(fault, f.LoseNode | f.BlackHole) and fault.node >= nodes.get(fault.endpoint, fault.node + 1):
                raise ConfigurationError(f"{fault}: {fault.endpoint} has {nodes[fault.endpoint]} nodes; count from 0")
        if named - set(labels):
            raise ConfigurationError(f"no such simulated endpoint: {', '.join(sorted(named - set(labels)))}")

    def run(self) -> Report:
        """Run until every task settles or the limit is reached. Each call starts a fresh run."""
        state = self._rng.getstate()
        try:
            return _Run(self._endpoints, self._tasks, self._faults, self._rng, self._settings, self._jitter).to_end(
                self._limit, self._validate_every
            )
        finally:
            self._rng.setstate(state)


def _drawn(count: int, rng: random.Random) -> list[SimTask]:
    return [SimTask(function=f"function-{i % 3}", seconds=rng.uniform(0.5, 1.5)) for i in range(count)]


class _Run:
    def __init__(
        self,
        endpoints: Sequence[SimEndpoint],
        tasks: Sequence[SimTask],
        faults: f.FaultScript,
        rng: random.Random,
        settings: PoolSettings | None,
        jitter: float,
    ) -> None:
        specs = [EndpointSpec(label=e.label, site=e.site, capacity=e.slots) for e in endpoints]
        self.core = PoolCore(specs, settings)
        self.sites = {spec.label: Site(spec) for spec in endpoints}
        self.everywhere = frozenset(self.sites)
        self.tasks = tasks
        self.rng = rng
        self.jitter = jitter
        self.now = 0.0
        self.fabric_lost_until = 0.0
        self.stalled_until = 0.0
        #: Stimuli that arrive while the process of the pool is stopped.
        self.delayed: list[stimuli.Stimulus] = []
        self.faults = faults
        self.endpoints = endpoints
        self.false_suspicions = self.precautions = self.quarantined = 0
        #: Worker seconds of ended attempts not settled yet, of all attempts, and of useful attempts.
        self.took: dict[int, float] = {}
        self.busy = self.useful = 0.0
        self.wake = float("inf")
        self.settled: dict[int, int] = {}
        self.resolved = self.attempts = self.executions = self.steps = 0
        self.makespan = 0.0
        self.latencies = array("d")
        self.pending: dict[str, f.Fault] = {}
        self.detections: list[Detection] = []
        self.digest = hashlib.sha256()
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.count = 0
        self._perform: dict[type, Callable[[Any], None]] = {
            actions.Dispatch: self.dispatch,
            actions.Resolve: self.settle,
            actions.Reject: self.settle,
            actions.Revive: self.revive,
            actions.WakeAt: self.wake_at,
            actions.Publish: self.inspect_event,
        }
        for label in self.sites:
            self.plan(0.0, self.start, label, 0)
        for spec in endpoints:
            for window in spec.maintenance:
                self.plan(0.0, self.handle, stimuli.Maintenance(0.0, spec.label, *window, "announced"))
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
                validate(self.core)
        validate(self.core)
        power = sum(site.spec.slots * site.spec.speed for site in self.sites.values())
        return Report(
            submitted=len(self.tasks),
            resolved=self.resolved,
            rejected=len(self.settled) - self.resolved,
            lost=len(self.tasks) - len(self.settled),
            twice=sum(times > 1 for times in self.settled.values()),
            makespan=self.makespan,
            ideal_makespan=sum(task.seconds for task in self.tasks) / power if power else float("inf"),
            surviving_makespan=surviving_makespan(self.endpoints, self.tasks, self.faults),
            attempts=self.attempts,
            executions=self.executions,
            useful_seconds=self.useful,
            wasted_seconds=self.busy - self.useful,
            rerouted=self.core.rerouted,
            late=self.core.late,
            hedged=self.core.hedger.count,
            latency_p99=quantile(sorted(self.latencies), 0.99) or 0.0,
            detections=tuple(self.detections),
            false_suspicions=self.false_suspicions,
            precautions=self.precautions,
            quarantined=self.quarantined,
            endpoint_seconds=self.now * len(self.sites) - _faulty_seconds(self.faults, self.now),
            steps=self.steps,
            digest=self.digest.hexdigest(),
        )

    def handle(self, stimulus: stimuli.Stimulus) -> None:
        if self.now < self.stalled_until:
            self.delayed.append(stimulus)
            return
        self.steps += 1
        for action in self.core.handle(stimulus):
            perform = self._perform.get(type(action))
            if perform is not None:
                perform(action)

    def note(self, what: str, task: int, attempt: int | None) -> None:
        self.digest.update(f"{self.now:.6f} {what} {task} {attempt}\n".encode())

    # --- what the core asks for -----------------------------------------------------------------------------------

    def dispatch(self, action: actions.Dispatch) -> None:
        self.attempts += 1
        self.note(action.endpoint, action.task, action.attempt)
        site = self.sites[action.endpoint]
        if site.alive and site.generation == action.generation:  # else it is dead, undetected so far
            site.waiting[action.attempt] = self.tasks[action.task - 1]
            self.work(site)

    def settle(self, action: actions.Resolve | actions.Reject) -> None:
        self.note(type(action).__name__, action.task, action.attempt)
        self.settled[action.task] = self.settled.get(action.task, 0) + 1
        self.resolved += isinstance(action, actions.Resolve)
        self.makespan = self.now
        if action.attempt is not None:
            self.useful += self.took.get(action.attempt, 0.0)
        self.latencies.append(self.now - self.tasks[action.task - 1].at)

    def revive(self, action: actions.Revive) -> None:
        site = self.sites[action.endpoint]
        self.busy += site.spent(self.now)
        site.stop()
        site.generation = action.generation
        self.plan(self.now, self.start, action.endpoint, action.generation)

    def wake_at(self, action: actions.WakeAt) -> None:
        if action.at < self.wake:
            self.wake = action.at
            self.plan(action.at, self.tick, action.at)

    def tick(self, at: float) -> None:
        if at == self.wake:
            self.wake = float("inf")
            self.handle(stimuli.Tick(self.now))

    def inspect_event(self, action: actions.Publish) -> None:
        payload = action.payload
        if isinstance(payload, events.EndpointDown | events.EndpointReviving) and payload.endpoint in self.pending:
            fault = self.pending.pop(payload.endpoint)
            self.detections.append(Detection(fault, self.now - fault.at))
        if isinstance(payload, events.EndpointSuspect | events.EndpointDown):
            self.quarantined += isinstance(payload, events.EndpointSuspect)
            if payload.reason.startswith(SITE_OUTAGE):
                self.precautions += self.sites[payload.endpoint].is_well(self.now)
            else:
                self.false_suspicions += self.sites[payload.endpoint].is_well(self.now)

    # --- how endpoints behave -------------------------------------------------------------------------------------

    def submit(self, number: int, task: SimTask) -> None:
        eligible = self.everywhere if task.eligible is None else task.eligible
        self.handle(
            stimuli.Submitted(self.now, number, task.function, eligible, task.priority, idempotent=task.idempotent)
        )

    def start(self, label: str, generation: int) -> None:
        site = self.sites[label]
        if site.generation != generation:
            return
        if self.now < site.closed_until:
            notice = site.spec.notice or 1.0  # a failed start is always reported
            self.plan(self.now + notice, self.declare_dead, label, generation, "it cannot be started")
            return
        site.alive = True
        site.frozen_at = None
        site.answered_at = site.well_from = self.now
        self.handle(stimuli.Started(self.now, label, generation))
        self.handle(stimuli.Observed(self.now, label, generation, 0, blocks_expected=True))
        self.plan(self.now + site.spec.start_delay, self.connect, label, generation)

    def connect(self, label: str, generation: int) -> None:
        self.poll(label, generation)
        if self.sites[label].spec.heartbeat is not None:
            self.beat(label, generation)

    def poll(self, label: str, generation: int) -> None:
        site = self.sites[label]
        if site.generation != generation or not (site.alive or site.spec.notice is None):
            return
        if self.now >= self.stalled_until:  # the pool polls only while its process runs
            if self.now < site.mute_until or not site.alive:
                self.handle(stimuli.Unanswered(self.now, label, generation, site.answered_at))
            else:
                site.answered_at = self.now
                self.handle(stimuli.Observed(self.now, label, generation, site.slots(), blocks_expected=True))
        self.plan(self.now + _POLL, self.poll, label, generation)

    def declare_dead(self, label: str, generation: int, reason: str) -> None:
        self.handle(stimuli.Died(self.now, label, generation, reason))

    def beat(self, label: str, generation: int) -> None:
        site = self.sites[label]
        interval = site.spec.heartbeat
        if interval is None or not site.alive or site.generation != generation:
            return
        if site.frozen_at is None and self.now >= self.fabric_lost_until and site.slots():
            late = self.rng.choice(site.spec.lateness) if site.spec.lateness else 0.0
            site.heartbeat_at = max(self.now + late, site.heartbeat_at)
            if site.heartbeat_at > self.now:
                self.plan(site.heartbeat_at, self.receive_heartbeat, label, generation, interval)
            else:
                self.receive_heartbeat(label, generation, interval)
        self.plan(self.now + interval, self.beat, label, generation)

    def receive_heartbeat(self, label: str, generation: int, interval: float) -> None:
        if self.sites[label].generation == generation and self.now >= self.fabric_lost_until:
            self.handle(stimuli.HeartbeatReceived(self.now, label, "block/node", interval))

    def read_fabric(self) -> None:
        if self.now >= self.fabric_lost_until and self.now >= self.stalled_until:
            self.handle(stimuli.FabricPolled(self.now))
        self.plan(self.now + _READ, self.read_fabric)

    def work(self, site: Site) -> None:
        """Start waiting attempts on idle workers."""
        while site.frozen_at is None and site.waiting and (node := site.free_node(self.rng)) is not None:
            attempt = next(iter(site.waiting))
            task = site.waiting.pop(attempt)
            seconds = task.seconds / site.spec.speed * (1.0 + self.rng.uniform(-self.jitter, self.jitter))
            if site.spec.stragglers and self.rng.random() < site.spec.stragglers:
                seconds *= site.spec.straggling
            self.run_until_end(site, attempt, site.begin(self.now, task, node, seconds))

    def run_until_end(self, site: Site, attempt: int, running: Running) -> None:
        site.running[attempt] = running
        self.plan(running.until, self.end, site, attempt)

    def end(self, site: Site, attempt: int) -> None:
        running = site.running.get(attempt)
        if running is None or running.until != self.now or site.frozen_at is not None:
            return  # lost, or frozen until the thaw
        site.end(attempt)
        seconds = self.now - running.since
        self.busy += seconds
        self.took[attempt] = seconds
        if running.task.kills:
            self.handle(stimuli.Failed(self.now, attempt, Failure(Kind.WORKER_LOST, "WorkerLost", "it died")))
        elif running.raises is not None:
            self.executions += 1
            self.handle(stimuli.Failed(self.now, attempt, running.raises))
        else:
            self.executions += 1
            self.handle(stimuli.Finished(self.now, attempt))
        if self.now >= self.stalled_until:
            del self.took[attempt]
        self.work(site)

    # --- faults ---------------------------------------------------------------------------------------------------

    def strike(self, fault: f.Fault) -> None:
        match fault:
            case f.LoseFabric():
                self.fabric_lost_until = max(self.fabric_lost_until, fault.until)
                return
            case f.ClockJump():
                self.stalled_until = max(self.stalled_until, fault.at + fault.seconds)
                self.plan(self.stalled_until, self.go_on)
                return
        if not isinstance(fault, f.PlaceFault):
            raise TypeError(f"{fault} cannot be simulated")
        site = self.sites[fault.endpoint]
        if isinstance(fault, f.Kill) and fault.until is not None:
            site.closed_until = max(site.closed_until, fault.until)
        if isinstance(fault, f.WorkerFault):
            site.worker_faults.append(fault)
        elif site.alive:  # a dead endpoint has no further faults
            self.break_down(site, fault)

    def break_down(self, site: Site, fault: f.PlaceFault) -> None:
        label, generation = site.spec.label, site.generation
        match fault:
            case f.Kill():
                self.expect_notice(label, fault)
                self.busy += site.spent(self.now)
                site.stop()
                if site.spec.notice is not None:
                    at = self.now + site.spec.notice
                    self.plan(at, self.declare_dead, label, generation, "killed by the script")
            case f.Freeze():
                if site.frozen_at is None:
                    site.frozen_at = self.now
                    self.expect_notice(label, fault)
                site.frozen_until = max(site.frozen_until, fault.until)
                self.plan(site.frozen_until, self.thaw, site, generation)
            case f.Mute():
                site.mute_until = max(site.mute_until, fault.until)
                if label not in self.pending:
                    self.expect_notice(label, fault)
            case f.LoseNode():
                self.lose_node(site, fault.node)
            case f.LoseWorker():
                self.lose_worker(site)

    def expect_notice(self, label: str, fault: f.Fault) -> None:
        """Start the clock of detection, unless the pool already keeps tasks away from the endpoint."""
        if self.core.state(label)[0] in {State.UP, State.SUSPECT}:
            self.pending[label] = fault

    def go_on(self) -> None:
        """Resume the pool, which then receives all delayed stimuli."""
        if self.now < self.stalled_until:
            return
        delayed, self.delayed = self.delayed, []
        for stimulus in delayed:
            self.handle(replace(stimulus, at=self.now))

    def thaw(self, site: Site, generation: int) -> None:
        if site.frozen_at is None or site.generation != generation or self.now < site.frozen_until:
            return
        pause = self.now - site.frozen_at
        site.frozen_at = None
        # Its next heartbeat and the next poll come within an interval.
        site.well_from = self.now + 2.0 * (site.spec.heartbeat or 1.0)
        self.pending.pop(site.spec.label, None)
        for attempt, running in list(site.running.items()):
            later = running._replace(since=running.since + pause, until=running.until + pause)
            self.run_until_end(site, attempt, later)
        self.work(site)

    def lose_worker(self, site: Site) -> None:
        if site.running and site.frozen_at is None:
            attempt = next(iter(site.running))
            self.busy += self.now - site.end(attempt).since
            self.handle(
                stimuli.Failed(self.now, attempt, Failure(Kind.WORKER_LOST, "WorkerLost", "lost by the script"))
            )
            self.work(site)

    def lose_node(self, site: Site, node: int) -> None:
        if node in site.lost_nodes or site.frozen_at is not None:
            return
        before = site.spent(self.now)
        lost = site.lose(node)
        self.busy += before - site.spent(self.now)
        notice = site.spec.notice or 1.0
        site.lost_nodes[node] = self.now
        back = notice + site.spec.start_delay
        site.well_from = max(site.well_from, self.now + back)
        self.plan(self.now + notice, self.miss, lost)
        self.plan(self.now + back, self.replace_node, site, site.generation, node, self.now)

    def miss(self, lost: list[int]) -> None:
        """Report the attempts of a lost manager as failed."""
        for attempt in lost:
            self.handle(
                stimuli.Failed(self.now, attempt, Failure(Kind.MANAGER_LOST, "ManagerLost", "lost by the script"))
            )

    def replace_node(self, site: Site, generation: int, node: int, lost_at: float) -> None:
        if site.alive and site.generation == generation and site.lost_nodes.get(node) == lost_at:
            del site.lost_nodes[node]
            self.work(site)


def _faulty_seconds(script: f.FaultScript, end: float) -> float:
    """Return the seconds with a visible fault, summed over all endpoints."""
    total = 0.0
    for fault in script:
        if isinstance(fault, f.Kill | f.Freeze | f.Mute):
            until = fault.at if fault.until is None else fault.until
            total += max(0.0, min(end, until) - min(end, fault.at))
    return total
