"""The default engine: worker processes that need only the SDK."""

from __future__ import annotations

import asyncio
import logging
import platform
import shutil
import signal
import uuid
from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import Result
from globus_compute_common.messagepack.message_types.result import ResultErrorDetails
from globus_compute_common.tasks import TaskState

from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults import worker_faults
from diaspora_parsl.testing.globus.engines.base import Setup
from diaspora_parsl.testing.globus.engines.process import Assignment, WorkerProcess
from diaspora_parsl.testing.globus.ledger import Task

logger = logging.getLogger(__name__)

#: Seconds in which workers must be ready, and must die.
_READY_LIMIT: Final = 30.0
_DEATH_LIMIT: Final = 15.0
#: Seconds before a worker that ended before it was ready is restarted.
_PAUSE: Final = 0.5
#: Module of the errors that a real endpoint reports for lost tasks.
_ERRORS: Final = "parsl.executors.high_throughput.errors"


class EmulatedEngine:
    """Runs the tasks of one endpoint in worker processes, one task per worker at a time."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.label = setup.label
        self.workers = setup.workers
        self.nodes = setup.nodes
        #: Factor on the run time of tasks that start now.
        self._slowness = 1.0
        self._folder = setup.make_folder()
        self.output = self._folder / "output.log"
        self._arguments = [setup.name, str(setup.result_limit), str(self._folder / "tasks")]
        self._environment = setup.variables(self._folder)
        self._ledger = setup.ledger
        self._report = setup.report
        self._online = asyncio.Event()
        self._online.set()
        self._frozen = False
        #: Number of deaths of the endpoint.
        self._life = 0
        #: Tasks at the service, and tasks held by the endpoint.
        self._waiting: deque[Assignment] = deque()
        self._held: deque[Assignment] = deque()
        #: Workers by number, and all processes not ended yet.
        self._processes: dict[int, WorkerProcess] = {}
        self._started: set[WorkerProcess] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._total = 0

    # --- from start to stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers and wait until they are ready."""
        ready = [asyncio.Event() for _ in range(self.workers * self.nodes)]
        self._keepers = [asyncio.create_task(self._keep(number, event)) for number, event in enumerate(ready)]
        for keeper in self._keepers:
            keeper.add_done_callback(self._check)
        try:
            async with asyncio.timeout(_READY_LIMIT):
                for event in ready:
                    await event.wait()
        except TimeoutError:
            output = self.output.read_text(errors="replace")[-2000:] if self.output.exists() else ""
            await self.stop()
            raise RuntimeError(f"the workers of {self.label} do not start:\n{output}") from None
        except asyncio.CancelledError:  # the service ends before it knows the engine
            await self.stop()
            raise

    async def stop(self) -> None:
        """End every process and drop all tasks."""
        self._online.clear()
        for keeper in self._keepers:
            keeper.cancel()
        ends = await asyncio.gather(*self._keepers, return_exceptions=True)
        # Cancelling a keeper cancels its call of _end.
        ends += await asyncio.gather(*map(self._end, self._started), return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        for failure in ends:
            if isinstance(failure, Exception):
                raise failure

    async def _keep(self, number: int, ready: asyncio.Event) -> None:
        """Run a worker of this number (from 0, by node) while online; set ``ready`` once the first one is."""
        node = f"{self.label}-{number // self.workers}"
        variables = {**self._environment, worker_faults.NODE_VARIABLE: node}
        while True:
            await self._online.wait()
            life = self._life
            process = WorkerProcess(number, self._arguments, variables, self.output)
            self._processes[number] = process
            self._started.add(process)
            try:
                async for message in process.messages():
                    if process.is_ready:
                        self._take(process, message)
                    process.is_ready = True
                    ready.set()
                    self._hand_out()
            finally:
                del self._processes[number]
                await self._end(process)
            if process.job is not None and life == self._life:  # else the endpoint died
                self._report_loss(process.job.task, process.loss_error or self._worker_lost(number))
            process.gone.set()
            if not process.is_ready and process.loss_error is None:
                logger.warning("A worker of %s ended before it was ready; see %s", node, self.output)
                await asyncio.sleep(_PAUSE)

    def _check(self, keeper: asyncio.Task[None]) -> None:
        """Log immediately what `stop` will raise."""
        if not keeper.cancelled() and keeper.exception() is not None:
            logger.error("Endpoint %s lost a worker slot", self.label, exc_info=keeper.exception())

    async def _end(self, process: WorkerProcess) -> None:
        await process.end()
        self._started.discard(process)

    # --- tasks ----------------------------------------------------------------------------------------------------

    def accept(self, assignments: Iterable[Assignment]) -> None:
        """Accept tasks for the endpoint."""
        self._waiting.extend(assignments)
        self._hand_out()

    def _hand_out(self) -> None:
        """Move tasks from the service to the endpoint, and from the endpoint to idle workers."""
        if not self._online.is_set():
            return
        while self._waiting:
            job = self._waiting.popleft()
            self._ledger.move(job.task, TaskState.WAITING_FOR_NODES)
            self._held.append(job)
            self._total += 1
        if self._frozen:
            return
        for process in self._processes.values():
            if self._held and process.is_idle:
                job = self._held.popleft()
                self._ledger.move(job.task, TaskState.RUNNING)
                process.run(job, _now(), self._slowness)

    def _take(self, process: WorkerProcess, result: bytes) -> None:
        """Take the result of a worker. A slow endpoint delays it."""
        now = _now()
        process.result = result
        process.due = now + (now - process.began) * (process.slowness - 1.0)
        if process.due > now:
            asyncio.get_running_loop().call_at(process.due, self._deliver, process)
        else:
            self._deliver(process)

    def _deliver(self, process: WorkerProcess) -> None:
        """Report the result of a worker, unless the worker died or is frozen."""
        is_alive = self._processes.get(process.number) is process and process.loss_error is None
        if is_alive and process.result is not None and process.due <= _now() and not self._frozen:
            job, result = process.take()
            self._report(job.task, result)
            self._hand_out()

    def _report_loss(self, task: Task, error: str) -> None:
        """Report a lost task, as a real endpoint does."""
        text = f"{'+' * 68}\nTraceback (most recent call last):\n{error}\n{'-' * 68}"
        why = ResultErrorDetails(
            code="RemoteExecutionError", user_message="An error occurred during the execution of this task"
        )
        self._report(task, messagepack.pack(Result(task_id=uuid.UUID(task.id), data=text, error_details=why)))

    # --- faults ---------------------------------------------------------------------------------------------------

    async def die(self) -> None:
        """Lose all tasks without a report; the service keeps new ones until `revive`."""
        self._online.clear()
        self._life += 1
        self._held.clear()
        await self._kill(list(self._processes.values()), f"{self.label} died")

    def revive(self) -> None:
        """Go online with new workers."""
        self._online.set()

    async def lose_worker(self) -> None:
        """Kill a worker, a busy one if possible, report its task, and start another worker."""
        for process in sorted(self._processes.values(), key=lambda process: process.job is None)[:1]:
            await self._kill([process], self._worker_lost(process.number))

    async def lose_node(self, node: int) -> None:
        """Kill all workers of a node, counted from 0, report their tasks, and start another node."""
        lost = [process for process in self._processes.values() if process.number // self.workers == node]
        host = platform.node()
        await self._kill(lost, f"{_ERRORS}.ManagerLost: Task failure due to loss of manager {node} on host {host}")

    async def freeze(self) -> None:
        """Stop all workers and start no task."""
        self._frozen = True
        for process in self._processes.values():
            process.signal(signal.SIGSTOP)

    async def thaw(self) -> None:
        """Continue where `freeze` stopped."""
        self._frozen = False
        for process in list(self._processes.values()):
            process.signal(signal.SIGCONT)
            self._deliver(process)
        self._hand_out()

    def afflict(self, faults: tuple[f.WorkerFault, ...]) -> None:
        """Replace the faults that user functions meet. `Slow` affects every function, decorated or not."""
        self._slowness = 1.0
        for slow in faults:
            if isinstance(slow, f.Slow):
                self._slowness *= slow.factor
        worker_faults.write_faults(self._folder, tuple(fault for fault in faults if not isinstance(fault, f.Slow)))

    async def _kill(self, processes: Collection[WorkerProcess], loss_error: str) -> None:
        for process in processes:
            process.kill(loss_error)
        async with asyncio.timeout(_DEATH_LIMIT):
            for process in processes:
                await process.gone.wait()

    def _worker_lost(self, number: int) -> str:
        return f"{_ERRORS}.WorkerLost: Task failure due to loss of worker {number} on host {platform.node()}"

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def is_online(self) -> bool:
        """Whether the endpoint is online."""
        return self._online.is_set()

    @property
    def waiting(self) -> int:
        """Number of tasks that the service keeps for the endpoint."""
        return len(self._waiting)

    async def pids(self) -> list[int]:
        """Return the ids of the worker processes."""
        return [self._processes[number].pid for number in sorted(self._processes)]

    def counts(self) -> dict[str, int]:
        """Return the numbers of workers and tasks, with the keys of a real endpoint."""
        ready = self._ready()
        busy = sum(process.job is not None for process in ready)
        nodes = len({process.number // self.workers for process in ready})
        return {
            "managers": nodes,
            "active_managers": nodes,
            "total_workers": len(ready),
            "idle_workers": len(ready) - busy,
            "pending_tasks": len(self._held),
            "outstanding_tasks": len(self._held) + busy,
            "total_tasks": self._total,
            "max_blocks": self.nodes,
            "min_blocks": self.nodes,
            "max_workers_per_node": self.workers,
            "nodes_per_block": 1,
        }

    def _ready(self) -> list[WorkerProcess]:
        return [process for process in self._processes.values() if process.is_ready]


def _now() -> float:
    return asyncio.get_running_loop().time()
