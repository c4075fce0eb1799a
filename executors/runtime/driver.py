"""The driver: one thread with one mailbox that feeds the core stimuli and performs its actions."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.failures import Attribution
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.errors import AttemptLostError, PoolError, PoolShutdownError
from diaspora_parsl.events.trace import Traces

from ..parsl import adapter
from .futures import Delivery, TaskFuture
from .instance import EndpointInstance
from .outcomes import outcome_of

logger = logging.getLogger(__name__)

#: Seconds between two polls of the endpoint instances.
_POLL_PERIOD: Final = 0.2
#: Seconds between two status events.
_STATUS_PERIOD: Final = 1.0
#: Seconds between two turns beyond which this process itself was stopped, not the endpoints.
_SELF_DISTRUST: Final = 1.5
#: Turns of the loop that may fail in a row before the pool fails.
_MOST_FAILED_TURNS: Final = 50
#: Stimuli handled between two readings of the clock.
_BATCH: Final = 200
#: Attempts per slot from which results are gathered for `_GATHER_TIME` seconds before they are handled: each wake-up of
#: the thread costs more than the work it finds, and no worker waits meanwhile.
_DEEP: Final = 64
_GATHER_TIME: Final = 0.05

#: Submissions in a row after which the submitting thread yields, and for how many seconds.
_BURST: Final = 32
_YIELD_TIME: Final = 0.0005

#: Events of every task, which are not logged.
_ROUTINE: Final = frozenset({events.TaskSubmitted, events.TaskDispatched, events.TaskFinished})

#: Evidence from the fabric. A flood of it may wait in the mailbox.
_FROM_FABRIC: Final = (
    stimuli.HeartbeatReceived, stimuli.StreamEnded, stimuli.FabricPolled, stimuli.BridgePolled, stimuli.PeerReport,
)  # fmt: skip

Emit = Callable[[events.Payload, str, str], None]


class OpenTask:
    """Future, function, arguments and resources of a task that is not settled."""

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
    """Runs a pool: owns the core, the endpoint instances and the open tasks.

    Args:
        label: Label of the pool.
        core: A core without tasks.
        build: Builds the instance of an endpoint for a generation; may raise.
        emit: Publishes an event; never blocks, never raises.
        rules: Classify exceptions; the built-in rules if None.
        traces: Trace contexts of the attempts; None sends none to workers.
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
        self._mailbox: SimpleQueue[stimuli.Stimulus | EndpointInstance | None] = SimpleQueue()
        self._open: dict[int, OpenTask] = {}
        #: Result and exception of each attempt that ended, until the core decides what becomes of them.
        self._outcomes: dict[int, tuple[Any, BaseException | None]] = {}
        self._instances: dict[str, EndpointInstance] = {}
        self._wake_at = float("inf")
        self._last_turn = 0.0
        self._rates: dict[str, tuple[int, float]] = {}
        self._closing = threading.Event()
        self._revivals: list[threading.Thread] = []
        #: Actions that could not be performed, for another try at the next poll.
        self._postponed: deque[actions.Action] = deque()
        self._failure: PoolError | None = None
        self._performers: dict[type, Callable[[Any], None]] = {
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

    # --- called by the executor -----------------------------------------------------------------------------------

    def start(self, timeout: float) -> None:
        """Start all endpoints in parallel; wait at most ``timeout`` seconds until each is up or has failed."""
        end = time.monotonic() + timeout
        for label in self._core.specs:
            try:
                self._instances[label] = self._build(label, 0)
            except Exception as error:
                logger.warning("Endpoint %s could not be built", label, exc_info=True)
                self.post(stimuli.Died(time.monotonic(), label, 0, f"it could not be built: {error}"))
        instances = list(self._instances.values())  # from here on, the driver's thread changes them
        self._thread.start()
        for instance in instances:
            instance.start()
        for instance in instances:
            instance.settled.wait(max(0.0, end - time.monotonic()))

    def post(self, stimulus: stimuli.Stimulus) -> None:
        """Queue a stimulus for the core. Never blocks; callable from any thread."""
        if self._failure is None:
            self._mailbox.put(stimulus)

    def waiting(self) -> int:
        """Return the number of stimuli that were posted and not handled yet."""
        return self._mailbox.qsize()

    def new_future(self, number: int) -> TaskFuture:
        """Return an unsettled future for a task."""
        return TaskFuture(number, self._delivery)

    def open_task(self, number: int, task: OpenTask, stimulus: stimuli.Submitted) -> None:
        """Queue a task for the core. Never waits, but yields during a burst of submissions.

        A thread that submits without a pause holds the interpreter, and workers idle until the burst is over.
        """
        self._open[number] = task
        self.post(stimulus)
        if self._failure is not None:
            self._reject_open(self._failure)
        if number % _BURST == 0 and self._mailbox.qsize() >= _BURST:
            time.sleep(_YIELD_TIME)

    def attempt_done(self, attempt: int, is_app: bool, is_gated: bool, ended: Future[Any] | Exception) -> None:  # noqa: FBT001 - a callback
        """Post the outcome of an attempt; called on a thread of the executor."""
        outcome = outcome_of(ended, self._rules, is_app=is_app, is_gated=is_gated)
        now = time.monotonic()
        if outcome.is_refused:
            self.post(stimuli.Bounced(now, attempt, outcome.node))
            return
        self._outcomes[attempt] = (outcome.value, outcome.error)
        if outcome.failure is None:
            self.post(stimuli.Finished(now, attempt, outcome.node))
        else:
            self.post(stimuli.Failed(now, attempt, outcome.failure, outcome.node))

    def worker_died(self, attempt: int, node: str) -> None:
        """Post the death of the worker that ran an attempt, known before its manager reports it."""
        failure = self._rules.classify(adapter.worker_lost(node))
        self.post(stimuli.Orphaned(time.monotonic(), attempt, failure))

    def close(self, limit: float) -> None:
        """Reject the open tasks, close every endpoint and end all threads, within about ``limit`` seconds."""
        end = time.monotonic() + limit
        self._closing.set()
        self._mailbox.put(stimuli.Stopped(time.monotonic()))
        self._mailbox.put(None)
        self._thread.join(limit / 2)
        if self._thread.is_alive():
            logger.error("The driver of pool %s did not end", self._label)
        self._failure = PoolShutdownError(f"pool {self._label} was shut down before the task was done")
        self._reject_open(self._failure)
        closers = []
        for label, instance in self._instances.items():
            broken = self._core.assessor.health[label].dead_reason is not None or self._core.state(label)[0] == "down"
            close = partial(instance.close, end - time.monotonic() - 0.5, broken=broken)
            closer = threading.Thread(target=close, name=f"pool-{self._label}-close-{label}", daemon=True)
            try:
                closer.start()
            except RuntimeError:  # no more threads
                close()
            else:
                closers.append(closer)
        for thread in [*closers, *self._revivals]:
            thread.join(max(0.1, end - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s still runs after %.0f s and is left behind", thread.name, limit)
        for instance in self._not_installed():  # after the revivals, which may add one until they end
            instance.close(max(0.5, end - time.monotonic()), broken=True)
        if not self._delivery.close(max(0.5, end - time.monotonic())):
            logger.warning("Callbacks of futures of pool %s still run", self._label)

    # --- the loop -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            logger.exception("The driver of pool %s failed; its open tasks are rejected", self._label)
            self._fail(error)

    def _loop(self) -> None:
        next_poll = next_status = self._last_turn = time.monotonic()
        failed_turns = 0
        while True:
            now = time.monotonic()
            try:
                if not self._handle_mail(max(0.0, min(self._wake_at, next_poll) - now)):
                    return
                now = time.monotonic()
                if now >= self._wake_at:
                    self._wake_at = float("inf")
                    self._handle(stimuli.Tick(now))
                if now >= next_poll:
                    next_poll = now + _POLL_PERIOD
                    self._poll(now)
                if now >= next_status:
                    next_status = now + _STATUS_PERIOD
                    self._publish_status(now)
            except Exception:
                failed_turns += 1
                if failed_turns > _MOST_FAILED_TURNS or self._failure is not None:
                    raise
                logger.exception("A turn of the driver of pool %s failed; the next one follows", self._label)
                time.sleep(_POLL_PERIOD)
            else:
                failed_turns = 0

    def _handle_mail(self, timeout: float) -> bool:
        """Handle what is in the mailbox; return False at the end of the pool."""
        try:
            stimulus = self._mailbox.get(timeout=timeout)
            for _ in range(_BATCH):
                if stimulus is None:
                    return False
                self._handle(stimulus)
                stimulus = self._mailbox.get_nowait()
            if stimulus is None:
                return False
            self._handle(stimulus)
        except Empty:
            if self._is_deep():
                time.sleep(_GATHER_TIME)
        return True

    def _is_deep(self) -> bool:
        loads = self._core.scheduler.loads.values()
        slots = sum(load.slots for load in loads)
        return 0 < slots * _DEEP <= sum(load.in_flight for load in loads)

    def _handle(self, stimulus: stimuli.Stimulus | EndpointInstance) -> None:
        if isinstance(stimulus, EndpointInstance):
            self._instances[stimulus.endpoint.label] = stimulus
            stimulus.start()
            return
        if self._closing.is_set() and isinstance(stimulus, _FROM_FABRIC):
            return  # a flood of events must not delay the end of the pool
        task = self._task_of(stimulus)  # before: the core may forget the attempt and then fail
        try:
            answer = self._core.handle(stimulus)
        except Exception as error:
            logger.exception("The core failed on %r", stimulus)
            answer = self._after_failure(error, task, is_advisory=isinstance(stimulus, _FROM_FABRIC))
        for action in answer:
            self._act(action)

    def _task_of(self, stimulus: stimuli.Stimulus) -> int | None:
        if isinstance(stimulus, stimuli.Submitted):
            return stimulus.task
        attempt = self._core.attempts.get(getattr(stimulus, "attempt", -1))
        return None if attempt is None else attempt.task.id

    def _after_failure(self, error: Exception, task: int | None, *, is_advisory: bool) -> list[actions.Action]:
        """Reject the task of a stimulus that the core failed on; fail the pool if the core is damaged.

        Raises:
            Exception: ``error``, if it concerns no task, or an invariant is violated.
        """
        try:
            answer = (
                self._core.reject(task, PoolError(f"the pool failed on the task: {error!r}"))
                if task is not None
                else []
            )
            validate(self._core)
        except Exception as damage:
            self._fail(damage)
            raise error from damage
        if task is None and not is_advisory:
            self._fail(error)
            raise error
        return answer

    def _act(self, action: actions.Action) -> None:
        """Perform an action. One that cannot be performed now is not lost."""
        try:
            self._performers[type(action)](action)
        except Exception as error:
            logger.exception("The driver could not perform %r", action)
            if isinstance(action, actions.Dispatch):
                lost = AttemptLostError(f"the pool could not send it: {error!r}")
                self.attempt_done(action.attempt, False, False, lost)
            elif isinstance(action, actions.Revive) or isinstance(error, MemoryError | RuntimeError):
                self._postponed.append(action)
            elif isinstance(action, actions.Resolve | actions.Reject):
                self._reject_open(PoolError(f"the pool lost the outcome of the task: {error!r}"), [action.task])

    def _fail(self, error: BaseException) -> None:
        """Reject every open task, now and from now on: nothing waits for a driver that has ended."""
        self._failure = PoolError(f"pool {self._label} failed and runs no more tasks: {type(error).__name__}: {error}")
        self._reject_open(self._failure)

    def _reject_open(self, error: PoolError, tasks: Iterable[int] | None = None) -> None:
        for number in list(self._open) if tasks is None else tasks:
            task = self._open.pop(number, None)
            if task is not None:
                self._delivery.settle(task.future, None, error)

    def _not_installed(self) -> list[EndpointInstance]:
        """Return the rebuilt instances that are in the mailbox of a driver that has ended."""
        found = []
        with contextlib.suppress(Empty):
            while True:
                if isinstance(item := self._mailbox.get_nowait(), EndpointInstance):
                    found.append(item)
        return found

    def _poll(self, now: float) -> None:
        if now - self._last_turn > _SELF_DISTRUST:
            for instance in self._instances.values():
                instance.forgive(now)
        self._last_turn = now
        for _ in range(len(self._postponed)):
            self._act(self._postponed.popleft())
        for label, instance in list(self._instances.items()):
            stimulus = instance.look(now)
            if stimulus is not None:
                self._handle(stimulus)
            instance.demand = self._core.demand(label)
        self._delivery.tend(now)
        self._revivals = [thread for thread in self._revivals if thread.is_alive()]

    # --- actions of the core --------------------------------------------------------------------------------------

    def _dispatch(self, action: actions.Dispatch) -> None:
        task, instance = self._open[action.task], self._instances[action.endpoint]
        resources = task.resources
        if resources and (known_keys := adapter.resources(instance.executor)) is not None:
            resources = {key: value for key, value in resources.items() if key in known_keys}
        instance.submit(action.attempt, task.function, resources, task.args, task.kwargs, is_app=task.is_app,
                      known=action.known, avoid=action.avoid, traceparent=self._trace(action))  # fmt: skip

    def _trace(self, action: actions.Dispatch) -> str:
        return "" if self._traces is None else self._traces.parent(action.task, action.attempt)

    def _resolve(self, action: actions.Resolve) -> None:
        if (task := self._open.get(action.task)) is not None:
            self._delivery.settle(task.future, *self._outcomes[action.attempt])
            self._open.pop(action.task, None)
        self._outcomes.pop(action.attempt, None)

    def _reject(self, action: actions.Reject) -> None:
        error: BaseException | None
        if (task := self._open.get(action.task)) is not None:
            task.future.verdict = action.attribution
            if action.attempt is None:
                value, error = None, action.verdict or PoolError("the task was rejected without a reason")
            else:
                value, error = self._outcomes[action.attempt]
                if action.attribution is not None:
                    _note(error or adapter.raised_by_user(value), action.attribution)
            self._delivery.settle(task.future, value, error)
            self._open.pop(action.task, None)
        if action.attempt is not None:
            self._outcomes.pop(action.attempt, None)

    def _discard(self, action: actions.Discard) -> None:
        self._outcomes.pop(action.attempt, None)

    def _note_wake(self, action: actions.WakeAt) -> None:
        self._wake_at = min(self._wake_at, action.at)

    def _publish(self, action: actions.Publish) -> None:
        payload = action.payload
        self._emit(payload, str(action.subject), action.key)
        if type(payload) not in _ROUTINE:
            self._log(payload)

    def _log(self, payload: events.Payload) -> None:
        """Log an event that is not routine."""
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
        instance = self._instances[action.endpoint]
        if instance.generation == action.generation:
            instance.evict(action.manager, action.block)

    def _revive(self, action: actions.Revive) -> None:
        thread = threading.Thread(
            target=self._replace, args=(action,), name=f"pool-{self._label}-revive-{action.endpoint}", daemon=True
        )
        thread.start()
        self._revivals.append(thread)

    def _replace(self, action: actions.Revive) -> None:
        """Close the old generation, then start the new one."""
        label, generation = action.endpoint, action.generation
        old = self._instances.get(label)
        if old is not None:
            old.close(10.0, broken=True)
        if self._closing.is_set():
            return
        try:
            instance = self._build(label, generation)
        except Exception as error:
            logger.warning("Endpoint %s could not be rebuilt", label, exc_info=True)
            self.post(stimuli.Died(time.monotonic(), label, generation, f"it could not be rebuilt: {error}"))
            return
        self._mailbox.put(instance)  # also after a failure: `close` must find it

    # --- status ---------------------------------------------------------------------------------------------------

    def _publish_status(self, now: float) -> None:
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


def _note(error: BaseException | None, attribution: Attribution) -> None:
    """Add the reason of the attribution to the traceback of the exception."""
    if error is not None and attribution.reason:
        try:
            error.add_note(f"diaspora_parsl: {attribution.reason}")
        except Exception:
            logger.debug("%s takes no note", type(error).__name__, exc_info=True)


def _sentence(payload: events.EndpointPayload) -> str:
    what = type(payload).__name__.removeprefix("Endpoint").lower()
    return f"endpoint {payload.endpoint} (generation {payload.generation}) {what}: {payload.reason}"
