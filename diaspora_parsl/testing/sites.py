"""Local simulated sites: real HTEX endpoints on this host that can be killed, frozen and brought back."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl.executors import processes
from diaspora_parsl.executors.endpoint import Endpoint

_ROUNDS = 50
_ROUND = 0.05
_VARIABLE = "DIASPORA_PARSL_LOCAL_SITE"


class LocalSite:
    """One simulated facility: an HTEX endpoint with an interchange and one block of workers of its own.

    While the site is closed, nothing can be started there, so that a pool's attempts to revive it fail until `restore`.
    Every process of the site carries a mark in its environment, and is found by it.

    Args:
        label: of the endpoint and the site.
        workers: of its one block.
        environment: further variables for its workers.
        heartbeats: passed to `Endpoint`.
        agent: passed to `Endpoint`.
        tags: passed to `Endpoint`.
    """

    def __init__(
        self,
        label: str,
        *,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
        heartbeats: tuple[int, int] | None = (1, 4),
        agent: bool = False,
        tags: frozenset[str] = frozenset(),
    ) -> None:
        self.label = label
        self._mark = f"{label}-{uuid.uuid4()}"
        self._folder = Path(tempfile.mkdtemp(prefix="diaspora-site-"))
        self._closed = self._folder / "closed"
        closed = shlex.quote(str(self._closed))
        self._interchange_pid = self._folder / "interchange.pid"
        variables = {_VARIABLE: self._mark, "DIASPORA_PARSL_SITE": label, **(environment or {})}
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
        refuse = f"if [ -e {closed} ]; then exit 1; fi"
        # An interchange overwrites its own environment when it sets its title: it is found by its process id.
        launch = f"{refuse}; echo $$ > {shlex.quote(str(self._interchange_pid))}; exec interchange.py"
        executor = HighThroughputExecutor(
            label=label,
            address="127.0.0.1",
            max_workers_per_node=workers,
            cores_per_worker=1e-6,  # simulated sites share the cores of this host
            encrypted=False,
            interchange_launch_cmd=["sh", "-c", launch],
            provider=LocalProvider(
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                launcher=SimpleLauncher(),
                worker_init=f"{refuse}\n{exports}",
            ),
        )
        self.endpoint = Endpoint(executor, heartbeats=heartbeats, agent=agent, tags=tags)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def processes(self) -> list[psutil.Process]:
        """Every process of the site that runs now: interchange, block scripts, managers, workers, agents."""
        central = self.interchange()
        found = [central] if central is not None else []
        return found + processes.of_block(self._mark, variable=_VARIABLE)

    def interchange(self) -> psutil.Process | None:
        """The interchange, if it runs."""
        try:
            process = psutil.Process(int(self._interchange_pid.read_text()))
            is_ours = "interchange" in _command(process) and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if is_ours else None

    def manager(self) -> psutil.Process | None:
        """The manager of the block, if it runs."""
        for process in self.processes():
            words = _command(process).split()
            if any(word.endswith("process_worker_pool.py") for word in words[:3]) and words[0] not in {"sh", "bash"}:
                return process
        return None

    def kill(self) -> int:
        """SIGKILL everything of the site at once, without warning, and keep it closed; returns how many processes."""
        self._closed.touch()
        killed = 0
        for _ in range(_ROUNDS):  # a process may fork while it is being looked at
            left = self.processes()
            if not left:
                return killed
            for process in left:
                with contextlib.suppress(psutil.Error):  # it ended meanwhile
                    process.kill()
                    killed += 1
            time.sleep(_ROUND)  # no wait: the interchange is this process's child, and its executor reaps it
        raise RuntimeError(f"site {self.label} does not die: {self.processes()}")

    def restore(self) -> None:
        """Open the site again: the next attempt to revive it succeeds."""
        self._closed.unlink(missing_ok=True)

    def freeze(self, *, interchange: bool = False, sparing_manager: bool = False) -> None:
        """SIGSTOP the nodes of the site.

        Args:
            interchange: also the interchange, which runs beside the workflow.
            sparing_manager: let the manager go on, so that Parsl notices nothing: workers hang, agents fall silent.
        """
        for process in self._frozen_part(interchange=interchange, manager=not sparing_manager):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                process.suspend()

    def thaw(self) -> None:
        """SIGCONT everything."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                process.resume()

    def remove(self) -> None:
        """Kill what is left and delete the site's folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _frozen_part(self, *, interchange: bool, manager: bool) -> list[psutil.Process]:
        spared = [] if interchange else [self.interchange()]
        spared += [] if manager else [self.manager()]
        return [process for process in self.processes() if process not in spared]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def node_names(folder: Path, count: int) -> str:
    """Lines for a ``worker_init`` that give each block the name of a simulated node, for the pool to know it by.

    The blocks of one host are told apart as ``node-0``, ``node-1``, ... in ``DIASPORA_PARSL_NODE``. A name is free
    again when its block has ended, so that a block which replaces another runs on the same node.

    Args:
        folder: where the names are taken from; made if need be.
        count: of names; a block beyond that keeps the name of the host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The lock is held by every process of the block, and by nothing else: file descriptors are inherited.
    lines = f"""
    for number in $(seq 0 {count - 1}); do
      exec 9>{shlex.quote(str(folder))}/$number
      if flock -n 9; then export DIASPORA_PARSL_NODE=node-$number; break; fi
    done
    """
    return "\n".join(line.strip() for line in lines.splitlines() if line.strip())
