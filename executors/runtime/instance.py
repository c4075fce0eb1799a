"""One generation of one endpoint: a running Parsl executor with a work thread and a control thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final

from msgspec import Struct
from parsl.executors.base import ParslExecutor
from parsl.jobs.job_status_poller import JobStatusPoller

from diaspora_parsl.core.stimuli import Died, Environment, Nodes, Observed, Started, Stimulus, Unanswered

from ..endpoint import Endpoint
from ..parsl import adapter
from ..parsl.scale_out_backoff import ScaleOutBackoff
from ..worker import node_gate, trace_wrapper
from . import block_processes
from .block_walltime import BlockWalltimes
from .import_scan import modules_of
from .serial_thread import SerialThread

logger = logging.getLogger(__name__)

#: Seconds between two observations of an endpoint.
_WATCH_PERIOD: Final = 0.5
#: Seconds after which a missing answer is posted to the core.
_ANSWER_DUE: Final = 1.0
#: Blocks above which environments are not asked for: the answer is long, and they are alike.
_MOST_ASKED: Final = 64
#: Seconds that an eviction may take, a call to a batch system included.
_EVICTION_LIMIT: Final = 10.0
#: Seconds that a block may run after its managers left.
_DESERTED_LIMIT: Final = 10.0
#: Seconds between SIGTERM and SIGKILL for the processes of a block.
_COURTESY: Final = 1.5


class Scaling(Struct, frozen=True, kw_only=True):
    """Parsl's scaling options for the blocks of each endpoint."""

    strategy: str
    max_idletime: float
    strategy_period: float


class EndpointInstance:
    """Runs one generation. No method but `close` blocks.

    Args:
        endpoint: Description by the user.
        executor: Executor that is not started; the instance owns it.
        generation: Number that grows with each revival.
        context: Run context of the DataFlowKernel.
        scaling: Scaling options of its blocks.
        mark: Value in the environment of every process of its blocks; unique to this generation.
        blocks: Limits the requests for blocks.
        worker_init: Shell lines that each block runs before the executor's own.
        post: Receives stimuli for the core.
        outcome: Receives the end of an attempt: its id, whether it was an app, whether it went through a gate, and the
            done future or the exception of ``submit``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        executor: ParslExecutor,
        *,
        generation: int,
        context: adapter.RunContext,
        scaling: Scaling,
        mark: str,
        blocks: ScaleOutBackoff,
        worker_init: str,
        post: Callable[[Stimulus], None],
        outcome: Callable[[int, bool, bool, Future[Any] | Exception], None],
    ) -> None:
        self.endpoint = endpoint
        self.executor = executor
        self.generation = generation
        #: Demand that the scaling strategy reads; set by the driver.
        self.demand = 0
        self.settled = threading.Event()
        """Set once the executor has started or failed to."""
        self._context = context
        self._scaling = scaling
        self._mark = mark
        self._blocks = blocks
        self._worker_init = worker_init
        self._post = post
        self._outcome = outcome
        self._ages = BlockWalltimes(executor)
        #: Whether attempts go through a gate, which reports the node, and to agents the attempt of a dead worker.
        self._is_gated = adapter.has_nodes(executor) or (endpoint.node_agent and adapter.asks_for_slots(executor))
        self._slots = endpoint.max_concurrency or adapter.fixed_slots(executor) or 1
        self._poller: JobStatusPoller | None = None
        self._abandon: Callable[[], None] = lambda: None
        self._asked_at: float | None = None
        self._runs = False
        self._reported = False
        self._most_slots = 0
        self._groups: set[int] = set()
        self._known_blocks: frozenset[str] = frozenset()
        #: Managers that were last posted.
        self._posted_nodes: tuple[tuple[tuple[str, str], ...], bool] = ((), False)
        #: Nodes to hold, and blocks to end once nothing runs there; for the control thread.
        self._to_hold: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._to_end: set[str] = set()
        #: Start time of the state of each block that runs without managers.
        self._deserted: dict[str, float] = {}
        self._closing = threading.Event()
        self._closed = threading.Event()
        self._close_lock = threading.Lock()
        name = f"pool-{endpoint.label}.{generation}"
        self._work = SerialThread(f"{name}-work")
        self._control = SerialThread(f"{name}-control")

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the executor and observe it, on the control thread."""
        self._control.do(self._start)

    def _start(self) -> None:
        label = self.endpoint.label
        try:
            adapter.prepare(self.executor, self._context)
            if self.endpoint.heartbeat_period is not None:
                adapter.tighten_heartbeats(
                    self.executor, (self.endpoint.heartbeat_period, self.endpoint.detection_time)
                )
            if adapter.worker_init(self.executor) is not None:
                adapter.set_worker_init(self.executor, self._worker_init)
            self._abandon = adapter.guard_channels(self.executor)
            tend = adapter.guard_scaling(self.executor, self._blocks)
            self.executor.start()
            adapter.show_demand(self.executor, lambda: self.demand)
            s = self._scaling
            if not self._closing.is_set():
                self._poller = adapter.start_poller(self.executor, s.strategy, s.max_idletime, s.strategy_period, tend)
        except Exception as error:
            logger.warning("Endpoint %s (generation %d) could not be started: %s", label, self.generation, error)
            logger.debug("The traceback", exc_info=True)
            reason = f"it could not be started: {type(error).__name__}: {error}"
            self._post(Died(time.monotonic(), label, self.generation, reason))
            self.settled.set()
            return
        self._runs = True
        self._post(Started(time.monotonic(), label, self.generation))
        self.settled.set()
        self._watch()

    def _watch(self) -> None:
        """Observe the executor until it is closed or dead."""
        failed = ""
        while not self._closing.is_set():
            if self._asked_at is None:  # else the last question failed: repeated failure is silence since then
                self._asked_at = time.monotonic()
            try:
                self._observe()
                failed = ""
            except Exception as error:
                # `look` reports a broken channel; while closing, that is expected.
                if self._closing.is_set() or adapter.why_dead(self.executor) is not None:
                    return
                if f"{type(error).__name__}: {error}" != failed:
                    failed = f"{type(error).__name__}: {error}"
                    logger.warning("Endpoint %s could not be observed: %s", self.endpoint.label, failed)
                    logger.debug("The traceback", exc_info=True)
            self._closing.wait(_WATCH_PERIOD)

    def _observe(self) -> None:
        seen = adapter.observe(self.executor, self._slots)
        if (seen.managers, seen.more) != self._posted_nodes:
            self._posted_nodes = (seen.managers, seen.more)
            self._post(Nodes(time.monotonic(), self.endpoint.label, self.generation, *self._posted_nodes))
        if seen.silent_since is None:
            self._post(Observed(time.monotonic(), self.endpoint.label, self.generation, seen.slots,
                                seen.blocks_expected, self._ages.until(seen.blocks)))  # fmt: skip
        else:
            self._post(Unanswered(time.monotonic(), self.endpoint.label, self.generation, seen.silent_since))
        self._asked_at = None
        self._note_groups(seen.slots)
        self._ask_for_environment(seen.blocks)
        self._note_deserted(seen.deserted)
        self._see_to_evictions()

    def _ask_for_environment(self, blocks: frozenset[str]) -> None:
        """Ask new blocks for their installed packages, unless there are too many."""
        is_new = not blocks <= self._known_blocks
        self._known_blocks |= blocks
        if not is_new or len(blocks) > _MOST_ASKED:
            return
        self._asked_at = time.monotonic()
        try:
            names = adapter.distributions(self.executor)
        except Exception:  # only a preference depends on it; `look` reports a bad channel
            logger.debug("Endpoint %s did not list its packages", self.endpoint.label, exc_info=True)
            names = None
        self._asked_at = None
        if names:
            modules = modules_of(names)
            self._post(Environment(time.monotonic(), self.endpoint.label, self.generation, modules))

    def evict(self, manager: str, block: str) -> None:
        """Have the control thread hold the manager of a bad node and end its block.

        Only where the node is alone in its block, and where scaling can request another.
        """
        if self._scaling.strategy != "none":
            self._to_hold.put((manager, block))

    def _note_deserted(self, blocks: frozenset[str]) -> None:
        """End jobs that run without their managers, so that others can take their place.

        A manager that was stopped for too long ends itself, and sometimes hangs while it ends.
        """
        now = time.monotonic()
        self._deserted = {block: self._deserted.get(block, now) for block in blocks}
        for block, since in self._deserted.items():
            if now - since >= _DESERTED_LIMIT and block not in self._to_end and self._scaling.strategy != "none":
                logger.warning("Endpoint %s: block %s runs without managers; it is ended", self.endpoint.label, block)
                self._to_end.add(block)

    def _see_to_evictions(self) -> None:
        def see() -> None:
            with contextlib.suppress(Empty):
                while True:
                    manager, block = self._to_hold.get_nowait()
                    if adapter.hold_node(self.executor, manager, block):
                        self._to_end.add(block)
            for block in sorted(self._to_end):
                if adapter.end_block(self.executor, block):
                    self._to_end.discard(block)

        if self._to_end or not self._to_hold.empty():
            self._bounded("the eviction of a node", see, _EVICTION_LIMIT)

    def _note_groups(self, slots: int) -> None:
        """Record the process groups of the blocks of new workers on this host."""
        if slots > self._most_slots and adapter.runs_here(self.executor):
            self._groups |= block_processes.groups_of_block(self._mark)
        self._most_slots = slots

    def look(self, now: float) -> Stimulus | None:
        """Return the death of the executor or an overdue answer as a stimulus; called by the driver."""
        if not self._runs or self._reported or self._closing.is_set():
            return None
        reason = adapter.why_dead(self.executor)
        if reason is not None:
            self._reported = True
            return Died(now, self.endpoint.label, self.generation, reason)
        asked = self._asked_at
        if asked is not None and now - asked > _ANSWER_DUE:
            return Unanswered(now, self.endpoint.label, self.generation, asked)
        return None

    def forgive(self, now: float) -> None:
        """Discount the time until now, in which this process was stopped."""
        if self._asked_at is not None:
            self._asked_at = now

    # --- work -----------------------------------------------------------------------------------------------------

    def submit(
        self,
        attempt: int,
        function: Callable[..., Any],
        resources: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_app: bool,
        known: int = 0,
        avoid: tuple[str, ...] = (),
        traceparent: str = "",
    ) -> None:
        """Submit one attempt to the executor, on the work thread; ``known`` and ``avoid`` are for the gate.

        The trace context is passed where a worker is a process that runs one task at a time.
        """
        if traceparent and adapter.asks_for_slots(self.executor):
            function, args = trace_wrapper.around(function), (traceparent, *args)

        def call() -> None:
            if self._closing.is_set():
                return  # the pool has rerouted it
            try:
                if self._is_gated:
                    orders = (attempt, known, " ".join(avoid))
                    future = adapter.submit(self.executor, node_gate.around(function), resources, orders + args, kwargs)
                else:
                    future = adapter.submit(self.executor, function, resources, args, kwargs)
            except Exception as error:  # noqa: BLE001 - the core classifies it
                self._outcome(attempt, is_app, self._is_gated, error)
            else:
                future.add_done_callback(lambda done: self._outcome(attempt, is_app, self._is_gated, done))

        self._work.do(call)

    # --- end ------------------------------------------------------------------------------------------------------

    def close(self, limit: float, *, broken: bool) -> None:
        """End the executor and all it started, within about ``limit`` seconds; a second call waits for the first.

        Args:
            limit: Seconds.
            broken: Whether it is dead or does not answer. Then its jobs are cancelled through the provider and its
                interchange is killed; otherwise it scales in and shuts down normally.
        """
        end = time.monotonic() + limit
        with self._close_lock:
            first = not self._closing.is_set()
            self._closing.set()
        if not first:
            self._closed.wait(limit)
            return
        try:
            self._close(limit, end, broken=broken)
        finally:
            self._closed.set()

    def _close(self, limit: float, end: float, *, broken: bool) -> None:
        self._work.close()
        self._control.close()
        if not broken and self._poller is not None:
            poller = self._poller
            broken = not self._bounded(
                "scaling in", lambda: adapter.stop_polling(poller, 2.0, scale_in=True), limit / 2
            )
        self._abandon()
        if broken:
            adapter.kill_interchange(self.executor)
            if self._poller is not None:
                adapter.stop_polling(self._poller, 1.0, scale_in=False)
            self._bounded(
                "cancelling its jobs", lambda: adapter.cancel_jobs(self.executor), end - time.monotonic() - 2.0
            )
        self._work.join(adapter.SEND_LIMIT + 0.5)
        self._control.join(1.0)
        self._bounded("shutting down", lambda: adapter.shut_down(self.executor, wait=1.0), end - time.monotonic())
        adapter.kill_interchange(self.executor)
        block_processes.end_block(self._mark, self._groups, _COURTESY)

    def _bounded(self, what: str, call: Callable[[], None], limit: float) -> bool:
        """Run a call that Parsl does not bound; return False if it failed or did not end in time."""
        succeeded = threading.Event()

        def run() -> None:
            try:
                call()
                succeeded.set()
            except Exception:
                logger.warning("Endpoint %s: %s failed", self.endpoint.label, what, exc_info=True)

        thread = threading.Thread(target=run, name=f"pool-{self.endpoint.label}.{self.generation}-end", daemon=True)
        thread.start()
        thread.join(max(0.5, limit))
        if thread.is_alive():
            logger.warning("Endpoint %s: %s took more than %.1f s and is left behind", self.endpoint.label, what, limit)
        return succeeded.is_set()
