"""Local sites: real HTEX endpoints on this host that tests kill, freeze and restore."""

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
from diaspora_parsl.testing.faults.targets import ActiveFaults

_ROUNDS = 50
_ROUND = 0.05
_VARIABLE = "DIASPORA_PARSL_LOCAL_SITE"


class LocalSite:
    """One simulated facility: an HTEX endpoint with its own interchange and blocks.

    A closed site starts no process, so a pool cannot restart it before `restore`. A variable in the environment marks
    every process of the site.

    Args:
        label: Label of the endpoint.
        workers: Number of workers per node.
        nodes: Number of nodes; each is one block. ``DIASPORA_PARSL_NODE`` names the node on its workers: ``label-0``,
            ``label-1``, ... The block that replaces a lost one gets the same node.
        environment: Environment variables added on the workers.
        heartbeat_period: Passed to `Endpoint`, as are ``detection_time``, ``node_agent`` and ``tags``.
        site: Passed to `Endpoint`. Several local sites with the same value simulate the endpoints of one facility.

    Raises:
        ConfigurationError: ``nodes`` is below 1.
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
        self._active = ActiveFaults()
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
        # An interchange overwrites its environment when it sets its title; only its process id identifies it.
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
                worker_init=f"{refuse}\n{exports}\n{self._node_reservation()}",
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
        """Return the running processes of the site: interchange, block scripts, managers, workers, agents."""
        central = self.interchange()
        found = [central] if central is not None else []
        return found + block_processes.of_block(self._mark, variable=_VARIABLE)

    def interchange(self) -> psutil.Process | None:
        """Return the interchange, or None if it does not run."""
        try:
            process = psutil.Process(int(self._interchange_pid.read_text()))
            is_ours = "interchange" in _command(process) and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if is_ours else None

    def manager(self, node: int | None = None) -> psutil.Process | None:
        """Return the manager of a node (of any node by default), or None if it does not run."""
        for process in self.processes():
            if is_manager(process) and node in {None, _node_of(process)}:
                return process
        return None

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run user code, ordered by node."""
        found = []
        for node in range(self.nodes):
            manager = self.manager(node)
            if manager is not None:
                with contextlib.suppress(psutil.Error):  # the process has ended
                    found += workers_of(manager)
        return found

    def kill_worker(self) -> int | None:
        """Send SIGKILL to one worker; return its process id, or None if there is no worker."""
        for process in self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):  # the process has ended
                process.kill()
                return int(process.pid)
        return None

    def kill_node(self, node: int = 0) -> int:
        """Send SIGKILL to every process of a node and return their number. Parsl then requests a new block."""
        killed = 0
        for _ in range(_ROUNDS):  # a process may fork during the scan
            marked = block_processes.of_block(self._mark, variable=_VARIABLE)
            groups = {os.getpgid(process.pid) for process in marked if _node_of(process) == node} - {os.getpgrp()}
            left = [
                p for p in block_processes.of_block(self._mark, groups, variable=_VARIABLE) if _node_of(p) in {node, -1}
            ]
            if not left:
                break
            for process in left:
                with contextlib.suppress(psutil.Error):  # the process has ended
                    process.kill()
                    killed += 1
            time.sleep(_ROUND)
        return killed

    def kill(self) -> int:
        """Send SIGKILL to every process of the site, keep the site closed, and return the number of processes."""
        self._closed.touch()
        killed = 0
        for _ in range(_ROUNDS):  # a process may fork during the scan
            left = self.processes()
            if not left:
                return killed
            for process in left:
                with contextlib.suppress(psutil.Error):  # the process has ended
                    process.kill()
                    killed += 1
            time.sleep(_ROUND)  # not wait(): the executor reaps the interchange, a child of this process
        raise RuntimeError(f"processes of site {self.label} survive SIGKILL: {self.processes()}")

    def afflict(self, *faults: f.WorkerFault) -> None:
        """Replace the faults that functions decorated with `subject_to_faults` meet on this site."""
        worker_faults.write_faults(self._folder, faults)

    def restore(self) -> None:
        """Reopen the site, so that the next restart succeeds."""
        self._closed.unlink(missing_ok=True)

    def freeze(self, *, interchange: bool = False, sparing_manager: bool = False) -> None:
        """Send SIGSTOP to the nodes of the site.

        Args:
            interchange: Stop the interchange too, which runs on the host of the workflow.
            sparing_manager: Keep the manager running: Parsl sees no failure, but workers hang and agents send no
                heartbeats.
        """
        for process in self._frozen_part(interchange=interchange, manager=not sparing_manager):
            with contextlib.suppress(psutil.NoSuchProcess):  # the process has ended
                process.suspend()

    def thaw(self) -> None:
        """Send SIGCONT to every process of the site."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # the process has ended
                process.resume()

    # --- the Place protocol of fault scripts ----------------------------------------------------------------------

    @property
    def domain(self) -> object:
        """The site itself: it shares nothing with other sites."""
        return self

    def refuses(self, fault: f.Fault) -> str | None:
        """Return why the fault cannot be applied to this site, or None if it can."""
        if isinstance(fault, f.GlobusFault):
            return f.GLOBUS_ONLY
        if isinstance(fault, f.LoseNode | f.BlackHole) and fault.node >= self.nodes:
            return f"the site has {self.nodes} nodes, from 0 up"
        return None

    def begin(self, fault: f.Fault) -> None:
        """Begin a fault. A fault without ``until`` also ends here."""
        self._active.begin(fault)
        match fault:
            case f.Kill():
                self.kill()
                if not self._active.of(f.Kill):  # it has no `until`, and no other Kill is active
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
        """End a fault, unless another fault of its kind is active."""
        was_last = self._active.end(fault)
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
        met = [fault for kind in get_args(f.WorkerFault) for fault in self._active.of(kind)]
        self.afflict(*met)

    def _signal_interchange(self, send: Callable[[psutil.Process], None]) -> None:
        process = self.interchange()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):  # the process has ended
                send(process)

    def remove(self) -> None:
        """Kill the remaining processes and delete the folder of the site."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _node_reservation(self) -> str:
        """Return shell lines that reserve the first free node with a file lock, which ends with the block."""
        nodes = " ".join(map(str, range(self.nodes)))
        lock = shlex.quote(str(self._folder / "node-"))
        return f"""\
for attempt in $(seq {_ROUNDS}); do
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
    """Return whether the process is the manager of an HTEX node, started as a script or as a module."""
    words = _command(process).split()
    has_name = any(word.removesuffix(".py").endswith("process_worker_pool") for word in words[:3])
    return has_name and words[0] not in {"sh", "bash"}


def workers_of(manager: psutil.Process) -> list[psutil.Process]:
    """Return the child processes of an HTEX manager that run user code.

    Raises:
        psutil.Error: A process ended during the call.
    """
    spawned = [child for child in manager.children() if "spawn_main" in _command(child)]
    return sorted(spawned, key=psutil.Process.create_time)[1:]  # the first is the multiprocessing resource manager


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _node_of(process: psutil.Process) -> int | None:
    """Return the node of a process, -1 if its environment is overwritten, or None if it belongs to no node."""
    try:
        environment = process.environ()
    except psutil.Error:
        return None
    node = environment.get(worker_faults.NODE_VARIABLE, "")
    if node:
        return int(node.rpartition("-")[2])
    return None if _VARIABLE in environment else -1


def node_names(folder: Path, count: int, *, prefix: str = "node") -> str:
    """Return ``worker_init`` lines that give each block of this host its own simulated node name.

    The lines export ``DIASPORA_PARSL_NODE`` as ``node-0``, ``node-1``, ... A block releases its name when it ends, so
    that its replacement runs on the same node.

    Args:
        folder: Folder of the lock files; created if missing.
        count: Number of names. A block that finds no free name keeps the host name.
        prefix: Text before the number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Every process of the block inherits the file descriptor and thereby holds the lock.
    lines = f"""
    for number in $(seq 0 {count - 1}); do
      exec 9>{shlex.quote(str(folder))}/$number
      if flock -n 9; then export {worker_faults.NODE_VARIABLE}={shlex.quote(prefix)}-$number; break; fi
    done
    """
    return "\n".join(line.strip() for line in lines.splitlines() if line.strip())
