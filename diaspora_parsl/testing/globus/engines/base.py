"""The protocol of engines, which run the tasks of an emulated endpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults import worker_faults
from diaspora_parsl.testing.globus.engines.process import Assignment
from diaspora_parsl.testing.globus.ledger import Ledger, Task


class Setup(Struct, frozen=True, kw_only=True):
    """Settings of an engine."""

    label: str
    """Label of the endpoint."""
    name: str
    """Id of the endpoint."""
    workers: int
    """Number of workers per node."""
    nodes: int
    """Number of nodes."""
    result_limit: int
    """Largest result in bytes."""
    environment: Mapping[str, str]
    """Environment variables added on the workers."""
    ledger: Ledger
    """Ledger that records the states of tasks."""
    report: Callable[[Task, bytes], None]
    """Called with a task and its packed result."""

    def make_folder(self) -> Path:
        """Create the folder of the engine, with the working folder ``tasks``."""
        folder = Path(tempfile.mkdtemp(prefix="diaspora-endpoint-"))
        (folder / "tasks").mkdir()
        return folder

    def variables(self, folder: Path) -> dict[str, str]:
        """Return the environment variables of all workers."""
        return {**self.environment, "DIASPORA_PARSL_SITE": self.label, worker_faults.VARIABLE: str(folder)}


class Engine(Protocol):
    """Runs the tasks of one endpoint in its own processes. Call all methods in the thread of the loop."""

    @property
    def setup(self) -> Setup:
        """Settings of the engine."""

    @property
    def output(self) -> Path:
        """File with the output of user code."""

    @property
    def is_online(self) -> bool:
        """Whether the endpoint is online."""

    @property
    def waiting(self) -> int:
        """Number of tasks that the service keeps for the endpoint."""

    async def start(self) -> None:
        """Start the workers and wait until they are ready.

        Raises:
            RuntimeError: The workers do not start.
        """

    async def stop(self) -> None:
        """End every process and drop all tasks.

        Raises:
            Exception: The first error of the engine while it ran.
        """

    def accept(self, assignments: Iterable[Assignment]) -> None:
        """Accept tasks for the endpoint."""

    def counts(self) -> dict[str, int]:
        """Return the numbers of workers and tasks, with the keys of a real endpoint."""

    async def pids(self) -> list[int]:
        """Return the ids of the worker processes."""

    async def die(self) -> None:
        """Lose all tasks without a report; the service keeps new ones until `revive`."""

    def revive(self) -> None:
        """Go online with new workers."""

    async def lose_worker(self) -> None:
        """Kill a worker, report its task, and start another worker."""

    async def lose_node(self, node: int) -> None:
        """Kill all workers of a node, counted from 0, report their tasks, and start another node."""

    async def freeze(self) -> None:
        """Stop all workers and start no task."""

    async def thaw(self) -> None:
        """Continue where `freeze` stopped."""

    def afflict(self, faults: tuple[f.WorkerFault, ...]) -> None:
        """Replace the faults that user functions meet."""
