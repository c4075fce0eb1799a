"""A resilient pool for one test: load it with Parsl, apply faults, read its events, and end all its processes."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import parsl
from parsl.config import Config
from parsl.executors.base import ParslExecutor

from diaspora_parsl.errors import ConfigurationError, DiasporaParslError
from diaspora_parsl.events import TOPIC_ENDPOINT, TOPIC_TASK, EndpointUp, Event
from diaspora_parsl.executors.endpoint import Endpoint
from diaspora_parsl.executors.globus.endpoint import GlobusEndpoint
from diaspora_parsl.executors.globus.rate_limit import RateLimit
from diaspora_parsl.executors.pool import ResilientPoolExecutor
from diaspora_parsl.fabric.address import find_fabric
from diaspora_parsl.fabric.base import Position, open_fabric
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.environment import reachable
from diaspora_parsl.testing.failure_report import Story, build_story
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.faults.targets import Place
from diaspora_parsl.testing.leak_check import end_what_is_left
from diaspora_parsl.testing.local_sites import LocalSite

logger = logging.getLogger(__name__)

#: Part of a pool: the label of a local site to start, a `Place` that accepts faults, an endpoint or an executor.
Part: TypeAlias = str | Place | Endpoint | ParslExecutor

#: Seconds in which every endpoint must have workers.
_READY_LIMIT: Final = 60.0
#: Seconds in which threads and processes must end by themselves.
_GRACE: Final = 5.0
#: Seconds without a new event after which reading ends, and the limit of the whole read in seconds.
_QUIET: Final = 0.2
_READ_LIMIT: Final = 15.0
#: Default `unavailable_timeout` in seconds: a test fails sooner than a campaign.
_UNAVAILABLE_TIMEOUT: Final = 60.0
#: Requests allowed to an emulated service, which has no rate limit of its own.
_ALLOWANCE: Final = 10_000


class PoolRun:
    """A pool that Parsl has loaded, and its history.

    Attributes:
        dfk: Parsl's `DataFlowKernel`.
        pool: The executor.
        sites: Local sites by label, to kill, freeze and restore by hand.
        script: Faults applied to the pool.
        run_dir: Parsl's run directory.
    """

    def __init__(
        self,
        dfk: parsl.DataFlowKernel,
        pool: ResilientPoolExecutor,
        places: Mapping[str, Place],
        script: f.FaultScript,
    ) -> None:
        self.dfk = dfk
        self.pool = pool
        self.sites = {label: place for label, place in places.items() if isinstance(place, LocalSite)}
        self.script = script
        self.run_dir = Path(dfk.run_dir)
        self._injector = Injector(script, places.values(), run_dir=dfk.run_dir)
        self._began = time.time()
        self._events: list[Event] = []
        self._position: Position = "earliest"
        self._is_over = False

    def wait_for_faults(self, limit: float = 60.0) -> None:
        """Wait until the script is over.

        Args:
            limit: Seconds to wait.

        Raises:
            TimeoutError: The script is not over within ``limit``.
        """
        self._injector.wait(limit)

    def story(self) -> Story:
        """Return the history from the events published so far; complete after the end of the pool."""
        if not self._is_over:
            self._read()
        return build_story(self._events, self._injector.done, self._began, self.run_dir)

    # --- used by resilient_pool --------------------------------------------------------------------------------------

    def wait_for_workers(self, labels: Iterable[str]) -> None:
        """Wait until each of these endpoints has workers.

        Raises:
            TimeoutError: An endpoint has no worker within a minute.
        """
        missing, end = set(labels), time.monotonic() + _READY_LIMIT
        while missing:
            if time.monotonic() > end:
                names = ", ".join(sorted(missing))
                raise TimeoutError(f"no worker at {names} after {_READY_LIMIT:.0f} s; its logs are in {self.run_dir}")
            self._read()
            payloads = (event.payload() for event in self._events)
            missing -= {one.endpoint for one in payloads if isinstance(one, EndpointUp) and one.slots > 0}

    @contextlib.contextmanager
    def under_faults(self) -> Iterator[None]:
        """Apply the script while the block runs; its times count from here."""
        self._began = time.time()
        with self._injector:
            yield

    def close(self) -> Story:
        """Read the remaining events and return the complete history."""
        self._read()
        self._is_over = True
        return self.story()

    def _read(self) -> None:
        """Read new events from the fabric; a fabric that is down is read at the next call."""
        try:
            fabric = open_fabric(find_fabric(self.run_dir))
        except DiasporaParslError as error:
            logger.info("No fabric to read: %s", error)
            time.sleep(_QUIET)
            return
        with (
            contextlib.suppress(DiasporaParslError),
            contextlib.closing(fabric),
            contextlib.closing(fabric.subscribe((TOPIC_TASK, TOPIC_ENDPOINT), self._position)) as reader,
        ):
            end = time.monotonic() + _READ_LIMIT
            while (batch := reader.read(_QUIET)) and time.monotonic() < end:
                # Another run may use the same server; a source ends with the id of the run.
                self._events += [event for event in batch if event.source.endswith(self.dfk.run_id)]
                self._position = dict(reader.position)


class MakePool(Protocol):
    """Type of the fixture ``resilient_pool``; see the function `resilient_pool` for the arguments."""

    def __call__(
        self,
        *parts: Part,
        faults: f.FaultScript | Iterable[f.Fault] | None = None,
        workers: int = 2,
        nodes: int = 1,
        pool: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> AbstractContextManager[PoolRun]:
        """Build a pool and load it."""
        ...


@contextlib.contextmanager
def resilient_pool(
    *parts: Part,
    folder: Path,
    faults: f.FaultScript | Iterable[f.Fault] = (),
    workers: int = 2,
    nodes: int = 1,
    pool: Mapping[str, Any] | None = None,
    tell: Callable[[str], object] = logger.info,
    **config: Any,
) -> Iterator[PoolRun]:
    """Build a pool, load it with Parsl, apply faults, and end the pool with all its processes.

    Apps decorated without a ``data_flow_kernel`` run on it. The block starts when every endpoint has workers; the times
    of the faults count from then. Leaving the block ends active faults. Workers of local sites can import what this
    process can.

    Args:
        parts: Endpoints of the pool. A label starts a `LocalSite`. A `LocalSite`, an `EmulatedEndpoint` or another
            `Place` with an ``endpoint`` is used unchanged. An `Endpoint` or an executor accepts no faults.
        folder: Folder of Parsl's run directory.
        faults: A script, or an iterable of faults.
        workers: Number of workers per node of each site started from a label.
        nodes: Number of nodes of each site started from a label.
        pool: Further arguments of `ResilientPoolExecutor`.
        tell: Receives the history as text at the end.
        config: Further arguments of Parsl's `Config`, such as ``retries=1``.

    Raises:
        ConfigurationError: The parts, the faults or the options are invalid.
        TimeoutError: An endpoint has no worker within a minute.
        RuntimeError: A fault could not be applied, or threads or processes were left behind (processes are killed).
    """
    script = faults if isinstance(faults, f.FaultScript) else f.FaultScript(tuple(faults))
    options = {"label": "pool", "unavailable_timeout": _UNAVAILABLE_TIMEOUT, **(pool or {})}
    if not str(options.get("fabric", "embedded")).startswith(("embedded", "redis")):
        raise ConfigurationError(
            'resilient_pool reads events from the fabric: leave it "embedded", or write a redis:// URL'
        )
    with _own_log(), reachable(), contextlib.ExitStack() as made:
        places, endpoints = _places_and_endpoints(parts, workers, nodes, made)
        executor = ResilientPoolExecutor(endpoints=endpoints, **options)
        settings = {"run_dir": str(folder / "runinfo"), "strategy": "none", **config}
        threads = threading.enumerate()
        dfk = parsl.load(Config(executors=[executor], **settings))
        run: PoolRun | None = None
        try:
            run = PoolRun(dfk, executor, places, script)
            run.wait_for_workers(places)
            with run.under_faults():
                yield run
        finally:
            _end(dfk)
            left = _left_behind(dfk.run_id, places.values(), threads)
            if run is not None:
                tell("\n".join([str(run.close()), *(f"LEFT BEHIND: {what}" for what in left)]))
        if left:
            raise RuntimeError(f"left behind {_GRACE:.0f} s after the end of the pool: {'; '.join(left)}")
        begun = sum(not one.ended for one in run.story().faults)
        if begun < len(script):
            warnings.warn(
                f"{begun} of {len(script)} faults happened, because the test was over before the others: give it more "
                f"work, earlier faults, or call wait_for_faults()", stacklevel=3,
            )  # fmt: skip


def _places_and_endpoints(
    parts: Iterable[Part], workers: int, nodes: int, made: contextlib.ExitStack
) -> tuple[dict[str, Place], list[Endpoint | ParslExecutor]]:
    """Return what accepts faults, by label, and the endpoints of the pool."""
    places: dict[str, Place] = {}
    endpoints: list[Endpoint | ParslExecutor] = []
    rate_limit = RateLimit(most=_ALLOWANCE)
    for part in parts:
        if isinstance(part, Endpoint | ParslExecutor):
            endpoints.append(part)
            continue
        place: Place = part if not isinstance(part, str) else made.enter_context(
            LocalSite(part, workers=workers, nodes=nodes)
        )  # fmt: skip
        endpoint = getattr(place, "endpoint", None)
        endpoints.append(endpoint if isinstance(endpoint, Endpoint) else _globus_endpoint(place, rate_limit))
        if place.label in places:
            raise ConfigurationError(f"two endpoints have the label {place.label!r}; give each its own label")
        places[place.label] = place
    return places, endpoints


def _globus_endpoint(place: Place, rate_limit: RateLimit) -> GlobusEndpoint:
    from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute  # noqa: PLC0415 - an extra

    service = place.domain if isinstance(place, EmulatedEndpoint) else None
    if not isinstance(place, EmulatedEndpoint) or not isinstance(service, LocalGlobusCompute):
        raise ConfigurationError(
            f"{place!r} cannot be part of a pool: give a label, a LocalSite, an EmulatedEndpoint, another Place with "
            f"an `endpoint`, an Endpoint or an executor"
        )
    return GlobusEndpoint(
        endpoint_id=place.id,
        label=place.label,
        client_factory=service.client,
        rate_limit=rate_limit,
        status_period=0.5,
        patience=3.0,
    )


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """Keep Parsl's log out of the report of a failed test: thousands of lines would hide it."""
    log = logging.getLogger("parsl")
    propagates, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.propagate = propagates


def _end(dfk: parsl.DataFlowKernel) -> None:
    """End a run of Parsl unless it has ended, and close the log file that Parsl leaves open."""
    log = logging.getLogger("parsl")
    before = list(log.handlers)
    if not dfk.cleanup_called:
        dfk.cleanup()
    parsl.clear()
    for handler in before:
        if handler not in log.handlers:
            handler.close()


def _left_behind(run_id: str, places: Iterable[Place], before: Collection[threading.Thread]) -> list[str]:
    """Kill the processes of the run that do not end; describe them and the threads that remain."""
    sites = [place for place in places if isinstance(place, LocalSite)]
    return end_what_is_left(run_id, before, lambda: (one for site in sites for one in site.processes()), _GRACE)
