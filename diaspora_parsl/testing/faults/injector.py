"""Apply a fault script to local sites and emulated endpoints, in real time."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Self

import psutil
from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.fabric.address import read_record
from diaspora_parsl.testing.faults import script as f
from diaspora_parsl.testing.faults.targets import Place

logger = logging.getLogger(__name__)

#: Seconds in which the injector's thread must end.
_END_LIMIT: Final = 30.0


class Injected(Struct, frozen=True):
    """A fault that an `Injector` began or ended."""

    at: float
    """Seconds from the start."""
    fault: f.Fault
    ended: bool
    """Whether the fault ended (else it began)."""
    unix: float
    """Unix time, to compare with the times of events."""


class Injector:
    """Context manager that applies a fault script while the workflow in its block runs.

    Faults mean the same as in the simulator, with the limits of a real HTEX: `Mute` stops the interchange, which also
    delays results; `Slow`, `Flaky`, `BlackHole`, `WrongEnvironment` and `OutOfMemory` affect functions decorated with
    `subject_to_faults`; `LoseFabric` stops the server of an embedded fabric; `ClockJump` stops the process of the
    workflow. `EmulatedEndpoint` documents the faults of Globus Compute.

    A thread of the injector begins and ends the faults. Leaving the block ends all active faults.

    Args:
        script: Faults to apply; their times count from the start of the block.
        places: The `LocalSite` and `EmulatedEndpoint` instances that the script names. A fault without an endpoint is
            applied once to each service that has an endpoint here.
        run_dir: Run directory of the workflow, such as ``dfk.run_dir``; only `LoseFabric` needs it.

    Raises:
        ConfigurationError: The script cannot be applied to these places.
    """

    def __init__(self, script: f.FaultScript, places: Iterable[Place], *, run_dir: str | Path | None = None) -> None:
        self._places = {place.label: place for place in places}
        missing = script.endpoints() - set(self._places)
        if missing:
            raise ConfigurationError(f"no such site: {', '.join(sorted(missing))}; give them all to the Injector")
        for fault in script:
            if isinstance(fault, f.LoseFabric) and run_dir is None:
                raise ConfigurationError("LoseFabric needs Injector(..., run_dir=dfk.run_dir) to find the fabric")
            if not isinstance(fault, f.LoseFabric | f.ClockJump):
                self._targets(fault)
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fault-injector", daemon=True)
        self._longest_jump = max((fault.seconds for fault in script if isinstance(fault, f.ClockJump)), default=0.0)
        self._began = 0.0
        #: Faults that have begun and not ended.
        self._open: list[f.Fault] = []
        self._done: list[Injected] = []
        self._failure: BaseException | None = None
        self._server: list[psutil.Process] = []
        self._todo: list[tuple[float, f.Fault, bool]] = [(fault.at, fault, False) for fault in script]
        self._todo += [(until, fault, True) for fault in script if (until := getattr(fault, "until", None)) is not None]
        self._todo.sort(key=lambda step: step[0])

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        limit = _END_LIMIT + self._longest_jump
        self._thread.join(limit)
        if self._thread.is_alive():
            raise RuntimeError(f"the injector did not end within {limit:.0f} s")
        if self._failure is not None:
            raise RuntimeError("a fault could not be applied") from self._failure

    @property
    def done(self) -> tuple[Injected, ...]:
        """The faults that began and ended so far, in order."""
        return tuple(self._done)

    @property
    def is_over(self) -> bool:
        """Whether every fault of the script has begun and ended."""
        return not self._thread.is_alive()

    def wait(self, limit: float) -> None:
        """Wait until the script is over.

        Args:
            limit: Seconds to wait.

        Raises:
            TimeoutError: The script is not over within ``limit``.
        """
        self._thread.join(limit)
        if self._thread.is_alive():
            raise TimeoutError(f"the script is not over after {limit:.0f} s; {len(self._todo)} steps are left")

    # --- in the injector's thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._todo and not self._stop.wait(self._todo[0][0] - (time.monotonic() - self._began)):
                _, fault, ends = self._todo.pop(0)
                self._apply(fault, ends=ends)
            for fault in list(self._open) if self._stop.is_set() else ():
                self._apply(fault, ends=True)
        except Exception as error:  # noqa: BLE001 - __exit__ raises it again
            logger.warning("Injector: %r", error)
            self._failure = error

    def _apply(self, fault: f.Fault, *, ends: bool) -> None:
        if ends:
            self._open.remove(fault)
        elif getattr(fault, "until", None) is not None:
            self._open.append(fault)
        done = Injected(round(time.monotonic() - self._began, 3), fault, ends, time.time())
        logger.info("Injector: %s %s", "end of" if ends else "", fault)
        match fault:
            case f.LoseFabric():
                self._lose_fabric(ends=ends)
            case f.ClockJump():
                _suspend_self(fault.seconds)
            case _:
                for place in self._targets(fault):
                    (place.end if ends else place.begin)(fault)
        self._done.append(done)  # last: a caller that sees it relies on the fault being applied

    def _targets(self, fault: f.Fault) -> Sequence[Place]:
        """Return the endpoint of the fault; without one, an endpoint of each domain that accepts the fault."""
        label = getattr(fault, "endpoint", None)
        candidates = list(self._places.values()) if label is None else [self._places[label]]
        refusals = {place.label: place.refuses(fault) for place in candidates}
        found = {id(place.domain): place for place in candidates if refusals[place.label] is None}
        if not found:
            raise ConfigurationError(f"{fault}: {next(iter(refusals.values()), 'no place is given')}")
        return list(found.values())

    def _lose_fabric(self, *, ends: bool) -> None:
        if any(isinstance(other, f.LoseFabric) for other in self._open) and ends:
            return
        if not self._server:
            self._server = _servers(self._run_dir or Path())
        for process in self._server:
            _signal(process, psutil.Process.resume if ends else psutil.Process.suspend)


def _signal(process: psutil.Process | None, send: Callable[[psutil.Process], None]) -> None:
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):  # the process has ended
            send(process)


def _servers(run_dir: Path) -> list[psutil.Process]:
    """Return the server processes of the embedded fabric of a run."""
    owner = read_record(run_dir).get("pid")
    below = psutil.Process(owner).children(recursive=True) if isinstance(owner, int) else []
    found = [process for process in below if "valkey" in process.name() or "redis" in process.name()]
    if not found:
        raise RuntimeError(f"{run_dir} has no embedded fabric server that could be stopped")
    return found


def _suspend_self(seconds: float) -> None:
    """Stop this process as on a suspended host; a child process continues it."""
    pid = os.getpid()
    script = f"kill -STOP {pid}; sleep {seconds}; kill -CONT {pid}"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as waker:  # noqa: S603 - a fixed command
        waker.wait(seconds + _END_LIMIT)
