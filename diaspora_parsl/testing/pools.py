"""A pool of simulated places for one test: loaded, struck by faults, read out, and ended without a trace."""

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
from diaspora_parsl.testing.failure_report import Story, tell_story
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.faults.targets import Place
from diaspora_parsl.testing.leak_check import end_what_is_left
from diaspora_parsl.testing.local_sites import LocalSite

logger = logging.getLogger(__name__)

#: What a pool is made of: the label of a site to make, a place that faults can be applied to, or a member as it is.
Part: TypeAlias = str | Place | Endpoint | ParslExecutor

#: Seconds until every place must have workers.
_READY_LIMIT: Final = 60.0
#: Seconds that threads and processes may take to end by themselves.
_GRACE: Final = 5.0
#: Seconds of quiet after which every event has been read, and how long reading may take in all.
_QUIET: Final = 0.2
_READ_LIMIT: Final = 15.0
#: Seconds after which a test's tasks are given up when no endpoint is left: a test is not a campaign.
_DOWN_LIMIT: Final = 60.0
#: An emulated service answers at once and has no account whose requests could be used up.
_ALLOWANCE: Final = 10_000


class PoolRun:
    """A pool that Parsl has loaded, and what happens to it.

    Attributes:
        dfk: Parsl's `DataFlowKernel`.
        pool: the executor.
        sites: the local sites by label, to kill, freeze and restore by hand.
        script: the faults that it meets.
        run_dir: Parsl's directory of the run.
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

        Raises:
            TimeoutError: it is not over within this time.
        """
        self._injector.wait(limit)

    def story(self) -> Story:
        """What happened so far, as far as it was told; after the end of the pool, everything."""
        if not self._is_over:
            self._read()
        return tell_story(self._events, self._injector.done, self._began, self.run_dir)

    # --- for who runs the pool ------------------------------------------------------------------------------------

    def wait_for_workers(self, labels: Iterable[str]) -> None:
        """Wait until each of these endpoints has workers.

        Raises:
            TimeoutError: one has none within a minute.
        """
        missing, end = set(labels), time.monotonic() + _READY_LIMIT
        while missing:
            if time.monotonic() > end:
                names = ", ".join(sorted(missing))
                raise TimeoutError(f"no worker at {names} after {_READY_LIMIT:.0f} s; its logs are in {self.run_dir}")
            self._read()
            told = (event.payload() for event in self._events)
            missing -= {one.endpoint for one in told if isinstance(one, EndpointUp) and one.slots > 0}

    @contextlib.contextmanager
    def under_faults(self) -> Iterator[None]:
        """Apply the script; its time counts from here."""
        self._began = time.time()
        with self._injector:
            yield

    def close(self) -> Story:
        """Read the rest of what was told; nothing more will be."""
        self._read()
        self._is_over = True
        return self.story()

    def _read(self) -> None:
        """Read what is new on the fabric; one that cannot be read now is read later."""
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
    """The fixture ``resilient_pool``: see `resilient_pool` for its arguments."""

    def __call__(
        self,
        *parts: Part,
        faults: f.FaultScript | Iterable[f.Fault] | None = None,
        workers: int = 2,
        nodes: int = 1,
        pool: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> AbstractContextManager[PoolRun]:
        """Make a pool and load it."""
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
    """Make a pool, let Parsl load it, apply faults to it, and end it with all its processes.

    Apps that are decorated without a ``data_flow_kernel`` run on it. The block begins when every place has workers;
    from then on the time of the faults counts. When it is left, what lasts of them is ended. Workers of local sites
    find the modules that this process finds, and Parsl's programs.

    Args:
        parts: what the pool is made of. A label makes a `LocalSite`. A `LocalSite`, an `EmulatedEndpoint` or another
            `Place` with an ``endpoint`` is used as it is. `Endpoint` and executors are members that no fault is applied
            to.
        folder: for Parsl's run directory.
        faults: a script, or faults.
        workers: of each node of the sites that are made.
        nodes: of the sites that are made.
        pool: further arguments of `ResilientPoolExecutor`.
        tell: is given what happened, as text, at the end.
        config: further arguments of Parsl's `Config`, such as ``retries=1``.

    Raises:
        ConfigurationError: the parts, the faults or the options make no pool.
        TimeoutError: a place has no worker within a minute.
        RuntimeError: a fault could not be applied, or threads or processes were left behind (processes are ended).
    """
    script = faults if isinstance(faults, f.FaultScript) else f.FaultScript(tuple(faults))
    options = {"label": "pool", "unavailable_timeout": _DOWN_LIMIT, **(pool or {})}
    if not str(options.get("fabric", "embedded")).startswith(("embedded", "redis")):
        raise ConfigurationError(
            'resilient_pool reads on the fabric what happened: leave it "embedded", or write a redis:// URL'
        )
    with _own_log(), reachable(), contextlib.ExitStack() as made:
        places, members = _places_and_members(parts, workers, nodes, made)
        executor = ResilientPoolExecutor(endpoints=members, **options)
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


def _places_and_members(
    parts: Iterable[Part], workers: int, nodes: int, made: contextlib.ExitStack
) -> tuple[dict[str, Place], list[Endpoint | ParslExecutor]]:
    """What faults are applied to, by label, and what the pool is given."""
    places: dict[str, Place] = {}
    members: list[Endpoint | ParslExecutor] = []
    account = RateLimit(most=_ALLOWANCE)
    for part in parts:
        if isinstance(part, Endpoint | ParslExecutor):
            members.append(part)
            continue
        place: Place = part if not isinstance(part, str) else made.enter_context(
            LocalSite(part, workers=workers, nodes=nodes)
        )  # fmt: skip
        member = getattr(place, "endpoint", None)
        members.append(member if isinstance(member, Endpoint) else _globus_member(place, account))
        if place.label in places:
            raise ConfigurationError(f"two places are called {place.label!r}; give each a label of its own")
        places[place.label] = place
    return places, members


def _globus_member(place: Place, account: RateLimit) -> GlobusEndpoint:
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
        rate_limit=account,
        status_period=0.5,
        patience=3.0,
    )


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """Keep Parsl's log, thousands of lines, in its file: it would bury what pytest shows of a test that fails."""
    log = logging.getLogger("parsl")
    propagates, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.propagate = propagates


def _end(dfk: parsl.DataFlowKernel) -> None:
    """End a run of Parsl, whoever else has ended it, and close the log that Parsl leaves open."""
    log = logging.getLogger("parsl")
    before = list(log.handlers)
    if not dfk.cleanup_called:
        dfk.cleanup()
    parsl.clear()
    for handler in before:
        if handler not in log.handlers:
            handler.close()


def _left_behind(run_id: str, places: Iterable[Place], before: Collection[threading.Thread]) -> list[str]:
    """Threads and processes of the run that do not end; the processes are killed."""
    sites = [place for place in places if isinstance(place, LocalSite)]
    return end_what_is_left(run_id, before, lambda: (one for site in sites for one in site.processes()), _GRACE)
