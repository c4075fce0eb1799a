"""What runs the tasks of an emulated endpoint, as the rest of the service sees it."""

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
    """What every engine is made of."""

    label: str
    """Of the endpoint."""
    name: str
    """Its id."""
    workers: int
    """Of each node."""
    nodes: int
    """How many."""
    result_limit: int
    """Bytes that a result may have."""
    environment: Mapping[str, str]
    """Further variables for the workers."""
    ledger: Ledger
    """Where tasks are moved from state to state."""
    report: Callable[[Task, bytes], None]
    """Called with a task and the packed message that says what came of it."""

    def make_folder(self) -> Path:
        """A new folder for what the engine keeps, with one in it where functions run."""
        folder = Path(tempfile.mkdtemp(prefix="diaspora-endpoint-"))
        (folder / "tasks").mkdir()
        return folder

    def variables(self, folder: Path) -> dict[str, str]:
        """Of the environment of all workers."""
        return {**self.environment, "DIASPORA_PARSL_SITE": self.label, worker_faults.VARIABLE: str(folder)}


class Engine(Protocol):
    """Runs the tasks of one endpoint in processes of its own. All methods are called in the thread of the loop."""

    @property
    def setup(self) -> Setup:
        """What it was made of."""

    @property
    def output(self) -> Path:
        """File to which what user code prints is appended."""

    @property
    def is_online(self) -> bool:
        """It is there, as far as it knows itself."""

    @property
    def waiting(self) -> int:
        """Tasks that the service keeps for it."""

    async def start(self) -> None:
        """Start the workers, and wait until they are ready.

        Raises:
            RuntimeError: they do not start.
        """

    async def stop(self) -> None:
        """End every process, and forget everything.

        Raises:
            Exception: what went wrong while it worked.
        """

    def accept(self, assignments: Iterable[Assignment]) -> None:
        """Tasks for this endpoint have come to the service."""

    def counts(self) -> dict[str, int]:
        """Its workers and tasks, in the words of a real endpoint's report."""

    async def pids(self) -> list[int]:
        """Of its worker processes."""

    async def die(self) -> None:
        """Everything that it holds is lost in silence; what comes waits at the service until `revive`."""

    def revive(self) -> None:
        """It is online again, with new workers."""

    async def lose_worker(self) -> None:
        """One of its workers dies; it says so, and starts another."""

    async def lose_node(self, node: int) -> None:
        """All workers of a node, counted from 0, die; the endpoint says so, and asks for another node."""

    async def freeze(self) -> None:
        """Its workers stand still, and nothing is handed out."""

    async def thaw(self) -> None:
        """Everything goes on where it stopped."""

    def afflict(self, faults: tuple[f.WorkerFault, ...]) -> None:
        """From now on these faults, and no others, meet user code."""
