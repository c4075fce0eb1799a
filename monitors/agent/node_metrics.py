"""How a node is off: memory, disk, load, GPUs, and the walltime that is left."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

Gpu = tuple[float, int, int]

#: Seconds between two polls of GPUs, and seconds that a batch system may take to answer.
_GPU_PERIOD: Final = 10
_PATIENCE: Final = 30.0
_MIB: Final = 1 << 20
_GPU_QUERY: Final = [
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
    f"--loop={_GPU_PERIOD}",
]
_SLURM_END: Final = re.compile(r"\bEndTime=(\S+)")
_PBS_LIMIT: Final = re.compile(r"Resource_List\.walltime = (\d+):(\d+):(\d+)")
_PBS_USED: Final = re.compile(r"resources_used\.walltime = (\d+):(\d+):(\d+)")


class Sample(NamedTuple):
    """What a look at the node showed; see `NodeSampled` for the units."""

    cores: int
    load: float
    memory: int
    memory_free: int
    disk: int
    disk_free: int
    walltime: float
    gpus: tuple[Gpu, ...]


class Node:
    """Looks at the node it runs on; where a batch system or a GPU must be asked, with a helper that `close` ends."""

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 0
        self._folder = tempfile.gettempdir()
        self._end = JobEnd()
        self._gpus = _gpus()

    def sample(self) -> Sample:
        """A look. Never blocks."""
        memory = psutil.virtual_memory()
        try:
            disk, disk_free = shutil.disk_usage(self._folder)[::2]
        except OSError:
            disk = disk_free = -1
        return Sample(
            cores=self._cores,
            load=round(psutil.getloadavg()[0], 2),
            memory=memory.total,
            memory_free=memory.available,
            disk=disk,
            disk_free=disk_free,
            walltime=self._end.left(),
            gpus=self._gpus.look(),
        )

    def close(self) -> None:
        """End what was started."""
        self._end.close()
        self._gpus.close()


class JobEnd:
    """When the batch system ends the job that this process is in, as Slurm or PBS say.

    Args:
        environ: names the job.
        clock: Unix time in seconds.
    """

    def __init__(self, environ: dict[str, str] | None = None, clock: Callable[[], float] = time.time) -> None:
        env = dict(os.environ) if environ is None else environ
        self._clock = clock
        self._at: float | None = None
        self._asked: subprocess.Popen[str] | None = None
        self._asked_at = clock()
        if env.get("SLURM_JOB_END_TIME", "").isdigit():  # not before Slurm 22.05, and not in every step
            self._at = float(env["SLURM_JOB_END_TIME"])
        elif job := env.get("SLURM_JOB_ID"):
            self._ask("scontrol", "show", "job", "--oneliner", job)
        elif job := env.get("PBS_JOBID"):
            self._ask("qstat", "-f", job)

    def left(self) -> float:
        """Seconds; -1 if that is not known, now or at all."""
        if self._asked is not None:
            self._look(self._asked)
        return -1.0 if self._at is None else max(0.0, round(self._at - self._clock(), 1))

    def close(self) -> None:
        """End the question if it is not answered."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.kill()
            asked.communicate()

    def _ask(self, *command: str) -> None:
        program = shutil.which(command[0])
        if program is not None:
            self._asked = subprocess.Popen(  # noqa: S603 - of the batch system
                [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )  # fmt: skip

    def _look(self, asked: subprocess.Popen[str]) -> None:
        if asked.poll() is None:
            if self._clock() - self._asked_at > _PATIENCE:
                self.close()
            return
        self._asked = None
        self._at = job_end(asked.communicate()[0], self._clock())


def job_end(answer: str, now: float) -> float | None:
    """When a job ends (Unix time), by what ``scontrol show job`` or ``qstat -f`` answers; None if they do not say."""
    if found := _SLURM_END.search(answer):
        try:
            return datetime.fromisoformat(found[1]).timestamp()
        except ValueError:
            return None  # "Unknown": a job without a limit
    if limit := _PBS_LIMIT.search(answer):
        used = _PBS_USED.search(answer)
        return now + _seconds(limit) - (_seconds(used) if used else 0)
    return None


def _seconds(found: re.Match[str]) -> int:
    hours, minutes, seconds = map(int, found.groups())
    return 3600 * hours + 60 * minutes + seconds


# --- GPUs -----------------------------------------------------------------------------------------------------------


class NoGpus:
    """None to look at."""

    def look(self) -> tuple[Gpu, ...]:
        """What was last seen."""
        return ()

    def close(self) -> None:
        """Nothing was started."""


class LibraryGpus(NoGpus):
    """Asks NVIDIA's library, through its Python package ``pynvml``."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.nvmlInit()
        self._handles = [library.nvmlDeviceGetHandleByIndex(n) for n in range(library.nvmlDeviceGetCount())]
        self._seen: tuple[Gpu, ...] = ()
        self._due = 0.0

    def look(self) -> tuple[Gpu, ...]:
        """What was last seen, at most some seconds ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _GPU_PERIOD
            try:
                self._seen = tuple(map(self._of, self._handles))
            except Exception:  # noqa: BLE001 - its errors are known to nobody without it
                self._seen = ()  # a GPU that fell off its bus must not take the heartbeats along
        return self._seen

    def _of(self, handle: Any) -> Gpu:
        memory = self._library.nvmlDeviceGetMemoryInfo(handle)
        return float(self._library.nvmlDeviceGetUtilizationRates(handle).gpu), int(memory.used), int(memory.total)


class ProgramGpus(NoGpus):
    """Reads what ``nvidia-smi`` prints again and again; it ends when nobody reads any more."""

    def __init__(self, command: list[str]) -> None:
        self._program = subprocess.Popen(  # noqa: S603 - of the driver
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._pipe = self._program.stdout.fileno() if self._program.stdout else -1
        os.set_blocking(self._pipe, False)
        self._rest = b""
        self._seen: dict[int, Gpu] = {}
        self._number = 0
        self._read_at = time.monotonic()

    def look(self) -> tuple[Gpu, ...]:
        """What was last seen."""
        try:
            reported = os.read(self._pipe, 1 << 16)
        except BlockingIOError:
            reported = b""
        now = time.monotonic()
        if reported:
            if now - self._read_at > _GPU_PERIOD / 2:
                self._number = 0  # a new round
            self._read_at = now
        *lines, self._rest = (self._rest + reported).split(b"\n")
        for line in lines:
            if gpu := gpu_of(line.decode(errors="replace")):
                self._seen[self._number] = gpu
            self._number += 1
        return tuple(self._seen.values())

    def close(self) -> None:
        """End the program."""
        self._program.kill()
        self._program.communicate()


def gpu_of(line: str) -> Gpu | None:
    """A GPU by a line of ``nvidia-smi``: per cent, MiB, MiB; None if it says something else."""
    try:
        busy, used, total = map(float, line.split(","))
    except ValueError:
        return None  # "[N/A]": parts of a GPU that is shared out do not say how busy they are
    return busy, int(used) * _MIB, int(total) * _MIB


def _gpus() -> NoGpus:
    try:
        return LibraryGpus(importlib.import_module("pynvml"))
    except Exception:  # noqa: BLE001 - not installed, or no driver, which it says by errors of its own
        program = shutil.which(_GPU_QUERY[0])
    return NoGpus() if program is None else ProgramGpus([program, *_GPU_QUERY[1:]])
