"""Local simulated sites: real HTEX endpoints on this host that can be killed, frozen and brought back."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, get_args

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.endpoint import Endpoint
from diaspora_parsl.executors.runtime import block_processes
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults import worker_faults
from diaspora_parsl.testing.faults.targets import Troubles

_ROUNDS = 50
_ROUND = 0.05
_VARIABLE = "DIASPORA_PARSL_LOCAL_SITE"


class LocalSite:
    """One simulated facility: an HTEX endpoint with an interchange and blocks of workers of its own.

    While the site is closed, nothing can be started there, so that a pool's attempts to revive it fail until `restore`.
    Every process of the site carries a mark in its environment, and is found by it.

    Args:
        label: of the endpoint and the site.
        workers: of each node.
        nodes: how many; each is a block. On the worker ``DIASPORA_PARSL_NODE`` tells which: ``label-0`` and so on. A
            block that comes after a lost one runs on the same node again.
        environment: further variables for its workers.
        heartbeat_period: passed to `Endpoint`, with ``detection_time``.
        node_agent: passed to `Endpoint`.
        tags: passed to `Endpoint`.
        site: passed to `Endpoint`: several of these may stand for the endpoints of one facility.
    """

    def __init__(
        self,
        label: str,
        *,
        workers: int = 1,
        nodes: int = 1,
        environment: Mapping[str, str] | None = None,
        heartbeat_period: int | None = 1,
        detection_time: int = 4,
        node_agent: bool = False,
        tags: frozenset[str] = frozenset(),
        site: str | None = None,
    ) -> None:
        if nodes < 1:
            raise ConfigurationError(f"LocalSite({label!r}, nodes={nodes}): give at least one node")
        self.label = label
        self.nodes = nodes
        self._troubles = Troubles()
        self._mark = f"{label}-{uuid.uuid4()}"
        self._folder = Path(tempfile.mkdtemp(prefix="diaspora-site-"))
        self._closed = self._folder / "closed"
        closed = shlex.quote(str(self._closed))
        self._interchange_pid = self._folder / "interchange.pid"
        variables = {
            _VARIABLE: self._mark,
            "DIASPORA_PARSL_SITE": label,
            worker_faults.VARIABLE: str(self._folder),
            **(environment or {}),
        }
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
                init_blocks=nodes,
                min_blocks=nodes,
                max_blocks=nodes,
                launcher=SimpleLauncher(),
                worker_init=f"{refuse}\n{exports}\n{self._choose_node()}",
            ),
        )
        self.endpoint = Endpoint(
            executor,
            heartbeat_period=heartbeat_period,
            detection_time=detection_time,
            node_agent=node_agent,
            tags=tags,
            site=site,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def processes(self) -> list[psutil.Process]:
        """Every process of the site that runs now: interchange, block scripts, managers, workers, agents."""
        central = self.interchange()
        found = [central] if central is not None else []
        return found + block_processes.of_block(self._mark, variable=_VARIABLE)

    def interchange(self) -> psutil.Process | None:
        """The interchange, if it runs."""
        try:
            process = psutil.Process(int(self._interchange_pid.read_text()))
            is_ours = "interchange" in _command(process) and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if is_ours else None

    def manager(self, node: int | None = None) -> psutil.Process | None:
        """The manager of a node, or the first that is found, if it runs."""
        for process in self.processes():
            if is_manager(process) and node in {None, _node_of(process)}:
                return process
        return None

    def workers(self) -> list[psutil.Process]:
        """The processes that run user code, node by node."""
        found = []
        for node in range(self.nodes):
            manager = self.manager(node)
            if manager is not None:
                with contextlib.suppress(psutil.Error):  # it ended meanwhile
                    found += workers_of(manager)
        return found

    def kill_worker(self) -> int | None:
        """SIGKILL one worker; returns its process id, None if there is no worker."""
        for process in self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                process.kill()
                return int(process.pid)
        return None

    def kill_node(self, node: int = 0) -> int:
        """SIGKILL everything of one node, without warning; returns how many processes. Parsl asks for a new block."""
        killed = 0
        for _ in range(_ROUNDS):  # a process may fork while it is being looked at
            marked = block_processes.of_block(self._mark, variable=_VARIABLE)
            groups = {os.getpgid(process.pid) for process in marked if _node_of(process) == node} - {os.getpgrp()}
            left = [
                p for p in block_processes.of_block(self._mark, groups, variable=_VARIABLE) if _node_of(p) in {node, -1}
            ]
            if not left:
                break
            for process in left:
                with contextlib.suppress(psutil.Error):  # it ended meanwhile
                    process.kill()
                    killed += 1
            time.sleep(_ROUND)
        return killed

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

    def afflict(self, *faults: f.WorkerFault) -> None:
        """From now on these faults, and no others, meet functions that are `subject_to_faults`."""
        worker_faults.make_wrong(self._folder, faults)

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

    # --- for scripts of faults ------------------------------------------------------------------------------------

    @property
    def domain(self) -> object:
        """Itself: it shares nothing that a script could break."""
        return self

    def refuses(self, fault: f.Fault) -> str | None:
        """Why the fault cannot be applied here, None if it can."""
        if isinstance(fault, f.GlobusFault):
            return f.GLOBUS_ONLY
        if isinstance(fault, f.LoseNode | f.BlackHole) and fault.node >= self.nodes:
            return f"the site has {self.nodes} nodes, from 0 up"
        return None

    def begin(self, fault: f.Fault) -> None:
        """From now on this is wrong here; what has no ``until`` is over at once."""
        self._troubles.begin(fault)
        match fault:
            case f.Kill():
                self.kill()
                if not self._troubles.of(f.Kill):  # it is over at once, and no other lasts
                    self.restore()
            case f.Freeze():
                self.freeze()
            case f.Mute():
                self._signal_interchange(psutil.Process.suspend)
            case f.LoseNode():
                self.kill_node(fault.node)
            case f.LoseWorker():
                self.kill_worker()
            case _:
                self._afflict()

    def end(self, fault: f.Fault) -> None:
        """What has begun is wrong no longer, unless another fault of the same kind lasts."""
        was_last = self._troubles.end(fault)
        match fault:
            case f.Kill() if was_last:
                self.restore()
            case f.Freeze() if was_last:
                self.thaw()
            case f.Mute() if was_last:
                self._signal_interchange(psutil.Process.resume)
            case _:
                self._afflict()

    def _afflict(self) -> None:
        met = [fault for kind in get_args(f.WorkerFault) for fault in self._troubles.of(kind)]
        self.afflict(*met)

    def _signal_interchange(self, what: Callable[[psutil.Process], None]) -> None:
        process = self.interchange()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                what(process)

    def remove(self) -> None:
        """Kill what is left and delete the site's folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _choose_node(self) -> str:
        """Lines of shell: take the first node that no block has. A lock on a file ends with the block that holds it."""
        nodes = " ".join(map(str, range(self.nodes)))
        lock = shlex.quote(str(self._folder / "node-"))
        return f"""\
for patience in $(seq {_ROUNDS}); do
  for node in {nodes}; do
    exec 9>{lock}$node
    if flock -n 9; then break 2; fi
  done
  sleep {_ROUND}
done
export {worker_faults.NODE_VARIABLE}={self.label}-$node"""

    def _frozen_part(self, *, interchange: bool, manager: bool) -> list[psutil.Process]:
        spared = [] if interchange else [self.interchange()]
        spared += [] if manager else [self.manager()]
        return [process for process in self.processes() if process not in spared]


def is_manager(process: psutil.Process) -> bool:
    """It is the manager of an HTEX node, started as a script or as a module."""
    words = _command(process).split()
    has_name = any(word.removesuffix(".py").endswith("process_worker_pool") for word in words[:3])
    return has_name and words[0] not in {"sh", "bash"}


def workers_of(manager: psutil.Process) -> list[psutil.Process]:
    """The processes of an HTEX manager that run user code.

    Raises:
        psutil.Error: one ended meanwhile.
    """
    spawned = [child for child in manager.children() if "spawn_main" in _command(child)]
    return sorted(spawned, key=psutil.Process.create_time)[1:]  # the first serves the others


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _node_of(process: psutil.Process) -> int | None:
    """The node that a process runs on; -1 if it hides its environment, None if it belongs to no node."""
    try:
        environment = process.environ()
    except psutil.Error:
        return None
    node = environment.get(worker_faults.NODE_VARIABLE, "")
    if node:
        return int(node.rpartition("-")[2])
    return None if _VARIABLE in environment else -1


def node_names(folder: Path, count: int, *, prefix: str = "node") -> str:
    """Lines for a ``worker_init`` that give each block the name of a simulated node, for the pool to know it by.

    The blocks of one host are told apart as ``node-0``, ``node-1``, ... in ``DIASPORA_PARSL_NODE``. A name is free
    again when its block has ended, so that a block which replaces another runs on the same node.

    Args:
        folder: where the names are taken from; made if need be.
        count: of names; a block beyond that keeps the name of the host.
        prefix: before the number, as ``node`` in ``node-0``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The lock is held by every process of the block, and by nothing else: file descriptors are inherited.
    lines = f"""
    for number in $(seq 0 {count - 1}); do
      exec 9>{shlex.quote(str(folder))}/$number
      if flock -n 9; then export {worker_faults.NODE_VARIABLE}={shlex.quote(prefix)}-$number; break; fi
    done
    """
    return "\n".join(line.strip() for line in lines.splitlines() if line.strip())
