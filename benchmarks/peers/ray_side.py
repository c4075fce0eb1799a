"""Ray: nodes of one CPU on this host, by its own `Cluster` for tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.cluster_utils import Cluster

from benchmarks import tasks
from benchmarks.peers.common import after_a_killed_worker, here, time_failures


@contextlib.contextmanager
def nodes(count: int) -> Iterator[list[str]]:
    """A warm cluster of so many nodes with one CPU each, besides a head without any; yields their ids."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made = [cluster.add_node(num_cpus=1) for _ in range(count)]
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        warm = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(tasks.counted)
        ray.get([warm.remote(n, 0.5, here("warm-up")) for n in range(count * 4)], timeout=60)
        yield [node.node_id for node in made]
    finally:
        ray.shutdown()
        cluster.shutdown()


def black_hole(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Four nodes, one broken."""
    with nodes(4) as ids:
        book = here("book")
        work = ray.remote(num_cpus=1, max_retries=spec["retries"], retry_exceptions=spec["retries"] > 0)(
            tasks.in_a_ray_node
        )
        began = time.monotonic()
        refs = [work.remote(n, spec["seconds"], book, ids[0]) for n in range(spec["tasks"])]
        record({**_outcome(refs, began, spec["wait"]), "user_failures": len(tasks.lines(book, "bad"))})


def doomed(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Four nodes."""
    with nodes(4):
        work = ray.remote(num_cpus=1, max_retries=spec["retries"], retry_exceptions=True)(tasks.doomed)

        def fail(number: int) -> object:
            try:
                return ray.get(work.remote(number, spec["seconds"], here("book")), timeout=60)
            except ray.exceptions.RayTaskError as error:
                return error

        record(time_failures(fail, spec))


def fault_table(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Four nodes; the worker process of one is killed while all are busy."""
    with nodes(4):
        book = here("book")
        work = ray.remote(num_cpus=1, max_retries=spec["retries"])(tasks.counted)

        def submit(number: int, seconds: float) -> Any:
            return work.remote(number, seconds, book)

        record(after_a_killed_worker(submit, lambda refs, began: _outcome(refs, began, spec["wait"]), book))


def overhead(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Two nodes, no-op tasks."""
    with nodes(2):
        work = ray.remote(num_cpus=1)(tasks.noop)
        rates = []
        for _ in range(spec["rounds"]):
            began = time.perf_counter()
            ray.get([work.remote() for _ in range(spec["tasks"])])
            rates.append(spec["tasks"] / (time.perf_counter() - began))
        record({"peer": sorted(rates)[len(rates) // 2]})


def _outcome(refs: list[Any], began: float, limit: float) -> dict[str, float]:
    ready, unresolved = ray.wait(refs, num_returns=len(refs), timeout=limit)
    makespan = time.monotonic() - began
    done = 0
    for ref in ready:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(ref)
            done += 1
    return {
        "success": 100 * done / len(refs),
        "failed": len(ready) - done,
        "unresolved": len(unresolved),
        "makespan": makespan,
    }
