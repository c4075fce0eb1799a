"""Run the engine of a real endpoint in a child process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import shutil
import signal
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import psutil
from globus_compute_common.tasks import TaskState

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.runtime import block_processes
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing import local_sites
from diaspora_parsl.testing.faults import worker_faults
from diaspora_parsl.testing.globus.engines.base import Setup
from diaspora_parsl.testing.globus.engines.process import Assignment, ChildProcess

logger = logging.getLogger(__name__)

#: Largest result in bytes, fixed in the real engine.
_RESULT_LIMIT: Final = 10 * 2**20
#: Seconds in which all workers must be ready on a busy machine, and processes must die.
_READY_LIMIT: Final = 90.0
_DEATH_LIMIT: Final = 15.0
#: Seconds before a host that ended is restarted.
_PAUSE: Final = 0.5
#: Environment variable with the endpoint id, which marks every process: blocks are separate process groups.
_VARIABLE: Final = "DIASPORA_PARSL_LOCAL_ENDPOINT"
#: Counts of an endpoint without an engine.
_NOTHING: Final = dict.fromkeys(
    ("managers", "active_managers", "total_workers", "idle_workers", "pending_tasks", "outstanding_tasks"), 0
)


def require_engine(result_limit: int) -> None:
    """Check that a `HostedEngine` can run on this host.

    Args:
        result_limit: Largest result in bytes.

    Raises:
        ConfigurationError: The package is missing, or the limit is not the engine's.
    """
    if importlib.util.find_spec("globus_compute_endpoint") is None:
        raise ConfigurationError(
            "globus_compute_endpoint cannot be imported. Write: pip install 'diaspora-parsl[globus-engine]'"
        )
    if result_limit != _RESULT_LIMIT:
        raise ConfigurationError(
            f"result_limit={result_limit}: a GlobusComputeEngine supports only {_RESULT_LIMIT} bytes; "
            "omit it, or write engine='emulated'"
        )


class HostedEngine:
    """The `GlobusComputeEngine` of a real endpoint, with an HTEX below it: interchange, managers, workers.

    It differs from the `EmulatedEngine` as real endpoints do: a task is known to have run when its result arrives; a
    lost node is reported after missed heartbeats and replaced when tasks wait for it. `LoseWorker` kills any worker.
    All faults of user functions, including `Slow`, need the decorator `subject_to_faults`.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._folder = setup.make_folder()
        self.output = self._folder / "output.log"
        # An engine starts its programs by name.
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
        self._variables = {**setup.variables(self._folder), _VARIABLE: setup.name, "PATH": path}
        self._online = asyncio.Event()
        self._online.set()
        self._frozen = False
        #: Tasks at the service, and tasks inside the endpoint by id.
        self._waiting: deque[Assignment] = deque()
        self._held: dict[str, Assignment] = {}
        self._counts = _NOTHING
        #: The running host process, and whether its engine has started.
        self._host: ChildProcess | None = None
        self._is_ready = False
        #: At most one.
        self._keepers: list[asyncio.Task[None]] = []

    # --- from start to stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engine and wait until all its workers are ready."""
        ready = asyncio.Event()
        keeper = asyncio.create_task(self._keep(ready))
        keeper.add_done_callback(self._check)
        self._keepers.append(keeper)
        try:
            async with asyncio.timeout(_READY_LIMIT):
                await ready.wait()
        except TimeoutError:
            output = self.output.read_text(errors="replace")[-2000:] if self.output.exists() else ""
            await self.stop()
            raise RuntimeError(f"the engine of {self.setup.label} does not start:\n{output}") from None

    async def stop(self) -> None:
        """End every process and drop all tasks."""
        self._online.clear()
        for keeper in self._keepers:
            keeper.cancel()
        ends = await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._host is not None:  # cancelling the keeper cancelled its call of _end
            ends += await asyncio.gather(self._end(self._host), return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        for failure in ends:
            if isinstance(failure, Exception):
                raise failure

    async def _keep(self, ready: asyncio.Event) -> None:
        """Run an engine while the endpoint is online; set ``ready`` once the first one has all its workers."""
        setup = self.setup
        arguments = [setup.label, setup.name, str(setup.workers), str(setup.nodes), str(self._folder)]
        while True:
            await self._online.wait()
            host = ChildProcess(
                ["diaspora_parsl.testing.globus.engines.host", *arguments], self._variables, self.output
            )
            self._host, self._is_ready = host, False
            try:
                async for message in host.messages():
                    self._receive(message)
                    if self._counts["total_workers"] >= setup.workers * setup.nodes:
                        ready.set()
            finally:
                await self._end(host)
            host.gone.set()
            if self._online.is_set():
                logger.warning("The engine of %s ended; see %s", setup.label, self.output)
                self._forget()
                await asyncio.sleep(_PAUSE)

    def _check(self, keeper: asyncio.Task[None]) -> None:
        """Log immediately what `stop` will raise."""
        if not keeper.cancelled() and keeper.exception() is not None:
            logger.error("Endpoint %s has no engine", self.setup.label, exc_info=keeper.exception())

    async def _end(self, host: ChildProcess) -> None:
        await host.end()
        await asyncio.to_thread(block_processes.end_block, self.setup.name, (), 0.0, variable=_VARIABLE)
        self._host = None

    def _forget(self) -> None:
        self._held.clear()
        self._counts = _NOTHING

    # --- tasks ----------------------------------------------------------------------------------------------------

    def accept(self, assignments: Iterable[Assignment]) -> None:
        """Accept tasks for the endpoint."""
        self._waiting.extend(assignments)
        self._hand_out()

    def _hand_out(self) -> None:
        """Move tasks from the service to the engine."""
        while self._waiting and self._host is not None and self._is_ready and not self._frozen:
            job = self._waiting.popleft()
            self.setup.ledger.move(job.task, TaskState.WAITING_FOR_NODES)
            self._held[job.task.id] = job
            self._host.send(job.message())

    def _receive(self, message: bytes) -> None:
        """Handle a message of the host: counts as JSON, or a line with a task id and the result."""
        if not self._online.is_set():
            return  # the host is dying
        if message.startswith(b"{"):
            self._counts = json.loads(message)
            self._is_ready = True
            self._hand_out()
            return
        name, _, result = message.partition(b"\n")
        task = self._held.pop(name.decode()).task
        self.setup.ledger.move(task, TaskState.RUNNING)
        self.setup.report(task, result)

    # --- faults ---------------------------------------------------------------------------------------------------

    async def die(self) -> None:
        """Lose all tasks without a report; the service keeps new ones until `revive`."""
        self._online.clear()
        self._forget()
        if self._host is not None:
            self._host.signal(signal.SIGKILL)
            async with asyncio.timeout(_DEATH_LIMIT):
                await self._host.gone.wait()

    def revive(self) -> None:
        """Go online with a new engine."""
        self._online.set()

    async def lose_worker(self) -> None:
        """Kill a worker; its manager reports the loss and starts another."""
        await asyncio.to_thread(self._signal_workers, psutil.Process.kill, 1)

    async def lose_node(self, node: int) -> None:
        """Kill every process of a node, counted from 0."""
        await asyncio.to_thread(self._kill_node, f"{self.setup.label}-{node}")

    async def freeze(self) -> None:
        """Stop the workers and the host; the heartbeats of the HTEX continue."""
        self._frozen = True
        await asyncio.to_thread(self._signal_workers, psutil.Process.suspend)
        self._signal_host(signal.SIGSTOP)

    async def thaw(self) -> None:
        """Continue where `freeze` stopped."""
        self._frozen = False
        await asyncio.to_thread(self._signal_workers, psutil.Process.resume)
        self._signal_host(signal.SIGCONT)
        self._hand_out()

    def afflict(self, faults: tuple[f.WorkerFault, ...]) -> None:
        """Replace the faults that decorated user functions meet."""
        worker_faults.write_faults(self._folder, faults)

    def _signal_host(self, number: signal.Signals) -> None:
        """Send a signal to the host only, not to its group, which contains the interchange."""
        if self._host is not None:
            with contextlib.suppress(ProcessLookupError):  # the process has ended
                os.kill(self._host.pid, number)

    def _signal_workers(self, send: Callable[[psutil.Process], None], limit: int | None = None) -> None:
        for worker in self._workers()[:limit]:
            with contextlib.suppress(psutil.NoSuchProcess):  # the process has ended
                send(worker)

    def _workers(self) -> list[psutil.Process]:
        marked = block_processes.of_block(self.setup.name, variable=_VARIABLE)
        return [
            worker
            for process in marked
            if local_sites.is_manager(process)
            for worker in local_sites.workers_of(process)
        ]

    def _kill_node(self, name: str) -> None:
        groups = set()
        for process in block_processes.of_block(self.setup.name, variable=_VARIABLE):
            with contextlib.suppress(psutil.Error, OSError):  # the process has ended
                if process.environ().get(worker_faults.NODE_VARIABLE) == name:
                    groups.add(os.getpgid(process.pid))
        for group in groups - {os.getpgrp()}:
            with contextlib.suppress(ProcessLookupError):  # the process has ended
                os.killpg(group, signal.SIGKILL)

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
        return [worker.pid for worker in await asyncio.to_thread(self._workers)]

    def counts(self) -> dict[str, int]:
        """Return the latest counts that the engine reported."""
        return dict(self._counts)
