"""Dask distributed: workers are processes of one thread on this host."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from distributed import Client, LocalCluster, as_completed, wait

from benchmarks import tasks
from benchmarks.peers.common import after_a_killed_worker, here, time_failures


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """A warm cluster."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as local,
        Client(local) as client,
    ):
        client.wait_for_workers(workers)
        wait(client.map(tasks.counted, range(workers * 4), seconds=0.1, book=here("warm-up"), pure=False))
        yield client


def black_hole(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Four workers, that named 0 broken."""
    with cluster(4) as client:
        book = here("book")
        began = time.monotonic()
        futures = [
            client.submit(tasks.in_a_dask_worker, n, spec["seconds"], book, retries=spec["retries"], pure=False)
            for n in range(spec["tasks"])
        ]
        record({**_outcome(futures, began, spec["wait"]), "user_failures": len(tasks.lines(book, "bad"))})


def doomed(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Four workers."""
    with cluster(4) as client:

        def fail(number: int) -> object:
            task = client.submit(tasks.doomed, number, spec["seconds"], here("book"), retries=spec["retries"],
                                 pure=False)  # fmt: skip
            return task.exception(60)

        record(time_failures(fail, spec))


def fault_table(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Four workers, one of which is killed while all are busy."""
    with cluster(4) as client:
        book = here("book")

        def submit(number: int, seconds: float) -> Any:
            return client.submit(tasks.counted, number, seconds, book, retries=spec["retries"], pure=False)

        record(after_a_killed_worker(submit, lambda futures, began: _outcome(futures, began, spec["wait"]), book))


def overhead(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Two workers, no-op tasks."""
    with cluster(2) as client:
        rates = []
        for _ in range(spec["rounds"]):
            began = time.perf_counter()
            wait([client.submit(tasks.noop, pure=False) for _ in range(spec["tasks"])])
            rates.append(spec["tasks"] / (time.perf_counter() - began))
        record({"peer": sorted(rates)[len(rates) // 2]})


def _outcome(futures: list[Any], began: float, limit: float) -> dict[str, float]:
    with contextlib.suppress(TimeoutError):
        for _ in as_completed(futures, timeout=limit):
            pass
    kinds = Counter(future.status for future in futures)
    total = len(futures)
    return {
        "success": 100 * kinds["finished"] / total,
        "failed": kinds["error"],
        "unresolved": total - kinds["finished"] - kinds["error"],
        "makespan": time.monotonic() - began,
    }
