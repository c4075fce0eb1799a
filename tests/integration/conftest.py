"""Pools on real endpoints: run a workflow, count every execution, read what the run told, leave nothing behind."""

from __future__ import annotations

import builtins
import contextlib
import functools
import time
import types
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import parsl
import psutil
import pytest
from parsl.config import Config
from parsl.executors.base import ParslExecutor

from diaspora_parsl import Endpoint, Fabric, ResilientPoolExecutor, open_fabric
from diaspora_parsl import events as ev
from diaspora_parsl.errors import DiasporaParslError
from diaspora_parsl.fabric.address import find_fabric
from diaspora_parsl.testing.local_sites import LocalSite
from diaspora_parsl.testing.services.slurm import LocalSlurm

P = TypeVar("P", bound=ev.Payload)
F = TypeVar("F", bound=Callable[..., Any])
Place: TypeAlias = LocalSite | Endpoint | ParslExecutor

#: Workers of each site that a fault strikes.
SLOTS = 2
#: Seconds that the end of a run may take, whatever was done to its endpoints.
CLEANUP_LIMIT = 10.0
#: Seconds from a kill to the first start of a task that it took, where a slot is free.
REROUTE_LIMIT = 5.0


@dataclass(frozen=True)
class Execution:
    """One start of one task, written down by the task itself."""

    task: int
    site: str
    pid: int
    start: float


@dataclass(frozen=True)
class Published:
    """One event of the run."""

    at: str
    source: str
    payload: ev.Payload


def travelling(function: F) -> F:
    """The function without its module: workers do not have the tests, and get it by value."""
    raw: Any = function
    copy: Any = types.FunctionType(
        raw.__code__,
        {"__builtins__": builtins, "__name__": "__main__"},
        raw.__name__,
        raw.__defaults__,
        raw.__closure__,
    )
    copy.__module__, copy.__kwdefaults__, copy.__qualname__ = "__main__", raw.__kwdefaults__, raw.__name__
    return cast("F", copy)


def counted(number: int, seconds: float, book: str, parsl_resource_specification: dict[str, Any] | None = None) -> int:
    """Write down that it runs, and take its time."""
    import os  # noqa: PLC0415 - it travels alone
    import time  # noqa: PLC0415

    line = f"{number} {os.environ.get('DIASPORA_PARSL_SITE', '?')} {os.getpid()} {time.time()!r}\n"
    handle = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)
    time.sleep(seconds)
    del parsl_resource_specification  # Parsl passes it on
    return number


class Run:
    """One run of a pool under Parsl.

    The pool numbers tasks as they come, and so does this: where the two are compared, only counted tasks may be given.
    """

    def __init__(self, pool: ResilientPoolExecutor, dfk: parsl.DataFlowKernel, book: Path) -> None:
        self.pool = pool
        self.dfk = dfk
        self.run_dir = Path(dfk.run_dir)
        self.cleanup_seconds = 0.0
        self._book = book
        self._counted = parsl.python_app(travelling(counted), data_flow_kernel=dfk)
        self._number = 0
        self._received: list[Published] = []
        self._position: dict[str, str] | None = None
        self._fabric: Fabric | None = None

    # --- tasks ----------------------------------------------------------------------------------------------------

    def tasks(self, count: int, seconds: float = 0.0, **resources: Any) -> list[Future[int]]:
        """Submit counted tasks; ``wishes`` are the resource specification."""
        options = {"parsl_resource_specification": resources} if resources else {}
        futures = []
        for _ in range(count):
            self._number += 1
            futures.append(self._counted(self._number, seconds, str(self._book), **options))
        return futures

    def tasks_that_queue(self, site: str, seconds: float = 0.25, count: int = 24 * SLOTS) -> list[Future[int]]:
        """Submit counted tasks until some run at ``site`` and others are bound to it and wait there; all of them.

        How many the pool binds ahead depends on how long it has seen such tasks take. On a busy machine that is longer
        than ``seconds``, and until the slow first task of each worker is forgotten nothing is bound ahead: then
        another ``count`` are submitted.
        """
        started = self.executions()[-1].task if self.executions() else 0
        futures: list[Future[int]] = []

        def are_queued() -> bool:
            if sum(not future.done() for future in futures) < 6 * SLOTS:
                futures.extend(self.tasks(count, seconds))
            running = sum(e.site == site and e.task > started for e in self.executions())
            return running >= SLOTS and self.bound(site) > SLOTS

        self.until(are_queued, 60.0, f"nothing is queued at {site}")
        return futures

    def app(self, function: Callable[..., Any], **options: Any) -> Callable[..., Future[Any]]:
        """A python app of this run out of a function that needs nothing of its module."""
        made: Callable[..., Future[Any]] = parsl.python_app(travelling(function), data_flow_kernel=self.dfk, **options)
        return made

    def executions(self) -> list[Execution]:
        """Every start of a counted task so far."""
        if not self._book.exists():
            return []
        lines = [line.split() for line in self._book.read_text(encoding="utf-8").splitlines()]
        return [Execution(int(task), site, int(pid), float(start)) for task, site, pid, start in lines]

    def warm_up(self, *sites: str, seconds: float = 0.1, limit: float = 90.0) -> None:
        """Give work until each of these sites has run some."""
        missing = set(sites)

        def has_run() -> bool:
            before = time.time()
            for future in self.tasks(4 * SLOTS, seconds):
                future.result(limit)
            missing.difference_update(e.site for e in self.executions() if e.start >= before)
            return not missing

        self.until(has_run, limit, f"{missing} took no work")

    @staticmethod
    def results(futures: Collection[Future[int]], limit: float = 60.0) -> list[int]:
        """All results, within ``limit`` seconds."""
        end = time.monotonic() + limit
        return [future.result(max(0.0, end - time.monotonic())) for future in futures]

    # --- what was told ----------------------------------------------------------------------------------------------

    def published(self) -> list[Published]:
        """Every event of the run so far, oldest first."""
        with contextlib.suppress(DiasporaParslError):
            if self._fabric is None:
                self._fabric = open_fabric(find_fabric(self.run_dir))
            reader = self._fabric.subscribe(ev.TOPICS, self._position or "earliest")
            try:
                while batch := reader.read(0.05):
                    for event in batch:
                        payload = event.payload()
                        if payload is not None:
                            self._received.append(Published(event.time, event.source, payload))
                self._position = reader.position
            finally:
                reader.close()
        return self._received

    def events(self, kind: type[P], **fields: Any) -> list[P]:
        """The events of one kind so far, those with these fields."""
        return [
            published.payload
            for published in self.published()
            if isinstance(published.payload, kind)
            and all(getattr(published.payload, k) == v for k, v in fields.items())
        ]

    def wait_for(self, kind: type[P], limit: float = 30.0, **fields: Any) -> P:
        """The first event of a kind, as soon as it has been told."""
        self.until(lambda: self.events(kind, **fields), limit, f"no {kind.__name__} {fields}")
        return self.events(kind, **fields)[0]

    @staticmethod
    def until(condition: Callable[[], object], limit: float = 30.0, what: str = "waited in vain") -> None:
        """Wait for a condition, at most ``limit`` seconds."""
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.05)

    def with_load(self, condition: Callable[[], object], what: str = "waited in vain") -> None:
        """Wait for a condition while there is work: without, Parsl's scaling asks for no block."""

        def holds() -> object:
            return self.results(self.tasks(8 * SLOTS, 0.25)) and condition()

        self.until(holds, 60.0, what)

    def bound(self, endpoint: str) -> int:
        """Attempts that this endpoint holds, as far as told."""
        sent = {e.attempt for e in self.events(ev.TaskDispatched, endpoint=endpoint)}
        return len(
            sent - {e.attempt for e in self.events(ev.TaskFinished)} - {e.attempt for e in self.events(ev.TaskRerouted)}
        )

    # --- what a fault must not cost -----------------------------------------------------------------------------------

    def rerouted(self) -> set[int]:
        """Tasks that left an endpoint."""
        return {event.task for event in self.events(ev.TaskRerouted)}

    def first_rerouted_start(self, lost: str, since: float) -> float:
        """Seconds from ``since`` (Unix time) to the first start, elsewhere, of a task that ``lost`` had."""
        gone = {event.task for event in self.events(ev.TaskRerouted, endpoint=lost)}
        starts = [e.start for e in self.executions() if e.task in gone and e.site != lost]
        later = [start - since for start in starts if start >= since]
        assert later, f"no task of {lost} started elsewhere"
        return min(later)

    def assert_each_ran_once(self, *, but: Collection[int] = ()) -> None:
        """No task ran twice, those aside that were rerouted, or hedged because the machine was busy elsewhere."""
        but = {*but, *(event.task for event in self.events(ev.TaskHedged))}
        count: dict[int, int] = {}
        for execution in self.executions():
            count[execution.task] = count.get(execution.task, 0) + 1
        twice = {task: times for task, times in count.items() if times != 1 and task not in but}
        assert not twice, f"tasks without a fault ran more than once: {twice}"

    # --- end ----------------------------------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """Every process of every block of every generation of this run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mark = process.environ().get("DIASPORA_PARSL_BLOCK", "")
                if mark.startswith(f"{self.pool.run_id}/") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def let_go(self) -> None:
        """Close what reads the fabric."""
        if self._fabric is not None:
            self._fabric.close()
            self._fabric = None


class PoolOf(Protocol):
    """Runs a pool; options are those of the pool, ``config`` those of Parsl's `Config`.

    A second one in the same test says that it is ``beside`` the first, and by which name.
    """

    def __call__(
        self, *places: Place, config: dict[str, Any] | None = None, beside: str = "", **options: Any
    ) -> AbstractContextManager[Run]: ...


@contextlib.contextmanager
def _pool_of(
    folder: Path, report: Callable[[str, float], None], *places: Place, config: dict[str, Any] | None = None,
    beside: str = "", **options: Any,
) -> Iterator[Run]:  # fmt: skip
    endpoints = [place.endpoint if isinstance(place, LocalSite) else place for place in places]
    pool = ResilientPoolExecutor(label="pool", endpoints=endpoints, **options)
    settings = {"run_dir": str(folder / "runinfo"), "strategy": "none", "initialize_logging": False, **(config or {})}
    whole = Config(executors=[pool], **settings)
    dfk = parsl.DataFlowKernel(whole) if beside else parsl.load(whole)
    run = Run(pool, dfk, folder / f"executions{beside}")
    try:
        yield run
    finally:
        run.published()
        run.let_go()
        began = time.monotonic()
        if not dfk.cleanup_called:
            dfk.cleanup()
        run.cleanup_seconds = time.monotonic() - began
        report("cleanup", run.cleanup_seconds)
    assert run.cleanup_seconds < CLEANUP_LIMIT
    left = [process.cmdline() for process in run.processes()]
    assert not left, f"left behind: {left}"
    for place in places:
        if isinstance(place, LocalSite):
            assert not place.processes()


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Notes a measured figure (seconds) in the test's report and on its output."""

    def note(name: str, seconds: float) -> None:
        record_property(name, round(seconds, 2))
        print(f"{name}: {seconds:.2f} s")  # noqa: T201 - shown with -rP

    return note


@pytest.fixture
def pool_of(tmp_path: Path, report: Callable[[str, float], None], monkeypatch: pytest.MonkeyPatch) -> PoolOf:
    """``with pool_of(alpha, beta) as run``: bounded end and nothing left are checked at its exit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIASPORA_PARSL_FABRIC", raising=False)
    return functools.partial(_pool_of, tmp_path, report)


@pytest.fixture
def two_sites() -> Iterator[tuple[LocalSite, LocalSite]]:
    """Two HTEX endpoints whose user left Parsl's heartbeats at their defaults."""
    with LocalSite("alpha", workers=SLOTS) as alpha, LocalSite("beta", workers=SLOTS) as beta:
        for site in (alpha, beta):
            executor: Any = site.endpoint.executor
            assert (executor.heartbeat_period, executor.heartbeat_threshold) == (30, 120)
        yield alpha, beta


@pytest.fixture
def the_fault(report: Callable[[str, float], None]) -> Callable[..., None]:
    """What must hold around one fault at one of two endpoints, running and queued attempts included."""

    def strike(
        run: Run,
        site: LocalSite,
        fault: Callable[[], object],
        *,
        within: float = REROUTE_LIMIT,
        returns: bool = True,
        after: Callable[[], object] | None = None,
    ) -> None:
        run.warm_up("alpha", "beta", seconds=0.25)
        futures = run.tasks_that_queue(site.label)
        ups = len(run.events(ev.EndpointUp, endpoint=site.label))
        struck = time.time()
        fault()
        assert sorted(run.results(futures)) == sorted(future.result() for future in futures)
        run.wait_for(ev.TaskRerouted, endpoint=site.label)
        report("kill to first rerouted start", run.first_rerouted_start(site.label, struck))
        report("kill to the end of all tasks", time.time() - struck)
        assert run.first_rerouted_start(site.label, struck) <= within
        run.assert_each_ran_once(but=run.rerouted())
        other = "beta" if site.label == "alpha" else "alpha"
        assert not run.events(ev.EndpointDown, endpoint=other)
        assert all(event.reason for event in run.events(ev.TaskRerouted))
        if after is not None:
            after()
        if returns:
            # A new generation, or a new block of the old one: whichever Parsl's scaling and the pool come to first.
            run.until(lambda: len(run.events(ev.EndpointUp, endpoint=site.label)) > ups, what="it does not come back")
            report("kill to up again", time.time() - struck)
            assert run.events(ev.EndpointUp, endpoint=site.label)[-1].slots > 0
            run.warm_up(site.label, seconds=0.25)
        run.assert_each_ran_once(but=run.rerouted())

    return strike


@pytest.fixture
def two_clusters() -> Iterator[tuple[LocalSlurm, LocalSlurm]]:
    """Two Slurm clusters of two nodes; skipped where Slurm is not installed or cannot run."""
    reason = LocalSlurm.why_not()
    if reason is not None:
        pytest.skip(f"no Slurm cluster can run here: {reason}")
    with LocalSlurm("alpha", nodes=2) as alpha, LocalSlurm("beta", nodes=2) as beta:
        yield alpha, beta
    assert not alpha.processes()
    assert not beta.processes()


@pytest.fixture
def the_cluster_fault(report: Callable[[str, float], None]) -> Callable[..., None]:
    """What must hold around one fault at the first of two Slurm clusters, while tasks run on every node."""

    def strike(run: Run, cluster: LocalSlurm, fault: Callable[[], object], *, count: int = 80) -> None:
        run.until(lambda: sum(job.state == "RUNNING" for job in cluster.jobs()) == len(cluster.nodes))
        run.warm_up("alpha", "beta")
        futures = run.tasks(count, 0.25)
        first = run.executions()[-1].task
        run.until(lambda: any(e.site == cluster.name and e.task > first for e in run.executions()))
        struck = time.time()
        fault()
        assert sorted(run.results(futures, 100.0)) == sorted(future.result() for future in futures)
        report("fault to the end of all tasks", time.time() - struck)
        run.assert_each_ran_once(but=run.rerouted())
        assert not run.events(ev.EndpointDown, endpoint="beta")
        assert all(event.reason for event in run.events(ev.TaskRerouted))

    return strike


@pytest.fixture
def travels() -> Callable[[F], F]:
    """`travelling`, for tests without a pool."""
    return travelling
