"""Parsl, plain or with a pool around the same executors: everything else is the same."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

import diaspora_parsl
from benchmarks import tasks
from benchmarks.peers.common import here
from diaspora_parsl import ResilientPoolExecutor, open_fabric
from diaspora_parsl import events as ev
from diaspora_parsl.fabric.address import find_fabric
from diaspora_parsl.testing.local_sites import LocalSite

P = TypeVar("P", bound=ev.Payload)

#: Seconds that endpoints may take to run their first task.
WARM_UP = 60.0
_NAP = 0.02


@contextlib.contextmanager
def workflow(
    peer: str, executors: Sequence[ParslExecutor], *, retries: int = 0, **pool: Any
) -> Iterator[parsl.DataFlowKernel]:
    """A DataFlowKernel on these executors, or on a pool of them.

    A user of the pool gives its retry handler too, where there is one.
    """
    more: dict[str, Any] = {}
    chosen = list(executors)
    if peer == "pool":
        chosen = [ResilientPoolExecutor(label="pool", endpoints=executors, **pool)]
        handler = getattr(diaspora_parsl, "retry_handler", None)
        if handler is not None:
            more["retry_handler"] = handler
    config = Config(executors=chosen, retries=retries, run_dir="runinfo", initialize_logging=False, **more)
    with parsl.load(config) as kernel:
        yield kernel


def site(label: str, *, workers: int, heartbeats: tuple[int, int] | None = None, **options: Any) -> LocalSite:
    """A site on this host; its executor's heartbeats are Parsl's own if none are given.

    What runs it, not it itself, cleans up behind it: what was left is counted first.
    """
    made = LocalSite(label, workers=workers, **options)
    if heartbeats is not None:
        executor: Any = made.endpoint.executor
        executor.heartbeat_period, executor.heartbeat_threshold = heartbeats
    return made


def executor_of(place: LocalSite) -> ParslExecutor:
    """The executor of a site, for a workflow with or without a pool."""
    executor = place.endpoint.executor
    if executor is None:
        raise RuntimeError(f"site {place.label} has no executor")
    return executor


def blocks(label: str, count: int) -> HighThroughputExecutor:
    """One HTEX with so many blocks of one worker."""
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        max_workers_per_node=1,
        cores_per_worker=1e-6,
        encrypted=False,
        provider=LocalProvider(init_blocks=count, min_blocks=count, max_blocks=count, launcher=SimpleLauncher()),
    )


class Outcome(NamedTuple):
    """What became of some tasks."""

    done: int
    failed: int
    unresolved: int
    seconds: float

    def figures(self) -> dict[str, float]:
        """For a table."""
        total = self.done + self.failed + self.unresolved
        return {
            "success": 100 * self.done / total,
            "failed": self.failed,
            "unresolved": self.unresolved,
            "makespan": self.seconds,
        }


def outcome(futures: Sequence[Future[Any]], began: float, limit: float) -> Outcome:
    """Wait for all, at most ``limit`` seconds from ``began`` (monotonic)."""
    settled, unresolved = wait_for(futures, timeout=max(0.0, began + limit - time.monotonic()))
    kinds = Counter(future.exception() is None for future in settled)
    return Outcome(kinds[True], kinds[False], len(unresolved), time.monotonic() - began)


def app(function: Any, kernel: parsl.DataFlowKernel) -> Any:
    """A python app of this workflow."""
    return parsl.python_app(function, data_flow_kernel=kernel)


def warm_up(kernel: parsl.DataFlowKernel, sites: set[str], each: int = 1) -> None:
    """Give work until ``each`` workers of every site have run some."""
    counted, book = app(tasks.counted, kernel), here("warm-up")
    end = time.monotonic() + WARM_UP
    while True:
        futures = [counted(n, 0.5, book) for n in range(2 * len(sites) * each)]  # long enough to need all
        wait_for(futures, timeout=WARM_UP)
        seen = {(line.site, line.pid) for line in tasks.lines(book, "end")}
        workers = Counter(name for name, _ in seen)
        if all(workers[name] >= each for name in sites):
            return
        if time.monotonic() > end:
            raise RuntimeError(f"sites took no work: {workers}")


def until(condition: Any, limit: float, what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(what)
        time.sleep(_NAP)


def reported(kernel: parsl.DataFlowKernel, kind: type[P], url: str | None = None) -> list[tuple[float, P]]:
    """The events of one kind that a pool has told, with their Unix times."""
    found = []
    fabric = open_fabric(url or find_fabric(kernel.run_dir))
    try:
        reader = fabric.subscribe(ev.TOPICS, "earliest")
        try:
            while batch := reader.read(0.3):
                for event in batch:
                    payload = event.payload()
                    if isinstance(payload, kind):
                        found.append((unix(event.time), payload))
        finally:
            reader.close()
    finally:
        fabric.close()
    return found


def unix(stamp: str) -> float:
    """An RFC 3339 time stamp as Unix time."""
    return datetime.fromisoformat(stamp).timestamp()
