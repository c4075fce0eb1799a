"""An engine that is the one of a real endpoint, in a process of its own, as the service sees it."""

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

#: Bytes that a result may have; a real engine knows no other number.
_RESULT_LIMIT: Final = 10 * 2**20
#: Seconds that all workers may take to be ready, on a busy machine, and the processes to die.
_READY_LIMIT: Final = 90.0
_DEATH_LIMIT: Final = 15.0
#: Seconds before another host is started for one that ended by itself.
_PAUSE: Final = 0.5
#: In the environment of every process of an endpoint, its id: its blocks are process groups of their own.
_VARIABLE: Final = "DIASPORA_PARSL_LOCAL_ENDPOINT"
#: What an endpoint without an engine counts.
_NOTHING: Final = dict.fromkeys(
    ("managers", "active_managers", "total_workers", "idle_workers", "pending_tasks", "outstanding_tasks"), 0
)


def require_engine(result_limit: int) -> None:
    """See to it that a `HostedEngine` can run here.

    Args:
        result_limit: bytes that one result may have.

    Raises:
        ConfigurationError: it cannot.
    """
    if importlib.util.find_spec("globus_compute_endpoint") is None:
        raise ConfigurationError(
            "globus_compute_endpoint cannot be imported. Write: pip install 'diaspora-parsl[globus-engine]'"
        )
    if result_limit != _RESULT_LIMIT:
        raise ConfigurationError(
            f"result_limit={result_limit}: a GlobusComputeEngine allows {_RESULT_LIMIT} bytes and nothing else; "
            "leave it away, or write engine='emulated'"
        )


class HostedEngine:
    """The `GlobusComputeEngine` of a real endpoint, with an HTEX below it: interchange, managers, workers.

    It differs from the `EmulatedEngine` as real endpoints do: that a task ran is known when its result comes; a lost
    node is told when its heartbeats are missed, and asked for again when tasks wait for it. `LoseWorker` means any
    worker. All faults of user code meet functions that are `subject_to_faults`, `Slow` included.
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
        #: The process that runs now, and whether it has started an engine.
        self._host: ChildProcess | None = None
        self._is_ready = False
        #: At most one.
        self._keepers: list[asyncio.Task[None]] = []

    # --- from start to stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engine, and wait until all its workers are ready.

        Raises:
            RuntimeError: they do not start.
        """
        ready = asyncio.Event()
        keeper = asyncio.create_task(self._keep(ready))
        keeper.add_done_callback(self._check)
        self._keepers.append(keeper)
        try:
            async with asyncio.timeout(_READY_LIMIT):
                await ready.wait()
        except TimeoutError:
            said = self.output.read_text(errors="replace")[-2000:] if self.output.exists() else ""
            await self.stop()
            raise RuntimeError(f"the engine of {self.setup.label} does not start:\n{said}") from None

    async def stop(self) -> None:
        """End every process, and forget everything.

        Raises:
            Exception: what went wrong while it worked.
        """
        self._online.clear()
        for keeper in self._keepers:
            keeper.cancel()
        ends = await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._host is not None:  # its end was cancelled with its keeper
            ends += await asyncio.gather(self._end(self._host), return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        for failure in ends:
            if isinstance(failure, Exception):
                raise failure

    async def _keep(self, ready: asyncio.Event) -> None:
        """See to it that there is an engine as long as the endpoint is online.

        Args:
            ready: set when the first one has all its workers.
        """
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
                    self._hear(message)
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
        """Say at once what `stop` will raise."""
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
        """Tasks for this endpoint have come to the service."""
        self._waiting.extend(assignments)
        self._hand_out()

    def _hand_out(self) -> None:
        """From the service to the engine, whatever can go."""
        while self._waiting and self._host is not None and self._is_ready and not self._frozen:
            job = self._waiting.popleft()
            self.setup.ledger.move(job.task, TaskState.WAITING_FOR_NODES)
            self._held[job.task.id] = job
            self._host.send(job.message())

    def _hear(self, message: bytes) -> None:
        """Its counts in JSON, or the id of a task in a line before the result."""
        if not self._online.is_set():
            return  # it dies
        if message.startswith(b"{"):
            self._counts = json.loads(message)
            self._is_ready = True
            self._hand_out()
            return
        name, _, result = message.partition(b"\n")
        task = self._held.pop(name.decode()).task
        self.setup.ledger.move(task, TaskState.RUNNING)
        self.setup.report(task, result)

    # --- what may happen to it ------------------------------------------------------------------------------------

    async def die(self) -> None:
        """Everything that it holds is lost in silence; what comes waits at the service until `revive`."""
        self._online.clear()
        self._forget()
        if self._host is not None:
            self._host.signal(signal.SIGKILL)
            async with asyncio.timeout(_DEATH_LIMIT):
                await self._host.gone.wait()

    def revive(self) -> None:
        """It is online again, with a new engine."""
        self._online.set()

    async def lose_worker(self) -> None:
        """One of its workers dies; its manager says so, and starts another."""
        await asyncio.to_thread(self._signal_workers, psutil.Process.kill, 1)

    async def lose_node(self, node: int) -> None:
        """Everything of a node dies, without a word.

        Args:
            node: counted from 0.
        """
        await asyncio.to_thread(self._kill_node, f"{self.setup.label}-{node}")

    async def freeze(self) -> None:
        """Its workers stand still, and so does who speaks to the service; heartbeats inside go on."""
        self._frozen = True
        await asyncio.to_thread(self._signal_workers, psutil.Process.suspend)
        self._signal_host(signal.SIGSTOP)

    async def thaw(self) -> None:
        """Everything goes on where it stopped."""
        self._frozen = False
        await asyncio.to_thread(self._signal_workers, psutil.Process.resume)
        self._signal_host(signal.SIGCONT)
        self._hand_out()

    def afflict(self, faults: tuple[f.WorkerFault, ...]) -> None:
        """From now on these faults, and no others, meet user code that is decorated for it."""
        worker_faults.write_faults(self._folder, faults)

    def _signal_host(self, number: signal.Signals) -> None:
        """To the host alone: its interchange is in its group."""
        if self._host is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(self._host.pid, number)

    def _signal_workers(self, what: Callable[[psutil.Process], None], limit: int | None = None) -> None:
        for worker in self._workers()[:limit]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                what(worker)

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
            with contextlib.suppress(psutil.Error, OSError):  # it ended meanwhile
                if process.environ().get(worker_faults.NODE_VARIABLE) == name:
                    groups.add(os.getpgid(process.pid))
        for group in groups - {os.getpgrp()}:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.killpg(group, signal.SIGKILL)

    # --- what it says of itself -----------------------------------------------------------------------------------

    @property
    def is_online(self) -> bool:
        """It is there, as far as it knows itself."""
        return self._online.is_set()

    @property
    def waiting(self) -> int:
        """Tasks that the service keeps for it."""
        return len(self._waiting)

    async def pids(self) -> list[int]:
        """Of its worker processes."""
        return [worker.pid for worker in await asyncio.to_thread(self._workers)]

    def counts(self) -> dict[str, int]:
        """What the engine said last of its workers and tasks, numbers only."""
        return dict(self._counts)
