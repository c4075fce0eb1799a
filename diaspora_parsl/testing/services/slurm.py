"""Real Slurm clusters on this host, each for the duration of a test."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psutil
from msgspec import Struct
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import SlurmProvider

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.endpoint import Endpoint
from diaspora_parsl.executors.runtime import block_processes

_PROGRAMS: Final = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
#: Environment variable that marks every process of a cluster.
_VARIABLE: Final = "SLURM_CONF"
_FILE: Final = "slurm.conf"
_START_LIMIT: Final = 60.0
_COMMAND_LIMIT: Final = 30.0
_ROUND: Final = 0.1

_SWEEPER: Final = (
    "import sys; sys.stdin.buffer.read(); from diaspora_parsl.testing.services.slurm import sweep; sweep(sys.argv[1])"
)

_CONF = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
SlurmdTimeout={patience}
SlurmctldTimeout=10
KillWait=2
MinJobAge=600
ReturnToService=2
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
"""


class Job(Struct, frozen=True):
    """A job of the scheduler."""

    number: str
    state: str
    """Slurm state: PENDING, RUNNING, CANCELLED, TIMEOUT, ..."""
    node: str
    """Node of the job; empty while it is pending."""


class _Provider(SlurmProvider):
    """Parsl's provider for one of several clusters, selected by SLURM_CONF."""

    def __init__(self, conf: Path, **options: Any) -> None:
        self._conf = conf
        super().__init__(**options)

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two polls; Parsl's default for real sites is 60."""
        return 2

    def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:
        """Run one of Slurm's commands."""
        command = f"export {_VARIABLE}={shlex.quote(str(self._conf))}; {cmd}"
        answer: tuple[int, str, str] = super().execute_wait(command, timeout)  # type: ignore[no-untyped-call]
        return answer


class LocalSlurm:
    """One Slurm cluster on this host: a controller, nodes and an authentication daemon.

    Several clusters may run at a time. All files are in a temporary folder. Leaving the block ends daemons and jobs.

    Example:
        >>> with LocalSlurm("alpha", nodes=2) as alpha, LocalSlurm("beta") as beta:  # doctest: +SKIP
        ...     pool = ResilientPoolExecutor(label="pool", endpoints=[alpha.endpoint(), beta.endpoint()])

    Args:
        name: Name of the cluster; letters and digits.
        nodes: Number of nodes.
        cpus: Number of CPUs per node for the scheduler.
        patience: Seconds without contact after which the controller marks a node down.

    Raises:
        ConfigurationError: The cluster cannot run on this host (see `why_not`), or an argument is invalid.
    """

    def __init__(self, name: str = "alpha", *, nodes: int = 1, cpus: int = 1, patience: int = 6) -> None:
        reason = self.why_not()
        if reason is not None:
            raise ConfigurationError(f"LocalSlurm({name!r}) cannot start: {reason}")
        if not name.isalnum() or nodes < 1 or cpus < 1:
            raise ConfigurationError(
                f"LocalSlurm(name={name!r}, nodes={nodes}, cpus={cpus}): give a name of letters and digits, and at "
                f"least one node and one CPU."
            )
        self.name = name
        self.nodes = tuple(f"{name}{number}" for number in range(1, nodes + 1))
        self._cpus = cpus
        self._patience = patience
        self._folder = Path()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._sweeper: subprocess.Popen[bytes] | None = None

    @staticmethod
    def why_not() -> str | None:
        """Return why no cluster can run on this host, or None if it can."""
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        missing = [program for program in _PROGRAMS if shutil.which(program, path=path) is None]
        if missing:
            return f"{', '.join(missing)} not installed; on Debian: apt-get install slurm-wlm munge"
        if os.geteuid() != 0:
            return "slurmd must run as root"
        return None

    # --- begin and end --------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="diaspora-slurm-"))
        try:
            # Its standard input closes with this process, which ends the cluster even after SIGKILL.
            self._sweeper = subprocess.Popen(  # noqa: S603 - this module
                [sys.executable, "-c", _SWEEPER, str(self._folder)], stdin=subprocess.PIPE, start_new_session=True
            )
            self._write()
            self._start("munged", "munged", "--foreground", "--force", "--num-threads=1", *(
                f"--{what}-file={self._folder}/munge.{what}" for what in ("key", "pid", "log", "seed")
            ), f"--socket={self._folder}/munge.socket")  # fmt: skip
            self._until((self._folder / "munge.socket").exists, "munged opens no socket")
            self.start_controller()
            for node in self.nodes:
                self.start_slurmd(node)
            self._until(self._is_ready, "the nodes do not become idle")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """End everything of the cluster and delete its folder."""
        for daemon in self._daemons.values():
            if daemon.poll() is None:
                daemon.kill()
            daemon.wait(timeout=10)
        self._daemons.clear()
        sweep(self._folder)
        if self._sweeper is not None:
            self._sweeper.kill()
            self._sweeper.communicate()
            self._sweeper = None

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """Return the running processes of the cluster, or of the jobs on one node."""
        return _processes(self._conf, node)

    def start_controller(self) -> None:
        """Start or restart the controller, which restores its saved state."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self._conf))

    def start_slurmd(self, node: str) -> None:
        """Start or restart the daemon of a node."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", str(self._conf))

    # --- what runs there ------------------------------------------------------------------------------------------

    def provider(self, **options: Any) -> SlurmProvider:
        """Return a Parsl `SlurmProvider` for this cluster, with its options."""
        return _Provider(self._conf, **{"launcher": SimpleLauncher(), **options})

    def endpoint(self, label: str | None = None, *, workers: int = 1, walltime: str = "00:10:00") -> Endpoint:
        """Return an HTEX endpoint with one block per node.

        Args:
            label: Label of the endpoint; the name of the cluster by default.
            workers: Number of workers per node.
            walltime: Walltime of a block, as in `SlurmProvider`; Slurm rounds to whole minutes.
        """
        most = len(self.nodes)
        name = label or self.name
        provider = self.provider(
            init_blocks=most,
            min_blocks=most,
            max_blocks=most,
            walltime=walltime,
            worker_init=f"export DIASPORA_PARSL_SITE={shlex.quote(name)}",
        )
        return Endpoint(
            HighThroughputExecutor(
                label=name,
                address="127.0.0.1",
                max_workers_per_node=workers,
                cores_per_worker=1e-6,  # simulated nodes share the cores of this host
                encrypted=False,
                provider=provider,
            ),
            site=self.name,
        )

    def run(self, *command: str) -> str:
        """Run a Slurm command on this cluster and return its output.

        Raises:
            RuntimeError: The command failed, with its error output.
        """
        done = subprocess.run(  # noqa: S603 - the commands of a test
            command, env=self._environment(), capture_output=True, text=True, timeout=_COMMAND_LIMIT, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self, *, ended: bool = False) -> list[Job]:
        """Return pending and running jobs, or with ``ended`` all of the last ten minutes, oldest first."""
        states = ["--states=all"] if ended else []
        lines = self.run("squeue", "--noheader", "--format=%i|%T|%N", "--sort=i", *states).splitlines()
        return [Job(*line.split("|")) for line in lines]

    def node_state(self, node: str) -> str:
        """Return the Slurm state of a node: idle, allocated, draining, drained, down, ..."""
        return self.run("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T").split()[0]

    # --- faults ---------------------------------------------------------------------------------------------------

    def drain(self, node: str, reason: str = "maintenance") -> None:
        """Drain a node: running jobs continue, no new job starts."""
        self.run("scontrol", "update", f"node={node}", "state=drain", f"reason={reason}")

    def resume(self, node: str) -> None:
        """Return a drained node to service."""
        self.run("scontrol", "update", f"node={node}", "state=resume")

    def cancel(self, job: str) -> None:
        """Cancel a job."""
        self.run("scancel", job)

    def expire(self, job: str) -> None:
        """End the walltime of a job: within 30 seconds the scheduler ends it as TIMEOUT."""
        self.run("scontrol", "update", f"jobid={job}", "EndTime=now")

    def save(self) -> None:
        """Make the controller save its jobs, which it does with a delay of seconds.

        A controller killed before a save ends the jobs that it did not save after its restart.

        Raises:
            RuntimeError: The controller saves no state within a minute.
        """
        began, written = time.time(), self._folder / "state" / "job_state"
        for job in self.jobs():
            self.run("scontrol", "update", f"JobId={job.number}", f"Comment=saved-{began:.0f}")
        self._until(lambda: written.exists() and written.stat().st_mtime > began, "the controller saves no state")

    def kill_controller(self) -> None:
        """Send SIGKILL to the controller: commands fail until `start_controller`; jobs continue."""
        self._kill("slurmctld")

    def kill_slurmd(self, node: str) -> None:
        """Send SIGKILL to the daemon of a node: its jobs continue, and the controller marks the node down."""
        self._kill(node)

    def kill_node(self, node: str) -> int:
        """Send SIGKILL to the daemon and the jobs of a node; return the number of killed job processes."""
        self._kill(node)
        killed = 0
        for _ in range(50):
            left = self.processes(node)
            if not left:
                break
            killed += _kill(left)
        return killed

    # --- inner parts ----------------------------------------------------------------------------------------------

    @property
    def _conf(self) -> Path:
        return self._folder / _FILE

    def _write(self) -> None:
        for node in self.nodes:
            (self._folder / "spool" / node).mkdir(parents=True)
        (self._folder / "state").mkdir()
        key = self._folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        port, *ports = _free_ports(1 + len(self.nodes))
        lines = [_CONF.format(name=self.name, host=host, port=port, folder=self._folder, patience=self._patience)]
        for node, of_node in zip(self.nodes, ports, strict=True):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={of_node} CPUs={self._cpus} "
                f"State=UNKNOWN\n"
            )
        lines.append(f"PartitionName=all Nodes={','.join(self.nodes)} Default=YES MaxTime=INFINITE State=UP\n")
        self._conf.write_text("".join(lines), encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return {**os.environ, "PATH": path, _VARIABLE: str(self._conf)}

    def _start(self, name: str, *command: str) -> None:
        log = (self._folder / f"{name}.out").open("ab")
        with log:
            self._daemons[name] = subprocess.Popen(  # noqa: S603 - the daemons of the cluster
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the test only
            )

    def _kill(self, name: str) -> None:
        daemon = self._daemons[name]
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(timeout=10)

    def _is_ready(self) -> bool:
        try:
            states = [self.node_state(node) for node in self.nodes]
        except (RuntimeError, IndexError, subprocess.TimeoutExpired):
            return False  # the controller is not ready yet
        return all(state == "idle" for state in states)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _START_LIMIT
        while not condition():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > end:
                raise RuntimeError(f"cluster {self.name} does not start: {what}. {self._log_tails(ended)}")
            time.sleep(_ROUND)

    def _log_tails(self, ended: Sequence[str]) -> str:
        """Return the last lines of every log of the cluster."""
        tails = [f"{', '.join(ended)} ended."] if ended else []
        for log in sorted([*self._folder.glob("*.out"), *self._folder.glob("*.log")]):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            tails += [f"{log.name}: {' / '.join(lines)}"] if lines else []
        return "\n".join(tails)


def sweep(folder: str | Path) -> None:
    """End all processes of the cluster with this folder and delete the folder.

    Raises:
        RuntimeError: A process survives SIGKILL.
    """
    for _ in range(50):  # a process may fork during the scan
        left = _processes(Path(folder) / _FILE)
        if not left:
            shutil.rmtree(folder, ignore_errors=True)
            return
        _kill(left)
    raise RuntimeError(f"these processes of a Slurm cluster do not end: {left}")


def _processes(conf: Path, node: str | None = None) -> list[psutil.Process]:
    marked = block_processes.of_block(str(conf), variable=_VARIABLE)
    if node is not None:
        marked = [process for process in marked if _node_of(process) == node]
    groups = set()
    for process in marked:
        with contextlib.suppress(OSError):  # the process has ended
            groups.add(os.getpgid(process.pid))
    groups.discard(os.getpgrp())
    found = block_processes.of_block(str(conf), groups, variable=_VARIABLE)
    if node is not None:
        found = [process for process in found if _node_of(process) in {node, ""}]
    return [*_steps(conf.parent, node), *found]


def _steps(folder: Path, node: str | None) -> list[psutil.Process]:
    """Return the slurmstepd processes by their log file, as they overwrite their environment."""
    logs = folder.glob("slurmd-*.log") if node is None else [folder / f"slurmd-{node}.log"]
    paths = {str(log) for log in logs}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # the process has ended
            if process.name() == "slurmstepd" and any(file.path in paths for file in process.open_files()):
                found.append(process)
    return found


def _free_ports(count: int) -> list[int]:
    """Return different free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _node_of(process: psutil.Process) -> str | None:
    """Return the node of a job's process, "" if its environment is overwritten, None without a job."""
    try:
        environment = process.environ()
    except psutil.Error:
        return None
    return environment.get("SLURMD_NODENAME", None if _VARIABLE in environment else "")


def _kill(found: Sequence[psutil.Process]) -> int:
    killed = 0
    for process in found:
        with contextlib.suppress(psutil.Error):  # the process has ended
            process.kill()
            killed += 1
    psutil.wait_procs(list(found), timeout=0.2)
    return killed
