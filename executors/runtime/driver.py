"""The driver: one thread, one mailbox, one clock; it feeds the core and does what the core says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.failures import Attribution
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.events.trace import Traces

from ..parsl import adapter
from ..worker import node_gate
from .futures import Delivery, TaskFuture
from .instance import EndpointInstance

logger = logging.getLogger(__name__)

#: Seconds between two looks at the members, and between two updates of their demand.
_LOOK_PERIOD: Final = 0.2
#: Seconds between two status events.
_STATUS_PERIOD: Final = 1.0
#: A turn this late (seconds) means that the whole process was stopped, and nobody else.
_SELF_DISTRUST: Final = 1.5
#: Stimuli handled before time is looked at again.
_BATCH: Final = 200
#: While endpoints hold so many attempts per slot, results are gathered for so long (seconds) before they are handled:
#: each wake-up of a thread costs more than the work it finds, and no worker waits meanwhile.
_DEEP: Final = 64
_LINGER: Final = 0.05

#: After so many submissions in a row, the submitting thread steps aside for so long (seconds).
_BURST: Final = 32
_STEP_ASIDE: Final = 0.0005

#: What is told of every task.
_EVERYDAY: Final = frozenset({events.TaskSubmitted, events.TaskDispatched, events.TaskFinished})

#: Evidence from the fabric, of which a flood may wait in the mailbox.
_FROM_FABRIC: Final = (
    stimuli.HeartbeatReceived, stimuli.StreamEnded, stimuli.FabricPolled, stimuli.BridgePolled, stimuli.PeerReport,
)  # fmt: skip

#: What came of an attempt: its result, or an exception.
Outcome = tuple[Any, BaseException | None]
Emit = Callable[[events.Payload, str, str], None]


class OpenTask:
    """What the shell keeps of a task until it is settled."""

    __slots__ = ("args", "function", "future", "is_app", "kwargs", "resources")

    def __init__(
        self,
        future: TaskFuture,
        function: Callable[..., Any],
        resources: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_app: bool,  # noqa: FBT001 - a record, filled in one place
    ) -> None:
        self.future = future
        self.function = function
        self.resources = resources
        self.args = args
        self.kwargs = kwargs
        self.is_app = is_app


class Driver:
    """Runs a pool: owns the core, the members and the open tasks.

    Args:
        label: of the pool.
        core: fresh.
        build: makes the member of an endpoint for a generation; may raise.
        emit: publishes an event; never blocks, never raises.
        rules: say what an exception means.
        traces: what workers are told as their trace context; None: nothing.
    """

    def __init__(
        self,
        label: str,
        core: PoolCore,
        build: Callable[[str, int], EndpointInstance],
        emit: Emit,
        rules: Rulebook | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces
        self._label = label
        self._core = core
        self._build = build
        self._emit = emit
        self._rules = rules or Rulebook()
        self._delivery = Delivery(f"pool-{label}-delivery")
        self._mailbox: SimpleQueue[stimuli.Stimulus | None] = SimpleQueue()
        self._open: dict[int, OpenTask] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._members: dict[str, EndpointInstance] = {}
        self._wake_at = float("inf")
        self._last_turn = 0.0
        self._rates: dict[str, tuple[int, float]] = {}
        self._closing = threading.Event()
        self._revivals: list[threading.Thread] = []
        self._perform: dict[type, Callable[[Any], None]] = {
            actions.Dispatch: self._dispatch,
            actions.Resolve: self._resolve,
            actions.Reject: self._reject,
            actions.Discard: self._discard,
            actions.Publish: self._publish,
            actions.Revive: self._revive,
            actions.Evict: self._evict,
            actions.WakeAt: self._note_wake,
        }
        self._thread = threading.Thread(target=self._run, name=f"pool-{label}-driver", daemon=True)

    # --- the face towards the executor ----------------------------------------------------------------------------

    def start(self, timeout: float) -> None:
        """Start all endpoints side by side; wait at most ``timeout`` seconds for them to be up or to have failed."""
        end = time.monotonic() + timeout
        for label in self._core.specs:
            try:
                self._members[label] = self._build(label, 0)
            except Exception as error:
                logger.warning("Endpoint %s could not be built", label, exc_info=True)
                self.post(stimuli.Died(time.monotonic(), label, 0, f"it could not be built: {error}"))
        self._thread.start()
        for member in self._members.values():
            member.start()
        for member in self._members.values():
            member.settled.wait(max(0.0, end - time.monotonic()))

    def post(self, stimulus: stimuli.Stimulus) -> None:
        """Give the core something to react to. Never blocks; callable from any thread."""
        self._mailbox.put(stimulus)

    def waiting(self) -> int:
        """Return the number of stimuli that were posted and not handled yet."""
        return self._mailbox.qsize()

    def new_future(self, number: int) -> TaskFuture:
        """The future of a task."""
        return TaskFuture(number, self._delivery)

    def open_task(self, number: int, task: OpenTask, stimulus: stimuli.Submitted) -> None:
        """Take a task in. Never waits for anything, but steps aside now and then while tasks come in bursts.

        A thread that submits without a pause keeps the interpreter from those that send the first tasks off: workers
        would idle until the burst is over.
        """
        self._open[number] = task
        self._mailbox.put(stimulus)
        if number % _BURST == 0 and self._mailbox.qsize() >= _BURST:
            time.sleep(_STEP_ASIDE)

    def attempt_done(self, attempt: int, is_app: bool, outcome: Future[Any] | Exception) -> None:  # noqa: FBT001 - a callback
        """An attempt came to its end, on some thread of Parsl's."""
        now = time.monotonic()
        if isinstance(outcome, Exception):
            self._outcomes[attempt] = (None, outcome)
            self._mailbox.put(stimuli.Failed(now, attempt, self._rules.classify(outcome, from_submit=True)))
            return
        try:
            error = outcome.exception()
        except BaseException as cancelled:  # noqa: BLE001 - CancelledError is what a cancelled future raises here
            error = cancelled
        if error is not None:
            self._outcomes[attempt] = (None, error)
            self._mailbox.put(stimuli.Failed(now, attempt, self._rules.classify(error, app=is_app)))
            return
        value, node = outcome.result(), ""
        report = node_gate.opened(value)
        if report is not None:
            node, value, was_raised, was_refused = report
            if was_refused:
                self._mailbox.put(stimuli.Bounced(now, attempt, node))
                return
            if was_raised:
                error = value.get_exception()
                self._outcomes[attempt] = (None, error)
                self._mailbox.put(stimuli.Failed(now, attempt, self._rules.classify(error, raised=True), node))
                return
        self._outcomes[attempt] = (value, None)
        raised = adapter.raised_by_user(value)
        if raised is None:
            self._mailbox.put(stimuli.Finished(now, attempt, node))
        else:
            self._mailbox.put(stimuli.Failed(now, attempt, self._rules.classify(raised, raised=True), node))

    def worker_died(self, attempt: int, node: str) -> None:
        """The worker that ran an attempt is gone: that is known here before its manager misses it."""
        failure = self._rules.classify(adapter.worker_lost(node))
        self._mailbox.put(stimuli.Orphaned(time.monotonic(), attempt, failure))

    def close(self, limit: float) -> None:
        """Reject what is open, end every endpoint, end the threads; within about ``limit`` seconds."""
        end = time.monotonic() + limit
        self._closing.set()
        self._mailbox.put(stimuli.Stopped(time.monotonic()))
        self._mailbox.put(None)
        self._thread.join(limit / 2)
        if self._thread.is_alive():
            logger.error("The driver of pool %s did not end", self._label)
        closers = []
        for label, member in self._members.items():
            broken = self._core.assessor.health[label].dead_reason is not None or self._core.state(label)[0] == "down"
            closer = threading.Thread(
                target=member.close,
                args=(end - time.monotonic() - 0.5,),
                kwargs={"broken": broken},
                name=f"pool-{self._label}-close-{label}",
                daemon=True,
            )
            closer.start()
            closers.append(closer)
        for thread in [*closers, *self._revivals]:
            thread.join(max(0.1, end - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s still runs after %.0f s; going on without", thread.name, limit)
        if not self._delivery.close(max(0.5, end - time.monotonic())):
            logger.warning("Callbacks of futures of pool %s still run", self._label)

    # --- the loop -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        next_look = next_status = self._last_turn = time.monotonic()
        while True:
            now = time.monotonic()
            try:
                stimulus = self._mailbox.get(timeout=max(0.0, min(self._wake_at, next_look) - now))
                for _ in range(_BATCH):
                    if stimulus is None:
                        return
                    self._handle(stimulus)
                    stimulus = self._mailbox.get_nowait()
                if stimulus is None:
                    return
                self._handle(stimulus)
            except Empty:
                if self._is_deep():
                    time.sleep(_LINGER)
            now = time.monotonic()
            if now >= self._wake_at:
                self._wake_at = float("inf")
                self._handle(stimuli.Tick(now))
            if now >= next_look:
                next_look = now + _LOOK_PERIOD
                self._look(now)
            if now >= next_status:
                next_status = now + _STATUS_PERIOD
                self._tell_status(now)

    def _is_deep(self) -> bool:
        loads = self._core.scheduler.loads.values()
        slots = sum(load.slots for load in loads)
        return 0 < slots * _DEEP <= sum(load.in_flight for load in loads)

    def _handle(self, stimulus: stimuli.Stimulus) -> None:
        if self._closing.is_set() and isinstance(stimulus, _FROM_FABRIC):
            return  # a flood of events must not hold up the end of the pool
        try:
            actions = self._core.handle(stimulus)
        except Exception:
            # A bug in the core must not end the pool: the other tasks go on.
            logger.exception("The core failed on %r", stimulus)
            return
        for action in actions:
            try:
                self._perform[type(action)](action)
            except Exception:
                logger.exception("%r could not be done", action)

    def _look(self, now: float) -> None:
        if now - self._last_turn > _SELF_DISTRUST:
            for member in self._members.values():
                member.forgive(now)
        self._last_turn = now
        for label, member in self._members.items():
            seen = member.look(now)
            if seen is not None:
                self._handle(seen)
            member.demand = self._core.demand(label)
        self._delivery.tend(now)
        self._revivals = [thread for thread in self._revivals if thread.is_alive()]

    # --- doing what the core says ---------------------------------------------------------------------------------

    def _dispatch(self, action: actions.Dispatch) -> None:
        task, member = self._open[action.task], self._members[action.endpoint]
        resources = task.resources
        if resources and (takes := adapter.resources(member.executor)) is not None:
            resources = {key: value for key, value in resources.items() if key in takes}
        member.submit(action.attempt, task.function, resources, task.args, task.kwargs, is_app=task.is_app,
                      known=action.known, avoid=action.avoid, traceparent=self._trace(action))  # fmt: skip

    def _trace(self, action: actions.Dispatch) -> str:
        return "" if self._traces is None else self._traces.parent(action.task, action.attempt)

    def _resolve(self, action: actions.Resolve) -> None:
        self._delivery.settle(self._open.pop(action.task).future, *self._outcomes.pop(action.attempt))

    def _reject(self, action: actions.Reject) -> None:
        future = self._open.pop(action.task).future
        future.verdict = action.attribution
        if action.attempt is not None:
            value, error = self._outcomes.pop(action.attempt)
            if action.attribution is not None:
                _note(error or adapter.raised_by_user(value), action.attribution)
            self._delivery.settle(future, value, error)
        else:
            self._delivery.settle(future, None, action.verdict or RuntimeError("rejected without a verdict"))

    def _discard(self, action: actions.Discard) -> None:
        self._outcomes.pop(action.attempt, None)

    def _note_wake(self, action: actions.WakeAt) -> None:
        self._wake_at = min(self._wake_at, action.at)

    def _publish(self, action: actions.Publish) -> None:
        payload = action.payload
        self._emit(payload, str(action.subject), action.key)
        if type(payload) not in _EVERYDAY:
            self._log(payload)

    def _log(self, payload: events.Payload) -> None:
        """What is out of the ordinary stands in Parsl's log too."""
        match payload:
            case events.EndpointPayload():
                level = logging.INFO if isinstance(payload, events.EndpointUp) else logging.WARNING
                logger.log(level, "Pool %s: %s", self._label, _sentence(payload))
            case events.TaskHedged():
                logger.info(
                    "Pool %s: task %d goes to %s too: %s", self._label, payload.task, payload.endpoint, payload.reason
                )
            case events.TaskRerouted():
                logger.info("Pool %s: task %d left %s: %s", self._label, payload.task, payload.endpoint, payload.reason)
            case events.NodeQuarantined() | events.NodeRestored():
                what = "quarantined" if isinstance(payload, events.NodeQuarantined) else "restored"
                for_what = f" for {payload.function}" if payload.function else ""
                logger.warning(
                    "Pool %s: node %s (block %s) of endpoint %s %s%s: %s",
                    self._label, payload.node, payload.block, payload.endpoint, what, for_what, payload.reason,
                )  # fmt: skip

    def _evict(self, action: actions.Evict) -> None:
        member = self._members[action.endpoint]
        if member.generation == action.generation:
            member.evict(action.manager, action.block)

    def _revive(self, action: actions.Revive) -> None:
        thread = threading.Thread(
            target=self._replace, args=(action,), name=f"pool-{self._label}-revive-{action.endpoint}", daemon=True
        )
        self._revivals.append(thread)
        thread.start()

    def _replace(self, action: actions.Revive) -> None:
        """Fence the old generation, then start the new one."""
        label, generation = action.endpoint, action.generation
        old = self._members.get(label)
        if old is not None:
            old.close(10.0, broken=True)
        if self._closing.is_set():
            return
        try:
            member = self._build(label, generation)
        except Exception as error:
            logger.warning("Endpoint %s could not be rebuilt", label, exc_info=True)
            self.post(stimuli.Died(time.monotonic(), label, generation, f"it could not be rebuilt: {error}"))
            return
        self._members[label] = member
        member.start()
        if self._closing.is_set():
            member.close(3.0, broken=True)

    # --- telling --------------------------------------------------------------------------------------------------

    def _tell_status(self, now: float) -> None:
        core = self._core
        for label, spec in core.specs.items():
            finished = core.finished[label]
            before, at = self._rates.get(label, (finished, now - _STATUS_PERIOD))
            self._rates[label] = (finished, now)
            state, reason = core.state(label)
            status = events.EndpointStatus(
                endpoint=label,
                site=spec.site,
                state=state,
                slots=core.assessor.health[label].slots,
                in_flight=core.scheduler.live[label],
                finished=finished,
                rate=round((finished - before) / max(1e-3, now - at), 2),
                reason=reason,
                generation=core.assessor.health[label].generation,
            )
            self._emit(status, label, label)
        status_of_pool = events.PoolStatus(
            pool=self._label,
            waiting=len(core.scheduler.backlog),
            in_flight=sum(core.scheduler.live.values()),
            finished=sum(core.finished.values()),
            failed=core.failed,
            rerouted=core.rerouted,
            late=core.late,
            hedged=core.hedger.count,
        )
        self._emit(status_of_pool, self._label, "")


def _note(error: BaseException | None, judgement: Attribution) -> None:
    """Have a traceback of the exception say what the pool made of it."""
    if error is not None and judgement.reason:
        try:
            error.add_note(f"diaspora_parsl: {judgement.reason}")
        except Exception:
            logger.debug("%s takes no note", type(error).__name__, exc_info=True)


def _sentence(payload: events.EndpointPayload) -> str:
    what = type(payload).__name__.removeprefix("Endpoint").lower()
    return f"endpoint {payload.endpoint} (generation {payload.generation}) {what}: {payload.reason}"
